"""Consumers: one at a time, each event at least once and in order, and nothing stands in another's way."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from prometheus_client import REGISTRY
from sqlalchemy import event as sqlalchemy_event

from activities.consuming import FAULT_ATTEMPTS_MAX, Consumer
from activities.relay import Relay
from db import leadership
from db.consumers import advance, enlist, events_between, standing
from db.engine import transaction
from db.leadership import Leadership
from db.outbox import FEED_CHANNEL, tenant_head
from domain.errors import Unavailable
from tests.db.feeds import FOR_EVER, Feeds, running
from tests.db.raw import sql
from tests.fakes import Inbox
from tests.polling import eventually

NAME = "test"


def consumer(feeds: Feeds, inbox: Inbox, **how: Any) -> Consumer:
    return Consumer(feeds.engine, feeds.url, NAME, inbox, **how)


async def took(inbox: Inbox, count: int) -> None:
    async def enough() -> bool:
        return len(inbox.taken) >= count

    await eventually(enough)


async def position(feeds: Feeds) -> int:
    async with transaction(feeds.engine) as connection:
        stands = await standing(connection, NAME)
    return -1 if stands is None else stands.position


def measured(name: str) -> float:
    return REGISTRY.get_sample_value(name, {"consumer": NAME}) or 0.0


async def test_a_page_is_delivered_and_then_the_cursor_moves(feeds: Feeds) -> None:
    told = [await feeds.tell("escrow:1", number) for number in range(5)]
    await feeds.number()
    inbox = Inbox()
    reader = consumer(feeds, inbox, page_events=2)
    seen: list[int] = []
    inbox.before_return = lambda: seen.append(len(inbox.taken))
    assert [await reader.pass_once() for _ in range(4)] == [True, True, False, False]
    assert [event.event_id for event in inbox.taken] == told
    assert {event.tenant_id for event in inbox.taken} == {feeds.tenant}
    assert seen == [2, 4, 5]
    assert await position(feeds) == 5
    assert measured("holdfast_consumer_behind") == 0
    again = Inbox()
    await reader._leadership.release()
    assert not await consumer(feeds, again).pass_once(), "the cursor is durable"


async def test_it_is_woken_when_the_feed_grows(feeds: Feeds) -> None:
    """Both would poll in an hour; the second one numbers nothing and hears of it from the first."""
    inbox = Inbox()
    reader = consumer(feeds, inbox, poll_seconds=FOR_EVER)
    beside = Relay(feeds.engine, feeds.url, consumers=[reader], poll_seconds=FOR_EVER)
    async with running(beside):
        await feeds.tell("escrow:1", 1)
        await took(inbox, 1)
        async with asyncio.timeout(15):
            await feeds.tell("escrow:1", 2)
            await took(inbox, 2)
    async with running(Relay(feeds.engine, feeds.url, poll_seconds=FOR_EVER)):
        other = Inbox()
        alone = consumer(feeds, other, poll_seconds=FOR_EVER)
        listening = Relay(feeds.engine, feeds.url, consumers=[alone], poll_seconds=FOR_EVER)
        listening.pass_once = lambda: asyncio.sleep(0, 0)  # type: ignore[method-assign]
        async with running(listening):
            await eventually(lambda: leads(alone))
            await feeds.tell("escrow:1", 3)
            await took(other, 1)


async def test_events_that_it_does_not_take_wake_nobody_and_are_passed_over_in_one_commit(feeds: Feeds) -> None:
    inbox, other = Inbox(), Inbox(types=["test.other"])
    deaf = Consumer(feeds.engine, feeds.url, "deaf", other, poll_seconds=FOR_EVER)
    beside = [consumer(feeds, inbox, poll_seconds=FOR_EVER), deaf]
    async with running(Relay(feeds.engine, feeds.url, consumers=beside, poll_seconds=FOR_EVER)):
        await eventually(lambda: leads(deaf))
        await eventually(lambda: asyncio.to_thread(listens, feeds.url))
        await feeds.tell("escrow:1", 0)
        await took(inbox, 1)
        deaf.wake()
        await eventually(lambda: at(feeds, "deaf", 1))
        for number in range(1, 3):
            await feeds.tell("escrow:1", number)
        await took(inbox, 3)
        assert not deaf._wake.is_set(), "and it is told by the process beside it as well as by this one"
        await eventually(lambda: nothing_is_said(beside[0]))
        assert not deaf._wake.is_set()
        deaf.wake()
        await eventually(lambda: at(feeds, "deaf", 3))
    assert not other.attempts


def listens(database_url: str) -> bool:
    """Whether the relay heard that it is connected, and so will hear what is told."""
    heard = (
        f"SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%{FEED_CHANNEL}%'"
    )
    with psycopg.connect(database_url, autocommit=True) as connection:
        return connection.execute(f"{heard} AND pid <> pg_backend_pid()".encode()).fetchone() == (1,)


async def nothing_is_said(reader: Consumer) -> bool:
    return not reader._wake.is_set()


async def at(feeds: Feeds, name: str, wanted: int) -> bool:
    async with transaction(feeds.engine) as connection:
        stands = await standing(connection, name)
    return stands is not None and stands.position == wanted


async def test_a_page_goes_as_far_as_its_events(feeds: Feeds) -> None:
    """It is full of those that it takes, however many others lie between them."""
    async with transaction(feeds.engine) as connection:
        await sql(
            connection,
            "INSERT INTO outbox (tenant_id, event_id, topic, type, subject, data, occurred_at)"
            " SELECT :tenant, uuidv7(), 'settlement.events.v1', CASE WHEN n % 100 = 0 THEN 'test.rare' ELSE 'test.told'"
            " END, 'many', '{}', now() FROM generate_series(1, 550) AS n",
            tenant=feeds.tenant,
        )
    await feeds.number()
    inbox = Inbox(types=["test.rare"])
    reader = consumer(feeds, inbox, page_events=2)
    stops = []
    for _ in range(3):
        await reader.pass_once()
        stops.append(await position(feeds))
    assert stops == [200, 400, 550]
    assert inbox.positions == [100, 200, 300, 400, 500]
    assert inbox.attempts == 3


async def leads(reader: Consumer) -> bool:
    return reader._leadership.held


async def test_what_is_away_is_waited_for_and_numbering_goes_on(feeds: Feeds) -> None:
    inbox = Inbox()
    inbox.away = True
    async with running(Relay(feeds.engine, feeds.url, consumers=[consumer(feeds, inbox)], poll_seconds=0.05)):
        told = [await feeds.tell("escrow:1", number) for number in range(3)]
        for each in told:
            await eventually(lambda each=each: feeds.sees(each))  # type: ignore[misc]

        async def tried() -> bool:
            return inbox.attempts >= 3

        await eventually(tried)
        assert await position(feeds) == 0
        assert measured("holdfast_consumer_behind") >= 1
        assert measured("holdfast_consumer_behind_seconds") > 0
        inbox.away = False
        await took(inbox, 3)
        await eventually(lambda: stands_at(feeds, 3))
    assert inbox.positions == [1, 2, 3]


async def stands_at(feeds: Feeds, wanted: int) -> bool:
    try:
        return await position(feeds) == wanted
    except Unavailable:
        return False  # the test has ended this connection, too


async def test_a_poison_event_is_recorded_and_left_out(feeds: Feeds) -> None:
    inbox = Inbox()
    inbox.poison = lambda event: event.data["number"] in (1, 2)
    before = measured("holdfast_consumer_faults_total")
    async with running(Relay(feeds.engine, feeds.url, consumers=[consumer(feeds, inbox)], poll_seconds=0.05)):
        told = [await feeds.tell("escrow:1", number) for number in range(5)]
        await eventually(lambda: stands_at(feeds, 5))
    assert set(inbox.positions) == {1, 4, 5}
    async with transaction(feeds.engine) as connection:
        rows = await sql(connection, "SELECT consumer, position, event_id, error FROM feed_faults ORDER BY position")
    assert [tuple(row) for row in rows] == [(NAME, n + 1, told[n], "cannot be taken") for n in (1, 2)]
    assert measured("holdfast_consumer_faults_total") == before + 2
    assert inbox.attempts >= FAULT_ATTEMPTS_MAX


async def test_a_bug_that_passes_loses_nothing(feeds: Feeds) -> None:
    inbox = Inbox()
    inbox.poison = lambda event: event.data["number"] == 1 and inbox.attempts < FAULT_ATTEMPTS_MAX
    for number in range(3):
        await feeds.tell("escrow:1", number)
    async with running(Relay(feeds.engine, feeds.url, consumers=[consumer(feeds, inbox)], poll_seconds=0.05)):
        await eventually(lambda: stands_at(feeds, 3))
    assert set(inbox.positions) == {1, 2, 3}
    async with transaction(feeds.engine) as connection:
        assert await sql(connection, "SELECT 1 FROM feed_faults") == []


async def test_one_at_a_time_delivers_and_another_takes_over(feeds: Feeds) -> None:
    """The second one waits; when the first one's connections die, it takes over where the first one stood."""
    first, second = Inbox(), Inbox()
    one, two = consumer(feeds, first), consumer(feeds, second)
    async with running(Relay(feeds.engine, feeds.url, consumers=[one], poll_seconds=0.05)):
        await feeds.tell("escrow:1", 1)
        await took(first, 1)
        await eventually(lambda: stands_at(feeds, 1))
        async with running(Relay(feeds.engine, feeds.url, consumers=[two], poll_seconds=0.05)):
            await feeds.tell("escrow:1", 2)
            await took(first, 2)
            assert not second.taken
            await eventually(lambda: hand_over(feeds, two))
            await feeds.tell("escrow:1", 3)
            await took(second, 1)
    assert second.positions[-1] == 3


