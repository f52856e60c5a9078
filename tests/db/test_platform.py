"""The platform's events: in every tenant's feed and stream, in order, by index, and written by nobody else."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import psycopg
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from activities.consuming import Consumer, Delivered, TenantEvent
from activities.relay import Relay
from api.streams import StreamMetrics, Streams
from db.engine import tenant_transaction, transaction
from db.identity import create_tenant
from db.ids import new_id
from db.outbox import PRICES_TOPIC, OutboxEvent, append, feed, tenant_head
from domain.ids import PLATFORM_TENANT
from kit.settings import ApiSettings
from tests.db.feeds import AT, FOR_EVER, Feeds, running
from tests.db.raw import CHECK_VIOLATION, NOT_ALLOWED, acting, refused, set_tenant, sql
from tests.polling import eventually


def event(number: int) -> OutboxEvent:
    return OutboxEvent(new_id(), PRICES_TOPIC, "price.changed", "price:ETH", AT, {"number": number})


async def tell_everybody(feeds: Feeds, number: int = 0) -> UUID:
    told = event(number)
    async with transaction(feeds.engine) as connection:
        await append(connection, PLATFORM_TENANT, [told])
    return told.event_id


async def another(feeds: Feeds) -> UUID:
    made = new_id()
    async with transaction(feeds.app) as connection:
        assert await create_tenant(connection, new_tenant=made, name=f"other {made}")
    return made


async def test_every_tenant_reads_them_among_its_own_in_order(feeds: Feeds) -> None:
    other = await another(feeds)
    ours, theirs = [], []
    for number in range(9):
        match number % 3:
            case 0:
                ours.append(await feeds.tell("escrow:1", number))
            case 1:
                theirs.append(await feeds.tell("escrow:2", number, tenant=other))
            case _:
                everybodys = await tell_everybody(feeds, number)
                ours.append(everybodys)
                theirs.append(everybodys)
    await feeds.number()
    for tenant, expected in ((feeds.tenant, ours), (other, theirs)):
        whole = await feeds.read(tenant=tenant)
        assert [each.event_id for each in whole] == expected
        paged, after = [], 0
        while page := await feeds.read(after=after, limit=2, tenant=tenant):
            paged += page
            after = page[-1].position
        assert paged == whole
        async with tenant_transaction(feeds.app, tenant) as connection:
            assert await tenant_head(connection) == whole[-1].position == 9
            prices = await feed(connection, topic=PRICES_TOPIC, after=0, limit=10)
            rest = await feed(connection, topic="settlement.events.v1", after=0, limit=10)
        assert {each.topic for each in prices} == {PRICES_TOPIC}
        assert sorted([*prices, *rest], key=lambda each: each.position) == whole
    async with transaction(feeds.app) as connection:
        assert await feed(connection, topic=None, after=0, limit=10) == [], "who is nobody reads nothing"


async def test_a_tenant_writes_none_of_them(feeds: Feeds) -> None:
    await tell_everybody(feeds)
    for pretended in (feeds.tenant, PLATFORM_TENANT):
        with refused() as reason:
            async with acting(feeds.app, pretended) as connection:
                await append(connection, PLATFORM_TENANT, [event(1)])
        assert reason.sqlstate == NOT_ALLOWED
    async with acting(feeds.app, feeds.tenant) as connection:
        await set_tenant(connection, PLATFORM_TENANT)
        for change in ("UPDATE outbox SET position = 7", "DELETE FROM outbox", "UPDATE outbox SET data = '{}'"):
            with pytest.raises(DBAPIError, match="permission denied"):
                async with connection.begin_nested():
                    await sql(connection, change)
    with refused() as reason:
        async with acting(feeds.app) as connection:
            await create_tenant(connection, new_tenant=PLATFORM_TENANT, name="everybody")
    assert (reason.sqlstate, reason.constraint) == (CHECK_VIOLATION, "tenants_platform_check")


async def test_a_tenant_writes_no_price(feeds: Feeds) -> None:
    for table, change in (
        ("price_ticks", "INSERT INTO price_ticks (refresh_id, refreshed_at) VALUES ('x', now())"),
        ("prices", "UPDATE prices SET mid = 1"),
        ("prices", "DELETE FROM prices"),
        ("price_history", "INSERT INTO price_history SELECT * FROM price_history"),
        ("price_history", "DELETE FROM price_history"),
    ):
        with refused() as reason:
            async with acting(feeds.app, feeds.tenant) as connection:
                await sql(connection, change)
        assert reason.sqlstate == NOT_ALLOWED, table
    async with acting(feeds.engine) as connection:
        for change in ("UPDATE price_history SET mid = 1", "DELETE FROM price_history", "DELETE FROM price_ticks"):
            with pytest.raises(DBAPIError, match="permission denied"):
                async with connection.begin_nested():
                    await sql(connection, change)


def test_the_policies_say_so(migrated_url: str) -> None:
    with psycopg.connect(migrated_url) as connection:
        found = connection.execute(
            "SELECT tablename, policyname, permissive, cmd, qual, with_check FROM pg_policies"
            " WHERE policyname LIKE 'platform%%' ORDER BY policyname"
        ).fetchall()
    platform = f"'{PLATFORM_TENANT}'::uuid"
    reads = f"((tenant_id = {platform}) AND (current_tenant() IS NOT NULL))"
    assert found == [
        ("outbox", "platform", "PERMISSIVE", "SELECT", reads, None),
        ("outbox", "platform_writes", "RESTRICTIVE", "INSERT", None, f"(tenant_id <> {platform})"),
    ]


async def test_both_parts_of_a_feed_are_read_by_index(feeds: Feeds) -> None:
    """However many events others have in between."""
    others = await another(feeds)
    insert = text(
        "INSERT INTO outbox (tenant_id, event_id, topic, type, subject, data, occurred_at)"
        " SELECT :tenant, uuidv7(), 'settlement.events.v1', 'test.told', 'many', '{}', now()"
        " FROM generate_series(1, :count)"
    )
    async with transaction(feeds.engine) as connection:
        for _ in range(8):
            for tenant, count in ((others, 1_000), (feeds.tenant, 300), (PLATFORM_TENANT, 300)):
                await connection.execute(insert, {"tenant": tenant, "count": count})
    await feeds.number(limit=20_000)
    with psycopg.connect(feeds.url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE outbox")
    async with tenant_transaction(feeds.app, feeds.tenant) as app:
        explaining = Explaining(app)
        for topic, index in ((None, "tenant_id_position"), ("settlement.events.v1", "tenant_id_topic_position")):
            for after in (0, 9_000):
                events = await feed(explaining, topic=topic, after=after, limit=50)  # type: ignore[arg-type]
                assert len(events) == 50
                explaining.shows(f"outbox_{index}_idx")
        await tenant_head(explaining)  # type: ignore[arg-type]
        explaining.shows("outbox_tenant_id_position_idx")


class Explaining:
    """A connection that runs each statement under EXPLAIN, too."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self.plan = ""

    async def execute(self, statement: Any, parameters: Any) -> Any:
        rows = await self._connection.execute(text(f"EXPLAIN (ANALYZE, COSTS OFF) {statement}"), parameters)
        self.plan = "\n".join(row[0] for row in rows)
        return await self._connection.execute(statement, parameters)

    async def scalar(self, statement: Any, parameters: Any) -> Any:
        return (await self.execute(statement, parameters)).scalar()

    def shows(self, index: str) -> None:
        """Both parts read this index, and nothing that is not theirs."""
        assert len(re.findall(rf"Index (?:Only )?Scan (?:Backward )?using {index} ", self.plan)) == 2, self.plan
        assert "Rows Removed" not in self.plan, self.plan


