"""What the bench of webhooks needs around it: endpoints, what waits for them, their receiver, and a bare client."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any
from uuid import UUID

import aiohttp
import httpx
import psycopg

from db.ids import new_id
from kit.clock import now
from kit.standardwebhooks import PrivateKey, SharedSecret, Signer, signed
from tests.bench.stack import Bench
from tests.e2e.stack import ROOT
from tools.local.process import free_port, spawn, stop, wait_until

TASK_QUEUE = "holdfast"
CONCURRENCY = 16
BARE_CALLERS = 64
_DATA = {"transaction_id": str(UUID(int=7)), "from": "hot-1", "to": "hot-2", "asset": "USDC", "note": "x" * 400}
_STATUS = (
    "UPDATE webhook_subscriptions SET status = %(status)s, disabled_reason = %(reason)s,"
    " disabled_at = CASE WHEN %(status)s = 'active' THEN NULL ELSE now() END WHERE subscription_id = ANY(%(ids)s)"
)


@dataclass(frozen=True, slots=True)
class Receiver:
    """The process that takes deliveries."""

    url: str

    async def count(self) -> int:
        """How many arrived since they were told last."""
        return int(await self._get("/count"))

    async def arrivals(self) -> list[tuple[str, str, float]]:
        """What arrived since they were told last: path, message, and the instant by the machine's clock."""
        return [(path, message, at) for path, message, at in await self._get("/arrivals")]

    async def release(self) -> None:
        """Close what hangs."""
        async with httpx.AsyncClient(timeout=30) as http:
            await http.post(f"{self.url}/release")

    async def _get(self, path: str) -> Any:
        async with httpx.AsyncClient(timeout=30) as http:
            return (await http.get(f"{self.url}{path}")).json()


@asynccontextmanager
async def receiving(bench: Bench) -> AsyncIterator[Receiver]:
    """A receiver for as long as the block lasts."""
    port = free_port()
    # From this thread: the child dies with the thread that started it.
    process = _spawn(bench, port)
    bench.meter.add("receiver", process.pid)
    found = Receiver(f"http://127.0.0.1:{port}")
    try:
        assert await asyncio.to_thread(wait_until, lambda: _answers(found.url), limit_seconds=20)
        yield found
    finally:
        bench.meter.remove("receiver")
        await asyncio.to_thread(stop, process, first=signal.SIGTERM, limit_seconds=20)


def _spawn(bench: Bench, port: int) -> subprocess.Popen[bytes]:
    return spawn(
        [sys.executable, "-m", "tests.bench.receiver", str(port)],
        log=bench.commands.home.log("receiver"),
        env=bench.commands.environment,
        cwd=ROOT,
    )


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/count", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def endpoints(bench: Bench, urls: Sequence[str]) -> list[UUID]:
    """Active endpoints that get everything, each with keys of its own."""
    made = [new_id() for _ in urls]
    with psycopg.connect(bench.database_url, autocommit=True) as connection:
        for each, url in zip(made, urls, strict=True):
            connection.execute(
                "INSERT INTO webhook_subscriptions (tenant_id, subscription_id, url, event_types, headers, concurrency,"
                " ordering) VALUES (%s, %s, %s, '[\"*\"]', '{}', %s, 'none')",
                [bench.tenant, each, url, CONCURRENCY],
            )
            private = PrivateKey.generate()
            connection.execute(
                "INSERT INTO webhook_secrets (tenant_id, subscription_id, secret_id, shared_key, private_seed,"
                " public_key) VALUES (%s, %s, %s, %s, %s, %s)",
                [bench.tenant, each, new_id(), SharedSecret.generate().key, private.seed, private.public.key],
            )
    return made


def switch(bench: Bench, ids: Sequence[UUID], *, active: bool) -> None:
    """Whether anything is sent to endpoints."""
    status, reason = ("active", None) if active else ("disabled", "asked")
    with psycopg.connect(bench.database_url, autocommit=True) as connection:
        connection.execute(_STATUS, {"status": status, "reason": reason, "ids": list(ids)})


