"""A lane: what is due to one endpoint is claimed in groups, sent side by side, and written down in groups.

Three things go on at once: claiming (an attempt is written down before its request), sending (never more at a time than
the endpoint allows) and noting what came of it. Only so much is claimed ahead as is sent in half a second, so that what
a process that dies had claimed is due again soon, and what hangs holds up no more than itself.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from uuid import UUID

from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.ports import Outward
from activities.webhooks.due import Dues
from activities.webhooks.loading import Loaded, load
from activities.webhooks.messages import TurnDone
from activities.webhooks.noting import Notes
from activities.webhooks.outcomes import ended_at, fault_of, ours_of, outcome_of
from activities.webhooks.replaying import replay_page
from activities.webhooks.turns import AnyOrder, Ready, SubjectOrder
from db.engine import transaction
from db.webhooks import sending
from domain.webhooks.delivering import GONE, MILLION, THROTTLING, AttemptResult
from domain.webhooks.endpoint import EndpointStatus, Ordering

_log = logging.getLogger(__name__)
_attempts = Counter("holdfast_webhook_attempts_total", "Attempts to deliver, by what came of them", ["result"])


@dataclass(frozen=True, slots=True)
class Pace:
    """How a lane works. A lease has room for a whole deadline behind the time for which something may lie claimed."""

    deadline_seconds: float = 15.0
    lease_seconds: float = 40.0
    #: So long a turn claims; then the workflow gives the next one, perhaps in another process.
    turn_seconds: float = 60.0
    #: So long a lane looks for more when nothing is left: longer than who wakes it takes to commit.
    linger_seconds: float = 5.0
    claim_max: int = 512
    ahead_seconds: float = 0.5
    read_bytes: int = 16_384
    #: What is under way when the process is told to stop has so long to end.
    stop_seconds: float = 6.0


class Lane:
    """One turn of one endpoint. ``engine`` sees every tenant."""

    def __init__(
        self, engine: AsyncEngine, outward: Outward, dues: Dues, notes: Notes, pace: Pace, whom: tuple[UUID, UUID]
    ) -> None:
        self._engine = engine
        self._outward = outward
        self._dues = dues
        self._notes = notes
        self._pace = pace
        self._whom = whom
        self._queue: AnyOrder | SubjectOrder = AnyOrder()
        self._flying = 0
        self._sent = 0
        self._slot = 0.0
        self._measured_at = monotonic()
        self._window = 0
        self._drained = False
        self._closing = False
        #: The endpoint asked to be left alone, or for good.
        self._unwanted = False
        self._stopped = False
        #: For who claims: something has changed. For who sends: there is something to send, or there will be nothing.
        self._news = asyncio.Event()
        self._work = asyncio.Condition()

    async def run(self) -> TurnDone:
        """Send what is due until the turn is over or nothing is left. Cancelled, it ends what is under way first."""
        began = monotonic()
        noting = asyncio.create_task(self._notes.run(self._news), name="webhooks-noting")
        senders: list[asyncio.Task[None]] = []
        try:
            await self._claim(began, senders, noting)
        except asyncio.CancelledError:
            self._stopped = True
            raise
        finally:
            try:
                await self._close(senders)
            finally:
                await self._notes.close(noting)
        return await self._end()

    async def _claim(self, began: float, senders: list[asyncio.Task[None]], noting: asyncio.Task[None]) -> None:
        quiet_since = None
        while (at := monotonic()) - began < self._pace.turn_seconds:
            if noting.done():
                noting.result()
            if self._unwanted:
                return
            self._news.clear()
            wanted = self._window - self._outstanding
            settled = not (self._outstanding or self._notes.pending)
            if not senders or wanted >= max(1, self._window // 2):
                loaded, claimed = await self._take(wanted if senders else 0)
                if loaded is None or loaded.endpoint.status is not EndpointStatus.ACTIVE:
                    return
                if loaded.endpoint.resting:
                    self._unwanted = True
                    return
                if not senders:
                    self._open(loaded, senders)
                    continue
                await self._push(loaded, claimed)
                if loaded.endpoint.replaying:
                    await replay_page(self._engine, *self._whom)
                short = len(claimed) < wanted and not loaded.endpoint.replaying
                # With an order, what is under way hides what is behind it.
                self._drained = short and (settled or not self._in_order)
                if not short:
                    continue
            if self._outstanding or self._notes.pending:
                quiet_since = None
                await self._wait(self._pace.linger_seconds or self._pace.deadline_seconds)
                continue
            if not self._drained:
                continue
            quiet_since = quiet_since or at
            left = self._pace.linger_seconds - (at - quiet_since)
            if left <= 0:
                return
            await self._wait(left)

    async def _wait(self, seconds: float) -> None:
        """Until something has ended, or more is due."""
        if self._drained:
            await self._dues.wait(self._whom, self._news, seconds=seconds)
            return
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return

    async def _take(self, most: int) -> tuple[Loaded | None, list[sending.Claimed]]:
        """The endpoint as it is now, and what is claimed for it."""
        async with transaction(self._engine) as connection:
            endpoint = await sending.endpoint(connection, *self._whom)
            if endpoint is None:
                return None, []
            claimed: list[sending.Claimed] = []
            if most and endpoint.status is EndpointStatus.ACTIVE and not endpoint.resting:
                lease = timedelta(seconds=self._pace.lease_seconds)
                claimed = await sending.claim(connection, endpoint, most=most, lease=lease)
        return load(endpoint, monotonic()), claimed

    def _open(self, loaded: Loaded, senders: list[asyncio.Task[None]]) -> None:
        endpoint = loaded.endpoint
        if endpoint.ordering is Ordering.SUBJECT:
            self._queue = SubjectOrder()
        self._resize(endpoint.concurrency, endpoint.rate_per_second, per_second=0)
        senders += [asyncio.create_task(self._sender(), name="webhooks-sender") for _ in range(endpoint.concurrency)]

    async def _push(self, loaded: Loaded, claimed: Sequence[sending.Claimed]) -> None:
        endpoint = loaded.endpoint
        took = max(monotonic() - self._measured_at, 0.01)
        self._resize(endpoint.concurrency, endpoint.rate_per_second, per_second=int(self._sent / took))
        self._measured_at, self._sent = monotonic(), 0
        if claimed:
            async with self._work:
                self._queue.push([Ready(each, loaded) for each in claimed])
                self._work.notify(len(claimed))

    def _resize(self, concurrency: int, rate: int | None, *, per_second: int) -> None:
        """Claim ahead what is sent in a moment, and enough for everybody who sends."""
        ahead = int(per_second * self._pace.ahead_seconds)
        self._window = min(self._pace.claim_max, max(2 * concurrency, ahead))
        if rate is not None:
            self._window = min(self._window, max(1, int(rate * self._pace.ahead_seconds)))

    @property
    def _in_order(self) -> bool:
        return isinstance(self._queue, SubjectOrder)

    @property
    def _outstanding(self) -> int:
        return len(self._queue) + self._flying

    async def _sender(self) -> None:
        """One request after the other, until the lane closes."""
        while True:
            async with self._work:
                ready = self._queue.pop()
                while ready is None:
                    if self._closing:
                        return
                    await self._work.wait()
                    ready = self._queue.pop()
                self._flying += 1
            delivered = await self._attempt(ready)
            held_up = self._queue.done(ready, delivered=delivered)
            self._flying -= 1
            self._sent += 1
            for each in held_up:
                self._give_back(each, "one before it was not delivered")
            if len(self._queue) and self._in_order:
                async with self._work:
                    self._work.notify()
            if not (self._drained or self._in_order) and self._outstanding <= self._window // 2:
                self._news.set()

    async def _attempt(self, ready: Ready) -> bool:
        """Make the request, unless it lay too long; whether it was delivered."""
        claimed, to = ready.claimed, ready.to
        if self._unwanted or not await self._slot_comes(ready):
            why = "the endpoint asked to be left alone" if self._unwanted else "its turn did not come in time"
            self._give_back(ready, why)
            return False
        try:
            body = claimed.body.encode()
            headers, shown = to.headers(str(claimed.message_id), claimed.started_at, body)
            reached = await self._outward.post(
                to.endpoint.url,
                headers,
                body,
                deadline_seconds=self._pace.deadline_seconds,
                read_bytes=self._pace.read_bytes,
            )
            at = ended_at(claimed, monotonic() - to.read_at)
            came = outcome_of(claimed, reached, at=at, shown=shown, chance_ppm=_chance())
        except asyncio.CancelledError:
            at = ended_at(claimed, monotonic() - to.read_at)
            why = "the sender stopped before there was an answer; it may have arrived"
            self._notes.add(*ours_of(claimed, AttemptResult.INTERRUPTED, at=at, why=why))
            raise
        except Exception:  # noqa: BLE001 - told, and one bug must not end the lane
            _log.exception("a delivery met a bug and is tried again", extra={"message_id": str(claimed.message_id)})
            came = fault_of(claimed, at=ended_at(claimed, monotonic() - to.read_at), chance_ppm=_chance())
        _attempts.labels(came[0].result).inc()
        self._notes.add(*came)
        if came[0].status_code in THROTTLING or came[0].status_code == GONE:
            self._unwanted = True
            self._news.set()
        return came[0].result is AttemptResult.DELIVERED

    async def _slot_comes(self, ready: Ready) -> bool:
        """Wait until the endpoint's rate allows a request; False when the lease leaves no time for one then."""
        latest = ready.to.read_at + self._pace.lease_seconds - self._pace.deadline_seconds
        rate = ready.to.endpoint.rate_per_second
        at = monotonic()
        if rate is not None:
            slot = max(self._slot, at)
            if slot > latest:
                return False
            self._slot = slot + 1 / rate
            if slot > at:
                await asyncio.sleep(slot - at)
                return not self._closing
        return at <= latest

    def _give_back(self, ready: Ready, why: str) -> None:
        at = ended_at(ready.claimed, monotonic() - ready.to.read_at)
        _attempts.labels(AttemptResult.RELEASED).inc()
        self._notes.add(*ours_of(ready.claimed, AttemptResult.RELEASED, at=at, why=why))

    async def _close(self, senders: Sequence[asyncio.Task[None]]) -> None:
        """Give back what was not begun, and let what is under way end; when the process stops, only for a moment."""
        self._closing = True
        for each in self._queue.drain():
            self._give_back(each, "the sender's turn was over")
        async with self._work:
            self._work.notify_all()
        if senders:
            limit = self._pace.stop_seconds if self._stopped else None
            _, late = await asyncio.wait(senders, timeout=limit)
            for sender in late:
                sender.cancel()
            ends = await asyncio.gather(*senders, return_exceptions=True)
            for end in ends:
                if isinstance(end, Exception):
                    raise end

    async def _end(self) -> TurnDone:
        """What was done, and when there is more to do."""
        async with transaction(self._engine) as connection:
            endpoint = await sending.endpoint(connection, *self._whom)
            if endpoint is None or endpoint.status is not EndpointStatus.ACTIVE:
                return self._notes.summed(None)
            if self._unwanted and endpoint.paused_until is not None:
                # No turn looked for more, though who brings it may have counted on that: the next one comes for it.
                return self._notes.summed(endpoint.paused_until)
            due = endpoint.now if endpoint.replaying else await sending.next_due(connection, *self._whom)
        return self._notes.summed(due)


def _chance() -> int:
    """A random number below a million, for who needs no secret one."""
    return random.randrange(MILLION)  # noqa: S311 - spreads retries
