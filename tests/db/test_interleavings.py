"""No interleaving yields a negative balance: the rule with its locks sees to it alone, and the database does too."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from db import ledger
from db.engine import Role, create_engine, tenant_transaction, transaction
from db.identity import create_tenant
from db.ids import new_id
from domain.errors import Refusal
from domain.ledger import (
    SYSTEM_EXTERNAL,
    Leg,
    Posting,
    TransactionKind,
    deposit,
    pay_from_hold,
    place_hold,
    transfer,
    withdrawal,
)
from tests.db.interleaving import Act, Interleaving
from tests.db.raw import insert_transaction, sql

AT = datetime(2026, 5, 1, tzinfo=UTC)
NEGATIVE = "SELECT ref FROM accounts WHERE (available_minor < 0 AND ref <> 'system:external') OR held_minor < 0"
WRONG = """
    SELECT ref FROM accounts a LEFT JOIN (
        SELECT account_id, coalesce(sum(amount_minor) FILTER (WHERE pot = 'available'), 0) AS available,
               coalesce(sum(amount_minor) FILTER (WHERE pot = 'held'), 0) AS held FROM ledger_legs GROUP BY 1
    ) AS l USING (account_id)
    WHERE (available_minor, held_minor) <> (coalesce(available, 0), coalesce(held, 0))
"""


class Theatre:
    """One tenant's ledger, with new accounts for every schedule."""

    def __init__(self, engine: AsyncEngine, tenant: UUID) -> None:
        self.engine = engine
        self.tenant = tenant
        self.names = iter(range(1_000_000))
        self.alice = self.bob = ""
        self.hold = new_id()
        self.play = Interleaving(engine, self.nobody_owes)

    async def nobody_owes(self) -> None:
        async with tenant_transaction(self.engine, self.tenant) as connection:
            assert await sql(connection, NEGATIVE) == []
            assert await sql(connection, WRONG) == []

    async def post(self, engine: AsyncEngine, *postings: Posting) -> None:
        async with tenant_transaction(engine, self.tenant) as connection:
            await ledger.post(connection, self.tenant, postings)

    async def begin(self, *, bob_is_known: bool = True) -> None:
        """alice has ten and ten more on hold."""
        self.alice, self.bob, self.hold = f"alice {next(self.names)}", f"bob {next(self.names)}", new_id()
        arriving = deposit(self.alice, "USDC", 20, transaction_id=new_id(), effective_at=AT)
        kept = _posting(*place_hold(self.alice, "USDC", 10, hold_id=self.hold))
        await self.post(self.engine, arriving, kept)
        if bob_is_known:
            await self.post(self.engine, deposit(self.bob, "USDC", 5, transaction_id=new_id(), effective_at=AT))

    def posting(self, name: str) -> Posting:
        """One of the postings that compete."""
        alice, bob = self.alice, self.bob
        common: dict[str, Any] = {"transaction_id": new_id(), "effective_at": AT}
        match name:
            case "withdraw 6":
                return withdrawal(alice, "USDC", 6, **common)
            case "transfer 6":
                return transfer(alice, bob, "USDC", 6, **common)
            case "transfer 8 back":
                return transfer(bob, alice, "USDC", 8, **common)
            case "hold 6":
                return _posting(*place_hold(alice, "USDC", 6, hold_id=new_id()))
            case "pay 6":
                return _posting(*pay_from_hold(alice, "USDC", {bob: 6}, hold_id=self.hold))
            case "give 6 back":
                return _posting(*pay_from_hold(alice, "USDC", {alice: 6}, hold_id=self.hold))
            case _:
                return deposit(alice, "USDC", 2, **common)


def _posting(*legs: Leg, kind: TransactionKind = TransactionKind.ESCROW_FUND) -> Posting:
    return Posting(new_id(), kind, legs, AT)


@pytest.fixture
def theatre(tenants_engine: AsyncEngine, tenant: UUID) -> Theatre:
    return Theatre(tenants_engine, tenant)


@pytest.fixture
async def unchecked(migrated_url: str) -> AsyncIterator[Theatre]:
    """A database without the constraints that hold balances, so that only the rule and its locks do."""
    owner = create_engine(migrated_url, Role.OWNER, pool_size=1)
    async with transaction(owner) as connection:
        await sql(connection, "ALTER TABLE accounts DROP CONSTRAINT accounts_overdraft_check")
        await sql(connection, "ALTER TABLE accounts DROP CONSTRAINT accounts_held_check")
        await sql(connection, "ALTER TABLE holds DROP CONSTRAINT holds_remaining_check")
    await owner.dispose()
    engine = create_engine(migrated_url, Role.APP, pool_size=8)
    tenant = new_id()
    async with transaction(engine) as connection:
        await create_tenant(connection, new_tenant=tenant, name="unchecked")
    yield Theatre(engine, tenant)
    await engine.dispose()


def outcomes(said: Sequence[Sequence[Any]]) -> set[tuple[str, ...]]:
    """What the actors of each schedule heard, by refusal code; anything but a refusal is raised."""
    for answer in (answer for each in said for answer in each):
        if isinstance(answer, BaseException) and not isinstance(answer, Refusal):
            raise answer
    return {tuple(answer.code if isinstance(answer, Refusal) else "done" for answer in each) for each in said}


