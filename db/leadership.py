"""One process at a time: a session's advisory lock, on a connection of its own."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any

import asyncpg

from db.engine import CONNECT_TIMEOUT_SECONDS
from db.listening import LOST

#: A holder that says nothing for this long has lost the lock: its machine is gone, or its process hangs.
SILENCE_SECONDS = 15
#: How often a holder speaks.
BEAT_SECONDS = 4.0

_log = logging.getLogger(__name__)


class Leadership:
    """The right to do ``name``. Whoever has it may still be mistaken for a few seconds after its connection died, so
    what it does must bear a repeat, and what it writes must say what it saw."""

    def __init__(self, dsn: str, name: str) -> None:
        self._dsn = dsn
        self._name = name
        self._connection: Any = None
        self._beating: asyncio.Task[None] | None = None

    @property
    def held(self) -> bool:
        """Whether this process has the lock, as far as it knows."""
        return self._beating is not None and not self._beating.done()

    async def take(self) -> bool:
        """Have the lock, or take it when nobody has it. False also while the database is away."""
        if self.held:
            return True
        try:
            if self._beating is not None or self._connection is None or self._connection.is_closed():
                await self.release()
                self._connection = await self._connect()
            wanted = "SELECT pg_try_advisory_lock(hashtextextended($1, 0))"
            if not await self._connection.fetchval(wanted, self._name):
                return False
        except LOST as error:
            _log.warning("%s: no lock to be had: %s", self._name, error)
            await self.release()
            return False
        self._beating = asyncio.create_task(self._beat(self._connection))
        return True

    async def release(self) -> None:
        """Give the lock back."""
        connection, self._connection = self._connection, None
        beating, self._beating = self._beating, None
        if beating is not None:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
        if connection is not None:
            try:
                await connection.close(timeout=CONNECT_TIMEOUT_SECONDS)
            except LOST:
                connection.terminate()

    async def _connect(self) -> Any:
        return await asyncpg.connect(
            self._dsn,
            timeout=CONNECT_TIMEOUT_SECONDS,
            command_timeout=CONNECT_TIMEOUT_SECONDS,
            server_settings={
                "application_name": "holdfast_leadership",
                # The server itself ends the session of a holder that died without a word.
                "idle_session_timeout": str(SILENCE_SECONDS * 1_000),
            },
        )

    async def _beat(self, connection: Any) -> None:
        """Speak until the connection is lost; then the lock is, too."""
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        with suppress(*LOST):
            while not lost.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(BEAT_SECONDS):
                        await lost.wait()
                await connection.execute("SELECT 1")
        _log.warning("%s: the lock's connection is lost", self._name)
