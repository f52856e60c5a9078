"""The relay: gives committed events their place in the feed, woken by commits and polling behind them."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

import asyncpg
from prometheus_client import Counter, Gauge
from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import CONNECT_TIMEOUT_SECONDS, transaction
from db.outbox import WAKE_CHANNEL, lag, number_committed
from domain.errors import Unavailable

POLL_SECONDS = 1.0
BATCH_EVENTS = 2_000
RETRY_SECONDS = 1.0

#: What a connection can fail with. ``InternalClientError``: it ended between two messages of the protocol.
_LOST = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

_log = logging.getLogger(__name__)
_numbered = Counter("holdfast_outbox_numbered_total", "Events that this process gave their place in the feed")
_waiting = Gauge("holdfast_outbox_waiting", "Committed events without a place in the feed")
_lag_seconds = Gauge("holdfast_outbox_lag_seconds", "Age of the oldest committed event without a place in the feed")


class Relay:
    """Runs in every worker; an advisory lock lets one at a time number events. ``engine`` sees every tenant."""

    def __init__(self, engine: AsyncEngine, dsn: str, *, poll_seconds: float = POLL_SECONDS) -> None:
        self._engine = engine
        self._dsn = dsn
        self._poll_seconds = poll_seconds
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled. A database that is away is waited for."""
        listener = asyncio.create_task(self._listen())
        try:
            while True:
                self._wake.clear()
                try:
                    while await self.pass_once() == BATCH_EVENTS:
                        pass
                except Unavailable as error:
                    _log.warning("the relay waits for the database: %s", error)
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), self._poll_seconds)
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)

    async def pass_once(self) -> int:
        """Number one batch; returns how many events it was."""
        async with transaction(self._engine) as connection:
            numbered = await number_committed(connection, limit=BATCH_EVENTS)
            waiting, seconds = await lag(connection)
        _numbered.inc(numbered)
        _waiting.set(waiting)
        _lag_seconds.set(seconds)
        return numbered

    async def _listen(self) -> None:
        while True:
            try:
                await self._listen_once()
            except _LOST as error:
                _log.warning("the relay cannot listen and polls: %s", error)
            await asyncio.sleep(RETRY_SECONDS)

    async def _listen_once(self) -> None:
        """Wake the relay on every notification until the connection ends."""
        closed = asyncio.Event()
        connection = await asyncpg.connect(self._dsn, timeout=CONNECT_TIMEOUT_SECONDS)
        try:
            connection.add_termination_listener(lambda _: closed.set())
            await connection.add_listener(WAKE_CHANNEL, lambda *_: self._wake.set())
            self._wake.set()
            await closed.wait()
        finally:
            await connection.close(timeout=CONNECT_TIMEOUT_SECONDS)
