"""The feed as server-sent events: real sockets, several processes; readers stall, leave, come back and are killed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import uvicorn
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy.ext.asyncio import AsyncEngine

from api import auth, streams
from db.engine import transaction
from db.identity import create_tenant
from db.ids import new_id
from db.outbox import SETTLEMENT_TOPIC
from kit.settings import ApiSettings
from tests.api.caller import BUYER, Caller, ok, refused
from tests.api.served import served
from tests.api.streaming import (
    Process,
    Reader,
    Teller,
    blocks,
    connected,
    free_ports,
    open_streams,
    reading,
    saw,
    stalled,
    take,
)
from tests.polling import eventually

pytestmark = pytest.mark.usefixtures("worker")


@pytest.fixture
async def teller(tenants_engine: AsyncEngine, tenant: UUID) -> AsyncIterator[Teller]:
    made = Teller(tenants_engine, tenant)
    yield made
    await made.doorbell.close()


async def key_of(server: uvicorn.Server, tenant: UUID, engine: AsyncEngine, **how: Any) -> str:
    caller = await Caller(server.config.loaded_app, tenant, engine, None).key_for(**how)
    assert caller.key is not None
    return caller.key


async def test_what_happens_is_streamed_as_the_feed_tells_it(
    settings: ApiSettings, teller: Teller, tenant: UUID, tenants_engine: AsyncEngine
) -> None:
    earlier = await teller.tell(count=3)
    async with served(settings) as (server, url):
        key = await key_of(server, tenant, tenants_engine)
        whole = Reader([url], key, {"after": "0"})
        from_now = Reader([url], key)
        other_topic = Reader([url], key, {"after": "0", "topic": SETTLEMENT_TOPIC})
        async with reading(whole, from_now, other_topic):
            await saw(whole, 3)
            await connected(from_now)
            later = [*await teller.tell(), *await teller.tell()]
            for reader, count in ((whole, 5), (from_now, 2), (other_topic, 5)):
                await saw(reader, count)
        feed = ok(await Caller(server.config.loaded_app, tenant, tenants_engine, key).get("events"))["items"]
    assert [block.data for block in whole.seen] == feed
    assert [(block.id, block.event) for block in whole.seen] == [(each["position"], each["type"]) for each in feed]
    assert [UUID(block.data["id"]) for block in whole.seen] == [*earlier, *later]
    assert [UUID(block.data["id"]) for block in from_now.seen] == later
    assert other_topic.positions == whole.positions


async def test_the_head_of_a_stream(
    settings: ApiSettings, teller: Teller, tenant: UUID, tenants_engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id to come back with before anything has happened, and a comment while nothing does."""
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.1)
    async with served(settings) as (server, url), httpx.AsyncClient(timeout=10) as client:
        headers = {"X-API-Key": await key_of(server, tenant, tenants_engine), "Last-Event-ID": "41"}
        asked = client.stream("GET", f"{url}/api/v1/events/stream", headers=headers, params={"after": 7})
        async with asked as response:
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/event-stream")
            assert response.headers["cache-control"] == "no-store"
            assert response.headers["x-request-id"]
            first, *beats = [block async for block in take(blocks(response), 3)]
    assert (first.id, first.data, first.retry) == (41, None, streams.RECONNECT_MS)
    assert [block.comment for block in beats] == [True, True]


async def test_what_a_stream_refuses(app: Any, service: Caller, nobody: Caller) -> None:
    refused(await nobody.get("events/stream"), 401, "key_missing")
    bound = await service.key_for(user_id=BUYER)
    refused(await bound.get("events/stream"), 403, "service_key_required")
    refused(await service.get("events/stream", topic="gossip"), 422, "input_invalid", "topic")
    refused(await service.get("events/stream", after=-1), 422, "input_invalid", "after")
    for wrong in ("x", "-1", str(2**63)):
        answer = await service.send("GET", "events/stream", headers={"Last-Event-ID": wrong})
        refused(answer, 422, "input_invalid", "last-event-id")


