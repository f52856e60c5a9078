"""Whatever a contract tells, by the rules of the house, the desk ends where those rules do; so does the ledger.

Events come in pieces, batches are of any size, and deliveries are cut short before or after their effect.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import transaction
from db.identity import create_tenant
from db.ids import new_id
from domain.errors import Unavailable
from domain.escrow import Escrow
from domain.ledger import chain_account
from kit.evm import interface
from tests.activities.reconciling import Reconciler
from tests.chain.books import compared
from tests.chain.contract import Contract
from tests.chain.desk import ChainDesk
from tests.chain.tokens import TOKENS, USDC
from tests.contracts.desk import ARBITER, BUYER, COIN, NOBODY, SELLER

#: Each is a story of its own; ``HOLDFAST_MODEL_EXAMPLES`` makes it more of them.
SEEDS = int(os.environ.get("HOLDFAST_MODEL_EXAMPLES", "0")) or 6
#: What may be asked where an escrow stands; the first ones take it further.
ASKS = {
    "pending": ("fund", "fund", "fund", "fund", "approve", "cancel", "pass_deadline"),
    "funded": ("approve", "approve", "pass_deadline", "dispute", "refund", "pass_deadline"),
    "approved": ("release", "pass_deadline", "dispute", "refund", "pass_deadline"),
    "disputed": ("resolve", "resolve", "release", "refund"),
}
#: What the examples told of, all together.
MET = Counter[str]()


def create(contract: Contract, dice: Random) -> bytes:
    at, arbiter = contract.at + 1, dice.random() < 0.7
    times = [dice.choice([0, 0, 2_000, 6_000]) for _ in range(3)]
    roles = dice.choice([BUYER, SELLER, dice.randint(1, 7)])
    roles = roles if arbiter else roles & ~ARBITER or BUYER
    return contract.create(
        contract.terms(
            token=dice.choice([COIN, USDC]),
            amount=dice.choice([1, 10, 1000, 10**21]),
            arbiter=contract.arbiter if arbiter else NOBODY,
            approving_roles=roles,
            approvals_required=min(dice.randint(1, 2), roles.bit_count()),
            funding_deadline=times[0] and at + (min(times[:2]) or times[0]),
            expires_at=times[1] and at + times[1],
            inspection_seconds=times[2],
        )
    )


def act(contract: Contract, ids: Sequence[bytes], dice: Random) -> None:
    """Ask something of an escrow that it may refuse, or withdraw from one that is over."""
    onchain_id = dice.choice(ids)
    state, terms = contract.oracle.state(onchain_id), contract.oracle.terms[onchain_id]
    parties = [contract.buyer, contract.seller, contract.arbiter]
    if state.status not in ASKS:
        contract.withdraw(terms.token, dice.choice(parties))
        return
    name = dice.choice(ASKS[state.status])
    remaining = contract.oracle.escrows[onchain_id].milestones[0].remaining_minor
    part = max(1, remaining * dice.choice([10, 5, 3]) // 10)
    arguments: dict[str, tuple[Any, ...]] = {
        "release": (part,),
        "refund": (part,),
        "dispute": (dice.randbytes(31) + b"\x01",),
        "resolve": (part, remaining - part),
    }
    value = terms.amount if name == "fund" and terms.token == COIN else 0
    able = {"fund": contract.buyer, "refund": contract.seller, "resolve": contract.arbiter}
    by = able.get(name) or dice.choice([*parties, contract.stranger])
    seconds = dice.choice([1, 1, 100, 5_000 if name == "pass_deadline" else 1])
    contract.ask(onchain_id, name, *arguments.get(name, ()), by=by, value=value, seconds=seconds)


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


async def settle(desk: ChainDesk, dice: Random, limit: int) -> None:
    """Batch after batch, some of them cut short, until nothing is left."""

    def fail(_: str) -> None:
        if dice.random() < 0.1:
            raise Unavailable("temporal", "no outcome in time")

    desk.desk.before = desk.desk.after = fail
    attempt = 1
    for _ in range(500):
        delivered = await desk.deliver(limit=limit, attempt=attempt)
        if not delivered.found:
            return
        if delivered.through > delivered.after:
            await desk.record(delivered)
        attempt = 1 if delivered.through - delivered.after == delivered.found else 2
    raise AssertionError("it does not come to an end")


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


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_the_desk_ends_where_the_contract_does(
    tenants_engine: AsyncEngine, engine: AsyncEngine, seed: int
) -> None:
    dice = Random(seed)
    desk = ChainDesk(tenants_engine, engine, await new_tenant(tenants_engine))
    contract = desk.contract
    await contract.register(engine)
    ids = [create(contract, dice) for _ in range(6)]
    for _ in range(3):
        for _ in range(40):
            act(contract, ids, dice)
        await contract.write(engine)
        await settle(desk, dice, dice.randint(1, 30))
        await agree(desk, ids)
    outcomes = await desk.outcomes()
    MET.update(kind for kind, _, _ in outcomes)
    assert len(outcomes) == contract.oracle.sequence
    assert {outcome for _, outcome, _ in outcomes} == {"settled"}
    assert not [parts for parts in (await compared(desk)).values() if parts]
    found = await Reconciler(tenants_engine, engine, contract.tenant).run()
    assert (found.explained, found.unexplained) == (0, 0)


def test_the_examples_told_of_everything() -> None:
    """Or they would show less than they say."""
    assert not MET or set(MET) == set(interface().kinds), MET


async def new_tenant(engine: AsyncEngine) -> UUID:
    made = new_id()
    async with transaction(engine) as connection:
        assert await create_tenant(connection, new_tenant=made, name=f"test-{made}")
    return made
