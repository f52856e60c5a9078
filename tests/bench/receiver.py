"""A receiver of webhooks, as a process: it takes everything at once, or nothing, and remembers when what arrived.

``POST /hang`` is never answered, any other with 204. ``GET /count`` says how many arrived; ``GET /arrivals`` tells each
and forgets them; ``POST /release`` closes every connection that hangs.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any, cast

import httptools
import uvloop

HANG = b"/hang"
TAKEN = b"HTTP/1.1 204 No Content\r\n\r\n"


class Arrivals:
    """What arrived: path, ``webhook-id``, and the instant by the machine's clock."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, float]] = []
        self.hanging: set[asyncio.Transport] = set()

    def answer(self, method: bytes, path: bytes, message_id: bytes, transport: asyncio.Transport) -> bytes | None:
        """What to say to a request that is whole; None for nothing."""
        if method == b"GET":
            return self._told(path)
        if path == b"/release":
            for each in self.hanging:
                each.abort()
            self.hanging.clear()
            return TAKEN
        self.seen.append((path.decode(), message_id.decode(), time.time()))
        if path.startswith(HANG):
            self.hanging.add(transport)
            return None
        return TAKEN

    def _told(self, path: bytes) -> bytes:
        content = json.dumps(len(self.seen) if path == b"/count" else self.seen).encode()
        if path != b"/count":
            self.seen = []
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content)


class Line(asyncio.Protocol):
    """One connection."""

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        self._transport: asyncio.Transport | None = None
        self._parser: Any = httptools.HttpRequestParser(self)
        self._path = b""
        self._message_id = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio's in all but their base class.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._arrivals.hanging.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    # What the parser calls.
    def on_message_begin(self) -> None:
        self._path = self._message_id = b""

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"webhook-id":
            self._message_id = value

    def on_message_complete(self) -> None:
        assert self._transport is not None, "connected first"
        answer = self._arrivals.answer(self._parser.get_method(), self._path, self._message_id, self._transport)
        if answer is not None:
            self._transport.write(answer)


async def serve(port: int) -> None:
    """Until the process is told to stop."""
    arrivals = Arrivals()
    server = await asyncio.get_running_loop().create_server(lambda: Line(arrivals), "127.0.0.1", port, backlog=4_096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
