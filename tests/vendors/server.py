"""A vendor on a real socket: answers as it is told, remembers what it was asked, and misbehaves on request."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. ``hang``: the headers come, the body never does. ``endless``: the body never ends.
    ``silent``: nothing comes at all. ``reset``: the connection ends."""

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    hang: bool = False
    endless: bool = False
    silent: bool = False
    reset: bool = False

    @property
    def content(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        return self.body.encode() if isinstance(self.body, str) else json.dumps(self.body).encode()


class Vendor:
    """``answer`` says what each request gets; it may be replaced at any time."""

    def __init__(self) -> None:
        self.answer: Callable[[Asked], Reply] = lambda _: Reply("not told what to say", 500)
        self.asked: list[Asked] = []
        self.url = ""

    def say(self, body: Any, status: int = 200, **how: Any) -> None:
        """Answer every request alike."""
        reply = Reply(body, status, **how)
        self.answer = lambda _: reply

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (asked := await _read(reader)) is not None:
                self.asked.append(asked)
                await self._reply(writer, self.answer(asked))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _reply(self, writer: asyncio.StreamWriter, reply: Reply) -> None:
        if reply.silent:
            await asyncio.sleep(3_600)
        if reply.reset:
            # Closed so, it is a reset to the other side.
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return
        length = str(len(reply.content))
        headers = {"Content-Type": "application/json", **reply.headers}
        headers |= {"Transfer-Encoding": "chunked"} if reply.endless else {"Content-Length": length}
        lines = [f"HTTP/1.1 {reply.status} Told", *(f"{name}: {value}" for name, value in headers.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        while reply.endless:
            writer.write(b"1000\r\n" + b" " * 4096 + b"\r\n")
            await writer.drain()
        if reply.hang:
            await asyncio.sleep(3_600)
        writer.write(reply.content)
        await writer.drain()


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    url = urlsplit(target)
    return Asked(method, url.path, parse_qsl(url.query), headers, body)


@asynccontextmanager
async def vendor() -> AsyncIterator[Vendor]:
    """A vendor for as long as the block lasts."""
    made = Vendor()
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await made.serve(reader, writer)
        except asyncio.CancelledError:
            pass  # by us, below; the streams would complain of it
        finally:
            connections.discard(task)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


@contextmanager
def closed_door() -> Iterator[str]:
    """The address of a host that answers nobody: its queue is full, and packets of others are dropped."""
    with socket.socket() as door, ExitStack() as waiting:
        door.bind(("127.0.0.1", 0))
        door.listen(0)
        for _ in range(4):
            knocking = waiting.enter_context(socket.socket())
            knocking.setblocking(False)
            knocking.connect_ex(door.getsockname())
        yield f"http://127.0.0.1:{door.getsockname()[1]}"
