"""Whatever a contract tells, by the rules of the house, the desk ends where those rules do; so does the ledger.

Events come in pieces, batches are of any size, and deliveries are cut short before or after their effect.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import transaction
from db.identity import create_tenant
from db.ids import new_id
from domain.errors import Unavailable
from domain.escrow import Escrow
from domain.ledger import chain_account
from tests.activities.reconciling import Reconciler
from tests.chain.books import compared
from tests.chain.contract import Contract
from tests.chain.desk import ChainDesk
from tests.chain.tokens import TOKENS, USDC
from tests.contracts.desk import ARBITER, BUYER, COIN, NOBODY

TERMS = st.fixed_dictionaries(
    {
        "token": st.sampled_from([COIN, USDC]),
        "amount": st.sampled_from([1, 10, 1000, 10**21]),
        "arbiter": st.booleans(),
        "roles": st.integers(1, 7),
        "required": st.integers(1, 2),
        "times": st.tuples(*[st.sampled_from([0, 0, 2_000, 6_000])] * 3),
    }
)
#: What may be asked where an escrow stands; the first ones take it further.
ASKS = {
    "pending": ("fund", "fund", "fund", "approve", "cancel", "pass_deadline"),
    "funded": ("approve", "approve", "approve", "dispute", "refund", "pass_deadline"),
    "approved": ("release", "release", "dispute", "refund", "pass_deadline"),
    "disputed": ("resolve", "resolve", "release", "refund"),
}
ACT = st.tuples(
    st.integers(0, 3),
    st.integers(0, 11),
    st.sampled_from(["buyer", "seller", "arbiter", "buyer", "seller", "arbiter", "stranger"]),
    st.sampled_from([10, 5, 3, 1]),
    st.sampled_from([1, 1, 100, 5_000]),
)
PIECES = st.lists(st.tuples(st.lists(ACT, min_size=5, max_size=25), st.integers(1, 9), st.booleans()), max_size=4)


def create(contract: Contract, given: dict[str, Any]) -> bytes:
    at, times = contract.at + 1, given["times"]
    roles = given["roles"] if given["arbiter"] else given["roles"] & ~ARBITER or BUYER
    return contract.create(
        contract.terms(
            token=given["token"],
            amount=given["amount"],
            arbiter=contract.arbiter if given["arbiter"] else NOBODY,
            approving_roles=roles,
            approvals_required=min(given["required"], roles.bit_count()),
            funding_deadline=times[0] and at + (min(times[:2]) or times[0]),
            expires_at=times[1] and at + times[1],
            inspection_seconds=times[2],
        )
    )


def act(contract: Contract, ids: Sequence[bytes], chosen: tuple[int, int, str, int, int]) -> None:
    """Ask something of an escrow that it may refuse, or withdraw from one that is over."""
    which, what, who, share, seconds = chosen
    onchain_id = ids[which % len(ids)]
    state, terms = contract.oracle.state(onchain_id), contract.oracle.terms[onchain_id]
    if state.status not in ASKS:
        contract.withdraw(terms.token, getattr(contract, who))
        return
    names = ASKS[state.status]
    name = names[what % len(names)]
    remaining = contract.oracle.escrows[onchain_id].milestones[0].remaining_minor
    part = max(1, remaining * share // 10)
    arguments: dict[str, tuple[Any, ...]] = {
        "release": (part,),
        "refund": (part,),
        "dispute": (what.to_bytes(31) + b"\x01",),
        "resolve": (part, remaining - part),
    }
    value = terms.amount if name == "fund" and terms.token == COIN else 0
    contract.ask(onchain_id, name, *arguments.get(name, ()), by=getattr(contract, who), value=value, seconds=seconds)


def essence(escrow: Escrow, *, reason: str = "") -> tuple[Any, ...]:
    """What must be the same here and in the model."""
    (milestone,) = escrow.milestones
    return (
        escrow.status,
        escrow.version,
        escrow.created_at,
        escrow.updated_at,
        escrow.closed_at,
        milestone.status,
        milestone.released_minor,
        milestone.refunded_minor,
        milestone.approvals,
        milestone.dispute and (milestone.dispute.role, milestone.dispute.at, reason + milestone.dispute.reason),
        milestone.funded_at,
        milestone.approved_at,
        milestone.auto_release_at,
        milestone.closed_at,
    )


async def settle(desk: ChainDesk, failures: Iterator[bool], limit: int) -> None:
    """Batch after batch, some of them cut short, until nothing is left."""

    def fail(_: str) -> None:
        if next(failures):
            raise Unavailable("temporal", "no outcome in time")

    desk.desk.before = desk.desk.after = fail
    attempt = 1
    while (delivered := await desk.deliver(limit=limit, attempt=attempt)).found:
        if delivered.through > delivered.after:
            await desk.record(delivered)
        attempt = 1 if delivered.through - delivered.after == delivered.found else 2


async def agree(desk: ChainDesk, ids: Sequence[bytes]) -> None:
    """Escrows and money are as the model has them."""
    contract = desk.contract
    for onchain_id in ids:
        here = await desk.escrow(onchain_id)
        assert here is not None
        assert essence(here) == essence(contract.oracle.escrows[onchain_id], reason="0x")
    for token, known in TOKENS.items():
        held, owed = contract.oracle.held[token], contract.oracle.owed(token)
        outside = await desk.steps.balance(chain_account(contract.relayer_id), known.asset)
        assert -outside.available_minor == held + owed
        for who in (contract.buyer, contract.seller):
            here_of = await desk.steps.balance(who, known.asset)
            held_for = held if who == contract.buyer else 0
            assert here_of.available_minor == 0
            assert here_of.held_minor == held_for + contract.oracle.withdrawable[token, who]


@given(asked=st.lists(TERMS, min_size=1, max_size=4), pieces=PIECES, failing=st.lists(st.booleans(), max_size=30))
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
async def test_the_desk_ends_where_the_contract_does(
    tenants_engine: AsyncEngine,
    engine: AsyncEngine,
    asked: list[dict[str, Any]],
    pieces: list[tuple[list[Any], int, bool]],
    failing: list[bool],
) -> None:
    desk = ChainDesk(tenants_engine, engine, await new_tenant(tenants_engine))
    contract = desk.contract
    await contract.register(engine)
    ids = [create(contract, each) for each in asked]
    failures = iter([*failing, *[False] * 10_000])
    for acts, limit, written in [*pieces, ([], 200, True)]:
        for chosen in acts:
            act(contract, ids, chosen)
        if written:
            await contract.write(engine)
            await settle(desk, failures, limit)
            await agree(desk, ids)
    outcomes = await desk.outcomes()
    assert len(outcomes) == contract.oracle.sequence
    assert {outcome for _, outcome, _ in outcomes} == {"settled"}
    assert not [parts for parts in (await compared(desk)).values() if parts]
    found = await Reconciler(tenants_engine, engine, contract.tenant).run()
    assert (found.explained, found.unexplained) == (0, 0)


async def new_tenant(engine: AsyncEngine) -> UUID:
    made = new_id()
    async with transaction(engine) as connection:
        assert await create_tenant(connection, new_tenant=made, name=f"test-{made}")
    return made
