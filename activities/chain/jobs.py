"""Steps of backfill jobs that ask the chain: what is to be fetched, filling it, and the look at the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from activities.chain.backfill_messages import (
    BackfillPlan,
    BackfillRun,
    BackfillVerified,
    ChunkFilled,
    FillChunk,
    PlanBackfill,
)
from activities.chain.filling import Filler, FillPace, Shared, boundary, desk_of, source_of
from activities.chain.noting import EVERY_SECONDS, ProviderNotes
from activities.chain.ports import ChainDesk, Lane
from db.chain import coverage, filling, jobs, verifying
from db.chain.filling import Neighbours, NotYours
from db.chain.jobs import Job
from db.chain.verifying import Numbers
from db.doorbell import Doorbell
from db.engine import transaction
from domain.chain import Head, Source
from domain.chain.following import Depths, final_number
from domain.chain.ranges import count, difference
from domain.errors import Refusal, Unavailable
from kit.clock import now

HEARTBEAT_SECONDS = 2.0

_log = logging.getLogger(__name__)


class FillingActivities:
    """``engine`` sees every tenant; ``chains`` are the chains of the configuration by name."""

    def __init__(
        self,
        engine: AsyncEngine,
        doorbell: Doorbell,
        chains: Mapping[str, ChainDesk],
        pace: FillPace,
    ) -> None:
        self._engine = engine
        self._doorbell = doorbell
        self._chains = chains
        self._pace = pace
        self._shared = Shared()
        self._notes: dict[int, ProviderNotes] = {}

    @activity.defn(name="backfill.plan")
    async def plan(self, asked: PlanBackfill) -> BackfillPlan:
        """Lay out what is not covered and nobody else is at. What is covered costs no request.

        Refuses a range that ends above the chain's head.
        """
        job = await self._job(asked.run)
        source = await source_of(self._engine, job)
        async with _heartbeats(lambda: ()):
            expected = None
            if await self._missing(source, job):
                desk = desk_of(self._chains, source)
                head = await desk.head(Lane.JOB)
                if head.latest.number < job.to_block:
                    reached = f"the chain has reached block {head.latest.number}, not {job.to_block}"
                    raise Refusal("block_not_reached", reached, field="to_block")
                if finalized_number(head, desk) < job.to_block:
                    return BackfillPlan(not_final=True, missing=job.total_blocks)
                expected = await _expected(source, desk, job)
            try:
                async with transaction(self._engine) as connection:
                    planned = await filling.lay_out(connection, source, *_whom(asked.run), asked.at)
            except NotYours:
                return BackfillPlan(stopped=True)
        missing = job.total_blocks - planned.covered
        return BackfillPlan(chunks=planned.chunks, others=planned.others, missing=missing, expected_events=expected)

    @activity.defn(name="backfill.fill")
    async def fill(self, asked: FillChunk) -> ChunkFilled:
        """Fill one chunk, from where it stands; heartbeats all the while."""
        source = await source_of(self._engine, await self._job(asked.run))
        filler = Filler(self._engine, self._doorbell, self._chains, self._shared, self._pace, asked)
        async with _heartbeats(lambda: (asked.chunk_no, filler.done_to)), self._noting(source):
            return await filler.run(source)

    @activity.defn(name="backfill.verify")
    async def verify(self, run: BackfillRun) -> BackfillVerified:
        """Look at the whole range again: coverage by difference, numbers without a gap, and the contract's counter."""
        async with _heartbeats(lambda: ()):
            return await self._verify(run)

    async def _verify(self, run: BackfillRun) -> BackfillVerified:
        job = await self._job(run)
        source = await source_of(self._engine, job)
        missing = await self._missing(source, job)
        if missing:
            return BackfillVerified(missing=missing)
        try:
            async with transaction(self._engine) as connection:
                job = await verifying.begin(connection, *_whom(run))
        except NotYours:
            return BackfillVerified(stopped=True)
        found: dict[str, Any] = {"coverage": {"complete": True, "missing_blocks": 0}}
        faults: list[str] = []
        if source.sequenced:
            numbers, before = await self._numbers(source, job)
            found["sequence"], told = _sequence(numbers, before)
            faults += told
            found["counter"], told = await self._counter(source, job, numbers, before)
            faults += told
        found |= {"verified_at": now().isoformat(), "agrees": not faults}
        async with transaction(self._engine) as connection:
            await jobs.verified(connection, job, found)
        return BackfillVerified(error="; ".join(faults) or None)

    @asynccontextmanager
    async def _noting(self, source: Source) -> AsyncIterator[None]:
        """Meanwhile, and at the end, write down how the providers do: who lies to a job alone is named as well."""
        desk = desk_of(self._chains, source)
        notes = self._notes.setdefault(id(desk), ProviderNotes(self._engine, desk))

        async def note() -> None:
            try:
                if await notes.keep(source, now()):
                    self._doorbell.ring()
            except Unavailable as absence:
                _log.warning("how providers do is written down later: %s", absence)

        async def note_on() -> None:
            while True:
                await asyncio.sleep(EVERY_SECONDS)
                await note()

        noting = asyncio.create_task(note_on(), name="backfill-noting")
        try:
            yield
        finally:
            noting.cancel()
            await asyncio.gather(noting, return_exceptions=True)
            await note()

    async def _job(self, run: BackfillRun) -> Job:
        async with transaction(self._engine) as connection:
            return await jobs.get(connection, *_whom(run))

    async def _missing(self, source: Source, job: Job) -> int:
        wanted = (job.from_block, job.to_block)
        async with transaction(self._engine) as connection:
            return count(difference([wanted], await coverage.covered(connection, source.source_id, wanted)))

    async def _numbers(self, source: Source, job: Job) -> tuple[Numbers, int | None]:
        """The numbers in the range, and the last one below it where that is known."""
        first, numbers = job.from_block, Numbers()
        async with transaction(self._engine) as connection:
            covered = await coverage.covered(connection, source.source_id)
            beside = await filling.neighbours(connection, source, covered, (job.from_block, job.to_block))
        while first <= job.to_block:
            async with transaction(self._engine) as connection:
                page, first = await verifying.numbers(connection, source.source_id, (first, job.to_block))
            numbers = numbers.then(page)
        before = beside.sequence_below
        if before is None and job.known_blocks < job.total_blocks:
            _, before = await boundary(source, desk_of(self._chains, source), job.from_block, beside)
        return numbers, before

    async def _counter(
        self, source: Source, job: Job, numbers: Numbers, before: int | None
    ) -> tuple[dict[str, Any], list[str]]:
        """The contract's counter as of the range's end, beside our last number. Where nothing was fetched, it was
        compared before, and nobody is asked."""
        if job.known_blocks == job.total_blocks:
            return {"asked": False}, []
        desk = desk_of(self._chains, source)
        (block,) = await desk.blocks([job.to_block], Lane.JOB)
        counter = await desk.counter(source, block, Lane.JOB)
        last = before if numbers.last is None else numbers.last
        equal = None if counter is None or last is None else counter == last
        found = {"asked": True, "value": counter, "last": last, "equal": equal, "block": job.to_block}
        told = f"the contract counts {counter} events up to block {job.to_block}, and {last} is the last that is here"
        return found, [told] if equal is False else []