async def test_they_wake_every_tenants_streams(feeds: Feeds) -> None:
    other = await another(feeds)
    settings = ApiSettings(database_url=feeds.url, temporal_address="nowhere:0")
    streams = Streams(feeds.app, settings, StreamMetrics(CollectorRegistry()))
    opened = [streams.enter(tenant) for tenant in (feeds.tenant, other)]
    task = asyncio.create_task(streams.run())
    async with running(Relay(feeds.engine, feeds.url, poll_seconds=FOR_EVER)):
        for stream in opened:
            assert await stream.woken(10), "the first look wakes everybody"
            stream.expect()
        told = await tell_everybody(feeds)
        await feeds.number()
        for stream in opened:
            assert await stream.woken(10)
        pages = [await streams.read(stream.tenant_id, None, 0) for stream in opened]
    assert all(str(told).encode() in page.chunk for page in pages)
    streams.close()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_consumers_meet_them_as_the_platforms(feeds: Feeds) -> None:
    seen: list[TenantEvent] = []

    class Taking:
        types = ("price.changed",)

        async def deliver(self, events: Sequence[TenantEvent], upto: int) -> Delivered:
            seen.extend(events)
            return Delivered(upto)

        async def close(self) -> None:
            """Nothing is held."""

    consumer = Consumer(feeds.engine, feeds.url, "taking", Taking(), poll_seconds=0.05)
    async with running(Relay(feeds.engine, feeds.url, consumers=[consumer], poll_seconds=0.05)):
        told = await tell_everybody(feeds)

        async def met() -> bool:
            return [each.event_id for each in seen] == [told]

        await eventually(met)
    assert seen[0].tenant_id == PLATFORM_TENANT
