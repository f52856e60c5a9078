"""The feed: one relay numbers what was committed, and a reader by position misses nothing, however late it commits."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from uuid import UUID

import psycopg
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import text

from activities.relay import BREATH_SECONDS, Relay
from db.audit import AuditRecord, Origin
from db.engine import tenant_transaction, transaction
from db.identity import create_tenant
from db.ids import new_id
from db.outbox import SETTLEMENT_TOPIC, FeedEvent, OutboxEvent, lag, number_committed
from db.step import step
from tests.db.feeds import AT, FOR_EVER, Feeds, running
from tests.db.raw import sql
from tests.polling import eventually

WRITERS, STEPS = 20, 12


async def test_an_event_is_in_the_feed_once_it_has_a_position(feeds: Feeds) -> None:
    told = await feeds.tell("escrow:1")
    assert await feeds.read() == []
    async with transaction(feeds.engine) as connection:
        waiting, seconds = await lag(connection)
    assert waiting == 1
    assert 0 <= seconds < 60
    assert await feeds.number() == 1
    [event] = await feeds.read()
    assert (event.event_id, event.position, event.occurred_at) == (told, 1, AT)
    assert await feeds.number() == 0
    async with transaction(feeds.engine) as connection:
        assert await lag(connection) == (0, 0.0)


async def test_positions_are_dense_and_go_on_where_they_ended(feeds: Feeds) -> None:
    told = [await feeds.tell("escrow:1", number) for number in range(7)]
    assert [await feeds.number(limit=3) for _ in range(4)] == [3, 3, 1, 0]
    told.append(await feeds.tell("escrow:1", 7))
    await feeds.number()
    events = await feeds.read()
    assert [event.position for event in events] == list(range(1, 9))
    assert [event.event_id for event in events] == told
    assert [event.position for event in await feeds.read(after=6)] == [7, 8]


async def test_a_late_commit_comes_behind_the_reader(feeds: Feeds) -> None:
    """Written first, committed last: a reader that has moved on must still meet it."""
    late_may_commit = asyncio.Event()

    async def late() -> UUID:
        made = new_id()
        async with step(feeds.app, feeds.doorbell, tenant_id=feeds.tenant, step_id="late") as opened:
            event = OutboxEvent(made, SETTLEMENT_TOPIC, "test.told", "late", AT, {})
            await opened.finish(result={}, audit=AuditRecord("late", "told", AT, Origin(), {}), events=[event])
            written.set()
            await late_may_commit.wait()
        return made

    written = asyncio.Event()
    task = asyncio.create_task(late())
    await written.wait()
    early = await feeds.tell("early")
    await feeds.number()
    [seen] = await feeds.read()
    assert seen.event_id == early
    late_may_commit.set()
    late_event = await task
    await feeds.number()
    assert [event.event_id for event in await feeds.read(after=seen.position)] == [late_event]


async def test_a_reader_by_cursor_misses_nothing(feeds: Feeds) -> None:
    chance = random.Random(3)
    other = new_id()
    async with transaction(feeds.app) as connection:
        await create_tenant(connection, new_tenant=other, name="other")
    committed: dict[UUID, list[UUID]] = {feeds.tenant: [], other: []}
    seen: list[FeedEvent] = []
    writing = True

    async def write(writer: int) -> None:
        tenant = other if writer % 5 == 0 else feeds.tenant
        for number in range(STEPS):
            committed[tenant].append(
                await feeds.tell(f"escrow:{writer}", number, pause=chance.random() / 25, tenant=tenant)
            )

    async def relay() -> None:
        while writing or await feeds.number(limit=50):
            await feeds.number(limit=50)
            await asyncio.sleep(0)

    async def read() -> None:
        while True:
            last = not writing and not relaying
            page = await feeds.read(after=seen[-1].position if seen else 0, limit=7)
            seen.extend(page)
            if last and not page:
                return

    relaying = True
    reader, relays = asyncio.create_task(read()), [asyncio.create_task(relay()) for _ in range(2)]
    await asyncio.gather(*(write(writer) for writer in range(WRITERS)))
    writing = False
    await asyncio.gather(*relays)
    relaying = False
    async with asyncio.timeout(60):
        await reader

    assert len(seen) == len(committed[feeds.tenant])
    assert {event.event_id for event in seen} == set(committed[feeds.tenant])
    told: dict[str, list[int]] = defaultdict(list)
    for event in seen:
        told[event.subject].append(event.data["number"])
    assert set(map(tuple, told.values())) == {tuple(range(STEPS))}, "the order of a subject was broken"
    async with transaction(feeds.engine) as connection:
        positions = [row[0] for row in await sql(connection, "SELECT position FROM outbox ORDER BY position")]
    assert positions == list(range(1, WRITERS * STEPS + 1))
    assert len(await feeds.read(tenant=other)) == len(committed[other])


async def test_what_waits_for_its_position_is_measured(feeds: Feeds) -> None:
    relay = Relay(feeds.engine, feeds.url)

    async def measured() -> list[float | None]:
        """Read without a pause behind the pass: the run's own relay sets the same gauges."""
        await relay.pass_once()
        return [REGISTRY.get_sample_value(f"holdfast_outbox_{name}") for name in ("waiting", "lag_seconds")]

    await feeds.tell("escrow:1", 1)
    async with transaction(feeds.engine) as another:
        assert await number_committed(another, limit=0) == {}  # it has the turn, and does nothing with it
        waiting, lag_seconds = await measured()
        assert waiting == 1
        assert lag_seconds is not None
        assert 0 < lag_seconds < 60
    assert await measured() == [0, 0]


