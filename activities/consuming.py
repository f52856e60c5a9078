"""Consumers of the feed: one process at a time reads behind a durable cursor, hands on, and only then moves it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter as Attempts
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client import Counter, Gauge
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db.consumers import Fault, TenantEvent, advance, enlist, events_between, record_faults, standing
from db.engine import transaction
from db.leadership import Leadership
from domain.errors import Unavailable

__all__ = ["Consumer", "Delivered", "Failed", "Handler", "TenantEvent"]

POLL_SECONDS = 1.0
#: After it has caught up. Under load the commits of this time share the next page, instead of a page each.
BREATH_SECONDS = 0.05
#: How often a process that does not deliver asks for the lock.
FOLLOW_SECONDS = 1.0
PAGE_EVENTS = 500
#: How many positions a page goes over at most, for the events of its types among them.
PAGE_POSITIONS = 10_000
#: How often an event whose delivery meets a bug is tried before it is recorded and left out.
FAULT_ATTEMPTS_MAX = 4
RETRY_SECONDS_FIRST = 0.1
RETRY_SECONDS_MAX = 5.0

_log = logging.getLogger(__name__)
_behind = Gauge("holdfast_consumer_behind", "Events of the feed that the consumer has before it", ["consumer"])
_behind_seconds = Gauge("holdfast_consumer_behind_seconds", "Age of the oldest event before it", ["consumer"])
_leading = Gauge("holdfast_consumer_leading", "Whether this process is the one that delivers", ["consumer"])
_delivered = Counter("holdfast_consumer_delivered_total", "Events that this process is done with", ["consumer"])
_retries = Counter("holdfast_consumer_retries_total", "Deliveries that are tried again", ["consumer", "why"])
_given_up = Counter("holdfast_consumer_faults_total", "Events left out after repeated bugs", ["consumer"])


@dataclass(frozen=True, slots=True)
class Failed:
    """An event whose delivery met a bug, or was refused for good. An absence is not one: it is waited for."""

    event: TenantEvent
    error: str


@dataclass(frozen=True, slots=True)
class Delivered:
    """What became of a page. Everything up to ``upto`` is delivered but for what ``failed``; ``absence`` says why the
    rest is not; ``record`` writes what the consumer keeps of it, in the commit that moves the cursor."""

    upto: int
    failed: Sequence[Failed] = field(default=())
    absence: Unavailable | None = None

    async def record(self, connection: AsyncConnection) -> None:
        """Nothing, unless a consumer keeps something."""


@dataclass(frozen=True, slots=True)
class _Page:
    """What comes after position ``seen``, up to ``upto``; whether there is ``more`` behind it."""

    seen: int
    upto: int
    events: Sequence[TenantEvent] = field(default=())
    more: bool = False


class Handler(Protocol):
    """Where a consumer's events go. A repeat must do no harm: the cursor moves after the delivery."""

    @property
    def types(self) -> Sequence[str] | None:
        """The types of events that it takes; None for all."""

    async def deliver(self, events: Sequence[TenantEvent], upto: int) -> Delivered:
        """Deliver events in the order of the feed; the page ends at position ``upto``."""

    async def close(self) -> None:
        """Let go of what it holds; it may be used again."""


