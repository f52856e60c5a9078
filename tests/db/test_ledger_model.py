"""The ledger against a model of it in plain Python: whatever is posted, in whatever order, both say the same, at any
instant of either clock."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import product
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from db import ledger
from db.engine import tenant_transaction, transaction
from db.identity import create_tenant
from db.ids import new_id
from domain.errors import Refusal
from domain.ledger import (
    SYSTEM_EXTERNAL,
    Balance,
    Posting,
    TransactionKind,
    deposit,
    pay_from_hold,
    place_hold,
    reverse,
    withdrawal,
)
from tests.db.raw import sql

START = datetime(2026, 1, 1, tzinfo=UTC)
DAYS = 6
PEOPLE, ASSETS = ("alice", "bob", "carol"), ("USDC", "ETH")


@dataclass(frozen=True, slots=True)
class Act:
    """One thing that somebody tries. ``pick`` chooses among earlier holds or transfers, where there are any."""

    what: str
    person: str
    asset: str
    amount: int
    pick: int
    day: int


@dataclass(slots=True)
class Model:
    """Money as one would keep it on paper: lines with two dates, holds, and which transfers were taken back."""

    lines: list[tuple[int, datetime, str, str, str, int]] = field(default_factory=list)
    holds: list[tuple[UUID, str, str]] = field(default_factory=list)
    left: dict[UUID, int] = field(default_factory=dict)
    transfers: list[tuple[Posting, str, str, int]] = field(default_factory=list)
    reversed: set[UUID] = field(default_factory=set)

    def free(self, person: str, asset: str) -> int:
        return sum(line[5] for line in self.lines if line[2:5] == (person, asset, "available"))

    def at(self, person: str, day: int | None, recorded: datetime | None) -> dict[str, tuple[int, int]]:
        """What a person has of each asset, by what was effective on a day and known at an instant."""
        found: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for effective, known, who, asset, pot, amount in self.lines:
            if who == person and (day is None or effective <= day) and (recorded is None or known <= recorded):
                found[asset][pot == "held"] += amount
        return {asset: (pots[0], pots[1]) for asset, pots in found.items()}


def amounts() -> st.SearchStrategy[int]:
    """Small ones that meet, and large ones that no machine word holds."""
    return st.one_of(st.integers(1, 20), st.sampled_from([2**63, 2**128 + 1, 2**200]))


acts = st.builds(
    Act,
    what=st.sampled_from(["deposit", "deposit", "deposit", "withdraw", "hold", "hold", "pay", "pay", "reverse"]),
    person=st.sampled_from(PEOPLE),
    asset=st.sampled_from(ASSETS),
    amount=amounts(),
    pick=st.integers(0, 10),
    day=st.integers(0, DAYS),
)


def plan(model: Model, act: Act) -> tuple[Posting, str | None, list[tuple[str, str, str, int]]] | None:
    """The posting for an act, how the model says it is refused if it is, and the lines that it makes."""
    when = START + timedelta(days=act.day)
    person, asset, amount = act.person, act.asset, act.amount
    short = None if model.free(person, asset) >= amount else "insufficient_funds"
    outside = [(SYSTEM_EXTERNAL, asset, "available", -amount), (person, asset, "available", amount)]
    back = [(who, of, pot, -change) for who, of, pot, change in outside]
    match act.what:
        case "deposit":
            return deposit(person, asset, amount, transaction_id=new_id(), effective_at=when), None, outside
        case "withdraw":
            return withdrawal(person, asset, amount, transaction_id=new_id(), effective_at=when), short, back
        case "hold":
            legs = place_hold(person, asset, amount, hold_id=new_id())
            held = [(person, asset, "available", -amount), (person, asset, "held", amount)]
            return Posting(new_id(), TransactionKind.ESCROW_FUND, legs, when), short, held
        case "pay" if model.holds:
            hold, holder, asset = model.holds[act.pick % len(model.holds)]
            legs = pay_from_hold(holder, asset, {person: amount}, hold_id=hold)
            paid = [(holder, asset, "held", -amount), (person, asset, "available", amount)]
            gone = None if model.left[hold] >= amount else "hold_exhausted"
            return Posting(new_id(), TransactionKind.ESCROW_RELEASE, legs, when), gone, paid
        case "reverse" if model.transfers:
            original, person, asset, change = model.transfers[act.pick % len(model.transfers)]
            undone = reverse(original, transaction_id=new_id(), effective_at=when)
            lines = [(person, asset, "available", -change), (SYSTEM_EXTERNAL, asset, "available", change)]
            if model.free(person, asset) < change:
                return undone, "insufficient_funds", lines
            return undone, "already_reversed" if original.transaction_id in model.reversed else None, lines
        case _:
            return None


def note(model: Model, act: Act, posting: Posting) -> None:
    """Remember what a posting that was booked makes possible."""
    for leg in posting.legs:
        if leg.hold_id is None:
            continue
        if leg.hold_id not in model.left:
            model.holds.append((leg.hold_id, leg.account, leg.asset))
        model.left[leg.hold_id] = model.left.get(leg.hold_id, 0) + leg.amount_minor
    if posting.kind in {TransactionKind.DEPOSIT, TransactionKind.WITHDRAWAL}:
        change = act.amount if posting.kind is TransactionKind.DEPOSIT else -act.amount
        model.transfers.append((posting, act.person, act.asset, change))
    if posting.reverses_id is not None:
        model.reversed.add(posting.reverses_id)


@settings(max_examples=25, deadline=None)
@given(tried=st.lists(acts, min_size=4, max_size=16))
async def test_the_ledger_and_its_model_agree(tenants_engine: AsyncEngine, tried: list[Act]) -> None:
    tenant, model, instants = new_id(), Model(), [START]
    async with transaction(tenants_engine) as connection:
        await create_tenant(connection, new_tenant=tenant, name=f"model-{tenant}")
    for act in tried:
        planned = plan(model, act)
        if planned is None:
            continue
        posting, expected, lines = planned
        code = None
        try:
            async with tenant_transaction(tenants_engine, tenant) as connection:
                await ledger.post(connection, tenant, [posting])
                recorded = (await sql(connection, "SELECT clock_timestamp()"))[0][0]
        except Refusal as refusal:
            code = refusal.code
        assert code == expected, act
        if code is None:
            instants.append(recorded)
            model.lines += [(act.day, recorded, *line) for line in lines]
            note(model, act, posting)
    await compare(tenants_engine, tenant, model, instants)


async def compare(engine: AsyncEngine, tenant: UUID, model: Model, instants: list[datetime]) -> None:
    """Ask both for every person's balance at many pairs of instants."""
    people = (*PEOPLE, SYSTEM_EXTERNAL)
    known: list[datetime | None] = [None, *instants[:: max(1, len(instants) // 3)]]
    async with tenant_transaction(engine, tenant) as connection:
        assert set((await ledger.trial_balance(connection)).values()) <= {0}
        for person, day, recorded in product(people, (None, *range(0, DAYS + 1, 2)), known):
            at = None if day is None else START + timedelta(days=day)
            found = await ledger.balances(connection, person, at=at, recorded_at=recorded)
            says = {
                each.asset.symbol: (each.balance.available_minor, each.balance.held_minor)
                for each in found
                if each.balance != Balance()
            }
            expected = {asset: pots for asset, pots in model.at(person, day, recorded).items() if pots != (0, 0)}
            assert says == expected, (person, day, recorded)
        left = await sql(connection, "SELECT hold_id, remaining_minor FROM holds")
    assert {row[0]: int(row[1]) for row in left} == model.left
