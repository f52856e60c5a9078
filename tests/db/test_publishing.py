"""Publication to a real broker: each event once and in order, whatever dies, and recorded once it is there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from nats.aio.client import Client
from prometheus_client import REGISTRY

from activities.consuming import Consumer
from activities.publishing import Publishing, consumer_name
from activities.relay import Relay
from activities.vendors.nats import NatsPublisher
from db.consumers import standing
from db.engine import transaction
from db.outbox import SETTLEMENT_TOPIC, rendered
from domain.errors import Unavailable
from tests.activities.margin import Checks, owes, owns
from tests.broker import Broker, needed
from tests.cable import Cable
from tests.db.feeds import Feeds, running
from tests.db.raw import sql
from tests.fakes import Inbox, Mortal
from tests.polling import eventually
from tests.prices import set_prices

STREAM, PREFIX = "TEST", "test"
NAME = f"publisher:{STREAM}"


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    needed()
    made = Broker(tmp_path)
    made.start()
    yield made
    made.stop()


def publisher(url: str, *, window_seconds: int = 120, stream: str = STREAM) -> NatsPublisher:
    return NatsPublisher([url], stream=stream, prefix=PREFIX, window_seconds=window_seconds)


def publishing(feeds: Feeds, to: Any, **how: Any) -> Consumer:
    return Consumer(feeds.engine, feeds.url, consumer_name(to), Publishing(to), **how)


async def tell_many(feeds: Feeds, count: int) -> None:
    """Numbered events, many at a time."""
    async with transaction(feeds.engine) as connection:
        await sql(
            connection,
            "INSERT INTO outbox (tenant_id, event_id, topic, type, subject, data, occurred_at)"
            " SELECT :tenant, uuidv7(), :topic, 'test.told', 'many', jsonb_build_object('n', n), now()"
            " FROM generate_series(1, :count) AS n",
            tenant=feeds.tenant,
            topic=SETTLEMENT_TOPIC,
            count=count,
        )


async def stands_at(feeds: Feeds, wanted: int, name: str = NAME) -> bool:
    async with transaction(feeds.engine) as connection:
        stands = await standing(connection, name)
    return stands is not None and stands.position == wanted


async def the_stream_is_the_feed(feeds: Feeds, broker: Broker) -> None:
    """Each event once, in order, and each recorded with the place that it has."""
    expected = [event.event_id for event in await feeds.read(limit=100_000)]
    found = await broker.messages(STREAM)
    assert [UUID((message.headers or {})["Nats-Msg-Id"]) for message in found] == expected
    async with transaction(feeds.engine) as connection:
        recorded = await sql(connection, "SELECT event_id, stream, sequence FROM publications ORDER BY sequence")
    assert [tuple(row) for row in recorded] == [(each, STREAM, n) for n, each in enumerate(expected, 1)]


async def test_an_event_arrives_as_the_feed_tells_it(feeds: Feeds, broker: Broker) -> None:
    async with running(Relay(feeds.engine, feeds.url, consumers=[publishing(feeds, publisher(broker.url))])):
        told = [await feeds.tell("escrow:1\r\nX: é", number) for number in range(3)]
        await eventually(lambda: stands_at(feeds, 3))
    found = await broker.messages(STREAM)
    events = await feeds.read()
    assert [message.data for message in found] == [rendered(event) for event in events]
    assert [json.loads(message.data or b"")["id"] for message in found] == [str(each) for each in told]
    assert {message.subject for message in found} == {f"{PREFIX}.{SETTLEMENT_TOPIC}.{feeds.tenant}"}
    headers = found[1].headers or {}
    assert (headers["Holdfast-Type"], headers["Holdfast-Position"]) == ("test.told", "2")
    assert headers["Holdfast-Subject"] == "escrow:1%0D%0AX: %C3%A9"
    await the_stream_is_the_feed(feeds, broker)


async def test_margin_events_are_marked_when_the_broker_has_them(feeds: Feeds, broker: Broker) -> None:
    await set_prices(feeds.engine, ETH=2_000, USDC=1)
    checks = Checks(feeds.app, feeds.tenant)
    await checks.check(owns("ETH", 1), owes("USDC", 1_500))
    await feeds.tell("escrow:1")
    await feeds.number()
    broker.kill()
    consumer = publishing(feeds, publisher(broker.url))
    with suppress(Unavailable):
        await consumer.pass_once()
    assert [one.published_to_pubsub for one in await checks.events()] == [False], "the feed is not the broker"
    broker.start()
    async with running(Relay(feeds.engine, feeds.url, consumers=[consumer])):
        await eventually(lambda: stands_at(feeds, 2))
    assert [one.published_to_pubsub for one in await checks.events()] == [True]
    await the_stream_is_the_feed(feeds, broker)


async def test_a_broker_that_is_killed_again_and_again(feeds: Feeds, broker: Broker) -> None:
    total = 0
    async with running(
        Relay(feeds.engine, feeds.url, consumers=[publishing(feeds, publisher(broker.url), page_events=300)])
    ):
        for _ in range(4):
            await tell_many(feeds, 1_500)
            total += 1_500
            await asyncio.sleep(0.15)
            broker.kill()
            await asyncio.sleep(0.1)
            broker.start()
        await eventually(lambda: stands_at(feeds, total), limit_seconds=60)
    await the_stream_is_the_feed(feeds, broker)


async def test_a_connection_that_is_cut_again_and_again(feeds: Feeds, broker: Broker) -> None:
    """Acknowledgements are lost on the way, and messages between them."""
    total = 0
    async with Cable(broker.url) as cable:
        consumer = publishing(feeds, publisher(cable.url), page_events=300)
        async with running(Relay(feeds.engine, feeds.url, consumers=[consumer])):
            for pause in (0.02, 0.05, 0.08, 0.11, 0.14):
                await tell_many(feeds, 1_000)
                total += 1_000
                await asyncio.sleep(pause)
                cable.cut()
                await asyncio.sleep(0.05)
                cable.mend()
            await eventually(lambda: stands_at(feeds, total), limit_seconds=60)
    await the_stream_is_the_feed(feeds, broker)


@pytest.mark.parametrize("window_seconds", [120, 1])
async def test_killed_between_acknowledgement_and_record(feeds: Feeds, broker: Broker, window_seconds: int) -> None:
    """What was acknowledged comes again; the broker drops it, or the stream itself shows it beyond the window."""
    await tell_many(feeds, 900)
    await feeds.number()
    mortal = Mortal(publisher(broker.url, window_seconds=window_seconds))
    dying = publishing(feeds, mortal, page_events=300)
    for _ in range(3):
        with suppress(RuntimeError):
            await dying.pass_once()
        await mortal.close()
        if window_seconds == 1:
            await asyncio.sleep(1.3)
    assert mortal.deaths == 3
    assert len(await broker.messages(STREAM)) == 200
    await dying._leadership.release()
    living = publishing(feeds, publisher(broker.url), page_events=300)
    async with running(Relay(feeds.engine, feeds.url, consumers=[living])):
        await eventually(lambda: stands_at(feeds, 900))
    await the_stream_is_the_feed(feeds, broker)


async def test_a_broker_that_is_down_delays_publication_and_nothing_else(
    feeds: Feeds, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    needed()
    broker, inbox = Broker(tmp_path), Inbox()
    to = publisher(broker.url.replace("nats://", "nats://desk:hush@"))
    beside = [publishing(feeds, to), Consumer(feeds.engine, feeds.url, "beside", inbox)]
    async with running(Relay(feeds.engine, feeds.url, consumers=beside, poll_seconds=0.1)):
        for number in range(5):
            told = await feeds.tell("escrow:1", number)
            await eventually(lambda told=told: feeds.sees(told), limit_seconds=2)  # type: ignore[misc]
        await eventually(lambda: stands_at(feeds, 5, "beside"))
        assert await stands_at(feeds, 0)

        async def lags() -> bool:
            return (REGISTRY.get_sample_value("holdfast_consumer_behind", {"consumer": NAME}) or 0) >= 5

        await eventually(lags)
        assert (REGISTRY.get_sample_value("holdfast_consumer_behind_seconds", {"consumer": NAME}) or 0) > 0
        assert f"NATS_URL nats://127.0.0.1:{broker.port}" in caplog.text
        assert "hush" not in caplog.text
        broker.start()
        await eventually(lambda: stands_at(feeds, 5))
    await the_stream_is_the_feed(feeds, broker)
    broker.stop()


async def test_a_stream_of_somebody_elses_is_left_alone(
    feeds: Feeds, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client()
    await client.connect(broker.url)
    jetstream: Any = client.jetstream()
    await jetstream.add_stream(name=STREAM, subjects=["other.>"])
    async with running(Relay(feeds.engine, feeds.url, consumers=[publishing(feeds, publisher(broker.url))])):
        await feeds.tell("escrow:1")

        async def told() -> bool:
            return "NATS_STREAM TEST" in caplog.text and f"{PREFIX}.>" in caplog.text

        await eventually(told)
        assert await stands_at(feeds, 0)
        await jetstream.update_stream(name=STREAM, subjects=["other.>", f"{PREFIX}.>"])
        await eventually(lambda: stands_at(feeds, 1))
    await client.close()
    await the_stream_is_the_feed(feeds, broker)


async def test_another_who_writes_to_the_stream_is_lived_with(feeds: Feeds, broker: Broker) -> None:
    client = Client()
    await client.connect(broker.url)
    async with running(Relay(feeds.engine, feeds.url, consumers=[publishing(feeds, publisher(broker.url))])):
        told = []
        for number in range(6):
            told.append(await feeds.tell("escrow:1", number))
            await eventually(lambda number=number: stands_at(feeds, number + 1))  # type: ignore[misc]
            if number % 2:
                await client.jetstream().publish(f"{PREFIX}.stray", b"")
    await client.close()
    ids = [(message.headers or {}).get("Nats-Msg-Id") for message in await broker.messages(STREAM)]
    assert [each for each in ids if each is not None] == [str(each) for each in told]


async def test_an_event_that_the_broker_never_takes_is_recorded_and_left_out(feeds: Feeds, tmp_path: Path) -> None:
    needed()
    small = tmp_path / "small.conf"
    small.write_text("max_payload: 4096\n")
    broker = Broker(tmp_path, options=("-c", str(small)))
    broker.start()
    await feeds.tell("escrow:1", 1)
    await feeds.tell("x" * 5_000, 2)
    for number in range(3, 20):
        await feeds.tell("escrow:1", number)
    await feeds.number()  # so that all of them are in one page, and those behind it are on their way with it
    async with running(Relay(feeds.engine, feeds.url, consumers=[publishing(feeds, publisher(broker.url))])):
        await eventually(lambda: stands_at(feeds, 19))
    async with transaction(feeds.engine) as connection:
        rows = await sql(connection, "SELECT consumer, position, error FROM feed_faults")
    assert [tuple(row)[:2] for row in rows] == [(NAME, 2)]
    assert "max_payload" in rows[0][2]
    numbers = [json.loads(message.data or b"")["data"]["number"] for message in await broker.messages(STREAM)]
    assert numbers == [1, *range(3, 20)]
    broker.stop()


async def test_a_new_stream_gets_the_feed_from_its_beginning(feeds: Feeds, broker: Broker) -> None:
    await tell_many(feeds, 20)
    await feeds.number()
    one = NatsPublisher([broker.url], stream="ONE", prefix="one", window_seconds=10)
    two = NatsPublisher([broker.url], stream="TWO", prefix="two", window_seconds=10)
    for each in (one, two):
        async with running(Relay(feeds.engine, feeds.url, consumers=[publishing(feeds, each)])):
            await eventually(lambda each=each: stands_at(feeds, 20, consumer_name(each)))  # type: ignore[misc]
        assert len(await broker.messages(each.stream)) == 20