def finalized_number(head: Head, desk: ChainDesk) -> int:
    """The last block that is final; -1 where that cannot be said."""
    final = final_number(head, Depths(desk.confirmations, desk.finality_depth))
    return -1 if final is None else final


async def _expected(source: Source, desk: ChainDesk, job: Job) -> int | None:
    """How many events the whole range has, where the contract's counter says it at both of its ends."""
    if not source.sequenced:
        return None
    (last,) = await desk.blocks([job.to_block], Lane.JOB)
    counted = await desk.counter(source, last, Lane.JOB)
    _, before = await boundary(source, desk, job.from_block, Neighbours())
    return None if counted is None or before is None else counted - before


def _sequence(numbers: Numbers, before: int | None) -> tuple[dict[str, Any], list[str]]:
    """What is stored of the numbers, and what is wrong with them."""
    begins = before is None or numbers.first is None or numbers.first == before + 1
    contiguous = numbers.gaps == 0 and begins
    found = {
        "contiguous": contiguous,
        "events": numbers.events,
        "first": numbers.first,
        "last": numbers.last,
        "before": before,
    }
    told = [] if contiguous else [f"the events' numbers have {numbers.gaps + (not begins)} gaps"]
    return found, told


def _whom(run: BackfillRun) -> tuple[Any, Any]:
    return run.tenant_id, run.job_id


@asynccontextmanager
async def _heartbeats(details: Callable[[], tuple[Any, ...]]) -> AsyncIterator[None]:
    """While a step lasts, so that one whose process died is noticed soon."""

    async def beat() -> None:
        while True:
            activity.heartbeat(*details())
            await asyncio.sleep(HEARTBEAT_SECONDS)

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
