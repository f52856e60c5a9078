"""Filling chunks: fetch ahead, and commit in the order of blocks.

Several chunks of a job are under way at once, in any process. Each fetches its pieces ahead, up to a bound, and writes
them when every chunk before it is done: so what is covered grows from below, and the numbers of events join at every
boundary. Where a chunk stands is in the database alone; who dies is followed by somebody who goes on from there.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic

from sqlalchemy.ext.asyncio import AsyncEngine

from activities.chain.backfill_messages import ChunkFilled, FillChunk
from activities.chain.ports import ChainDesk, Forked, Lane
from db.chain import coverage, filling, sources
from db.chain.filling import Chunk, Neighbours, NotJoined, NotYours, Written
from db.chain.jobs import Job
from db.doorbell import Doorbell
from db.engine import transaction
from db.ids import new_id
from db.outbox import SETTLEMENT_TOPIC, OutboxEvent, append
from domain.chain import Block, Fetched, Source
from domain.chain.jobs import PIECE_EVENTS, JobStatus, next_blocks
from domain.errors import Refusal
from domain.ids import relayer_workflow_id
from kit.clock import now

#: Who leases a chunk, for operators.
WORKER = f"{os.uname().nodename}:{os.getpid()}"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FillPace:
    """How chunks are filled. ``ahead_events`` lie fetched in memory at most, and one piece more."""

    first_blocks: int = 16
    piece_events: int = PIECE_EVENTS
    ahead_events: int = 2 * PIECE_EVENTS
    #: Of a source without numbers every header is kept, however empty the blocks: without a bound, a chunk's at once.
    whole_blocks: int = 2_000
    look_seconds: float = 0.25
    #: A chunk whose turn does not come in this time gives its place in the process to others.
    patience_seconds: float = 300.0


class Shared:
    """What the chunks of a process share: how dense a source's blocks are, and the news that a chunk is done."""

    def __init__(self) -> None:
        self.blocks: dict[int, int] = {}
        self._news = asyncio.Event()

    def tell(self) -> None:
        """A chunk is done: it may be the turn of another."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def hear(self, seconds: float) -> None:
        """Wait for news, not longer than so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return


class _Ahead:
    """What was fetched and not written yet, within a bound."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._pieces: deque[Fetched] = deque()
        self._events = 0
        self._changed = asyncio.Condition()

    async def put(self, piece: Fetched) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._events < self._most)
            self._pieces.append(piece)
            self._events += len(piece.events)
            self._changed.notify_all()

    async def take(self) -> Fetched:
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self._pieces))
            piece = self._pieces.popleft()
            self._events -= len(piece.events)
            self._changed.notify_all()
            return piece


class Filler:
    """Fills one chunk. ``engine`` sees every tenant."""

    def __init__(
        self,
        engine: AsyncEngine,
        doorbell: Doorbell,
        chains: Mapping[str, ChainDesk],
        shared: Shared,
        pace: FillPace,
        asked: FillChunk,
    ) -> None:
        self._engine = engine
        self._doorbell = doorbell
        self._chains = chains
        self._shared = shared
        self._pace = pace
        self._asked = asked
        self._whom = (asked.run.tenant_id, asked.run.job_id)
        #: Where the chunk stands, for who looks at the heartbeat.
        self.done_to: int | None = None

    async def run(self, source: Source) -> ChunkFilled:
        """Fetch and write until the chunk is done, the job stops, or its turn does not come for too long."""
        desk = desk_of(self._chains, source)
        for attempt in range(3):
            try:
                return await self._fill(source, desk)
            except NotYours as stopped:
                _log.info("a chunk is left", extra={"reason": str(stopped), **self._asked.log_context()})
                return ChunkFilled(done=False, stopped=True)
            except NotJoined as differs:
                # Stored rows are final, so what was fetched is asked for again, beside what it has to join.
                _log.warning("a piece does not join: %s", differs, extra={"attempt": attempt})
                reason = str(differs)
            except Forked as forked:
                raise Refusal("job_forked", f"what the chain says does not continue what is stored: {forked}") from None
        raise Refusal("job_forked", f"what was fetched does not join what is stored: {reason}")

    async def _fill(self, source: Source, desk: ChainDesk) -> ChunkFilled:
        async with transaction(self._engine) as connection:
            chunk = await filling.lease(connection, *self._whom, self._asked.chunk_no, worker=WORKER)
            if chunk is None:
                raise NotYours("the job laid out its work anew")
            covered = await coverage.covered(connection, source.source_id)
            beside = await filling.neighbours(connection, source, covered, (chunk.done_to + 1, chunk.last))
        self.done_to = chunk.done_to
        if chunk.done_to >= chunk.last:
            return ChunkFilled(done=True)
        ahead = _Ahead(self._pace.ahead_events)
        fetching = asyncio.create_task(self._fetch(source, desk, chunk, beside, ahead), name="backfill-fetching")
        writing = asyncio.create_task(self._write(source, chunk, ahead), name="backfill-writing")
        try:
            await asyncio.wait({writing, fetching}, return_when=asyncio.FIRST_COMPLETED)
            if not writing.done():
                fetching.result()
            return await writing
        finally:
            fetching.cancel()
            writing.cancel()
            await asyncio.gather(fetching, writing, return_exceptions=True)

    async def _fetch(self, source: Source, desk: ChainDesk, chunk: Chunk, beside: Neighbours, ahead: _Ahead) -> None:
        """Fetch the chunk's pieces in order, each continuing the one before it."""
        first = chunk.done_to + 1
        after, sequence = await boundary(source, desk, first, beside)
        blocks = self._shared.blocks.get(source.source_id, self._pace.first_blocks)
        while first <= chunk.last:
            blocks = blocks if source.sequenced else min(blocks, self._pace.whole_blocks)
            last = min(first + blocks - 1, chunk.last)
            piece = await desk.fetch(source, first, last, Lane.JOB, after=after, after_sequence=sequence)
            await ahead.put(piece)
            after = piece.blocks[-1]
            if source.sequenced:
                sequence = _last_sequence(piece, sequence)
            left, aim = chunk.last - chunk.first + 1, self._pace.piece_events
            blocks = next_blocks(last - first + 1, len(piece.events), left, aim=aim)
            self._shared.blocks[source.source_id] = blocks
            first = last + 1

    async def _write(self, source: Source, chunk: Chunk, ahead: _Ahead) -> ChunkFilled:
        """Write pieces in order when it is the chunk's turn."""
        written: Written | None = None
        if not await self._turn():
            return ChunkFilled(done=False)
        while self.done_to is not None and self.done_to < chunk.last:
            piece = await ahead.take()
            written = await self._commit(source, piece)
            self.done_to = piece.last
        self._shared.tell()
        return filled_of(None if written is None else written.job)

    async def _turn(self) -> bool:
        """Wait until every chunk before this one is done; False when that takes too long."""
        latest = monotonic() + self._pace.patience_seconds
        while True:
            async with transaction(self._engine) as connection:
                status, turn = await filling.turn(connection, *self._whom)
            if status is not JobStatus.RUNNING:
                raise NotYours(status)
            if turn is None or turn >= self._asked.chunk_no:
                return True
            if monotonic() >= latest:
                return False
            await self._shared.hear(self._pace.look_seconds)

    async def _commit(self, source: Source, piece: Fetched) -> Written:
        async with transaction(self._engine) as connection:
            written = await filling.write(
                connection,
                source,
                piece,
                tenant=self._whom[0],
                job_id=self._whom[1],
                chunk_no=self._asked.chunk_no,
                expected_events=self._asked.expected_events,
            )
            if written.open:
                event = _told(source, piece, written)
                await append(connection, source.tenant_id, [event])
        self._doorbell.ring()
        return written


