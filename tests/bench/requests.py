"""Latency of the API under open arrivals: reads, commands, and both together, with everything on two cores."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import median
from uuid import UUID

from tests.bench.escrows import KINDS, Api, Bare, Desk, buyer
from tests.bench.load import Arrival, Latencies, arrivals, open_loop
from tests.bench.preload import ASSET, WIDE
from tests.bench.report import Row
from tests.bench.stack import Bench, bare_worker

SECTION = "API latency under open arrivals"
READS_PER_SECOND = 200
COMMANDS_PER_SECOND = 30
PERCENTILES = (50, 95, 99)
#: A command on an escrow is planned this many escrows after the one before it, about a second later.
GROUP_LAG = 8
WARM_UP_SECONDS = 4.0

#: Kinds of arrivals.
READ, COMMAND, FLOOR, BARE = "reads", "commands", "GET /healthz", "bare updates"

#: The limits at p95, in milliseconds, by situation and kind.
AIMS = {("alone", READ): 15, ("alone", COMMAND): 100, ("together", READ): 40, ("together", COMMAND): 150}

Plan = Callable[[float, int], list[Arrival]]


@dataclass(frozen=True, slots=True)
class _Phase:
    """One situation: what arrives in it."""

    situation: str
    plans: Sequence[Plan]


async def measure(bench: Bench, rounds: int) -> list[Row]:
    """Every situation in turn, ``rounds`` times."""
    percent_of = bench.arrivals_percent
    reads, commands = _Reads(bench), Commands(Api(bench), COMMAND, percent_of)
    bare = Commands(Bare(bench), BARE, percent_of)
    phases = [
        _Phase("floor", [_floor(bench)]),
        _Phase("alone", [reads.plan]),
        _Phase("floor", [bare.plan]),
        _Phase("alone", [commands.plan]),
        _Phase("together", [reads.plan, commands.plan]),
    ]
    found: dict[tuple[str, str], list[Latencies]] = {}
    async with bare_worker(bench):
        for number in range(rounds):
            for index, phase in enumerate(phases):
                seconds = bench.window(10.0)
                planned = [one for plan in phase.plans for one in plan(WARM_UP_SECONDS + seconds, number * 100 + index)]
                measured = await open_loop(bench.meter, planned, warm_up_seconds=WARM_UP_SECONDS, seconds=seconds)
                for kind, latencies in measured.items():
                    found.setdefault((phase.situation, kind), []).append(latencies)
    return _rows(found, percent_of)


def _rows(found: dict[tuple[str, str], list[Latencies]], percent_of: int) -> list[Row]:
    """The rows. With fewer arrivals they are a section of their own, and no aim is judged by them."""
    section = SECTION if percent_of == 100 else f"{SECTION}, {percent_of} % of them"
    reads, commands = READS_PER_SECOND * percent_of // 100, COMMANDS_PER_SECOND * percent_of // 100
    names = {
        ("floor", FLOOR): f"{FLOOR} at {reads}/s: no key, no database",
        ("alone", READ): f"reads at {reads}/s alone",
        ("floor", BARE): f"bare workflow at {commands}/s: no HTTP, no database",
        ("alone", COMMAND): f"commands at {commands}/s alone",
        ("together", READ): "reads, both together",
        ("together", COMMAND): "commands, both together",
    }
    rows = []
    for key, name in names.items():
        measured = found[key]
        base_kind = FLOOR if key[1] in (READ, FLOOR) else BARE
        errors = sum(one.errors.total for one in measured)
        for percent in PERCENTILES:
            values = [one.percentile(percent) for one in measured]
            value = median(values)
            base = median(one.percentile(percent) for one in found["floor", base_kind])
            aim = AIMS.get(key) if percent == 95 and percent_of == 100 else None
            rows.append(
                Row(
                    section,
                    f"{name}, p{percent}",
                    "ms",
                    value,
                    values,
                    baseline=None if key[0] == "floor" else base_kind,
                    baseline_value=None if key[0] == "floor" else base,
                    aim=None if aim is None else f"≤ {aim}",
                    met=None if aim is None else value <= aim,
                    lower=True,
                    cpu_ms=_cpu(measured) if percent == 50 else {},
                    errors=errors if percent == 50 else 0,
                    note=next((text for one in measured for text in one.errors.seen), ""),
                )
            )
    return rows


def _cpu(measured: Sequence[Latencies]) -> dict[str, float]:
    """CPU per arrival of this kind; where two kinds arrive together, both count the whole."""
    pairs = [(one.usage, len(one.seconds)) for one in measured if one.usage is not None]
    roles = dict.fromkeys(role for usage, _ in pairs for role in usage.by_role)
    return {role: median(usage.per(count).get(role, 0.0) for usage, count in pairs) for role in roles}


def _floor(bench: Bench) -> Plan:
    def plan(seconds: float, seed: int) -> list[Arrival]:
        return [
            Arrival(at, lambda: bench.http.get("/healthz"), FLOOR)
            for at in arrivals(READS_PER_SECOND * bench.arrivals_percent // 100, seconds, seed)
        ]

    return plan


class _Reads:
    """What a client's pages ask for: one escrow in two of five, else lists, balances, the ledger, the feed."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def plan(self, seconds: float, seed: int) -> list[Arrival]:
        """The arrivals of a phase."""
        chance = random.Random(seed)
        rate = READS_PER_SECOND * self._bench.arrivals_percent // 100
        return [self._arrival(at, chance) for at in arrivals(rate, seconds, seed)]

    def _arrival(self, at: float, chance: random.Random) -> Arrival:
        escrow_id = chance.choice(self._bench.loaded)
        path = chance.choice(
            (
                f"/api/v1/escrows/{escrow_id}",
                f"/api/v1/escrows/{escrow_id}",
                f"/api/v1/escrows/{escrow_id}",
                f"/api/v1/escrows/{escrow_id}",
                f"/api/v1/escrows?user={buyer(chance.randrange(1000))}&limit=20",
                f"/api/v1/escrows/{escrow_id}/timeline",
                f"/api/v1/accounts/wide-{chance.randrange(WIDE)}/balances?asset={ASSET}",
                f"/api/v1/accounts/wide-{chance.randrange(WIDE)}/balances",
                f"/api/v1/ledger/transactions?account=wide-{chance.randrange(WIDE)}&limit=20",
                f"/api/v1/events?after={chance.randrange(900)}&limit=20",
            )
        )
        return Arrival(at, lambda: self._bench.http.get(path), READ)


