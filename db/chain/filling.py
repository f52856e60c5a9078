"""What backfill jobs write: chunks that workers lease, and pieces with everything that goes with them in one commit.

The coverage is locked first, then the job. A piece writes only what is not covered yet, so whoever comes second finds
nothing left to do; a chunk moves from where it stands, so of two workers that hold one chunk one moves it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.chain import coverage, jobs, sources
from db.chain.jobs import Job
from db.chain.rows import copy_blocks, copy_events, put_blocks
from domain.chain import Block, Event, Fetched, RelayerStatus, Source
from domain.chain.jobs import JobStatus, plan
from domain.chain.pace import finish_at
from domain.chain.ranges import Range, Ranges, count, difference, intersection
from domain.errors import Refusal

#: So many chunks a job claims at a time; what is behind them, another job may take.
CHUNKS_MAX = 500
#: Who leased a chunk is taken to be at it for so long after its last sign; what is true is Temporal's to say.
LEASE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Planned:
    """What a job fetches: chunks 0 to ``chunks - 1``; ``others`` blocks are left to jobs that are at them."""

    job: Job
    chunks: int
    others: int
    covered: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """A chunk as it stands."""

    first: int
    last: int
    done_to: int


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What is stored right below and right above a range, where it is covered there.

    ``sequence_below`` is the number of the last event below, ``sequence_above`` that of the first event above; None
    where it is not known from what is stored.
    """

    below: Block | None = None
    above: Block | None = None
    sequence_below: int | None = None
    sequence_above: int | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """What a piece left. ``open`` are the blocks of it that were not covered before."""

    events: int
    open: Ranges
    job: Job


class NotYours(Exception):
    """The job does not work any more, or somebody else moved the chunk; nothing was written."""


class NotJoined(Exception):
    """What was fetched does not join what is stored beside it; nothing was written."""


async def lay_out(connection: AsyncConnection, source: Source, tenant: UUID, job_id: UUID, at: datetime) -> Planned:
    """Decide what a job fetches, and claim it. Raises ``NotYours`` where the job is paused or over."""
    covered = await coverage.lock(connection, source.source_id)
    job = await jobs.get(connection, tenant, job_id, lock=True)
    if job.status not in (JobStatus.PENDING, JobStatus.RUNNING, JobStatus.VERIFYING):
        raise NotYours(job.status)
    wanted = (job.from_block, job.to_block)
    taken = await _taken(connection, job)
    claimed, others = plan(wanted, covered, taken, chunk_blocks=job.chunk_blocks, most=CHUNKS_MAX)
    known = count(intersection([wanted], covered))
    await connection.execute(
        text("DELETE FROM backfill_chunks WHERE tenant_id = :tenant AND job_id = :job"),
        {"tenant": tenant, "job": job_id},
    )
    if claimed:
        await connection.execute(
            text(
                "INSERT INTO backfill_chunks (tenant_id, job_id, chunk_no, first_block, last_block, done_to)"
                " SELECT :tenant, :job, n - 1, first, last, first - 1"
                " FROM unnest(CAST(:firsts AS bigint[]), CAST(:lasts AS bigint[])) WITH ORDINALITY c (first, last, n)"
            ),
            {
                "tenant": tenant,
                "job": job_id,
                "firsts": [first for first, _ in claimed],
                "lasts": [last for _, last in claimed],
            },
        )
    await connection.execute(
        text(
            "UPDATE backfill_jobs SET status = 'running', covered_blocks = :covered, updated_at = :at,"
            " known_blocks = CASE WHEN started_at IS NULL THEN :covered ELSE known_blocks END,"
            " started_at = coalesce(started_at, :at) WHERE tenant_id = :tenant AND job_id = :job"
        ),
        {"covered": known, "at": at, "tenant": tenant, "job": job_id},
    )
    return Planned(job, len(claimed), others, known)


async def _taken(connection: AsyncConnection, job: Job) -> Ranges:
    """The blocks that other jobs of the source are at."""
    rows = await connection.execute(
        text(
            "SELECT c.done_to + 1 AS first, c.last_block AS last FROM backfill_jobs j JOIN backfill_chunks c"
            " ON (c.tenant_id, c.job_id) = (j.tenant_id, j.job_id)"
            " WHERE j.tenant_id = :tenant AND j.source_id = :source AND j.status = 'running' AND j.job_id <> :job"
            " AND c.done_to < c.last_block"
        ),
        {"tenant": job.tenant_id, "source": job.source_id, "job": job.job_id},
    )
    return tuple((row.first, row.last) for row in rows)


async def lease(connection: AsyncConnection, tenant: UUID, job_id: UUID, chunk_no: int, *, worker: str) -> Chunk | None:
    """A chunk as it stands, and who is at it from now on; None where the job laid out its work anew."""
    rows = await connection.execute(
        text(
            "UPDATE backfill_chunks SET leased_to = :worker,"
            " leased_until = clock_timestamp() + CAST(:until AS interval)"
            " WHERE tenant_id = :tenant AND job_id = :job AND chunk_no = :chunk"
            " RETURNING first_block, last_block, done_to"
        ),
        {"worker": worker, "until": LEASE, "tenant": tenant, "job": job_id, "chunk": chunk_no},
    )
    row = rows.one_or_none()
    return None if row is None else Chunk(row.first_block, row.last_block, row.done_to)


