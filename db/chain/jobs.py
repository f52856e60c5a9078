"""Backfill jobs: what was asked for, how far it is, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.chain.jobs import OVER, JobStatus, Progress
from domain.chain.pace import Pace, finish_at

#: A job that ended is kept for so long.
KEPT_DAYS = 180

_COLUMNS = (
    "tenant_id, job_id, source_id, name, from_block, to_block, chunk_blocks, status, error, total_blocks,"
    " covered_blocks, known_blocks, events_written, blocks_per_second, events_per_second, eta_at, verification,"
    " attempt, started_at, finished_at, updated_at, recorded_at"
)


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it is stored. ``source_id`` is None where it runs elsewhere. ``known_blocks`` of ``covered_blocks`` were
    covered before it began."""

    tenant_id: UUID
    job_id: UUID
    source_id: int | None
    name: str
    from_block: int
    to_block: int
    chunk_blocks: int
    status: JobStatus
    error: str | None
    total_blocks: int
    covered_blocks: int
    known_blocks: int
    events_written: int
    blocks_per_second: float | None
    events_per_second: float | None
    eta_at: datetime | None
    verification: Mapping[str, Any] | None
    attempt: int
    started_at: datetime | None
    finished_at: datetime | None
    updated_at: datetime
    recorded_at: datetime

    @property
    def pace(self) -> Pace:
        """How fast it goes."""
        return Pace(self.blocks_per_second, self.events_per_second)


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be stored."""

    job_id: UUID
    source_id: int | None
    name: str
    from_block: int
    to_block: int
    chunk_blocks: int
    status: JobStatus = JobStatus.PENDING


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs are wanted; None is no condition. Times are those at which jobs were recorded, ``until`` excluded."""

    status: JobStatus | None = None
    name: str | None = None
    since: datetime | None = None
    until: datetime | None = None


async def insert(connection: AsyncConnection, tenant: UUID, job: NewJob, *, at: datetime) -> None:
    """Store a new job; one that is there already stays as it is."""
    await connection.execute(
        text(
            "INSERT INTO backfill_jobs (tenant_id, job_id, source_id, name, from_block, to_block, chunk_blocks, status,"
            " total_blocks, updated_at) VALUES (:tenant, :job, :source, :name, :from, :to, :chunk, :status, :total,"
            " :at) ON CONFLICT (tenant_id, job_id) DO NOTHING"
        ),
        {
            "tenant": tenant,
            "job": job.job_id,
            "source": job.source_id,
            "name": job.name,
            "from": job.from_block,
            "to": job.to_block,
            "chunk": job.chunk_blocks,
            "status": job.status,
            "total": job.to_block - job.from_block + 1,
            "at": at,
        },
    )


async def find(connection: AsyncConnection, tenant: UUID, job_id: UUID, *, lock: bool = False) -> Job | None:
    """A job; with ``lock`` nobody else changes it until the transaction ends."""
    rows = await connection.execute(
        text(
            f"SELECT {_COLUMNS} FROM backfill_jobs WHERE tenant_id = :tenant AND job_id = :job"
            + (" FOR UPDATE" if lock else "")
        ),
        {"tenant": tenant, "job": job_id},
    )
    row = rows.one_or_none()
    return None if row is None else _job(row)


async def get(connection: AsyncConnection, tenant: UUID, job_id: UUID, *, lock: bool = False) -> Job:
    """A job that is there."""
    found = await find(connection, tenant, job_id, lock=lock)
    if found is None:
        raise LookupError(f"there is no job {job_id}")
    return found


async def list_(connection: AsyncConnection, wanted: JobFilter, *, before: UUID | None, limit: int) -> list[Job]:
    """The transaction's tenant's jobs, the newest first; those behind the job ``before``."""
    rows = await connection.execute(
        text(
            f"SELECT {_COLUMNS} FROM backfill_jobs"
            " WHERE (CAST(:status AS text) IS NULL OR status = :status)"
            " AND (CAST(:name AS text) IS NULL OR name = :name)"
            " AND (CAST(:since AS timestamptz) IS NULL OR recorded_at >= :since)"
            " AND (CAST(:until AS timestamptz) IS NULL OR recorded_at < :until)"
            " AND (CAST(:before AS uuid) IS NULL OR (recorded_at, job_id) < "
            "(SELECT recorded_at, job_id FROM backfill_jobs WHERE job_id = :before))"
            " ORDER BY recorded_at DESC, job_id DESC LIMIT :limit"
        ),
        {
            "status": wanted.status,
            "name": wanted.name,
            "since": wanted.since,
            "until": wanted.until,
            "before": before,
            "limit": limit,
        },
    )
    return [_job(row) for row in rows]


