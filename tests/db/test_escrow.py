"""Escrows in Postgres: they come back as they went in, and are found by every filter, by page, through an index."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from db import escrow as escrows
from db.engine import Role as DatabaseRole
from db.engine import create_engine, tenant_transaction, transaction
from db.escrow import EscrowFilter
from db.identity import create_tenant
from db.ids import new_id
from domain.errors import Refusal
from domain.escrow import Escrow, MilestoneTerms, Party, Status, Terms, decide, open_escrow
from domain.money import Asset
from tests.db.raw import sql
from tests.domain.escrows import OPENED
from tests.domain.test_escrow_properties import agreements, commands

HASH = bytes(range(32))
#: As the table of assets has them.
USDC = Asset("USDC", 6, "ethereum", "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48")
ETH = Asset("ETH", 18, "ethereum")
ASSETS = {"USDC": USDC, "ETH": ETH}
STEPS = 8

words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
instants = st.datetimes(datetime(2026, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
zones = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45))])


@st.composite
def complete_terms(draw: st.DrawFn) -> Terms:
    """Terms with every field in use, somewhere."""
    agreed = draw(agreements())
    address = st.none() | words
    parties: dict[str, Any] = {
        role: Party(party.user_id, draw(address))
        for role, party in (("buyer", agreed.buyer), ("seller", agreed.seller), ("arbiter", agreed.arbiter))
        if party is not None
    }
    milestones = tuple(MilestoneTerms(new_id(), draw(words), part.amount_minor) for part in agreed.milestones)
    deadline = draw(instants).astimezone(draw(zones))
    return replace(
        agreed,
        asset=draw(st.sampled_from([USDC, ETH])),
        milestones=milestones,
        reference=draw(st.none() | words),
        description=draw(st.none() | words),
        expires_at=None if agreed.expires_at is None else max(deadline, agreed.expires_at),
        **parties,
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
async def test_an_escrow_comes_back_as_it_went_in_after_every_command(
    tenants_engine: AsyncEngine, data: st.DataObject
) -> None:
    tenant = await tenant_of(tenants_engine)
    at = OPENED
    escrow = open_escrow(new_id(), data.draw(complete_terms()), at).escrow
    async with tenant_transaction(tenants_engine, tenant) as connection:
        await escrows.insert(connection, tenant, escrow, HASH)
    assert await read(tenants_engine, tenant, escrow.escrow_id) == escrow
    for _ in range(STEPS):
        command, user_id = data.draw(commands(escrow))
        at += timedelta(microseconds=data.draw(st.integers(1, 10**12)))
        try:
            after = decide(escrow, command, user_id=user_id, at=at).escrow
        except Refusal:
            continue
        async with tenant_transaction(tenants_engine, tenant) as connection:
            before = await escrows.lock(connection, escrow.escrow_id)
            assert before == escrow
            await escrows.update(connection, tenant, before, after)
        escrow = after
        assert await read(tenants_engine, tenant, escrow.escrow_id) == escrow


async def test_what_was_agreed_reads_in_sql_as_it_was_said(tenants_engine: AsyncEngine, tenant: UUID) -> None:
    """The rows are an operator's to read, so they are looked at as well."""
    escrow = make(0, amounts=(2**255, 7), reference="order-1", description="ten boxes")
    await store(tenants_engine, tenant, escrow)
    async with tenant_transaction(tenants_engine, tenant) as connection:
        [row] = await sql(connection, "SELECT * FROM escrows")
        parts = await sql(connection, "SELECT * FROM escrow_milestones ORDER BY position")
    assert (row.tenant_id, row.escrow_id, row.status, row.version) == (tenant, escrow.escrow_id, "created", 1)
    assert (int(row.amount_minor), row.asset, bytes(row.content_hash)) == (2**255 + 7, "USDC", HASH)
    assert (row.buyer_user_id, row.seller_user_id, row.arbiter_user_id) == ("buyer 0", "seller 0", None)
    assert (row.reference, row.description, row.fee_account) == ("order-1", "ten boxes", "system:fees")
    assert (row.policy_roles, row.policy_required) == (["buyer"], 1)
    assert [(part.position, int(part.amount_minor), part.status) for part in parts] == [
        (1, 2**255, "pending"),
        (2, 7, "pending"),
    ]


