"""The relay: gives committed events their place in the feed, woken by commits and polling behind them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

from prometheus_client import Counter, Gauge
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.consuming import Consumer
from db.doorbell import Doorbell
from db.engine import transaction
from db.listening import listen
from db.outbox import FEED_CHANNEL, WAKE_CHANNEL, lag, number_committed
from domain.errors import Unavailable

POLL_SECONDS = 1.0
BATCH_EVENTS = 2_000
RETRY_SECONDS = 1.0
#: After a pass that found events. Under load the commits of this time share the next one, instead of a pass each.
BREATH_SECONDS = 0.05

_log = logging.getLogger(__name__)
_numbered = Counter("holdfast_outbox_numbered_total", "Events that this process gave their place in the feed")
_waiting = Gauge("holdfast_outbox_waiting", "Committed events without a place in the feed")
_lag_seconds = Gauge("holdfast_outbox_lag_seconds", "Age of the oldest committed event without a place in the feed")


class Relay:
    """Runs in every worker; an advisory lock lets one at a time number events. ``engine`` sees every tenant.

    The consumers run beside it, woken by what this process numbers and by what others do.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        dsn: str,
        *,
        consumers: Sequence[Consumer] = (),
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._engine = engine
        self._dsn = dsn
        self._consumers = consumers
        self._poll_seconds = poll_seconds
        self._wake = asyncio.Event()
        self._feed_bell = Doorbell(engine, FEED_CHANNEL)

    async def run(self) -> None:
        """Work until cancelled. A database that is away is waited for."""
        hear: dict[str, Callable[[str], None]] = {WAKE_CHANNEL: lambda _: self._wake.set()}
        if self._consumers:
            hear[FEED_CHANNEL] = lambda types: self._wake_consumers(types.split(",") if types else None)
        beside = [asyncio.create_task(listen(self._dsn, hear), name="relay-listener")]
        beside += [asyncio.create_task(each.run(), name=each.name) for each in self._consumers]
        numbering = asyncio.create_task(self._number(), name="relay-numbering")
        try:
            # None of them ends by itself: whichever does has met a bug, and the process should say so.
            done, _ = await asyncio.wait([numbering, *beside], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (numbering, *beside):
                task.cancel()
            await asyncio.gather(numbering, *beside, return_exceptions=True)
            await self._feed_bell.close()

    async def pass_once(self) -> int:
        """Number one batch, tell who reads the feed what came, and return how many events it was."""
        async with transaction(self._engine) as connection:
            by_type = await number_committed(connection, limit=BATCH_EVENTS)
            waiting, seconds = await lag(connection)
        numbered = sum(by_type.values())
        if numbered:
            self._wake_consumers(by_type)
            self._feed_bell.ring(by_type)
        _numbered.inc(numbered)
        _waiting.set(waiting)
        _lag_seconds.set(seconds)
        return numbered

    async def _number(self) -> None:
        while True:
            self._wake.clear()
            try:
                while (numbered := await self.pass_once()) == BATCH_EVENTS:
                    pass
                if numbered:
                    await asyncio.sleep(BREATH_SECONDS)
            except Unavailable as error:
                _log.warning("the relay waits for the database: %s", error)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_seconds):
                    await self._wake.wait()

    def _wake_consumers(self, types: Collection[str] | None) -> None:
        for consumer in self._consumers:
            consumer.wake(types)
