"""Load as callers make it: in a closed loop, or arriving whether or not the last was answered."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic

from tests.bench.meter import Meter, Usage

Done = Callable[[float], None]
"""Told of every operation, or part of one, as soon as it is done."""

Work = Callable[[int, Done], Awaitable[None]]
"""One caller's next piece of work; the number counts pieces over all callers."""

DRAIN_LIMIT_SECONDS = 30.0
_LATE = "not done when the load had ended for as long as is waited"


@dataclass(slots=True)
class Errors:
    """What went wrong, by what it said."""

    seen: Counter[str] = field(default_factory=Counter)

    def add(self, error: BaseException) -> None:
        """Count one."""
        self.seen[f"{type(error).__name__}: {error}"[:160]] += 1

    @property
    def total(self) -> int:
        """All of them."""
        return self.seen.total()


@dataclass(slots=True)
class Throughput:
    """Operations done in a window, and what the processes used for it."""

    operations: float
    seconds: float
    usage: Usage
    errors: Errors
    latencies: list[float]

    @property
    def rate(self) -> float:
        """Per second."""
        return self.operations / self.seconds


@dataclass(slots=True)
class Latencies:
    """How long each arrival waited for its answer, from the instant at which it was meant to begin."""

    seconds: list[float]
    errors: Errors
    usage: Usage | None = None

    def percentile(self, percent: float) -> float:
        """In milliseconds, by the nearest rank."""
        return percentile(self.seconds, percent) * 1000


def percentile(values: Sequence[float], percent: float) -> float:
    """By the nearest rank; nan of nothing."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


async def closed_loop(
    meter: Meter,
    work: Work,
    *,
    callers: int,
    warm_up_seconds: float,
    seconds: float,
    drain_seconds: float = DRAIN_LIMIT_SECONDS,
) -> Throughput:
    """``callers`` that each begin anew as soon as they are done; what ends within the window counts."""
    errors, total, latencies = Errors(), 0.0, list[float]()
    numbers = iter(range(1 << 62))
    stopping = False

    def done(operations: float) -> None:
        nonlocal total
        total += operations

    async def call() -> None:
        while not stopping:
            began = monotonic()
            try:
                await work(next(numbers), done)
                latencies.append(monotonic() - began)
            except asyncio.CancelledError:
                errors.add(TimeoutError(_LATE))
                raise
            except Exception as error:  # noqa: BLE001 - counted, and told in the report
                errors.add(error)
                await asyncio.sleep(0.05)

    tasks = [asyncio.create_task(call()) for _ in range(callers)]
    await asyncio.sleep(warm_up_seconds)
    before, began, first = meter.read(), monotonic(), len(latencies)
    counted = total
    await asyncio.sleep(seconds)
    took, counted, usage = monotonic() - began, total - counted, meter.since(before)
    window = latencies[first:]
    stopping = True
    await _drain(tasks, drain_seconds)
    return Throughput(counted, took, usage, errors, window)


@dataclass(frozen=True, slots=True)
class Arrival:
    """Something that begins ``at`` seconds after the start; it is measured unless it belongs to the warm-up."""

    at: float
    work: Callable[[], Awaitable[object]]
    kind: str


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Instants of a Poisson process, fixed before anything begins."""
    chance = random.Random(seed)
    instants, at = [], 0.0
    while (at := at + chance.expovariate(rate)) < seconds:
        instants.append(at)
    return instants


async def open_loop(
    meter: Meter,
    planned: Sequence[Arrival],
    *,
    warm_up_seconds: float,
    seconds: float,
    drain_seconds: float = DRAIN_LIMIT_SECONDS,
) -> dict[str, Latencies]:
    """Begin each arrival at its instant, whatever became of the others; the latencies by kind.

    A late start counts as waiting: the clock of each runs from the instant that was planned.
    """
    found: dict[str, Latencies] = {}
    loop_start = monotonic() + 0.05

    async def begin(arrival: Arrival) -> None:
        into = found.setdefault(arrival.kind, Latencies([], Errors()))
        try:
            await arrival.work()
        except asyncio.CancelledError:
            into.errors.add(TimeoutError(_LATE))
            raise
        except Exception as error:  # noqa: BLE001 - counted, and told in the report
            into.errors.add(error)
            return
        if arrival.at >= warm_up_seconds:
            into.seconds.append(monotonic() - (loop_start + arrival.at))

    async def measure() -> Usage:
        await asyncio.sleep(max(0.0, loop_start + warm_up_seconds - monotonic()))
        before = meter.read()
        await asyncio.sleep(seconds)
        return meter.since(before)

    measuring = asyncio.create_task(measure())
    running: set[asyncio.Task[None]] = set()
    for arrival in sorted(planned, key=lambda one: one.at):
        if (pause := loop_start + arrival.at - monotonic()) > 0:
            await asyncio.sleep(pause)
        task = asyncio.create_task(begin(arrival))
        running.add(task)
        task.add_done_callback(running.discard)
    await _drain(list(running), drain_seconds)
    usage = await measuring
    for latencies in found.values():
        latencies.usage = usage
    return found


async def _drain(tasks: Sequence[asyncio.Task[None]], limit_seconds: float) -> None:
    _, late = await asyncio.wait(tasks, timeout=limit_seconds) if tasks else (set(), set())
    for task in late:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