async def turn(connection: AsyncConnection, tenant: UUID, job_id: UUID) -> tuple[JobStatus, int | None]:
    """Where a job stands, and the chunk whose turn it is to commit; None when all are done."""
    rows = await connection.execute(
        text(
            "SELECT j.status, (SELECT min(c.chunk_no) FROM backfill_chunks c WHERE c.tenant_id = j.tenant_id"
            " AND c.job_id = j.job_id AND c.done_to < c.last_block) AS turn"
            " FROM backfill_jobs j WHERE j.tenant_id = :tenant AND j.job_id = :job"
        ),
        {"tenant": tenant, "job": job_id},
    )
    row = rows.one()
    return JobStatus(row.status), row.turn


async def neighbours(connection: AsyncConnection, source: Source, covered: Ranges, piece: Range) -> Neighbours:
    """What is stored beside a range of blocks."""
    first, last = piece
    under = next((each for each in covered if each[0] <= first - 1 <= each[1]), None)
    over = next((each for each in covered if each[0] <= last + 1 <= each[1]), None)
    below = None if under is None else await _block(connection, source, first - 1)
    above = None if over is None else await _block(connection, source, last + 1)
    sequence_below = sequence_above = None
    if source.sequenced:
        if under is not None:
            sequence_below = await _sequence(connection, source, (under[0], first - 1), last=True)
        if over is not None:
            sequence_above = await _sequence(connection, source, (last + 1, over[1]), last=False)
    return Neighbours(below, above, sequence_below, sequence_above)


async def write(
    connection: AsyncConnection,
    source: Source,
    piece: Fetched,
    *,
    tenant: UUID,
    job_id: UUID,
    chunk_no: int,
    expected_events: int | None,
) -> Written:
    """Write a piece of a chunk: events, blocks, coverage and progress. Raises ``NotYours`` and ``NotJoined``, and
    refuses ``relayer_not_running`` while the source's relayer is halted."""
    covered = await coverage.lock(connection, source.source_id)
    job = await _working(connection, tenant, job_id)
    await _check_not_halted(connection, source)
    whole = (piece.first, piece.last)
    uncovered = difference([whole], covered)
    written = 0
    if uncovered:
        check_joined(source, piece, await neighbours(connection, source, covered, whole))
        for part in uncovered:
            written += await _replace(connection, source, part, _within(part, piece, whole))
        await coverage.cover(connection, source.source_id, piece.first, piece.last)
    after = await _advance(connection, job, chunk_no, piece, written, count(uncovered), expected_events)
    return Written(written, uncovered, after)


def check_joined(source: Source, piece: Fetched, beside: Neighbours) -> None:
    """Raise ``NotJoined`` where a piece does not continue what is below it, or is not continued by what is above."""
    blocks = piece.blocks
    if beside.below is not None and blocks[0].number == piece.first and blocks[0].parent_hash != beside.below.hash:
        raise NotJoined(f"block {piece.first} does not continue block {piece.first - 1}, which is stored")
    if beside.above is not None and blocks[-1].number == piece.last and beside.above.parent_hash != blocks[-1].hash:
        raise NotJoined(f"block {piece.last + 1}, which is stored, does not continue block {piece.last}")
    if not source.sequenced:
        return
    last = beside.sequence_below
    if piece.events:
        first, last_of_piece = piece.events[0].sequence, piece.events[-1].sequence
        if last is not None and first != last + 1:
            raise NotJoined(f"event {first} does not follow event {last}, the last below block {piece.first}")
        last = last_of_piece
    if last is not None and beside.sequence_above is not None and beside.sequence_above != last + 1:
        raise NotJoined(f"event {beside.sequence_above} above block {piece.last} does not follow event {last}")


def _within(part: Range, piece: Fetched, whole: Range) -> tuple[Sequence[Block], Sequence[Event]]:
    if part == whole:
        return piece.blocks, piece.events
    first, last = part
    return (
        [block for block in piece.blocks if first <= block.number <= last],
        [event for event in piece.events if first <= event.block_number <= last],
    )


