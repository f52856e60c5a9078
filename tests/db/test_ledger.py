"""The database itself keeps the books: asked by the app's, the engine's and even the owner's role, it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db import ledger
from db.engine import Role, tenant_transaction
from db.ids import new_id
from domain.ledger import Posting, TransactionKind, deposit, place_hold
from kit.clock import now
from tests.db.raw import (
    APPEND_ONLY,
    CHECK_VIOLATION,
    FOREIGN_KEY_VIOLATION,
    INCOMPLETE,
    LEGS,
    UNBALANCED,
    UNIQUE_VIOLATION,
    acting,
    insert_transaction,
    refused,
    set_tenant,
    sql,
)


@dataclass(frozen=True, slots=True)
class Books:
    """A tenant's accounts by their ids: alice has 70 free and 30 on one hold, bob has 10, all of it USDC."""

    tenant: UUID
    outside: int
    alice: int
    bob: int
    dai: int
    hold: UUID
    transaction: UUID


@pytest.fixture
async def books(tenants_engine: AsyncEngine, tenant: UUID) -> Books:
    first, hold = new_id(), new_id()
    async with tenant_transaction(tenants_engine, tenant) as connection:
        await ledger.post(
            connection,
            tenant,
            [
                deposit("alice", "USDC", 100, transaction_id=first, effective_at=now()),
                deposit("bob", "USDC", 10, transaction_id=new_id(), effective_at=now()),
                deposit("alice", "DAI", 5, transaction_id=new_id(), effective_at=now()),
                Posting(new_id(), TransactionKind.ESCROW_FUND, place_hold("alice", "USDC", 30, hold_id=hold), now()),
            ],
        )
        ids = await sql(connection, "SELECT ref, asset, account_id FROM accounts")
    number = {(row.ref, row.asset): int(row.account_id) for row in ids}
    return Books(
        tenant,
        number["system:external", "USDC"],
        number["alice", "USDC"],
        number["bob", "USDC"],
        number["alice", "DAI"],
        hold,
        first,
    )


@pytest.fixture
def writers(tenants_engine: AsyncEngine, engine: AsyncEngine, owner_engine: AsyncEngine) -> dict[Role, AsyncEngine]:
    """Everybody who might write."""
    return {Role.APP: tenants_engine, Role.ENGINE: engine, Role.OWNER: owner_engine}


async def state(connection: AsyncConnection, tenant: UUID) -> list[object]:
    """Everything that the ledger holds for a tenant."""
    await set_tenant(connection, tenant)
    found: list[object] = []
    for table in ("accounts", "holds", "ledger_transactions", "ledger_legs"):
        found += [
            tuple(row)
            for row in await sql(
                connection, f"SELECT * FROM {table} WHERE tenant_id = :tenant ORDER BY {table}::text", tenant=tenant
            )
        ]
    return found


Legs = Callable[[Books], str]

#: What no transaction may look like: its legs, how many it says to have, and what the database answers.
BROKEN: dict[str, tuple[Legs, int, str]] = {
    "unbalanced": (lambda b: leg(1, b.alice, -5) + leg(2, b.bob, 6), 2, UNBALANCED),
    "one-sided": (lambda b: leg(1, b.bob, 5) + leg(2, b.alice, 5), 2, UNBALANCED),
    "balanced over two assets only together": (
        lambda b: leg(1, b.alice, -5) + leg(2, b.dai, 5, asset="DAI"),
        2,
        UNBALANCED,
    ),
    "unbalanced by one unit in 2**200": (
        lambda b: leg(1, b.outside, -(2**200)) + leg(2, b.bob, 2**200 - 1),
        2,
        UNBALANCED,
    ),
    "too few legs": (lambda b: leg(1, b.alice, -5) + leg(2, b.bob, 5), 3, INCOMPLETE),
    "too many legs": (lambda b: leg(1, b.alice, -5) + leg(2, b.bob, 3) + leg(3, b.bob, 2), 2, INCOMPLETE),
    "numbered with a gap": (lambda b: leg(1, b.alice, -5) + leg(3, b.bob, 5), 2, INCOMPLETE),
    "numbered from nought": (lambda b: leg(0, b.alice, -5) + leg(1, b.bob, 5), 2, INCOMPLETE),
    "a leg that moves nothing": (lambda b: leg(1, b.alice, 0) + leg(2, b.bob, 0), 2, CHECK_VIOLATION),
    "fewer than two legs": (lambda b: leg(1, b.alice, 0), 1, CHECK_VIOLATION),
    "overdrawn": (lambda b: leg(1, b.alice, -71) + leg(2, b.bob, 71), 2, CHECK_VIOLATION),
    "more than is held": (
        lambda b: leg(1, b.alice, -31, pot="held", hold=b.hold) + leg(2, b.bob, 31),
        2,
        CHECK_VIOLATION,
    ),
    "held money without a hold": (lambda b: leg(1, b.alice, -5, pot="held") + leg(2, b.bob, 5), 2, CHECK_VIOLATION),
    "a hold on free money": (lambda b: leg(1, b.alice, -5, hold=b.hold) + leg(2, b.bob, 5), 2, CHECK_VIOLATION),
    "no such pot": (lambda b: leg(1, b.alice, -5, pot="hidden") + leg(2, b.bob, 5), 2, CHECK_VIOLATION),
    "somebody else's hold": (
        lambda b: leg(1, b.bob, 5, pot="held", hold=b.hold) + leg(2, b.bob, -5),
        2,
        FOREIGN_KEY_VIOLATION,
    ),
    "a hold that is not there": (
        lambda b: leg(1, b.alice, -5, pot="held", hold=new_id()) + leg(2, b.alice, 5),
        2,
        FOREIGN_KEY_VIOLATION,
    ),
    "an account that is not there": (lambda b: leg(1, b.alice, -5) + leg(2, 2**40, 5), 2, INCOMPLETE),
    "an account's other asset": (
        lambda b: leg(1, b.alice, -5, asset="DAI") + leg(2, b.dai, 5, asset="DAI"),
        2,
        INCOMPLETE,
    ),
}