async def hand_over(feeds: Feeds, heir: Consumer) -> bool:
    """End the connections that hold the lock, until it is the heir's."""
    if heir._leadership.held:
        return True
    await asyncio.to_thread(end_lock_holders, feeds.url)
    await asyncio.sleep(0.2)
    return heir._leadership.held


def end_lock_holders(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
            " WHERE l.locktype = 'advisory' AND l.granted AND a.datname = current_database()"
            " AND a.application_name = 'holdfast_leadership'"
        )


async def test_a_holder_that_fell_silent_loses_the_lock(feeds: Feeds, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process hangs: no word comes, and the connection looks whole."""
    monkeypatch.setattr(leadership, "SILENCE_SECONDS", 1)
    monkeypatch.setattr(leadership, "BEAT_SECONDS", FOR_EVER)
    hung, heir = Leadership(feeds.url, NAME), Leadership(feeds.url, NAME)
    assert await hung.take()
    assert not await heir.take()
    await eventually(heir.take, limit_seconds=10)
    await hung.release()
    await heir.release()


async def test_a_holder_that_speaks_keeps_the_lock(feeds: Feeds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leadership, "SILENCE_SECONDS", 1)
    monkeypatch.setattr(leadership, "BEAT_SECONDS", 0.2)
    holder, other = Leadership(feeds.url, NAME), Leadership(feeds.url, NAME)
    assert await holder.take()
    await asyncio.sleep(2)
    assert holder.held
    assert not await other.take()
    await holder.release()
    assert await other.take(), "given back, it is to be had at once"
    await other.release()


async def test_a_cursor_that_another_moved_stays_where_it_is(feeds: Feeds) -> None:
    async with transaction(feeds.engine) as connection:
        await enlist(connection, NAME)
        await enlist(connection, NAME)
        assert await advance(connection, NAME, seen=0, upto=5)
        assert not await advance(connection, NAME, seen=0, upto=3)
    assert await position(feeds) == 5


async def test_a_lost_database_is_waited_for(feeds: Feeds) -> None:
    """Every connection of the consumer ends, again and again."""
    inbox = Inbox()
    async with running(Relay(feeds.engine, feeds.url, consumers=[consumer(feeds, inbox)], poll_seconds=0.1)):
        for number in range(3):
            await feeds.tell("escrow:1", number)
            await eventually(lambda number=number: stands_at(feeds, number + 1))  # type: ignore[misc]
            await asyncio.to_thread(end_everything, feeds.url)
    assert sorted(set(inbox.positions)) == [1, 2, 3]


def end_everything(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND application_name <> 'holdfast_app'"
        )


async def test_every_look_at_the_feed_reads_an_index(feeds: Feeds) -> None:
    async with transaction(feeds.engine) as connection:
        await sql(
            connection,
            "INSERT INTO outbox (tenant_id, event_id, topic, type, subject, data, occurred_at)"
            " SELECT :tenant, uuidv7(), 'settlement.events.v1', 'test.told', 'many', '{}', now()"
            " FROM generate_series(1, 5000)",
            tenant=feeds.tenant,
        )
        await enlist(connection, NAME)
    while await feeds.number():
        pass
    with psycopg.connect(feeds.url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE outbox")
    said: list[str] = []
    sqlalchemy_event.listen(
        feeds.engine.sync_engine, "before_cursor_execute", lambda c, u, statement, *_: said.append(statement)
    )
    async with transaction(feeds.engine) as engine:
        await standing(engine, NAME)
        await events_between(engine, after=4_000, upto=4_100, limit=100, types=["test.told"])
        await tenant_head(engine)
    looks = [each for each in said if "outbox" in each]
    assert len(looks) == 3
    with psycopg.connect(feeds.url, autocommit=True) as connection:
        for look in looks:
            # Planned as for values that are not known yet, which is how a prepared statement may be.
            plan = str(connection.execute(f"EXPLAIN (GENERIC_PLAN) {look}".encode()).fetchall())
            assert "Seq Scan on outbox" not in plan, plan
            assert "position" in plan
        after = "SELECT tenant_id, position FROM outbox WHERE position > $1 ORDER BY position LIMIT 50"
        assert "Seq Scan" not in str(connection.execute(f"EXPLAIN (GENERIC_PLAN) {after}".encode()).fetchall())