async def test_two_processes_tell_the_same_and_readers_change_between_them(
    settings: ApiSettings, teller: Teller, tenant: UUID, tenants_engine: AsyncEngine
) -> None:
    async with served(settings) as (server, one), served(settings) as (_, two):
        key = await key_of(server, tenant, tenants_engine)
        readers = [Reader([one], key, {"after": "0"}), Reader([two], key, {"after": "0"})]
        async with reading(*readers):
            told = [each for _ in range(20) for each in await teller.tell()]
            for reader in readers:
                await saw(reader, 20)
    for reader in readers:
        assert [UUID(block.data["id"]) for block in reader.seen] == told
        assert reader.connections == 1


async def test_more_than_a_page_comes_whole_and_in_order(
    settings: ApiSettings, teller: Teller, tenant: UUID, tenants_engine: AsyncEngine
) -> None:
    told = await teller.tell(count=streams.PAGE_EVENTS * 3 + 7)
    async with served(settings) as (server, url):
        reader = Reader([url], await key_of(server, tenant, tenants_engine), {"after": "0"})
        async with reading(reader):
            await saw(reader, len(told))
    assert [UUID(block.data["id"]) for block in reader.seen] == told


@pytest.mark.timeout(300)
async def test_killed_in_the_middle_nothing_is_lost_or_repeated(
    settings: ApiSettings, app: Any, teller: Teller, tenant: UUID, tenants_engine: AsyncEngine, tmp_path: Path
) -> None:
    """Two processes take turns dying while events come; the readers move between them."""
    processes = [Process(settings, port, tmp_path / f"{port}.log") for port in free_ports(2)]
    caller = await Caller(app, tenant, tenants_engine, None).key_for()
    readers = [Reader([each.url for each in processes], caller.key or "") for _ in range(3)]
    told: list[UUID] = []
    stop = asyncio.Event()

    async def keep_telling() -> None:
        while not stop.is_set():
            told.extend(await teller.tell(count=3))
            await asyncio.sleep(0.01)

    for each in processes:
        await each.start()
    try:
        async with reading(*readers):
            await connected(*readers)
            telling = asyncio.create_task(keep_telling())
            for turn in range(3):
                await saw(readers[0], len(readers[0].seen) + 20, limit_seconds=60)
                await processes[turn % 2].end(kill=turn % 2 == 0)
                await processes[turn % 2].start()
            stop.set()
            await telling
            for reader in readers:
                await saw(reader, len(told), limit_seconds=60)
            seconds = [await each.end(kill=False) for each in processes]
    finally:
        for each in processes:
            if each.process is not None and each.process.returncode is None:
                await each.end(kill=True)
    for reader in readers:
        assert [UUID(block.data["id"]) for block in reader.seen] == told
    assert sum(reader.connections for reader in readers) > 3, "somebody had to come back"
    assert max(seconds) < 12, "open streams do not hold up the end of a process"


async def test_a_reader_that_stops_reading_holds_nobody_and_is_cut_off(
    settings: ApiSettings, teller: Teller, tenant: UUID, tenants_engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "STALL_SECONDS", 1.5)
    told = await teller.tell(size=20_000, count=400)
    async with served(settings) as (server, url):
        key = await key_of(server, tenant, tenants_engine)
        dead = await stalled(url, key)
        reader = Reader([url], key, {"after": "0"})
        async with reading(reader):
            await eventually(lambda: streams_are(url, 2))
            await saw(reader, len(told))
            assert [UUID(block.data["id"]) for block in reader.seen] == told
            await eventually(lambda: streams_are(url, 1), limit_seconds=10)
            more = await teller.tell()
            await saw(reader, len(told) + 1)
            assert UUID(reader.seen[-1].data["id"]) == more[0]
            assert reader.connections == 1

            async def dropped() -> bool:
                return len(server.server_state.connections) == 1

            await eventually(dropped)
        dead.close()


async def streams_are(url: str, wanted: int) -> bool:
    return await open_streams(url) == wanted


