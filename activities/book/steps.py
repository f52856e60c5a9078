"""The steps of the book: what is to be revalued, and the revaluation of a group of shards."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from time import monotonic, perf_counter
from typing import Final

from prometheus_client import Counter, Gauge, Histogram
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from activities.book.deciding import Decided, Judge, audit_details, microseconds, settle, told_by_type
from activities.book.messages import BookPlan, Revalued, RevalueGroup
from activities.book.part import Part
from activities.book.screen import unvalued, weights
from db import prices
from db.doorbell import Doorbell
from db.engine import transaction
from db.margin import book, following, parameters
from db.margin.book import Fence, Superseded
from db.margin.tables import SHARDS
from domain.margin.market import PRICE_AGE_MAX, ParameterSet, build
from domain.margin.model import Market
from domain.margin.rows import Sheet
from kit.clock import now

#: Accounts that one commit moves.
BATCH: Final = 2_000
#: Into how many parts the book is divided unless a setting says otherwise.
BOOK_GROUPS: Final = 2
#: Accounts that changed between the read and the write are read again at once, so many times.
ROUNDS: Final = 3
#: How often and how long it is waited for transactions that may have looked at accounts with older prices.
SETTLE_LOOKS, SETTLE_SECONDS = 10, 0.05
AGAIN: Final = timedelta(seconds=2)
BEAT_SECONDS: Final = 2.0

_log = logging.getLogger(__name__)
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_screened = Histogram("holdfast_book_screen_seconds", "Screening a group of shards", buckets=_SECONDS)
_lag = Histogram(
    "holdfast_book_tick_to_commit_seconds", "From the tick's record to the last commit of a group", buckets=_SECONDS
)
_candidates = Counter("holdfast_book_candidates_total", "Accounts that were decided exactly")
_transitions = Counter("holdfast_book_transitions_total", "Accounts that were told something", ["type"])
_left = Counter("holdfast_book_left_total", "Transitions of accounts that had changed meanwhile")
_accounts = Gauge("holdfast_book_accounts", "Accounts in memory", ["group"])
_bytes = Gauge("holdfast_book_bytes", "What their columns take", ["group"])
_unvalued = Gauge("holdfast_book_unvalued", "Accounts with an asset that cannot be valued", ["group"])
_waits = Gauge("holdfast_book_waiting", "Accounts whose cooldown holds back what they are to be told", ["group"])


@dataclass(frozen=True, slots=True)
class Ground:
    """What a revaluation stands on: prices and parameters, and when they were read.

    Whoever looks at an account with older prices does so in a transaction with an id below ``horizon``: a check locks
    the account before it reads prices.
    """

    market: Market
    tick: int
    parameters: ParameterSet
    at: datetime
    horizon: int

    @property
    def version(self) -> int:
        """The version of the parameters."""
        return self.parameters.version

    def sheet(self) -> Sheet:
        """What makes the rows of its transitions."""
        return Sheet(self.market, parameter_version=self.version, price_tick=self.tick, at=self.at)


@dataclass(slots=True)
class Totals:
    """What the rounds of one revaluation came to."""

    candidates: int = 0
    transitions: int = 0
    left: int = 0


class BookActivities:
    """``engine`` sees every tenant; ``doorbell`` wakes the relay. ``groups`` is how many parts the book has.

    A process keeps the groups that it was given, and follows their accounts. Another one that is given the same group
    loads it, too; whoever writes, the fence and the versions keep a transition from being written twice.
    """

    def __init__(
        self, engine: AsyncEngine, doorbell: Doorbell, *, groups: int = BOOK_GROUPS, batch: int = BATCH
    ) -> None:
        self._engine = engine
        self._doorbell = doorbell
        self._groups = groups
        self._batch = batch
        self._parts: dict[tuple[int, ...], Part] = {}

    @property
    def parts(self) -> Sequence[Part]:
        """The groups that this process has in memory."""
        return tuple(self._parts.values())

    @activity.defn(name="book.plan")
    async def plan(self) -> BookPlan:
        """What there is to revalue, and how the book is divided."""
        ground = await self.ground()
        groups = tuple(tuple(range(first, SHARDS, self._groups)) for first in range(min(self._groups, SHARDS)))
        return BookPlan(groups=groups, tick=ground.tick, version=ground.version)

    @activity.defn(name="book.revalue")
    async def revalue(self, asked: RevalueGroup) -> Revalued:
        """Revalue every account of some shards at the newest prices, and write what changes, batch by batch.

        An attempt that ended somewhere is repeated from the start: what it wrote has changed its accounts.
        """
        part = self._part(asked.shards)
        told = f"shard {asked.shards[0]} and {len(asked.shards) - 1} more"
        beating = asyncio.create_task(_beat(told))
        try:
            async with part.lock:
                return await self._revalue(part)
        except Superseded as newer:
            _log.info("revaluation left to a newer one: %s", newer)
            ground = await self.ground()
            return Revalued(tick=ground.tick, version=ground.version, superseded=True)
        finally:
            beating.cancel()
            with suppress(asyncio.CancelledError):
                await beating

    async def _revalue(self, part: Part) -> Revalued:
        began = monotonic()
        totals = Totals()
        await part.follow()
        ground = await self.ground()
        fence = Fence(part.shards, ground.tick, ground.parameters.effective_from)
        async with transaction(self._engine) as connection:
            await book.begin(connection, fence)
        changed, settled = 1, False
        for turn in range(ROUNDS):
            await self._round(part, ground, fence, totals)
            if not turn:
                await self._observe_lag(ground)
            changed, settled = await _catch_up(part, ground)
            if not changed:
                break
            newest = await self.ground()
            if (newest.tick, newest.version) != (ground.tick, ground.version):
                # What was read again may have been looked at with what is newer. Older prices do not undo that: all of
                # it is the next round's.
                break
            # What a turn finds is dated behind the looks that it knows of.
            ground = replace(newest, horizon=ground.horizon)
        due_at = part.due_at(ground.at)
        if changed or not settled:
            # Whoever changes faster than that, or is about to commit, is looked at in another round.
            due_at = ground.at + AGAIN if due_at is None else min(due_at, ground.at + AGAIN)
        async with transaction(self._engine) as connection:
            await book.finish(connection, fence, due_at)
        unknown = await asyncio.to_thread(unvalued, part.columns, weights(part.columns.symbols, ground.market))
        group = str(part.shards[0])
        _unvalued.labels(group).set(unknown)
        _accounts.labels(group).set(part.columns.accounts)
        _bytes.labels(group).set(part.columns.bytes_used)
        _waits.labels(group).set(part.waiting)
        return Revalued(
            tick=ground.tick,
            version=ground.version,
            accounts=part.columns.accounts,
            waiting=part.waiting,
            due_at=due_at,
            milliseconds=int((monotonic() - began) * 1000),
            candidates=totals.candidates,
            transitions=totals.transitions,
            left=totals.left,
            unvalued=unknown,
        )

    async def _observe_lag(self, ground: Ground) -> None:
        async with transaction(self._engine) as connection:
            ticked = await book.ticked_at(connection, ground.tick)
        if ticked is not None:
            _lag.observe(max(0.0, (now() - ticked).total_seconds()))

    async def _round(self, part: Part, ground: Ground, fence: Fence, totals: Totals) -> None:
        """Screen, decide and write once. Accounts that changed meanwhile are left to the next turn."""
        began = perf_counter()
        at = weights(part.columns.symbols, ground.market)
        found = await asyncio.to_thread(part.candidates, at, microseconds(ground.at))
        _screened.observe(perf_counter() - began)
        count = sum(len(each.rows) for each in found) + len(part.columns.always)
        totals.candidates += count
        _candidates.inc(count)
        judge = Judge(part.columns, ground.sheet())
        part.held = 0
        work = (decided for each in [*map(judge.decide, found), iter([judge.decide_wholes()])] for decided in each)
        batches = _batches(work, self._batch)
        left = 0
        try:
            # While the database writes a batch, the next one is decided.
            preparing = asyncio.create_task(asyncio.to_thread(next, batches, None))
            while (batch := await preparing) is not None:
                preparing = asyncio.create_task(asyncio.to_thread(next, batches, None))
                written = await self._write(part, ground, fence, batch)
                totals.transitions += written
                left += sum(len(each.tellings) for each in batch) - written
        finally:
            await asyncio.gather(preparing, return_exceptions=True)
            if totals.transitions:
                self._doorbell.ring()
        _left.inc(left)
        totals.left += left

    async def _write(self, part: Part, ground: Ground, fence: Fence, batch: Sequence[Decided]) -> int:
        """One commit; then the columns say what it wrote."""
        tellings = [telling for decided in batch for telling in decided.tellings]
        moved: set[int] = set()
        if tellings:
            async with transaction(self._engine) as connection:
                moved = await book.write(
                    connection,
                    fence,
                    tellings,
                    at=ground.at,
                    workflow_id=activity.info().workflow_id,
                    details=audit_details(tellings, ground.tick, ground.version),
                )
        for decided in batch:
            settle(part.columns, decided, moved)
            part.note(decided)
        for kind, count in told_by_type([each for each in tellings if each.move.account in moved]).items():
            _transitions.labels(kind).inc(count)
        return len(moved)

    def _part(self, shards: tuple[int, ...]) -> Part:
        """The part of these shards; a part that the book was divided into before is let go."""
        found = self._parts.get(shards)
        if found is None:
            for other in [other for other in self._parts if not set(other).isdisjoint(shards)]:
                del self._parts[other]
            found = self._parts[shards] = Part(self._engine, shards)
        return found

    async def ground(self) -> Ground:
        """The newest prices and the parameters in force."""
        at = now()
        async with transaction(self._engine) as connection:
            quotes = await prices.current(connection)
            counts = await parameters.in_force(connection, at)
            horizon = await following.horizon(connection)
        usable = {asset: quote for asset, quote in quotes.items() if at - quote.as_of <= PRICE_AGE_MAX}
        tick = max((quote.tick for quote in quotes.values()), default=0)
        return Ground(build(counts, usable), tick, counts, at, horizon)


async def _catch_up(part: Part, ground: Ground) -> tuple[int, bool]:
    """How many accounts changed since they were read last, and whether none can still appear that was looked at with
    older prices than these."""
    changed = await part.follow()
    for _ in range(SETTLE_LOOKS):
        if part.since >= ground.horizon:
            break
        await asyncio.sleep(SETTLE_SECONDS)
        changed += await part.follow()
    return changed, part.since >= ground.horizon


def _batches(work: Iterator[Decided], limit: int) -> Iterator[list[Decided]]:
    """What was decided, in batches with about ``limit`` transitions."""
    batch: list[Decided] = []
    count = 0
    for decided in work:
        for piece in _pieces(decided, limit):
            batch.append(piece)
            count += len(piece.tellings)
            if count >= limit:
                yield batch
                batch, count = [], 0
    if batch:
        yield batch


def _pieces(decided: Decided, limit: int) -> Iterator[Decided]:
    """The same in parts of at most ``limit`` transitions; who needs nothing goes with the first."""
    first = decided.tellings[:limit], decided.rows[:limit]
    yield Decided(decided.key, *first, decided.steady, decided.waiting, decided.held)
    for begin in range(limit, len(decided.tellings), limit):
        end = begin + limit
        yield Decided(decided.key, decided.tellings[begin:end], decided.rows[begin:end])


async def _beat(told: str) -> None:
    """Tell the server that the work goes on; the work itself is in threads and in the database."""
    while True:
        activity.heartbeat(told)
        await asyncio.sleep(BEAT_SECONDS)
