"""Escrow lifecycles per second, beside a bare workflow of the same shape on the same server."""

from __future__ import annotations

from statistics import median
from typing import Any

from tests.bench.escrows import Api, Bare, Desk, Direct, lifecycle
from tests.bench.load import Throughput, closed_loop
from tests.bench.report import Row, throughput_row
from tests.bench.stack import Bench, bare_worker

SECTION = "Escrow lifecycles: create, fund, approve, release; 30 callers in a closed loop"
CALLERS = 30
AIM = 0.7


async def measure(bench: Bench, rounds: int) -> list[Row]:
    """Bare, real and by HTTP in turn, so that whatever disturbs the machine disturbs all three."""
    desks: dict[str, Desk] = {"bare": Bare(bench), "direct": Direct(bench), "http": Api(bench)}
    found: dict[str, list[Throughput]] = {name: [] for name in desks}
    async with bare_worker(bench):
        for number in range(rounds):
            for name, desk in desks.items():
                warm_up = 3.0 if number == 0 else 1.5
                found[name].append(await _once(bench, desk, warm_up))
    bare_rate = median(one.rate for one in found["bare"])
    ratios = [real.rate / idle.rate for real, idle in zip(found["direct"], found["bare"], strict=True)]
    ratio = median(ratios)
    beside: dict[str, Any] = {"baseline": "bare", "baseline_value": bare_rate}
    return [
        throughput_row(SECTION, "the bare workflow", found["bare"]),
        throughput_row(SECTION, "through EscrowClient", found["direct"], **beside),
        Row(SECTION, "real in relation to bare", "median of rounds", ratio, ratios, aim=f"≥ {AIM}", met=ratio >= AIM),
        throughput_row(SECTION, "by HTTP, with idempotency keys", found["http"], **beside),
    ]


async def _once(bench: Bench, desk: Desk, warm_up: float) -> Throughput:
    return await closed_loop(
        bench.meter,
        lambda number, done: lifecycle(desk, number, done),
        callers=CALLERS,
        warm_up_seconds=warm_up,
        seconds=bench.window(8.0),
    )
