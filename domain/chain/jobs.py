"""Backfill jobs: when one may be stopped and taken up again, how far it is, and how long it will take."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Final

from domain.chain.ranges import Ranges, count, cut, difference
from domain.errors import Refusal

#: So many blocks at most are a job's piece of work that one worker leases.
CHUNK_BLOCKS_MAX: Final = 1_000_000
#: Events that one commit writes, about: fewer cost a round trip each, more hold the live end up.
PIECE_EVENTS: Final = 8_000
#: What a piece may grow by at once, until it is known how dense the blocks ahead are.
_GROWTH: Final = 8


class JobStatus(StrEnum):
    """Where a job stands."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    VERIFYING = "verifying"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


#: A job that is over; one that failed or was cancelled can be retried.
OVER: Final = frozenset({JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED})
#: A job that works.
WORKING: Final = frozenset({JobStatus.PENDING, JobStatus.RUNNING, JobStatus.VERIFYING})


class JobCommand(StrEnum):
    """What an operator tells a job."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    RETRY = "retry"


def command(status: JobStatus, said: JobCommand) -> JobStatus:
    """Where a job stands after a command; refuses what makes no sense there."""
    if said is JobCommand.RETRY:
        if status not in (JobStatus.FAILED, JobStatus.CANCELLED):
            raise Refusal("job_not_failed", f"only a job that failed or was cancelled is retried; it is {status}")
        return JobStatus.PENDING
    if status in OVER:
        raise Refusal("job_over", f"the job has ended: it is {status}")
    if said is JobCommand.CANCEL:
        return JobStatus.CANCELLED
    if said is JobCommand.PAUSE:
        return JobStatus.PAUSED
    if status is not JobStatus.PAUSED:
        raise Refusal("job_not_paused", f"only a job that is paused is resumed; it is {status}")
    return JobStatus.RUNNING


def check_range(from_block: int, to_block: int, *, start_block: int = 0) -> None:
    """Refuse a range that ends before it begins, or begins before the source can have an event."""
    if from_block > to_block:
        raise Refusal("block_range_invalid", f"the range ends at {to_block}, before it begins", field="to_block")
    if from_block < start_block:
        raise Refusal("block_range_invalid", f"the source has no events before block {start_block}", field="from_block")


def plan(
    wanted: tuple[int, int], covered: Ranges, taken: Ranges, *, chunk_blocks: int, most: int
) -> tuple[Ranges, int]:
    """What a job fetches next, in at most so many chunks in the order of blocks, and how many blocks of its range are
    left to other jobs."""
    missing = difference([wanted], covered)
    mine = difference(missing, taken)
    # Small chunks of a long range are millions: no more of them are made than are claimed.
    return tuple(islice(cut(mine, chunk_blocks), most)), count(missing) - count(mine)


def next_blocks(fetched: int, events: int, left: int, *, aim: int = PIECE_EVENTS) -> int:
    """How many blocks the next piece has, after one of ``fetched`` blocks had so many events; ``aim`` are wanted."""
    if not events:
        return max(1, min(left, fetched * _GROWTH))
    fits = max(1, aim * fetched // events)
    return max(1, min(left, fits, fetched * _GROWTH))


@dataclass(frozen=True, slots=True)
class Progress:
    """What a job that runs elsewhere says of itself."""

    from_block: int
    to_block: int
    covered_blocks: int
    events_written: int
    status: JobStatus


def check_progress(now: Progress, before: Progress | None) -> None:
    """Refuse progress that shrinks, exceeds the range, changes the range, or comes after the end."""
    check_range(now.from_block, now.to_block)
    total = now.to_block - now.from_block + 1
    if now.covered_blocks > total:
        raise _no_progress(f"the range has {total} blocks", "covered_blocks")
    if now.status is JobStatus.COMPLETED and now.covered_blocks < total:
        raise _no_progress(f"a job is complete when all of its {total} blocks are covered", "covered_blocks")
    if before is None:
        return
    if before.status in OVER and now != before:
        raise Refusal("job_over", f"the job has ended: it is {before.status}")
    if (now.from_block, now.to_block) != (before.from_block, before.to_block):
        raise _no_progress(f"the job's range is {before.from_block} to {before.to_block}", "to_block")
    if now.covered_blocks < before.covered_blocks:
        raise _no_progress(f"{before.covered_blocks} blocks were covered before", "covered_blocks")
    if now.events_written < before.events_written:
        raise _no_progress(f"{before.events_written} events were written before", "events_written")


def _no_progress(message: str, field: str) -> Refusal:
    return Refusal("progress_invalid", message, field=field)
