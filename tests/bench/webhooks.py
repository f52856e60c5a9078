"""Webhooks: deliveries with their attempts, how soon an event leaves, and what an endpoint that hangs does to others.

Everything goes to one receiver on the same two cores. What is delivered per second stands beside a bare aiohttp client
that signs the same way, in the same run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from statistics import median
from uuid import UUID

from db.doorbell import Doorbell
from db.engine import tenant_transaction
from db.ids import new_id
from db.outbox import SETTLEMENT_TOPIC, OutboxEvent, append
from kit.clock import now
from tests.bench.hooks import (
    Receiver,
    attempts,
    bare,
    cancel,
    endpoints,
    queue,
    receiving,
    switch,
    waiting,
    wake,
)
from tests.bench.load import Arrival, Errors, Latencies, Throughput, arrivals, open_loop
from tests.bench.report import Row, throughput_row
from tests.bench.stack import Bench

SECTION = "Webhooks: durable deliveries to a local receiver, every attempt with request and answer"
QUEUED, QUEUED_QUICK = 20_000, 3_000
SENDERS = 8
#: Events per second, each for this many endpoints.
EVENTS_PER_SECOND, LISTENERS = 10, 10
WARM_UP_SECONDS = 3.0
LIMIT_SECONDS, SETTLED_SECONDS = 300.0, 1.0
ALONE, BESIDE = "without", "while one more endpoint hangs"
AIM_RATIO, AIM_P99_MS, AIM_MOVED_PERCENT = 0.3, 1_000, 10
BARE = "bare aiohttp client that signs"


async def measure(bench: Bench, rounds: int) -> list[Row]:
    """Deliveries and the bare client in turn; then latency, with and without one that hangs, in turn."""
    async with receiving(bench) as receiver:
        rows = await _throughput(bench, receiver, rounds)
        rows += await _latency(bench, receiver, rounds)
    return rows


async def _throughput(bench: Bench, receiver: Receiver, rounds: int) -> list[Row]:
    count = QUEUED_QUICK if bench.quick else QUEUED
    bases, found = [], list[Throughput]()
    for _ in range(rounds):
        bases.append(await bare(f"{receiver.url}/fine", count))
        await receiver.arrivals()
        found.append(await _deliver(bench, receiver, count))
    ratios = [one.rate / base for one, base in zip(found, bases, strict=True)]
    return [
        Row(SECTION, BARE, "per s", median(bases), bases),
        throughput_row(
            SECTION,
            f"{count:,} deliveries that waited for {SENDERS} endpoints",
            found,
            baseline=BARE,
            baseline_value=median(bases),
        ),
        Row(
            SECTION,
            "in relation to the bare client, median of rounds",
            "",
            median(ratios),
            ratios,
            aim=f"≥ {AIM_RATIO}",
            met=median(ratios) >= AIM_RATIO,
        ),
    ]


async def _deliver(bench: Bench, receiver: Receiver, count: int) -> Throughput:
    """From waking the endpoints to the last attempt written down."""
    ids = await asyncio.to_thread(endpoints, bench, [f"{receiver.url}/fine"] * SENDERS)
    await asyncio.to_thread(queue, bench, ids, count // SENDERS)
    meter, began, errors = bench.meter.read(), time.monotonic(), Errors()
    await asyncio.gather(*(wake(bench, each) for each in ids))
    await _worked_off(bench, ids, pause_seconds=0.1)
    took, usage = time.monotonic() - began, bench.meter.since(meter)
    arrived = [message for _, message, _ in await receiver.arrivals()]
    begun, whole = await asyncio.to_thread(attempts, bench, ids)
    await asyncio.to_thread(switch, bench, ids, active=False)
    errors.seen["a delivery was lost"] += count - len(set(arrived))
    errors.seen["a delivery came again"] += len(arrived) - len(set(arrived))
    errors.seen["an attempt is not whole"] += begun - whole
    return Throughput(whole, took, usage, errors, [])


async def _worked_off(bench: Bench, ids: Sequence[UUID], *, pause_seconds: float) -> None:
    limit = time.monotonic() + LIMIT_SECONDS
    while await asyncio.to_thread(waiting, bench, ids) and time.monotonic() < limit:  # noqa: ASYNC110 - it lies in the database
        await asyncio.sleep(pause_seconds)


async def _latency(bench: Bench, receiver: Receiver, rounds: int) -> list[Row]:
    """Two phases in turn, with as many endpoints: one of them answers like the others, or hangs."""
    healthy = await asyncio.to_thread(endpoints, bench, [f"{receiver.url}/fine/{n}" for n in range(LISTENERS)])
    last = await asyncio.to_thread(endpoints, bench, [f"{receiver.url}/spare", f"{receiver.url}/hang"])
    await asyncio.to_thread(switch, bench, last, active=False)
    found: dict[str, list[Latencies]] = {path: [] for path in (ALONE, BESIDE)}
    for number in range(rounds):
        turns = list(zip(found, last, strict=True))
        for name, there in turns if number % 2 == 0 else reversed(turns):
            await asyncio.to_thread(switch, bench, [there], active=True)
            found[name].append(await _phase(bench, receiver, healthy, seed=11 + number))
            await asyncio.to_thread(switch, bench, [there], active=False)
            await asyncio.to_thread(cancel, bench, [there])
            await receiver.release()
    await asyncio.to_thread(switch, bench, healthy, active=False)
    alone, beside = (_all(each) for each in found.values())
    moves = [
        100 * (one.percentile(99) / other.percentile(99) - 1)
        for one, other in zip(found[BESIDE], found[ALONE], strict=True)
    ]
    name = f"commit to the request, {EVENTS_PER_SECOND}/s for {LISTENERS + 1} endpoints"
    fast = alone.percentile(99) < AIM_P99_MS
    return [
        _row(f"{name}, p50", alone, 50, found[ALONE]),
        _row(f"{name}, p99", alone, 99, found[ALONE], aim=f"< {AIM_P99_MS:,}", met=fast),
        _row(f"{BESIDE}, p50", beside, 50, found[BESIDE], than=alone),
        _row(f"{BESIDE}, p99", beside, 99, found[BESIDE], than=alone),
        Row(
            SECTION,
            "by how much that moves p99, median of rounds",
            "%",
            median(moves),
            moves,
            aim=f"< {AIM_MOVED_PERCENT}",
            met=median(moves) < AIM_MOVED_PERCENT,
            lower=True,
        ),
    ]


def _row(
    name: str,
    measured: Latencies,
    percent: int,
    rounds: Sequence[Latencies],
    *,
    than: Latencies | None = None,
    aim: str | None = None,
    met: bool | None = None,
) -> Row:
    return Row(
        SECTION,
        name,
        "ms",
        measured.percentile(percent),
        [one.percentile(percent) for one in rounds],
        baseline=None if than is None else ALONE,
        baseline_value=None if than is None else than.percentile(percent),
        aim=aim,
        met=met,
        lower=True,
        errors=measured.errors.total if percent == 50 else 0,
        note=next((text for text, count in measured.errors.seen.items() if count), ""),
    )


def _all(rounds: Sequence[Latencies]) -> Latencies:
    """A percentile of some rounds' is no percentile: they are put together."""
    errors = Errors()
    for one in rounds:
        errors.seen += one.errors.seen
    return Latencies([seconds for one in rounds for seconds in one.seconds], errors)