async def test_a_reference_names_one_escrow_of_a_tenant(tenants_engine: AsyncEngine, tenant: UUID) -> None:
    escrow = make(0, reference="order-1")
    await store(tenants_engine, tenant, escrow)
    with pytest.raises(Refusal) as caught:
        await store(tenants_engine, tenant, make(1, reference="order-1"))
    assert caught.value.code == "reference_taken"
    await store(tenants_engine, await tenant_of(tenants_engine), make(2, reference="order-1"))
    async with tenant_transaction(tenants_engine, tenant) as connection:
        assert await escrows.find_by_reference(connection, "order-1") == (escrow, HASH)
        assert await escrows.find_by_reference(connection, "order-2") is None
        assert await escrows.find(connection, new_id()) is None
        assert await escrows.lock(connection, new_id()) is None


async def test_whoever_waits_for_a_locked_escrow_sees_what_became_of_it(
    tenants_engine: AsyncEngine, tenant: UUID
) -> None:
    """All of it: the row that was waited for, and its milestones as they are now."""
    escrow = make(0, amounts=(5, 6))
    await store(tenants_engine, tenant, escrow)

    async def count_up() -> None:
        async with tenant_transaction(tenants_engine, tenant) as connection:
            before = await escrows.lock(connection, escrow.escrow_id)
            assert before is not None
            part = before.milestones[1]
            assert part.released_minor == before.version - 1, "the milestones are older than the row"
            changed = replace(part, released_minor=part.released_minor + 1)
            after = replace(before, version=before.version + 1, milestones=(before.milestones[0], changed))
            await escrows.update(connection, tenant, before, after)

    await asyncio.gather(*(count_up() for _ in range(6)))
    found = await read(tenants_engine, tenant, escrow.escrow_id)
    assert (found.version, found.milestones[1].released_minor) == (7, 6)


async def test_every_filter_and_every_combination_finds_what_it_should(
    tenants_engine: AsyncEngine, tenant: UUID
) -> None:
    chance = random.Random(9)
    population = [varied(chance, number) for number in range(60)]
    for escrow in population:
        await store(tenants_engine, tenant, escrow)
    choices: dict[str, Sequence[Any]] = {
        "status": [None, Status.CREATED, Status.FUNDED],
        "user_id": [None, "ann", "ben", "nobody"],
        "address": [None, "0x1", "0x2"],
        "asset": [None, "USDC", "ETH", "DAI"],
        "reference": [None, "order-3", "order-none"],
        "created_from": [None, OPENED + timedelta(days=10)],
        "created_to": [None, OPENED + timedelta(days=40)],
    }
    combinations = [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]
    alone = [each for each in combinations if sum(value is not None for value in each.values()) <= 2]
    found = 0
    async with tenant_transaction(tenants_engine, tenant) as connection:
        for each in [*alone, *chance.sample(combinations, 250)]:
            wanted = EscrowFilter(**each)
            listed = await escrows.list_(connection, wanted, before=None, limit=100)
            expected = [escrow for escrow in reversed(population) if matches(escrow, wanted)]
            assert listed == expected, wanted
            found += len(expected)
    assert found > 1_000, "the filters found something to tell apart"


