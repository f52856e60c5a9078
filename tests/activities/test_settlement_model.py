"""Both lanes, taking turns at random and a few commands at a time, end where a model ends that does one after another.

Sellers are paid and never pay, so that what an escrow pays without naming its payee cannot change a later outcome.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import ActivityEnvironment

from activities.escrow.messages import ApproveMessage, PartyMessage
from db.engine import transaction
from db.identity import create_tenant
from db.ids import new_id
from domain.settlement import Command
from tests.activities.settling import Settling
from tests.activities.steps import Steps
from tests.commands import command
from tests.desk import terms

BUYERS = ("alice", "carol", "dora")
PRICES = (30, 70)

acts = st.tuples(
    st.sampled_from(["deposit", "deposit", "withdrawal", "transfer", "escrow_fund", "escrow_release"]),
    st.integers(0, 2),
    st.integers(1, 2),
    st.sampled_from([10, 30, 50, 70, 100]),
    st.sampled_from([None, (1,), (2,), (1, 2)]),
)
turns = st.lists(st.tuples(st.booleans(), st.integers(1, 5)), max_size=20)


@dataclass
class Model:
    """Money on paper, and each buyer's one escrow: what is left of its two milestones, None before the money."""

    available: Counter[str] = field(default_factory=Counter)
    held: Counter[str] = field(default_factory=Counter)
    left: dict[tuple[str, int], int | None] = field(default_factory=dict)

    def do(self, one: Command) -> bool:
        """Whether the command is carried out."""
        account, amount = one.account_ref, one.amount_minor
        match one.kind.value:
            case "deposit":
                self.available[account] += amount
            case "escrow_fund":
                return self._fund(account, amount, one.milestones)
            case "escrow_release":
                return self._release(account, amount, one.milestones)
            case _:
                if self.available[account] < amount:
                    return False
                self.available[account] -= amount
                if one.counterparty_ref is not None:
                    self.available[one.counterparty_ref] += amount
        return True

    def _fund(self, account: str, amount: int, named: tuple[int, ...] | None) -> bool:
        pending = [place for place in (1, 2) if self.left.get((account, place)) is None]
        wanted = pending if named is None else list(named)
        if not wanted or not set(wanted) <= set(pending) or sum(PRICES[place - 1] for place in wanted) != amount:
            return False
        if self.available[account] < amount:
            return False
        self.available[account] -= amount
        self.held[account] += amount
        self.left |= {(account, place): PRICES[place - 1] for place in wanted}
        return True

    def _release(self, account: str, amount: int, named: tuple[int, ...] | None) -> bool:
        payable = {place: left for place in (1, 2) if (left := self.left.get((account, place)))}
        wanted = list(payable) if named is None else list(named)
        if not wanted or not set(wanted) <= set(payable):
            return False
        if amount != sum(payable[place] for place in wanted) and (len(wanted) > 1 or amount > payable[wanted[0]]):
            return False
        for place in wanted:
            part = amount if len(wanted) == 1 else payable[place]
            self.left[account, place] = payable[place] - part
        self.held[account] -= amount
        self.available[f"seller-of-{account}"] += amount
        return True


async def opened(engine: AsyncEngine) -> tuple[Settling, dict[str, UUID]]:
    """A new tenant with one approved escrow a buyer."""
    tenant = new_id()
    async with transaction(engine) as connection:
        assert await create_tenant(connection, new_tenant=tenant, name=f"model-{tenant}")
    steps = Steps(engine, tenant, ActivityEnvironment())
    escrows = {}
    for buyer in BUYERS:
        parties = {"buyer": PartyMessage(user_id=buyer), "seller": PartyMessage(user_id=f"seller-of-{buyer}")}
        escrows[buyer] = await steps.open(terms(*PRICES, **parties))
        await steps.apply(escrows[buyer], buyer, ApproveMessage())
    return Settling(steps), escrows


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(acts, min_size=1, max_size=25), turns, st.integers(0, 25))
async def test_the_lanes_end_where_one_after_another_ends(
    quiet_tenants: AsyncEngine,
    wanted: list[tuple[str, int, int, int, tuple[int, ...] | None]],
    pace: list[tuple[bool, int]],
    first: int,
) -> None:
    settling, escrows = await opened(quiet_tenants)
    commands = []
    for kind, who, step, amount, places in wanted:
        account = BUYERS[who]
        changes: dict[str, object] = {}
        if kind == "transfer":
            changes = {"counterparty_ref": BUYERS[(who + step) % 3]}
        elif kind.startswith("escrow"):
            changes = {"escrow_id": escrows[account], "milestones": places}
        commands.append(command(kind, amount, account, **changes))
    head, tail = commands[:first], commands[first:]
    if head:
        await settling.take(*head)
    for ledger, limit in pace:
        if ledger:
            await settling.settle(limit=limit)
        else:
            await settling.escrow_batch(limit=limit)
    if tail:
        await settling.take(*tail)
    await settling.work_off()
    model = Model()
    expected = ["SETTLED" if model.do(one) else "REJECTED" for one in commands]
    assert [status for status, _ in await settling.statuses(commands)] == expected
    for account in (*BUYERS, *(f"seller-of-{buyer}" for buyer in BUYERS)):
        found = await settling.steps.balance(account)
        assert (found.available_minor, found.held_minor) == (model.available[account], model.held[account])
    assert set((await settling.steps.trial_balance()).values()) <= {0}
