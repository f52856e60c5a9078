"""What is stored of a range, looked at again: is its coverage whole, do its numbers run on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.chain import jobs
from db.chain.filling import NotYours
from db.chain.jobs import Job
from domain.chain.jobs import JobStatus
from domain.chain.ranges import Range

#: So many events one statement looks at, about.
PAGE_EVENTS = 100_000


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers of the events in a range, in the order of the chain. ``gaps`` are places at which they do not run on
    by one."""

    events: int = 0
    first: int | None = None
    last: int | None = None
    gaps: int = 0

    def then(self, page: Numbers) -> Numbers:
        """These, and behind them those of another page."""
        if page.first is None:
            return Numbers(self.events + page.events, self.first, self.last, self.gaps)
        breaks = self.last is not None and page.first != self.last + 1
        return Numbers(
            self.events + page.events,
            page.first if self.first is None else self.first,
            page.last,
            self.gaps + page.gaps + breaks,
        )


async def begin(connection: AsyncConnection, tenant: UUID, job_id: UUID) -> Job:
    """A job whose work is looked at from now on; raises ``NotYours`` where it is paused or over."""
    job = await jobs.get(connection, tenant, job_id, lock=True)
    if job.status not in (JobStatus.RUNNING, JobStatus.VERIFYING):
        raise NotYours(job.status)
    await connection.execute(
        text(
            "UPDATE backfill_jobs SET status = 'verifying', updated_at = clock_timestamp(), eta_at = NULL"
            " WHERE tenant_id = :tenant AND job_id = :job"
        ),
        {"tenant": tenant, "job": job_id},
    )
    return job


async def numbers(connection: AsyncConnection, source_id: int, within: Range) -> tuple[Numbers, int]:
    """The numbers of one page's events, and the block behind it."""
    first, last = within
    bound = await connection.scalar(
        text(
            "SELECT block_number FROM chain_events WHERE source_id = :source AND block_number BETWEEN :first AND :last"
            " ORDER BY block_number OFFSET :page LIMIT 1"
        ),
        {"source": source_id, "first": first, "last": last, "page": PAGE_EVENTS},
    )
    behind = last + 1 if bound is None else max(int(bound), first + 1)
    rows: Any = await connection.execute(
        text(
            "SELECT count(*) AS events, min(sequence) AS first, max(sequence) AS last,"
            " count(*) FILTER (WHERE sequence <> before + 1) AS gaps FROM (SELECT sequence, lag(sequence) OVER"
            " (ORDER BY block_number, log_index) AS before FROM chain_events WHERE source_id = :source AND canonical"
            " AND block_number >= :first AND block_number < :behind) AS e"
        ),
        {"source": source_id, "first": first, "behind": behind},
    )
    row = rows.one()
    return Numbers(row.events, row.first, row.last, row.gaps), behind