async def set_status(
    connection: AsyncConnection,
    job: Job,
    status: JobStatus,
    *,
    at: datetime,
    error: str | None = None,
    finished_at: datetime | None = None,
    attempt: int | None = None,
) -> None:
    """Where a job stands from now on. Who does not work does not end at some time."""
    await connection.execute(
        text(
            "UPDATE backfill_jobs SET status = :status, error = :error, attempt = :attempt, finished_at = :finished,"
            " updated_at = :at, eta_at = NULL"
            " WHERE tenant_id = :tenant AND job_id = :job"
        ),
        {
            "status": status,
            "error": error,
            "attempt": attempt or job.attempt,
            "finished": finished_at,
            "at": at,
            "tenant": job.tenant_id,
            "job": job.job_id,
        },
    )


async def report(connection: AsyncConnection, job: Job, told: Progress, *, error: str | None, at: datetime) -> None:
    """What a job that runs elsewhere says of itself; its pace comes from what it said before."""
    covered, events = told.covered_blocks - job.covered_blocks, told.events_written - job.events_written
    pace = job.pace.after(covered, events, (at - job.updated_at).total_seconds()) if job.started_at else job.pace
    over = told.status in OVER
    left = None if over else pace.left(job.total_blocks - told.covered_blocks, None)
    await connection.execute(
        text(
            "UPDATE backfill_jobs SET status = :status, error = :error, covered_blocks = :covered,"
            " events_written = :events, blocks_per_second = :blocks_per_second,"
            " events_per_second = :events_per_second, eta_at = :eta, updated_at = :at,"
            " started_at = coalesce(started_at, :at), finished_at = :finished"
            " WHERE tenant_id = :tenant AND job_id = :job"
        ),
        {
            "status": told.status,
            "error": error,
            "covered": told.covered_blocks,
            "events": told.events_written,
            "blocks_per_second": pace.blocks_per_second,
            "events_per_second": pace.events_per_second,
            "eta": finish_at(at, left),
            "at": at,
            "finished": at if over else None,
            "tenant": job.tenant_id,
            "job": job.job_id,
        },
    )


async def finalized_number(connection: AsyncConnection, source_id: int) -> int:
    """The last block of which a source's relayer knows that it is final."""
    found = await connection.scalar(
        text("SELECT finalized_number FROM chain_cursors WHERE source_id = :source"), {"source": source_id}
    )
    return -1 if found is None else int(found)


async def verified(connection: AsyncConnection, job: Job, found: Mapping[str, Any]) -> None:
    """What the look at the end found."""
    await connection.execute(
        text(
            "UPDATE backfill_jobs SET verification = CAST(:found AS jsonb), updated_at = clock_timestamp()"
            " WHERE tenant_id = :tenant AND job_id = :job"
        ),
        {"found": json.dumps(found), "tenant": job.tenant_id, "job": job.job_id},
    )


async def list_idle(
    connection: AsyncConnection, margin: timedelta, *, after: UUID | None, limit: int
) -> Sequence[tuple[UUID, UUID]]:
    """Tenant and id of jobs of any tenant that should work here and showed nothing for a while, by id."""
    rows = await connection.execute(
        text(
            "SELECT tenant_id, job_id FROM backfill_jobs WHERE source_id IS NOT NULL"
            " AND status IN ('pending', 'running', 'verifying')"
            " AND updated_at < clock_timestamp() - CAST(:margin AS interval)"
            " AND (CAST(:after AS uuid) IS NULL OR job_id > :after) ORDER BY job_id LIMIT :limit"
        ),
        {"margin": margin, "after": after, "limit": limit},
    )
    return [(row.tenant_id, row.job_id) for row in rows]


async def delete_old(connection: AsyncConnection, *, limit: int) -> int:
    """Delete up to ``limit`` jobs of any tenant that ended more than ``KEPT_DAYS`` ago; returns how many."""
    done = await connection.execute(
        text(
            "WITH old AS (SELECT tenant_id, job_id FROM backfill_jobs WHERE status IN ('completed', 'failed',"
            " 'cancelled') AND finished_at < clock_timestamp() - make_interval(days => :days) LIMIT :limit FOR UPDATE),"
            " chunks AS (DELETE FROM backfill_chunks c USING old o"
            " WHERE (c.tenant_id, c.job_id) = (o.tenant_id, o.job_id) RETURNING c.job_id)"
            " SELECT tenant_id, job_id, (SELECT count(*) FROM chunks) FROM old"
        ),
        {"days": KEPT_DAYS, "limit": limit},
    )
    # In a statement of its own: the reference of a chunk that goes in the same statement would still hold its job.
    old = [(row.tenant_id, row.job_id) for row in done]
    for tenant, job in old:
        await connection.execute(
            text("DELETE FROM backfill_jobs WHERE tenant_id = :tenant AND job_id = :job"),
            {"tenant": tenant, "job": job},
        )
    return len(old)


def _job(row: Any) -> Job:
    values = row._asdict()
    return Job(**{**values, "status": JobStatus(values["status"])})
