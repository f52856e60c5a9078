"""A cable to a server that can be cut: a TCP proxy on loopback."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from enum import StrEnum
from typing import Self

from sqlalchemy.engine import make_url

CHUNK_BYTES = 65_536


class Fault(StrEnum):
    """What can be wrong with a cable."""

    CUT = "cut"
    """Every connection ends at once, and no new one comes through."""
    STALLED = "stalled"
    """Nothing arrives; what was sent arrives when the cable is mended, as TCP has it after a lost route."""
    SWALLOWING = "swallowing"
    """Whatever is sent is lost, and nobody is told: a middlebox that forgot its connections."""
    SLOW = "slow"
    """Everything arrives late."""


class Wire:
    """Forwards to ``host:port``."""

    def __init__(self, host: str, port: int, *, slow_seconds: float = 0.1) -> None:
        self._target = (host, port)
        self._slow_seconds = slow_seconds
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._lost: set[asyncio.StreamWriter] = set()
        self._fault: Fault | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        self._flowing.set()
        assert self._server is not None
        self._server.close()

    @property
    def port(self) -> int:
        """Where it is reached on loopback."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def cut(self) -> None:
        """End every connection and let no new one through."""
        self.break_(Fault.CUT)

    def break_(self, fault: Fault) -> None:
        """Let this be wrong with it until it is mended."""
        self._fault = fault
        self._flowing.set()
        if fault is Fault.CUT:
            self.reset()
        elif fault is Fault.STALLED:
            self._flowing.clear()
        elif fault is Fault.SWALLOWING:
            self._lost |= self._open

    def mend(self, *, reset: bool = True) -> None:
        """Let connections through again. Those that lost something end now, or stay silent for ever."""
        self._fault = None
        self._flowing.set()
        if reset:
            for writer in self._lost:
                writer.transport.abort()
            self._lost.clear()

    def reset(self) -> None:
        """End every connection."""
        for writer in self._open:
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._fault is Fault.CUT:
            writer.transport.abort()
            return
        ends = {writer}
        self._open |= ends
        if self._fault is Fault.SWALLOWING:
            self._lost |= ends
        try:
            await self._flowing.wait()
            if writer in self._lost:
                await self._swallow(reader)
                return
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            ends.add(far_writer)
            self._open |= ends
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        except OSError:
            writer.transport.abort()  # nobody listens over there
        finally:
            self._open -= ends
            self._lost -= ends
            for end in ends:
                end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                await self._flowing.wait()
                if self._fault is Fault.SLOW:
                    await asyncio.sleep(self._slow_seconds)
                if writer in self._lost:
                    continue
                writer.write(data)
                await writer.drain()
        if writer not in self._lost:
            writer.transport.abort()

    async def _swallow(self, reader: asyncio.StreamReader) -> None:
        with suppress(OSError):
            while await reader.read(CHUNK_BYTES):
                pass


class Cable(Wire):
    """A wire to the database of a URL; ``url`` is the same URL through the cable."""

    def __init__(self, database_url: str) -> None:
        self._url = make_url(database_url)
        super().__init__(str(self._url.host), int(self._url.port or 5432))

    @property
    def url(self) -> str:
        """The database through the cable."""
        return self._url.set(port=self.port).render_as_string(hide_password=False)
