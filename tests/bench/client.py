"""An HTTP client that costs little: it shares two cores with what it measures."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlsplit

import httptools

ANSWER_LIMIT_SECONDS = 30.0


class Refused(Exception):
    """An answer that is no success."""


class Http:
    """Keep-alive connections to one API, as many as requests are under way, with an API key."""

    def __init__(self, url: str, key: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._host, self._port = parts.hostname, parts.port
        self._head = f"Host: {parts.netloc}\r\nX-API-Key: {key}\r\n"
        self._idle: list[_Connection] = []

    async def get(self, path: str) -> bytes:
        """The body of a success."""
        return await self._send(f"GET {path} HTTP/1.1\r\n{self._head}\r\n".encode())

    async def post(self, path: str, body: Mapping[str, Any], *, key: str) -> bytes:
        """The body of a success, under an idempotency key."""
        content = json.dumps(body).encode()
        return await self.send(path, content, "application/json", key=key)

    async def send(self, path: str, content: bytes, kind: str, *, key: str) -> bytes:
        """The same for a body of any kind."""
        head = (
            f"POST {path} HTTP/1.1\r\n{self._head}Idempotency-Key: {key}\r\n"
            f"Content-Type: {kind}\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        return await self._send(head.encode() + content)

    async def _send(self, request: bytes) -> bytes:
        # The server closes connections that nobody used for a while.
        while self._idle and not self._idle[-1].open:
            self._idle.pop()
        connection = self._idle.pop() if self._idle else await self._connect()
        async with asyncio.timeout(ANSWER_LIMIT_SECONDS):
            status, body = await connection.exchange(request)
        if connection.open:
            self._idle.append(connection)
        if status >= 300:
            raise Refused(f"{request.split(b' HTTP', 1)[0].decode()}: {status} {body[:300].decode()}")
        return body

    async def _connect(self) -> _Connection:
        _, protocol = await asyncio.get_running_loop().create_connection(_Connection, self._host, self._port)
        return protocol

    def close(self) -> None:
        """Let go of every idle connection."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()


class _Connection(asyncio.Protocol):
    """One exchange at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._parser: Any = None
        self._body = b""
        self.open = True

    def exchange(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        assert self._transport is not None, "connected first"
        self._answer = asyncio.get_running_loop().create_future()
        self._parser, self._body = httptools.HttpResponseParser(self), b""
        self._transport.write(request)
        return self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio's in all but their base class.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionResetError("the API closed the connection"))

    # What the parser calls.
    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.open = self.open and bool(self._parser.should_keep_alive())
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((self._parser.get_status_code(), self._body))