async def _replace(
    connection: AsyncConnection, source: Source, part: Range, rows: tuple[Sequence[Block], Sequence[Event]]
) -> int:
    """Put rows in the place of what a range holds. What was left in a reorganisation stays, unless it is back; what was
    settled is never taken away: then the copy fails."""
    blocks, events = rows
    where = {"source": source.source_id, "first": part[0], "last": part[1]}
    left = await connection.execute(
        text(
            "WITH events AS (DELETE FROM chain_events WHERE source_id = :source AND block_number BETWEEN :first AND"
            " :last AND canonical AND outcome IS NULL),"
            " blocks AS (DELETE FROM chain_blocks WHERE source_id = :source AND number BETWEEN :first AND :last"
            " AND canonical) SELECT EXISTS (SELECT FROM chain_blocks WHERE source_id = :source"
            " AND number BETWEEN :first AND :last AND NOT canonical)"
        ),
        where,
    )
    if left.scalar_one():
        hashes = list({event.block_hash for event in events})
        await connection.execute(
            text(
                "DELETE FROM chain_events WHERE source_id = :source AND block_number BETWEEN :first AND :last"
                " AND NOT canonical AND block_hash = ANY (CAST(:hashes AS bytea[]))"
            ),
            {**where, "hashes": hashes},
        )
        await put_blocks(connection, source, blocks)
    else:
        await copy_blocks(connection, source, blocks)
    return await copy_events(connection, source, events)


async def _working(connection: AsyncConnection, tenant: UUID, job_id: UUID) -> Job:
    job = await jobs.get(connection, tenant, job_id, lock=True)
    if job.status is not JobStatus.RUNNING:
        raise NotYours(job.status)
    return job


async def _check_not_halted(connection: AsyncConnection, source: Source) -> None:
    """A chain that left what was final is not believed about the past either, until an operator resumes it."""
    followed = await sources.get(connection, source.source_id)
    if followed.status is RelayerStatus.HALTED:
        raise Refusal("relayer_not_running", f"{source.relayer_id} is halted: resume it, and retry the job")


async def _advance(
    connection: AsyncConnection,
    job: Job,
    chunk_no: int,
    piece: Fetched,
    events: int,
    blocks: int,
    expected_events: int | None,
) -> Job:
    """Move the chunk and the job's progress."""
    moved: Any = await connection.execute(
        text(
            "UPDATE backfill_chunks SET done_to = :last, events_written = events_written + :events,"
            " leased_until = clock_timestamp() + CAST(:until AS interval)"
            " WHERE tenant_id = :tenant AND job_id = :job AND chunk_no = :chunk AND done_to = :first - 1"
            " AND last_block >= :last"
        ),
        {
            "first": piece.first,
            "last": piece.last,
            "events": events,
            "until": LEASE,
            "tenant": job.tenant_id,
            "job": job.job_id,
            "chunk": chunk_no,
        },
    )
    if moved.rowcount != 1:
        raise NotYours("somebody else moved the chunk")
    at: datetime = (await connection.execute(text("SELECT clock_timestamp()"))).scalar_one()
    pace = job.pace.after(piece.last - piece.first + 1, events, (at - job.updated_at).total_seconds())
    covered = min(job.covered_blocks + blocks, job.total_blocks)
    left = None if expected_events is None else max(0, expected_events - job.events_written - events)
    eta = finish_at(at, pace.left(job.total_blocks - covered, left))
    after = replace(
        job,
        covered_blocks=covered,
        events_written=job.events_written + events,
        blocks_per_second=pace.blocks_per_second,
        events_per_second=pace.events_per_second,
        eta_at=eta,
        updated_at=at,
    )
    await _progress(connection, after)
    return after


async def _progress(connection: AsyncConnection, job: Job) -> None:
    await connection.execute(
        text(
            "UPDATE backfill_jobs SET covered_blocks = :covered, events_written = :events,"
            " blocks_per_second = :blocks_per_second, events_per_second = :events_per_second, eta_at = :eta,"
            " updated_at = :at WHERE tenant_id = :tenant AND job_id = :job"
        ),
        {
            "covered": job.covered_blocks,
            "events": job.events_written,
            "blocks_per_second": job.blocks_per_second,
            "events_per_second": job.events_per_second,
            "eta": job.eta_at,
            "at": job.updated_at,
            "tenant": job.tenant_id,
            "job": job.job_id,
        },
    )


async def _block(connection: AsyncConnection, source: Source, number: int) -> Block | None:
    rows = await connection.execute(
        text(
            "SELECT number, hash, parent_hash, CAST(extract(epoch FROM at) AS bigint) AS seconds FROM chain_blocks"
            " WHERE source_id = :source AND number = :number AND canonical"
        ),
        {"source": source.source_id, "number": number},
    )
    row = rows.one_or_none()
    return None if row is None else Block(row.number, row.hash, row.parent_hash, row.seconds)


async def _sequence(connection: AsyncConnection, source: Source, within: Range, *, last: bool) -> int | None:
    """The number of the last, or the first, event in a range."""
    order = "DESC" if last else "ASC"
    found = await connection.scalar(
        text(
            "SELECT sequence FROM chain_events WHERE source_id = :source AND block_number BETWEEN :first AND :last"
            f" AND canonical AND sequence IS NOT NULL ORDER BY block_number {order}, log_index {order} LIMIT 1"
        ),
        {"source": source.source_id, "first": within[0], "last": within[1]},
    )
    return None if found is None else int(found)