def leg(
    number: int, account: int, amount: int, *, asset: str = "USDC", pot: str = "available", hold: UUID | None = None
) -> str:
    """One row of a VALUES list, with a comma behind it."""
    held = "NULL" if hold is None else f"'{hold}'"
    return f"({number}, {account}, '{asset}', '{pot}', {amount}::numeric, {held}),"


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("broken", BROKEN)
async def test_a_broken_transaction_is_refused(
    writers: dict[Role, AsyncEngine], books: Books, role: Role, broken: str
) -> None:
    legs, legs_said, sqlstate = BROKEN[broken]
    async with acting(writers[Role.ENGINE]) as connection:
        before = await state(connection, books.tenant)
    with refused() as reason:
        async with acting(writers[role], books.tenant) as connection:
            await insert_transaction(connection, books.tenant, legs(books).rstrip(","), legs_said=legs_said)
    assert reason.sqlstate == sqlstate
    async with acting(writers[Role.ENGINE]) as connection:
        assert await state(connection, books.tenant) == before


@pytest.mark.parametrize("role", list(Role))
async def test_a_sound_transaction_is_taken_from_the_same_hands(
    writers: dict[Role, AsyncEngine], books: Books, role: Role
) -> None:
    async with acting(writers[role], books.tenant) as connection:
        legs = leg(1, books.alice, -5, pot="held", hold=books.hold) + leg(2, books.alice, -1) + leg(3, books.bob, 6)
        await insert_transaction(connection, books.tenant, legs.rstrip(","), legs_said=3)
        rows = await sql(connection, "SELECT account_id, available_minor, held_minor FROM accounts WHERE asset='USDC'")
        left = await sql(connection, "SELECT placed_minor, remaining_minor FROM holds WHERE hold_id = :h", h=books.hold)
    balances = {row.account_id: (int(row.available_minor), int(row.held_minor)) for row in rows}
    assert (balances[books.alice], balances[books.bob]) == ((69, 25), (16, 0))
    assert [tuple(map(int, row)) for row in left] == [(30, 25)]


@pytest.mark.parametrize("role", list(Role))
async def test_an_unbalanced_transaction_does_not_hide_behind_another_tenant(
    writers: dict[Role, AsyncEngine], books: Books, role: Role
) -> None:
    """A check at commit was blinded by a change of tenant before it; this one has happened by then."""
    with refused() as reason:
        async with acting(writers[role], books.tenant) as connection:
            legs = leg(1, books.alice, -5) + leg(2, books.bob, 500)
            await insert_transaction(connection, books.tenant, legs.rstrip(","))
            await set_tenant(connection, new_id())
    assert reason.sqlstate == UNBALANCED
    async with acting(writers[Role.ENGINE]) as connection:
        totals = await sql(
            connection,
            "SELECT transaction_id FROM ledger_legs WHERE tenant_id = :tenant GROUP BY transaction_id"
            " HAVING sum(amount_minor) <> 0",
            tenant=books.tenant,
        )
    assert totals == []


@pytest.mark.parametrize("role", list(Role))
async def test_a_transaction_gets_no_legs_later(writers: dict[Role, AsyncEngine], books: Books, role: Role) -> None:
    for numbers in ((1, 2), (3, 4), (2, 3)):
        with refused() as reason:
            async with acting(writers[role], books.tenant) as connection:
                legs = leg(numbers[0], books.alice, -1) + leg(numbers[1], books.bob, 1)
                values = f"{LEGS} VALUES {legs.rstrip(',')}) AS l (no, account, asset, pot, amount, hold)"
                await sql(connection, values, tenant=books.tenant, transaction=books.transaction)
        assert reason.sqlstate in {INCOMPLETE, UNIQUE_VIOLATION}, numbers