async def test_one_relay_at_a_time_gives_positions(feeds: Feeds) -> None:
    await feeds.tell("escrow:1", 1)
    async with feeds.engine.connect() as first, first.begin():
        assert await number_committed(first, limit=10) == {"test.told": 1}
        await feeds.tell("escrow:1", 2)
        assert await feeds.number() == 0, "a second relay stood aside"
    assert await feeds.number() == 1
    assert [event.data["number"] for event in await feeds.read()] == [1, 2]


async def test_a_relay_that_dies_before_its_commit_numbered_nothing(feeds: Feeds) -> None:
    told = [await feeds.tell("escrow:1", number) for number in range(3)]
    async with feeds.engine.connect() as connection, connection.begin() as dying:
        assert await number_committed(connection, limit=2) == {"test.told": 2}
        await dying.rollback()
    assert await feeds.read() == []
    await feeds.number()
    assert [(event.event_id, event.position) for event in await feeds.read()] == list(zip(told, (1, 2, 3), strict=True))


async def test_a_relay_is_woken_by_the_commit(feeds: Feeds) -> None:
    """It would poll in an hour."""
    async with running(Relay(feeds.engine, feeds.url, poll_seconds=FOR_EVER)):
        for number in range(3):
            told = await feeds.tell("escrow:1", number)
            await eventually(lambda told=told: feeds.sees(told))  # type: ignore[misc]


async def test_a_relay_that_nobody_wakes_polls(feeds: Feeds) -> None:
    async with running(Relay(feeds.engine, "postgresql://nobody@127.0.0.1:1/nowhere", poll_seconds=0.05)):
        told = await feeds.tell("escrow:1")
        await eventually(lambda: feeds.sees(told))


async def test_two_relays_share_the_work_without_a_gap(feeds: Feeds) -> None:
    relays = [Relay(feeds.engine, feeds.url, poll_seconds=0.05) for _ in range(2)]
    async with running(relays[0]), running(relays[1]):
        told = await asyncio.gather(*(feeds.tell(f"escrow:{number}") for number in range(20)))

        async def all_there() -> bool:
            return len(await feeds.read()) == len(told)

        await eventually(all_there)
    assert [event.position for event in await feeds.read()] == list(range(1, 21))


@pytest.mark.parametrize("ticks", range(6))
async def test_a_relay_that_is_woken_while_it_is_ended_ends(feeds: Feeds, ticks: int) -> None:
    """However many turns of the loop lie between the two."""
    relay = Relay(feeds.engine, feeds.url, poll_seconds=FOR_EVER)
    task = asyncio.create_task(relay.run())
    told = await feeds.tell("escrow:1")
    await eventually(lambda: feeds.sees(told))
    await asyncio.sleep(2 * BREATH_SECONDS)  # it waits to be woken again
    relay._wake.set()
    for _ in range(ticks):
        await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=5)
    task.cancel()  # the next test needs none that was left over
    await asyncio.gather(task, return_exceptions=True)
    assert done, "it went on working"


async def test_a_relay_survives_the_loss_of_its_connections(feeds: Feeds) -> None:
    """Again and again: while it waits for a notification, and while it works."""
    async with running(Relay(feeds.engine, feeds.url, poll_seconds=0.2)):
        for number in range(2):
            await eventually(lambda: asyncio.to_thread(relay_is_connected, feeds.url), limit_seconds=8)
            await asyncio.to_thread(kill_relay, feeds.url)
            told = await feeds.tell("escrow:1", number)
            await eventually(lambda told=told: feeds.sees(told))  # type: ignore[misc]
    assert [event.position for event in await feeds.read()] == [1, 2]


RELAYS = (
    "FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
    " AND pid <> pg_backend_pid() AND application_name <> 'holdfast_app'"
)


def relay_is_connected(database_url: str) -> bool:
    """Whether both are there: the connection that works, and the one that listens."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        return connection.execute(f"SELECT count(DISTINCT application_name) {RELAYS}").fetchone() == (2,)


def kill_relay(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"SELECT pg_terminate_backend(pid) {RELAYS}")


async def test_the_feed_reads_an_index(feeds: Feeds) -> None:
    async with transaction(feeds.engine) as connection:
        await connection.execute(
            text(
                "INSERT INTO outbox (tenant_id, event_id, topic, type, subject, data, occurred_at)"
                " SELECT :tenant, uuidv7(), :topic, 'test.told', 'many', '{}', now() FROM generate_series(1, 5000)"
            ),
            {"tenant": feeds.tenant, "topic": SETTLEMENT_TOPIC},
        )
    await feeds.number(limit=4_990)
    with psycopg.connect(feeds.url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE outbox")
    async with tenant_transaction(feeds.app, feeds.tenant) as app:
        plan = await sql(
            app, "EXPLAIN SELECT event_id, data FROM outbox WHERE position > 4000 ORDER BY position LIMIT 50"
        )
    async with transaction(feeds.engine) as connection:
        waiting = await sql(
            connection, "EXPLAIN SELECT outbox_id FROM outbox WHERE position IS NULL ORDER BY outbox_id LIMIT 50"
        )
    assert "Seq Scan" not in str(plan)
    assert "Sort" not in str(plan)
    assert "Seq Scan" not in str(waiting)