async def boundary(source: Source, desk: ChainDesk, first: int, beside: Neighbours) -> tuple[Block | None, int | None]:
    """The block before ``first`` and the number of the last event before it: as stored, else as the chain says."""
    below, sequence = beside.below, beside.sequence_below
    if first == 0:
        return None, 0 if source.sequenced else None
    if below is None:
        (below,) = await desk.blocks([first - 1], Lane.JOB)
    if source.sequenced and sequence is None:
        sequence = await desk.counter(source, below, Lane.JOB)
        if sequence is None and first <= source.start_block:
            sequence = 0
    return below, sequence


def desk_of(chains: Mapping[str, ChainDesk], source: Source) -> ChainDesk:
    """The desk of a source's chain; refuses a chain that the configuration does not have any more."""
    desk = chains.get(source.chain)
    if desk is None:
        raise Refusal("chain_unknown", f"the configuration has no chain {source.chain!r}")
    return desk


async def source_of(engine: AsyncEngine, job: Job) -> Source:
    """What a job fills."""
    if job.source_id is None:
        raise Refusal("job_external", "the job runs elsewhere")
    async with transaction(engine) as connection:
        return (await sources.get(connection, job.source_id)).source


def filled_of(job: Job | None) -> ChunkFilled:
    """A chunk that is done, with the job's progress where it moved it."""
    if job is None:
        return ChunkFilled(done=True)
    return ChunkFilled(
        done=True,
        covered_blocks=job.covered_blocks,
        events_written=job.events_written,
        blocks_per_second=job.blocks_per_second,
        events_per_second=job.events_per_second,
        eta_at=job.eta_at,
    )


def _last_sequence(piece: Fetched, before: int | None) -> int | None:
    if piece.events:
        return piece.events[-1].sequence
    return before if piece.counter is None else piece.counter


def _told(source: Source, piece: Fetched, written: Written) -> OutboxEvent:
    """One event for a piece, however many it has: nobody is told of history one by one."""
    numbers = [event.sequence for event in piece.events if event.sequence is not None]
    facts = {
        "relayer_id": source.relayer_id,
        "job_id": str(written.job.job_id),
        "from_block": piece.first,
        "to_block": piece.last,
        "events": written.events,
        "first_sequence": numbers[0] if numbers else None,
        "last_sequence": numbers[-1] if numbers else None,
    }
    subject = relayer_workflow_id(source.relayer_id)
    return OutboxEvent(new_id(), SETTLEMENT_TOPIC, "chain.backfilled", subject, now(), facts)