async def _phase(bench: Bench, receiver: Receiver, healthy: Sequence[UUID], *, seed: int) -> Latencies:
    """From a commit's return to the first request at each healthy endpoint."""
    seconds = bench.window(20.0)
    committed: dict[str, float] = {}
    doorbell = Doorbell(bench.engine)

    async def tell(at: float) -> None:
        event = OutboxEvent(new_id(), SETTLEMENT_TOPIC, "ledger.transferred", "account:hot-1", now(), {"asset": "USDC"})
        async with tenant_transaction(bench.engine, bench.tenant) as connection:
            await append(connection, bench.tenant, [event])
        if at >= WARM_UP_SECONDS:
            committed[str(event.event_id)] = time.time()
        doorbell.ring()

    await receiver.arrivals()
    instants = arrivals(EVENTS_PER_SECOND, WARM_UP_SECONDS + seconds, seed)
    planned = [Arrival(at, lambda at=at: tell(at), "event") for at in instants]  # type: ignore[misc]
    told = await open_loop(bench.meter, planned, warm_up_seconds=WARM_UP_SECONDS, seconds=seconds)
    await doorbell.close()
    await _arrived(bench, receiver, healthy)
    errors, first = told["event"].errors, dict[tuple[str, str], float]()
    for path, message, at in await receiver.arrivals():
        if path.startswith("/fine/") and message in committed:
            errors.seen["a delivery came again"] += (path, message) in first
            first.setdefault((path, message), at)
    errors.seen["a delivery was lost"] += len(committed) * len(healthy) - len(first)
    return Latencies([at - committed[message] for (_, message), at in first.items()], errors)


async def _arrived(bench: Bench, receiver: Receiver, healthy: Sequence[UUID]) -> None:
    """What was told last may not be with the endpoints yet: so until nothing comes any more, and nothing waits."""
    before = -1
    while (count := await receiver.count()) != before:
        before = count
        await asyncio.sleep(SETTLED_SECONDS)
        await _worked_off(bench, healthy, pause_seconds=0.2)
