"""A worker is killed at every point of a delivery: nothing is lost, and nothing is sent again whose first sending was
proven absent or told of."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from temporalio.client import Client

from db.engine import transaction
from db.ids import new_id
from db.outbox import append
from domain.webhooks.delivering import DeliveryStatus
from tests.databases import migrated_database
from tests.hooks import Hooks, event, hooking, received
from tests.polling import eventually
from tests.vendors.server import vendor
from tests.webhook_worker import POINTS
from tools.deployment import Build, make_current
from tools.local.postgres import EmbeddedPostgres
from tools.local.temporal import TemporalDevServer

ROOT = Path(__file__).resolve().parents[2]
DEATH_LIMIT_SECONDS = 60.0


@pytest.fixture
def hooks_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    with migrated_database(postgres) as url:
        yield url


@asynccontextmanager
async def worker(
    server: TemporalDevServer, queue: str, url: str, point: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A worker's process that dies at a point; what still lives at the end is killed."""
    program = [sys.executable, "-m", "tests.webhook_worker", server.address, queue, url, point]
    process = await asyncio.create_subprocess_exec(*program, cwd=ROOT)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.timeout(300)
async def test_a_worker_dies_at_every_point_of_a_delivery(
    hooks_url: str, temporal: Client, temporal_server: TemporalDevServer
) -> None:
    """Each process meets a new delivery and what those before it left behind, so any death may find any of them under
    way: what arrives twice was sent again because nobody could know."""
    queue = f"deaths-{new_id()}"
    async with hooking(hooks_url) as hooks, vendor() as receiver:
        receiver.say(b"ok")
        async with worker(temporal_server, queue, hooks_url, "never"):
            await make_current(temporal, Build(queue, "only"))
        told: set[str] = set()
        for point in POINTS:
            await hooks.subscribe(receiver.url, user_id=point)
            happened = event(buyer=point)
            told.add(str(happened.event_id))
            async with transaction(hooks.engine) as connection:
                await append(connection, hooks.tenant, [happened])
            async with (
                worker(temporal_server, queue, hooks_url, point) as process,
                asyncio.timeout(DEATH_LIMIT_SECONDS),
            ):
                assert await process.wait() == -signal.SIGKILL, point
        async with worker(temporal_server, queue, hooks_url, "never"):
            await eventually(lambda: _all_delivered(hooks, len(POINTS)), limit_seconds=90)
        arrived = Counter(received(receiver))
        attempts = await hooks.sql(
            "SELECT message_id::text, count(*), count(*) FILTER (WHERE result = 'delivered'),"
            " max(number) - max(number) FILTER (WHERE result = 'delivered') FROM webhook_attempts GROUP BY message_id"
        )
    assert set(arrived) == told
    for message_id, begun, delivered, after in attempts:
        assert (delivered, after) == (1, 0), "what was told of is not sent again"
        assert arrived[message_id] <= begun, "nothing is sent that was not written down before"


async def _all_delivered(hooks: Hooks, count: int) -> bool:
    rows = await hooks.sql("SELECT status FROM webhook_deliveries")
    return [row.status for row in rows] == [DeliveryStatus.DELIVERED] * count
