"""The load is what it says: nothing that is slow is spared, nothing that fails is dropped."""

from __future__ import annotations

import asyncio
import math
from time import monotonic, process_time

from tests.bench.load import Arrival, Done, arrivals, closed_loop, open_loop, percentile
from tests.bench.meter import Meter


def test_arrivals_are_fixed_by_their_seed_and_have_their_rate() -> None:
    planned = arrivals(200, 50, seed=7)
    assert planned == arrivals(200, 50, seed=7) != arrivals(200, 50, seed=8)
    assert planned == sorted(planned)
    assert 9_500 < len(planned) < 10_500


def test_percentiles_are_by_the_nearest_rank() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert [percentile(values, percent) for percent in (1, 50, 95, 99, 100)] == [1, 50, 95, 99, 100]
    assert math.isnan(percentile([], 50))


async def test_a_server_that_stalls_is_charged_for_everybody_who_had_to_wait() -> None:
    """One stall of 0.3 s, with arrivals every 10 ms behind it: a loop that waited for answers would see one."""
    lock = asyncio.Lock()

    async def serve(stall: float) -> None:
        async with lock:
            await asyncio.sleep(stall)

    planned = [Arrival(0.01 * n, lambda n=n: serve(0.3 if n == 0 else 0.0), "reads") for n in range(30)]  # type: ignore[misc]
    found = (await open_loop(Meter({}), planned, warm_up_seconds=0, seconds=0.3))["reads"]
    assert len(found.seconds) == 30
    assert found.percentile(50) > 100


async def test_failures_are_counted_by_what_they_said_and_are_no_latencies() -> None:
    async def fail() -> None:
        raise ValueError("no")

    planned = [Arrival(0.001 * n, fail, "reads") for n in range(5)]
    found = (await open_loop(Meter({}), planned, warm_up_seconds=0, seconds=0.1))["reads"]
    assert found.errors.seen == {"ValueError: no": 5}
    assert found.seconds == []


async def test_what_is_not_done_when_waiting_ends_is_a_failure() -> None:
    async def hang(*_: object) -> None:
        await asyncio.sleep(60)

    found = (await open_loop(Meter({}), [Arrival(0, hang, "reads")], warm_up_seconds=0, seconds=0, drain_seconds=0.1))[
        "reads"
    ]
    assert (found.seconds, found.errors.total) == ([], 1)
    closed = await closed_loop(Meter({}), hang, callers=3, warm_up_seconds=0, seconds=0.1, drain_seconds=0.1)
    assert (closed.operations, closed.errors.total) == (0, 3)


async def test_a_closed_loop_counts_what_is_done_within_its_window() -> None:
    async def work(_: int, done: Done) -> None:
        await asyncio.sleep(0.02)
        done(0.5)

    began = monotonic()
    found = await closed_loop(Meter({}), work, callers=4, warm_up_seconds=0.2, seconds=0.5)
    assert 0.7 <= monotonic() - began < 5
    # 4 callers, 50 half operations a second each.
    assert 0 < found.rate <= 101
    assert found.errors.total == 0


def test_a_meter_knows_its_own_process_from_others() -> None:
    meter = Meter({})
    before, until = meter.read(), process_time() + 0.3
    while process_time() < until:
        math.factorial(500)
    used = meter.since(before)
    assert 0.2 < used.by_role["driver"] < 1
    assert meter.memory_mib()["driver"] > 5