@pytest.mark.parametrize("role", list(Role))
async def test_a_transaction_does_not_come_before_its_legs(
    writers: dict[Role, AsyncEngine], books: Books, role: Role
) -> None:
    with refused() as reason:
        async with acting(writers[role], books.tenant) as connection:
            await sql(
                connection,
                "INSERT INTO ledger_transactions (tenant_id, transaction_id, kind, leg_count, effective_at)"
                " VALUES (:tenant, :transaction, 'deposit', 2, now())",
                tenant=books.tenant,
                transaction=new_id(),
            )
    assert reason.sqlstate == INCOMPLETE


@pytest.mark.parametrize("role", list(Role))
async def test_legs_do_not_come_without_a_transaction(
    writers: dict[Role, AsyncEngine], books: Books, role: Role
) -> None:
    with refused() as reason:
        async with acting(writers[role], books.tenant) as connection:
            legs = leg(1, books.alice, -1) + leg(2, books.bob, 1)
            values = f"{LEGS} VALUES {legs.rstrip(',')}) AS l (no, account, asset, pot, amount, hold)"
            await sql(connection, values, tenant=books.tenant, transaction=new_id())
    assert reason.sqlstate in {INCOMPLETE, FOREIGN_KEY_VIOLATION}


@pytest.mark.parametrize("role", list(Role))
async def test_an_account_of_another_tenant_is_out_of_reach(
    writers: dict[Role, AsyncEngine], tenants_engine: AsyncEngine, books: Books, role: Role
) -> None:
    stranger = new_id()
    async with acting(tenants_engine) as connection:
        await sql(connection, "SELECT create_tenant(:tenant, :name)", tenant=stranger, name=f"stranger {stranger}")
        await ledger.post(
            connection, stranger, [deposit("eve", "USDC", 9, transaction_id=new_id(), effective_at=now())]
        )
        eves = (await sql(connection, "SELECT account_id FROM accounts WHERE ref = 'eve'"))[0][0]
    with refused() as reason:
        async with acting(writers[role], stranger) as connection:
            legs = leg(1, books.alice, -5) + leg(2, eves, 5)
            await insert_transaction(connection, stranger, legs.rstrip(","))
    assert reason.sqlstate in {INCOMPLETE, FOREIGN_KEY_VIOLATION}


@pytest.mark.parametrize("table", ["ledger_transactions", "ledger_legs", "audit_log"])
async def test_even_the_owner_does_not_rewrite_history(owner_engine: AsyncEngine, books: Books, table: str) -> None:
    for statement in (
        f"UPDATE {table} SET tenant_id = tenant_id",
        f"UPDATE {table} SET tenant_id = tenant_id WHERE false",
        f"DELETE FROM {table}",
        f"TRUNCATE {table} CASCADE",
    ):
        with refused() as reason:
            async with acting(owner_engine, books.tenant) as connection:
                await sql(connection, statement)
        assert reason.sqlstate == APPEND_ONLY, statement


@pytest.mark.parametrize("table", ["accounts", "holds"])
async def test_even_the_owner_does_not_remove_what_has_a_balance(
    owner_engine: AsyncEngine, books: Books, table: str
) -> None:
    for statement in (f"DELETE FROM {table}", f"TRUNCATE {table} CASCADE"):
        with refused() as reason:
            async with acting(owner_engine, books.tenant) as connection:
                await sql(connection, statement)
        assert reason.sqlstate == APPEND_ONLY, statement


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE accounts SET available_minor = -1 WHERE ref = 'alice' AND tenant_id = :tenant",
        "UPDATE accounts SET held_minor = -1 WHERE ref = 'alice' AND tenant_id = :tenant",
        "UPDATE accounts SET held_minor = -1 WHERE ref = 'system:external' AND tenant_id = :tenant",
        "UPDATE holds SET remaining_minor = -1 WHERE tenant_id = :tenant",
        "UPDATE holds SET remaining_minor = placed_minor + 1 WHERE tenant_id = :tenant",
    ],
)
async def test_even_the_owner_does_not_overdraw(owner_engine: AsyncEngine, books: Books, statement: str) -> None:
    with refused() as reason:
        async with acting(owner_engine, books.tenant) as connection:
            await sql(connection, statement, tenant=books.tenant)
    assert reason.sqlstate == CHECK_VIOLATION


async def test_only_the_outside_may_owe(engine: AsyncEngine, books: Books) -> None:
    async with acting(engine, books.tenant) as connection:
        rows = await sql(
            connection, "SELECT ref FROM accounts WHERE tenant_id = :t AND available_minor < 0", t=books.tenant
        )
    assert {row.ref for row in rows} == {"system:external"}