@pytest.mark.parametrize("wanted", [EscrowFilter(), EscrowFilter(user_id="ann"), EscrowFilter(asset="ETH")])
async def test_pages_are_complete_and_without_repeats_while_others_insert(
    tenants_engine: AsyncEngine, tenant: UUID, wanted: EscrowFilter
) -> None:
    chance = random.Random(4)
    there = [varied(chance, number) for number in range(40)]
    for escrow in there:
        await store(tenants_engine, tenant, escrow)
    turning = True

    async def insert() -> int:
        number = 100
        while turning:
            await store(tenants_engine, tenant, varied(chance, number))
            number += 1
        return number

    inserting = asyncio.create_task(insert())
    pages: list[list[Escrow]] = []
    before: UUID | None = None
    while not pages or pages[-1]:
        async with tenant_transaction(tenants_engine, tenant) as connection:
            pages.append(await escrows.list_(connection, wanted, before=before, limit=3))
        before = pages[-1][-1].escrow_id if pages[-1] else None
    turning = False
    assert await inserting > 100
    ids = [escrow.escrow_id for page in pages for escrow in page]
    assert ids == sorted(set(ids), reverse=True)
    assert {escrow.escrow_id for escrow in there if matches(escrow, wanted)} <= set(ids)


async def test_an_escrow_whose_parties_share_an_address_fills_one_place_of_a_page(
    tenants_engine: AsyncEngine, tenant: UUID
) -> None:
    """The query asks once per role, and the answers overlap."""
    shared = [
        make(
            number,
            buyer=Party(f"ann {number}", "0x1"),
            seller=Party(f"ben {number}", "0x1"),
            arbiter=Party("cid", "0x1"),
        )
        for number in range(4)
    ]
    for escrow in shared:
        await store(tenants_engine, tenant, escrow)
    async with tenant_transaction(tenants_engine, tenant) as connection:
        for wanted in (EscrowFilter(address="0x1"), EscrowFilter(address="0x1", user_id="cid")):
            page = await escrows.list_(connection, wanted, before=None, limit=3)
            assert page == shared[:0:-1]


@pytest.fixture
async def crowded(migrated_url: str) -> AsyncIterator[tuple[AsyncEngine, UUID]]:
    """A tenant with 2,000 escrows among 200 users, beside another tenant, in a database that knows its statistics."""
    engine = create_engine(migrated_url, DatabaseRole.APP, pool_size=2)
    tenant, other = await tenant_of(engine), await tenant_of(engine)
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        for whose, rows in ((tenant, 2_000), (other, 500)):
            connection.execute(
                "INSERT INTO escrows (tenant_id, escrow_id, reference, content_hash, status, version, asset,"
                " amount_minor, buyer_user_id, buyer_address, seller_user_id, seller_address, arbiter_user_id,"
                " arbiter_address, policy_roles, policy_required, buyer_fee_basis_points, seller_fee_basis_points,"
                " fee_account, created_at, updated_at)"
                " SELECT %s, uuidv7(), 'order-' || n, sha256('x'), (ARRAY['completed', 'refunded'])[1 + n %% 2], 1,"
                " 'USDC', 1, 'u' || n %% 200, 'a' || n %% 200, 'u' || (n + 1) %% 200, 'a' || (n + 1) %% 200,"
                " 'u' || (n + 2) %% 200, 'a' || (n + 2) %% 200, '{buyer}', 1, 0, 0, 'f', now(), now()"
                " FROM generate_series(1, %s) AS n",
                [whose, rows],
            )
        connection.execute(
            "INSERT INTO escrow_milestones (tenant_id, escrow_id, position, milestone_id, title, amount_minor, status,"
            " released_minor, refunded_minor, approvals)"
            " SELECT tenant_id, escrow_id, n, uuidv7(), 't', 1, 'pending', 0, 0, '[]'"
            " FROM escrows, generate_series(1, 3) AS n"
        )
        connection.execute(
            "UPDATE escrows SET status = 'disputed', asset = 'BTC' WHERE reference IN ('order-7', 'order-8')"
        )
        connection.execute("VACUUM ANALYZE")
    yield engine, tenant
    await engine.dispose()


SELECTIVE = [
    EscrowFilter(),
    EscrowFilter(user_id="u7"),
    EscrowFilter(address="a7"),
    EscrowFilter(user_id="u7", address="a8"),
    EscrowFilter(user_id="u7", status=Status.COMPLETED),
    EscrowFilter(status=Status.DISPUTED),
    EscrowFilter(asset="BTC"),
    EscrowFilter(reference="order-77"),
    EscrowFilter(user_id="nobody"),
]


