"""What reads event streams in tests: a reader that comes back, a reader that stalls, and API processes to kill."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from sqlalchemy.ext.asyncio import AsyncEngine

from db.audit import AuditRecord, Origin
from db.doorbell import Doorbell
from db.ids import new_id
from db.outbox import SETTLEMENT_TOPIC, OutboxEvent
from db.step import step
from kit.clock import now
from kit.settings import ApiSettings
from tests.polling import eventually


@dataclass
class Block:
    """One block of a stream."""

    id: int | None = None
    event: str | None = None
    data: Any = None
    retry: int | None = None
    comment: bool = False


async def blocks(response: httpx.Response) -> AsyncIterator[Block]:
    """A stream's blocks, read as the standard says."""
    current, said = Block(), False
    async for line in response.aiter_lines():
        if not line:
            if said:
                yield current
            current, said = Block(), False
            continue
        said = True
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "":
                current.comment = True
            case "id":
                current.id = int(value)
            case "event":
                current.event = value
            case "data":
                current.data = json.loads(value)
            case "retry":
                current.retry = int(value)
            case _:
                raise AssertionError(line)


@dataclass
class Reader:
    """Keeps reading, and comes back with the last id it saw whenever its stream ends."""

    urls: list[str]
    key: str
    first: dict[str, str] = field(default_factory=dict)
    seen: list[Block] = field(default_factory=list)
    last_id: int | None = None
    connections: int = 0

    async def run(self) -> None:
        async with httpx.AsyncClient(timeout=20, verify=False) as client:
            while True:
                headers = {"X-API-Key": self.key}
                if self.last_id is not None:
                    headers["Last-Event-ID"] = str(self.last_id)
                url = self.urls[self.connections % len(self.urls)]
                try:
                    async with client.stream(
                        "GET", f"{url}/api/v1/events/stream", headers=headers, params=self.first
                    ) as response:
                        if response.status_code != 200:
                            await asyncio.sleep(0.05)
                            continue
                        self.connections += 1
                        async for block in blocks(response):
                            if block.id is not None:
                                self.last_id = block.id
                            if block.data is not None:
                                self.seen.append(block)
                except httpx.HTTPError:
                    await asyncio.sleep(0.05)

    @property
    def positions(self) -> list[int]:
        return [block.id or 0 for block in self.seen]


@asynccontextmanager
async def reading(*readers: Reader) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(reader.run()) for reader in readers]
    try:
        yield
        assert not any(task.done() for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Teller:
    """Writes events of the test's tenant."""

    def __init__(self, engine: AsyncEngine, tenant: UUID) -> None:
        self.engine = engine
        self.tenant = tenant
        self.doorbell = Doorbell(engine)

    async def tell(self, *, size: int = 0, count: int = 1) -> list[UUID]:
        events = [
            OutboxEvent(new_id(), SETTLEMENT_TOPIC, "test.told", "story", now(), {"text": "x" * size})
            for _ in range(count)
        ]
        async with step(self.engine, self.doorbell, tenant_id=self.tenant, step_id=str(new_id())) as opened:
            record = AuditRecord("story", "told", now(), Origin(), {})
            await opened.finish(result={}, audit=record, events=events)
        return [event.event_id for event in events]


async def saw(reader: Reader, count: int, limit_seconds: float = 20.0) -> None:
    async def enough() -> bool:
        return len(reader.seen) >= count

    await eventually(enough, limit_seconds=limit_seconds)


async def connected(*readers: Reader, limit_seconds: float = 20.0) -> None:
    async def all_in() -> bool:
        return all(reader.last_id is not None for reader in readers)

    await eventually(all_in, limit_seconds=limit_seconds)


async def take(found: AsyncIterator[Block], count: int) -> AsyncIterator[Block]:
    async for block in found:
        yield block
        count -= 1
        if not count:
            return


class Process:
    """``python -m api`` as its own process."""

    def __init__(self, settings: ApiSettings, port: int, log: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.environment = {
            **os.environ,
            "DATABASE_URL": settings.database_url,
            "TEMPORAL_ADDRESS": settings.temporal_address,
            "API_PORT": str(port),
        }
        self.log = log
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "api", env=self.environment, stdout=log, stderr=log
            )

    async def end(self, *, kill: bool) -> float:
        """End it, and wait; how long that took."""
        assert self.process is not None
        began = time.monotonic()
        (self.process.kill if kill else self.process.terminate)()
        async with asyncio.timeout(20):
            await self.process.wait()
        return time.monotonic() - began


def free_ports(count: int) -> list[int]:
    found = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in found]
    for each in found:
        each.close()
    return ports


async def stalled(url: str, key: str) -> socket.socket:
    """A reader that asks for everything and then reads nothing."""
    host, port = url.removeprefix("http://").split(":")
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(made, (host, int(port)))
    request = f"GET /api/v1/events/stream?after=0 HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n\r\n"
    await loop.sock_sendall(made, request.encode())
    return made


async def open_streams(url: str) -> int:
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"{url}/metrics")).text
    (line,) = [line for line in text.splitlines() if line.startswith("holdfast_event_streams ")]
    return int(float(line.split()[1]))