class ForerunnerFailed(Exception):
    """The command before this one on the same escrow failed, so this one had nothing to act on."""


class Commands:
    """Creations, fundings, approvals and releases in equal parts, each escrow's own about a second apart."""

    def __init__(self, desk: Desk, kind: str, percent_of: int = 100) -> None:
        self._desk = desk
        self._kind = kind
        self._per_second = COMMANDS_PER_SECOND * percent_of // 100

    def plan(self, seconds: float, seed: int) -> list[Arrival]:
        """The arrivals of a phase. A command whose forerunner is late waits for it, and that counts."""
        done: dict[tuple[int, int], asyncio.Future[UUID]] = {}
        return [
            Arrival(at, self._work(index, done), self._kind)
            for index, at in enumerate(arrivals(self._per_second, seconds, seed))
            if index // len(KINDS) >= (index % len(KINDS)) * GROUP_LAG
        ]

    def _work(self, index: int, done: dict[tuple[int, int], asyncio.Future[UUID]]) -> Callable[[], Awaitable[None]]:
        step = index % len(KINDS)
        number = index // len(KINDS) - step * GROUP_LAG

        async def command() -> None:
            # Before anything is waited for: whoever comes next finds this one, however late it is itself.
            mine = done[number, step] = asyncio.get_running_loop().create_future()
            try:
                mine.set_result(await self._carry_out(number, step, done))
            except BaseException as error:
                failed = ForerunnerFailed(f"{KINDS[step]}: {type(error).__name__}")
                mine.set_exception(error if isinstance(error, ForerunnerFailed) else failed)
                mine.exception()  # told to those who wait; nobody waiting is fine
                raise

        return command

    async def _carry_out(self, number: int, step: int, done: dict[tuple[int, int], asyncio.Future[UUID]]) -> UUID:
        if step == 0:
            return await self._desk.create(number)
        escrow_id = await asyncio.shield(done[number, step - 1])
        await self._desk.move(escrow_id, number, step)
        return escrow_id