async def test_no_filter_reads_the_whole_table(crowded: tuple[AsyncEngine, UUID]) -> None:
    engine, tenant = crowded
    asked: list[tuple[str, Any]] = []

    def listen(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    for wanted, before in itertools.product(SELECTIVE, (None, new_id())):
        event.listen(engine.sync_engine, "before_cursor_execute", listen)
        async with tenant_transaction(engine, tenant) as connection:
            found = await escrows.list_(connection, wanted, before=before, limit=20)
        event.remove(engine.sync_engine, "before_cursor_execute", listen)
        assert bool(found) == (wanted.user_id != "nobody")
        statement, parameters = asked[-1]
        async with tenant_transaction(engine, tenant) as connection:
            plan = await connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
            lines = "\n".join(row[0] for row in plan)
        assert "escrow_milestones" in lines
        assert "Seq Scan on escrow" not in lines, (wanted, lines)


def make(number: int, *, amounts: tuple[int, ...] = (100,), **changes: Any) -> Escrow:
    """A new escrow; a later number has a later id."""
    agreed = Terms(
        asset=changes.pop("asset", USDC),
        buyer=changes.pop("buyer", Party(f"buyer {number}")),
        seller=changes.pop("seller", Party(f"seller {number}")),
        milestones=tuple(MilestoneTerms(new_id(), f"part {part}", amount) for part, amount in enumerate(amounts)),
        **changes,
    )
    created = OPENED + timedelta(days=number)
    escrow_id = UUID(int=(number + 1 << 80) | (new_id().int & (1 << 80) - 1))
    return open_escrow(escrow_id, agreed, created).escrow


def varied(chance: random.Random, number: int) -> Escrow:
    """An escrow between some of a few users, with some of a few addresses."""
    users = chance.sample(["ann", "ben", "cid", "dan", "eve"], 3)
    buyer, seller, arbiter = (Party(user, chance.choice([None, "0x1", "0x2", "0x3"])) for user in users)
    escrow = make(
        number,
        asset=chance.choice(list(ASSETS.values())),
        buyer=buyer,
        seller=seller,
        arbiter=chance.choice([None, arbiter]),
        reference=chance.choice([None, f"order-{number}"]),
    )
    return replace(escrow, status=chance.choice([Status.CREATED, Status.FUNDED, Status.COMPLETED]))


def matches(escrow: Escrow, wanted: EscrowFilter) -> bool:
    """The filter, as one would say it."""
    parties = [party for _, party in escrow.parties()]
    said: list[tuple[Any, bool]] = [
        (wanted.status, escrow.status == wanted.status),
        (wanted.user_id, wanted.user_id in {party.user_id for party in parties}),
        (wanted.address, wanted.address in {party.address for party in parties}),
        (wanted.asset, escrow.terms.asset.symbol == wanted.asset),
        (wanted.reference, escrow.terms.reference == wanted.reference),
        (wanted.created_from, wanted.created_from is not None and escrow.created_at >= wanted.created_from),
        (wanted.created_to, wanted.created_to is not None and escrow.created_at < wanted.created_to),
    ]
    return all(holds for value, holds in said if value is not None)


async def store(engine: AsyncEngine, tenant: UUID, escrow: Escrow) -> None:
    async with tenant_transaction(engine, tenant) as connection:
        await escrows.insert(connection, tenant, escrow, HASH)


async def read(engine: AsyncEngine, tenant: UUID, escrow_id: UUID) -> Escrow:
    async with tenant_transaction(engine, tenant) as connection:
        found = await escrows.find(connection, escrow_id)
    assert found is not None
    return found


async def tenant_of(engine: AsyncEngine) -> UUID:
    """A new tenant."""
    tenant = new_id()
    async with transaction(engine) as connection:
        assert await create_tenant(connection, new_tenant=tenant, name=f"tenant {tenant}")
    return tenant