def cancel(bench: Bench, ids: Sequence[UUID]) -> None:
    """Let what waits for endpoints end."""
    with psycopg.connect(bench.database_url, autocommit=True) as connection:
        connection.execute(
            "UPDATE webhook_deliveries SET status = 'cancelled', next_attempt_at = NULL, finished_at = now()"
            " WHERE subscription_id = ANY(%s) AND status = 'waiting'",
            [list(ids)],
        )


def queue(bench: Bench, ids: Sequence[UUID], each: int) -> None:
    """Deliveries that wait for endpoints which nobody has woken."""
    with psycopg.connect(bench.database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO webhook_deliveries (tenant_id, subscription_id, message_id, position, event_type, subject,"
            " body, origin) SELECT %(tenant)s, one, uuidv7(), number, 'ledger.transferred', 'account:hot-1',"
            " %(body)s, 'event' FROM unnest(%(ids)s::uuid[]) AS one, generate_series(1, %(each)s) AS number",
            {"tenant": bench.tenant, "ids": list(ids), "each": each, "body": body(new_id()).decode()},
        )
        connection.execute("ANALYZE webhook_deliveries")
        connection.execute("CHECKPOINT")


def waiting(bench: Bench, ids: Sequence[UUID]) -> bool:
    """Whether anything waits for endpoints, or is on its way."""
    with psycopg.connect(bench.database_url, autocommit=True) as connection:
        found = connection.execute(
            "SELECT EXISTS (SELECT FROM webhook_deliveries WHERE tenant_id = %s AND subscription_id = ANY(%s)"
            " AND status = 'waiting')",
            [bench.tenant, list(ids)],
        ).fetchone()
    return found is not None and bool(found[0])


def attempts(bench: Bench, ids: Sequence[UUID]) -> tuple[int, int]:
    """How many attempts endpoints have, and how many of them are whole: with request, answer and duration."""
    with psycopg.connect(bench.database_url, autocommit=True) as connection:
        found = connection.execute(
            "SELECT count(*), count(*) FILTER (WHERE status_code = 204 AND request_headers IS NOT NULL"
            " AND response_headers IS NOT NULL AND duration_ms IS NOT NULL AND finished_at IS NOT NULL)"
            " FROM webhook_attempts WHERE tenant_id = %s AND subscription_id = ANY(%s)",
            [bench.tenant, list(ids)],
        ).fetchone()
    assert found is not None
    return int(found[0]), int(found[1])


async def wake(bench: Bench, endpoint: UUID) -> None:
    """What the feed does for an endpoint that has something to get."""
    await bench.client.start_workflow(
        "WebhookWorkflow",
        {"tenant_id": str(bench.tenant), "subscription_id": str(endpoint)},
        id=f"webhook:{endpoint}",
        task_queue=TASK_QUEUE,
        start_signal="work",
    )


async def bare(url: str, count: int) -> float:
    """Requests per second of an aiohttp client that signs, with both kinds of keys, and keeps nothing."""
    keys: list[Signer] = [SharedSecret.generate(), PrivateKey.generate()]
    numbers = iter(range(count))
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=15)) as session:

        async def call() -> None:
            for _ in numbers:
                message_id = new_id()
                content = body(message_id)
                headers = {"content-type": "application/json", **signed(str(message_id), now(), content, keys)}
                async with session.post(url, data=content, headers=headers) as answer:
                    await answer.read()
                    assert answer.status == 204

        began = perf_counter()
        await asyncio.gather(*(call() for _ in range(BARE_CALLERS)))
        return count / (perf_counter() - began)


def body(message_id: UUID) -> bytes:
    """What an endpoint gets, as long as an event's usually is."""
    told = {"id": str(message_id), "type": "ledger.transferred", "subject": "account:hot-1", "data": _DATA}
    return json.dumps(told).encode()
