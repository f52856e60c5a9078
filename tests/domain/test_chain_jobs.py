"""Backfill jobs: what is fetched, what operators may say, how fast it goes, what reports may claim."""

from __future__ import annotations

from datetime import timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.chain.jobs import (
    OVER,
    PIECE_EVENTS,
    JobCommand,
    JobStatus,
    Progress,
    check_progress,
    check_range,
    command,
    next_blocks,
    plan,
)
from domain.chain.pace import Pace
from domain.chain.ranges import count, difference, intersection, union
from domain.errors import Refusal

RANGE = st.tuples(st.integers(0, 300), st.integers(0, 100)).map(lambda pair: (pair[0], pair[0] + pair[1]))
RANGES = st.lists(RANGE, max_size=6).map(union)


@given(RANGE, RANGES, RANGES, st.integers(1, 50))
def test_a_plan_is_what_is_missing_and_nobody_is_at(
    wanted: tuple[int, int], covered: tuple[tuple[int, int], ...], taken: tuple[tuple[int, int], ...], blocks: int
) -> None:
    chunks, others = plan(wanted, covered, taken, chunk_blocks=blocks, most=1_000)
    assert list(chunks) == sorted(chunks)
    assert all(0 <= last - first < blocks for first, last in chunks)
    assert count(chunks) == sum(last - first + 1 for first, last in chunks), "no block is in two chunks"
    assert not intersection(chunks, covered)
    assert not intersection(chunks, taken)
    missing = difference([wanted], covered)
    assert union(chunks, intersection(missing, taken)) == missing
    assert others == count(intersection(missing, taken))


def test_a_long_range_in_small_chunks_is_laid_out_bit_by_bit() -> None:
    chunks, others = plan((0, 10**12), ((0, 9),), (), chunk_blocks=1, most=3)
    assert (chunks, others) == (((10, 10), (11, 11), (12, 12)), 0)


def test_what_an_operator_may_say() -> None:
    allowed = {
        (status, said)
        for status, said in product(JobStatus, JobCommand)
        if (said is JobCommand.RETRY and status in (JobStatus.FAILED, JobStatus.CANCELLED))
        or (said in (JobCommand.PAUSE, JobCommand.CANCEL) and status not in OVER)
        or (status, said) == (JobStatus.PAUSED, JobCommand.RESUME)
    }
    for status, said in product(JobStatus, JobCommand):
        if (status, said) in allowed:
            after = command(status, said)
            assert after not in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.VERIFYING)
        else:
            with pytest.raises(Refusal, match="job_"):
                command(status, said)


@given(st.lists(st.tuples(st.integers(0, 1_000), st.floats(0.01, 100)), min_size=1, max_size=20))
def test_a_pace_lies_between_the_slowest_and_the_fastest(steps: list[tuple[int, float]]) -> None:
    pace = Pace()
    for blocks, seconds in steps:
        pace = pace.after(blocks, 2 * blocks, seconds)
    rates = [blocks / seconds for blocks, seconds in steps]
    assert pace.blocks_per_second is not None
    assert min(rates) - 1e-6 <= pace.blocks_per_second <= max(rates) + 1e-6


def test_an_end_is_told_by_blocks_or_by_events_whichever_is_later() -> None:
    pace = Pace(blocks_per_second=10, events_per_second=100)
    assert pace.left(100, None) == timedelta(seconds=10)
    assert pace.left(100, 5_000) == timedelta(seconds=50)
    assert pace.left(100, 10) == timedelta(seconds=10)
    assert pace.left(0, 10) == timedelta(0)
    assert Pace().left(5, None) is None


@given(st.integers(1, 10_000), st.integers(0, 10**6), st.integers(1, 10**6))
def test_a_piece_is_never_empty_and_never_too_large(fetched: int, events: int, left: int) -> None:
    blocks = next_blocks(fetched, events, left)
    assert 1 <= blocks <= left
    if blocks > 1 and events:
        assert blocks * events <= PIECE_EVENTS * fetched


def test_a_range_lies_where_events_can_be() -> None:
    check_range(5, 5, start_block=5)
    for first, last in ((6, 5), (4, 9)):
        with pytest.raises(Refusal, match="block_range_invalid"):
            check_range(first, last, start_block=5)


@given(st.integers(0, 12), st.integers(0, 5), st.sampled_from(sorted({"running", "completed", "failed"})))
def test_progress_never_shrinks(covered: int, events: int, status: str) -> None:
    before = Progress(0, 9, 5, 3, JobStatus.RUNNING)
    now = Progress(0, 9, covered, events, JobStatus(status))
    fits = 5 <= covered <= 10 and events >= 3 and (status != "completed" or covered == 10)
    if fits:
        check_progress(now, before)
    else:
        with pytest.raises(Refusal, match="progress_invalid"):
            check_progress(now, before)
