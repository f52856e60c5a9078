"""Who has deliveries due: one look for all endpoints of this process that wait for more, some times a second."""

from __future__ import annotations

import asyncio
import logging
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import transaction
from db.webhooks import sending
from domain.errors import Unavailable

LOOK_SECONDS = 0.05
_RETRY_SECONDS = 1.0

_log = logging.getLogger(__name__)

Whom = tuple[UUID, UUID]


class Dues:
    """``engine`` sees every tenant. An endpoint (tenant and subscription) is watched while somebody waits for it."""

    def __init__(self, engine: AsyncEngine, *, look_seconds: float = LOOK_SECONDS) -> None:
        self._engine = engine
        self._look_seconds = look_seconds
        self._waiting: dict[Whom, asyncio.Event] = {}
        self._looking: asyncio.Task[None] | None = None

    async def wait(self, whom: Whom, news: asyncio.Event, *, seconds: float) -> None:
        """Return when the endpoint has something due, when ``news`` is set by somebody else, or after a while."""
        self._waiting[whom] = news
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="webhooks-due")
        try:
            async with asyncio.timeout(seconds):
                await news.wait()
        except TimeoutError:
            pass
        finally:
            self._waiting.pop(whom, None)

    async def rest(self) -> None:
        """Return when nobody looks any more, or somebody waits again: so no look outlives the last who waited, and
        finds its database closed."""
        while not self._waiting and self._looking is not None and not self._looking.done():
            await asyncio.wait([self._looking], timeout=self._look_seconds)

    async def _look(self) -> None:
        """Until nobody waits."""
        while self._waiting:
            await asyncio.sleep(self._look_seconds)
            asked = list(self._waiting)
            if not asked:
                return
            try:
                async with transaction(self._engine) as connection:
                    found = await sending.with_due(connection, asked)
            except Unavailable as absence:
                _log.warning("webhooks wait for the database: %s", absence)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            for whom in found:
                if (news := self._waiting.get(whom)) is not None:
                    news.set()
