"""Waking who works on: after a commit, never inside it, and many rings make one notification."""

from __future__ import annotations

import asyncio
import logging

from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import notify
from db.outbox import WAKE_CHANNEL
from domain.errors import Unavailable

_log = logging.getLogger(__name__)


class Doorbell:
    """Sends NOTIFY, to the relay unless told otherwise. A lost ring costs time, not events: who listens polls too.

    NOTIFY inside a posting transaction would serialise commits, so it goes alone.
    """

    def __init__(self, engine: AsyncEngine, channel: str = WAKE_CHANNEL) -> None:
        self._engine = engine
        self._channel = channel
        self._pending = False
        self._task: asyncio.Task[None] | None = None

    def ring(self) -> None:
        """Ask for a notification soon; returns at once."""
        self._pending = True
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._send())

    async def close(self) -> None:
        """Wait for a notification on its way."""
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _send(self) -> None:
        while self._pending:
            self._pending = False
            try:
                await notify(self._engine, self._channel)
            except Unavailable as error:
                _log.warning("%s was not notified, and so is found by polling: %s", self._channel, error)