async def test_a_reader_that_stops_reading_does_not_hold_up_the_end(
    settings: ApiSettings, teller: Teller, tenant: UUID, tenants_engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "CLOSE_SECONDS", 0.5)
    await teller.tell(size=20_000, count=300)
    async with served(settings) as (server, url):
        dead = await stalled(url, await key_of(server, tenant, tenants_engine))
        await eventually(lambda: streams_are(url, 1))
        await asyncio.sleep(0.5)
        began = time.monotonic()
    assert time.monotonic() - began < 10
    dead.close()


async def test_a_revoked_key_ends_its_stream(
    settings: ApiSettings, teller: Teller, tenant: UUID, tenants_engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "KEY_SECONDS", 0.1)
    monkeypatch.setattr(auth, "CACHE_SECONDS", 0.1)
    async with served(settings) as (server, url), httpx.AsyncClient(timeout=10) as client:
        key = await key_of(server, tenant, tenants_engine)
        asked = client.stream("GET", f"{url}/api/v1/events/stream", headers={"X-API-Key": key})
        async with asked as response:
            found = blocks(response)
            await anext(found)
            other = await Caller(server.config.loaded_app, tenant, tenants_engine, None).key_for()
            rows = ok(await other.get("keys"))["items"]
            (mine,) = [row["key_id"] for row in rows if row["last_four"] == key[-4:]]
            assert (await other.send("DELETE", f"keys/{mine}")).status_code in (200, 204)
            async with asyncio.timeout(5):
                assert [block async for block in found if not block.comment] == []


async def test_there_are_only_so_many_streams(
    settings: ApiSettings, teller: Teller, tenant: UUID, tenants_engine: AsyncEngine
) -> None:
    few = settings.model_copy(update={"api_streams_max": 3, "api_streams_per_tenant_max": 2})
    async with served(few) as (server, url), httpx.AsyncClient(timeout=10) as client:
        headers = {"X-API-Key": await key_of(server, tenant, tenants_engine)}
        readers = [Reader([url], headers["X-API-Key"]) for _ in range(2)]
        async with reading(*readers):
            await connected(*readers)
            answer = await client.get(f"{url}/api/v1/events/stream", headers=headers)
            refused(answer, 429, "too_many_streams")
            assert int(answer.headers["retry-after"]) > 0
        await eventually(lambda: streams_are(url, 0))
        async with reading(Reader([url], headers["X-API-Key"])):
            await eventually(lambda: streams_are(url, 1))


async def test_two_hundred_idle_streams_cost_next_to_nothing(
    settings: ApiSettings, teller: Teller, tenant: UUID, tenants_engine: AsyncEngine, engine: AsyncEngine
) -> None:
    """Events of others wake none of them; an event of their tenant is read once for all."""
    many = settings.model_copy(update={"api_streams_per_tenant_max": 200})
    stranger = new_id()
    async with transaction(tenants_engine) as connection:
        await create_tenant(connection, new_tenant=stranger, name=f"stranger-{stranger}")
    async with served(many) as (server, url):
        key = await key_of(server, tenant, tenants_engine)
        readers = [Reader([url], key) for _ in range(200)]
        async with reading(*readers):
            await connected(*readers, limit_seconds=60)
            await eventually(lambda: streams_are(url, 200))
            await asyncio.sleep(0.5)
            statements: list[str] = []
            pool = server.config.app.state.services.engine.sync_engine  # type: ignore[union-attr]
            sqlalchemy_event.listen(
                pool, "before_cursor_execute", lambda c, u, statement, *_: statements.append(statement)
            )
            others = Teller(tenants_engine, stranger)
            for _ in range(20):
                await others.tell()
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.3)
            assert not [each for each in statements if "FROM outbox" in each], "nobody's events are read for nobody"
            assert len(statements) < 100
            statements.clear()
            await teller.tell()
            for reader in readers:
                await saw(reader, 1)
            assert len([each for each in statements if "FROM outbox" in each]) <= 4
            await others.doorbell.close()