DONE, SHORT, EMPTY = "done", "insufficient_funds", "hold_exhausted"

#: Postings that compete, and what may come of them: in every order somebody is first, and only who is too late loses.
COMPETING: dict[tuple[str, ...], set[tuple[str, ...]]] = {
    ("withdraw 6", "withdraw 6"): {(DONE, SHORT), (SHORT, DONE)},
    ("withdraw 6", "hold 6"): {(DONE, SHORT), (SHORT, DONE)},
    ("withdraw 6", "transfer 6"): {(DONE, SHORT), (SHORT, DONE)},
    ("pay 6", "pay 6"): {(DONE, EMPTY), (EMPTY, DONE)},
    ("pay 6", "give 6 back"): {(DONE, EMPTY), (EMPTY, DONE)},
    # bob has five: he can give eight back only when the six have arrived.
    ("transfer 6", "transfer 8 back"): {(DONE, DONE), (DONE, SHORT)},
    ("transfer 6", "pay 6"): {(DONE, DONE)},
}
THREE: dict[tuple[str, ...], set[tuple[str, ...]]] = {
    ("withdraw 6", "hold 6", "transfer 6"): {(DONE, SHORT, SHORT), (SHORT, DONE, SHORT), (SHORT, SHORT, DONE)},
    ("withdraw 6", "transfer 6", "deposit"): {(DONE, DONE, DONE), (DONE, SHORT, DONE), (SHORT, DONE, DONE)},
}


def _stage(
    theatre: Theatre, names: tuple[str, ...], *, bob_is_known: bool = True
) -> Callable[[], Awaitable[list[Act]]]:
    async def begin() -> list[Act]:
        await theatre.begin(bob_is_known=bob_is_known)
        postings = [theatre.posting(name) for name in names]
        return [partial(_post, theatre, each) for each in postings]

    return begin


async def _post(theatre: Theatre, posting: Posting, engine: AsyncEngine) -> None:
    await theatre.post(engine, posting)


@pytest.mark.parametrize("names", COMPETING, ids=" and ".join)
async def test_two_postings_in_every_order(theatre: Theatre, names: tuple[str, ...]) -> None:
    said = await theatre.play.explore(_stage(theatre, names))
    assert outcomes(said) == COMPETING[names]
    assert theatre.play.played >= 4
    refusals = [answer for each in said for answer in each if isinstance(answer, Refusal)]
    # The rule, which saw the balance under its lock, was first to refuse an overdraft, not the database.
    assert all(refusal.__cause__ is None for refusal in refusals if refusal.code == SHORT)


@pytest.mark.parametrize("names", THREE, ids=" and ".join)
async def test_three_postings_in_every_order(theatre: Theatre, names: tuple[str, ...]) -> None:
    said = await theatre.play.explore(_stage(theatre, names))
    assert outcomes(said) == THREE[names]


async def test_accounts_that_are_opened_meanwhile(theatre: Theatre) -> None:
    """Both find no account of bob's and open it; one waits for the other, and nobody for ever."""
    names = ("transfer 6", "pay 6")
    said = await theatre.play.explore(_stage(theatre, names, bob_is_known=False))
    assert outcomes(said) == {(DONE, DONE)}


async def test_the_rule_and_its_locks_suffice(unchecked: Theatre) -> None:
    """No constraint stands behind them here."""
    for names in (("withdraw 6", "withdraw 6"), ("withdraw 6", "hold 6"), ("transfer 6", "transfer 8 back")):
        said = await unchecked.play.explore(_stage(unchecked, names))
        assert outcomes(said) == COMPETING[names]


@pytest.mark.parametrize("checked", [True, False])
async def test_the_constraints_suffice(theatre: Theatre, unchecked: Theatre, checked: bool) -> None:
    """Whoever reads a balance, finds it large enough and writes, without a lock, is stopped by the database; and
    without its constraints somebody owes in the end, which shows that these schedules find what there is to find."""
    stage = theatre if checked else unchecked

    async def careless(engine: AsyncEngine) -> None:
        async with tenant_transaction(engine, stage.tenant) as connection:
            find = "SELECT account_id, available_minor FROM accounts WHERE ref = :ref"
            (account, available), *_ = await sql(connection, find, ref=stage.alice)
            if available < 6:
                raise Refusal(SHORT, "seen before it was written")
            ((outside, _), *_) = await sql(connection, find, ref=SYSTEM_EXTERNAL)
            legs = [(1, account, -6), (2, outside, 6)]
            values = ", ".join(f"({no}, {of}, 'USDC', 'available', {amount}, NULL)" for no, of, amount in legs)
            await insert_transaction(connection, stage.tenant, values)

    async def begin() -> list[Act]:
        await stage.begin()
        return [careless, careless]

    if checked:
        assert outcomes(await stage.play.explore(begin)) == {(DONE, SHORT), (SHORT, DONE)}
    else:
        with pytest.raises(AssertionError):
            await stage.play.explore(begin)
