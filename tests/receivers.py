"""Receivers of webhooks on real sockets: each says what it does with a connection, byte by byte if it likes."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass(frozen=True, slots=True)
class Request:
    """What arrived. ``connection`` counts from 1."""

    connection: int
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Receiver:
    """Where it listens, and what it saw: ``connections`` that were opened, whole requests, bytes that it got rid of."""

    script: Script
    port: int = 0
    scheme: str = "http"
    connections: int = 0
    requests: list[Request] = field(default_factory=list)
    written: int = 0
    broken: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/hook"

    async def write(self, writer: asyncio.StreamWriter, content: bytes) -> None:
        writer.write(content)
        await writer.drain()
        self.written += len(content)


@dataclass(frozen=True, slots=True)
class Line:
    """One connection, in the hands of a script."""

    receiver: Receiver
    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> Request:
        """The next request, whole; it is noted before anything is answered."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        found = Request(self.number, first.split(" ")[1], headers, body)
        self.receiver.requests.append(found)
        return found

    async def say(self, content: bytes) -> None:
        await self.receiver.write(self.writer, content)


Script = Callable[[Line], Awaitable[None]]


async def obedient(line: Line) -> None:
    """Answers 200 to every request, on one connection for as long as it is wanted."""
    while True:
        await line.request()
        await line.say(OK)


@asynccontextmanager
async def receiver(
    script: Script = obedient, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Receiver]:
    """One that follows its script on each connection, for as long as the block lasts."""
    made = Receiver(script, scheme="http" if tls is None else "https")
    under_way: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        under_way.add(task)
        made.connections += 1
        try:
            await script(Line(made, made.connections, reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            made.broken.set()
        except asyncio.CancelledError:
            pass  # by us, below; the streams would complain of it
        finally:
            under_way.discard(task)
            writer.close()

    server = await asyncio.start_server(connected, host, 0, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for task in list(under_way):
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
