"""Escrow lifecycles per second, beside a bare workflow of the same shape on the same server."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from tests.bench.escrows import Api, Bare, Desk, Direct, lifecycle
from tests.bench.load import Throughput, closed_loop
from tests.bench.report import Row
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
    ratios = [real.rate / idle.rate for real, idle in zip(found["direct"], found["bare"], strict=True)]
    ratio = median(ratios)
    bare_rate = median(one.rate for one in found["bare"])
    base = Row(SECTION, "the bare workflow", "per s", bare_rate, **_common(found["bare"]))
    direct = Row(
        SECTION,
        "through EscrowClient",
        "per s",
        median(one.rate for one in found["direct"]),
        baseline="bare",
        baseline_value=bare_rate,
        **_common(found["direct"]),
    )
    share = Row(
        SECTION, "real in relation to bare", "median of rounds", ratio, ratios, aim=f"≥ {AIM}", met=ratio >= AIM
    )
    http = Row(
        SECTION,
        "by HTTP, with idempotency keys",
        "per s",
        median(one.rate for one in found["http"]),
        baseline="bare",
        baseline_value=bare_rate,
        **_common(found["http"]),
    )
    return [base, direct, share, http]


async def _once(bench: Bench, desk: Desk, warm_up: float) -> Throughput:
    return await closed_loop(
        bench.meter,
        lambda number, done: lifecycle(desk, number, done),
        callers=CALLERS,
        warm_up_seconds=warm_up,
        seconds=bench.window(8.0),
    )


def _common(found: Sequence[Throughput]) -> dict[str, object]:
    roles = dict.fromkeys(role for one in found for role in one.usage.by_role)
    per = [one.usage.per(one.operations) for one in found]
    return {
        "rounds": [one.rate for one in found],
        "cpu_ms": {role: median(each.get(role, 0.0) for each in per) for role in roles},
        "errors": sum(one.errors.total for one in found),
        "note": next((text for one in found for text in one.errors.seen), ""),
    }