class Consumer:
    """Runs in every worker; an advisory lock lets one at a time deliver. ``engine`` sees every tenant.

    What is away is waited for, with growing pauses and the cursor where it is. An event that meets a bug is tried
    ``FAULT_ATTEMPTS_MAX`` times, recorded in ``feed_faults``, and left out.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        dsn: str,
        name: str,
        handler: Handler,
        *,
        poll_seconds: float = POLL_SECONDS,
        page_events: int = PAGE_EVENTS,
    ) -> None:
        self.name = name
        self._engine = engine
        self._handler = handler
        self._poll_seconds = poll_seconds
        self._page_events = page_events
        self._leadership = Leadership(dsn, f"holdfast consumer {name}")
        self._wake = asyncio.Event()
        self._pause_seconds = 0.0
        self._attempts: Attempts[int] = Attempts()

    def wake(self, types: Collection[str] | None = None) -> None:
        """Look at the feed soon; returns at once. Events that are all of ``types`` that it does not take wake nobody:
        it passes over them when it looks next."""
        mine = self._handler.types
        if types is None or mine is None or not frozenset(types).isdisjoint(mine):
            self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            while True:
                self._wake.clear()
                try:
                    while await self.pass_once():
                        pass
                    await asyncio.sleep(BREATH_SECONDS)
                except Exception as error:  # noqa: BLE001 - told below; one fault must not end the consumer
                    self._tell(error)
                    await asyncio.sleep(self._longer_pause())
                    continue
                if not self._leadership.held:
                    await asyncio.sleep(FOLLOW_SECONDS)
                    continue
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_seconds):
                        await self._wake.wait()
        finally:
            _leading.labels(self.name).set(0)
            await self._handler.close()
            await self._leadership.release()

    async def pass_once(self) -> bool:
        """Deliver one page; True when the feed had more. Raises ``Unavailable`` when it could not be delivered."""
        page = await self._page()
        if not page.events:
            self._pause_seconds = 0.0
            return page.more
        seen = page.seen
        done = await self._handler.deliver(page.events, page.upto)
        end, faults, again = self._judge(done)
        if end > seen:
            async with transaction(self._engine) as connection:
                if not await advance(connection, self.name, seen=seen, upto=end):
                    # Another process has taken over meanwhile; what was delivered twice has ids that say so.
                    _log.warning("%s was moved by another process", self.name)
                    return False
                await record_faults(connection, self.name, faults)
                await done.record(connection)
            self._pause_seconds = 0.0
            self._attempts = Attempts({position: n for position, n in self._attempts.items() if position > end})
            _delivered.labels(self.name).inc(end - seen)
        self._give_up(faults)
        if done.absence is not None:
            raise done.absence
        if again is not None:
            raise _Again(again)
        return page.more

    async def _page(self) -> _Page:
        """The next page. One without an event that the handler takes is passed over at once, in the same commit."""
        leads = await self._leadership.take()
        _leading.labels(self.name).set(leads)
        async with transaction(self._engine) as connection:
            stands = await standing(connection, self.name)
            if stands is None:
                await enlist(connection, self.name)
                stands = await standing(connection, self.name)
                assert stands is not None, "the row was just written"
            _behind.labels(self.name).set(stands.behind)
            _behind_seconds.labels(self.name).set(stands.behind_seconds)
            seen = stands.position
            if not leads or stands.behind <= 0:
                return _Page(seen, seen)
            upto = min(stands.head, seen + max(PAGE_POSITIONS, self._page_events))
            events = await self.read(connection, after=seen, upto=upto, limit=self._page_events)
            if len(events) == self._page_events:
                upto = events[-1].position
            if not events and not await advance(connection, self.name, seen=seen, upto=upto):
                return _Page(seen, seen)
        if not events:
            _delivered.labels(self.name).inc(upto - seen)
        return _Page(seen, upto, events, more=upto < stands.head)

    async def read(self, connection: AsyncConnection, *, after: int, upto: int, limit: int) -> list[TenantEvent]:
        """The first ``limit`` events of a page that the handler takes."""
        return await events_between(connection, after=after, upto=upto, types=self._handler.types, limit=limit)

    def _judge(self, done: Delivered) -> tuple[int, list[Fault], Failed | None]:
        """Up to where the cursor may move, what is left out on the way, and what is to be tried again first."""
        faults: list[Fault] = []
        for failed in sorted(done.failed, key=lambda each: each.event.position):
            position = failed.event.position
            self._attempts[position] += 1
            if self._attempts[position] < FAULT_ATTEMPTS_MAX:
                return min(done.upto, position - 1), faults, failed
            faults.append(Fault(failed.event, failed.error))
        return done.upto, faults, None

    def _give_up(self, faults: Sequence[Fault]) -> None:
        for fault in faults:
            _given_up.labels(self.name).inc()
            event = fault.event
            _log.error(
                "%s left out an event after %d attempts: %s",
                self.name,
                FAULT_ATTEMPTS_MAX,
                fault.error,
                extra={"event_id": str(event.event_id), "event_type": event.type, "position": event.position},
            )

    def _longer_pause(self) -> float:
        self._pause_seconds = min(max(self._pause_seconds * 2, RETRY_SECONDS_FIRST), RETRY_SECONDS_MAX)
        return self._pause_seconds

    def _tell(self, error: Exception) -> None:
        if isinstance(error, Unavailable):
            _retries.labels(self.name, "unavailable").inc()
            _log.warning("%s waits: %s", self.name, error)
        elif isinstance(error, _Again):
            _retries.labels(self.name, "fault").inc()
            _log.warning("%s met a bug and tries again: %s", self.name, error)
        else:
            _retries.labels(self.name, "bug").inc()
            _log.exception("%s met a bug of its own", self.name)


class _Again(Exception):
    """An event failed, and is tried again."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(f"event {failed.event.event_id} ({failed.event.type}): {failed.error}")
