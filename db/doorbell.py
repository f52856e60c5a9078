"""Waking who works on: after a commit, never inside it, and many rings make one notification."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import notify
from db.outbox import WAKE_CHANNEL
from domain.errors import Unavailable

#: Characters of what a ring says; who hears nothing said looks at everything.
SAID_MAX: Final = 7_000

_log = logging.getLogger(__name__)


class Doorbell:
    """Sends NOTIFY, to the relay unless told otherwise. A lost ring costs time, not events: who listens polls too.

    NOTIFY inside a posting transaction would serialise commits, so it goes alone.
    """

    def __init__(self, engine: AsyncEngine, channel: str = WAKE_CHANNEL) -> None:
        self._engine = engine
        self._channel = channel
        self._pending = False
        self._said: set[str] = set()
        self._task: asyncio.Task[None] | None = None

    def ring(self, said: Iterable[str] = ()) -> None:
        """Ask for a notification soon, which says these words, with commas between; returns at once."""
        self._pending = True
        self._said.update(said)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._send())

    async def close(self) -> None:
        """Wait for a notification on its way."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _send(self) -> None:
        while self._pending:
            self._pending = False
            said, self._said = ",".join(sorted(self._said)), set()
            try:
                await notify(self._engine, self._channel, said if len(said) <= SAID_MAX else "")
            except Unavailable as error:
                _log.warning("%s was not notified, and so is found by polling: %s", self._channel, error)
