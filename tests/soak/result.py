"""How big a soak is, and what came of it: for the terminal, for a program, and for the documents."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from tests.soak.chaos import Kill
from tests.soak.fleet import ROLES
from tests.soak.stories import Pace

SETTLE_SECONDS = 150.0


@dataclass(frozen=True, slots=True)
class Size:
    """How much is asked for, for how long, and how often something is killed meanwhile."""

    seed: str
    kills: int
    seconds: float
    escrows: int
    savers: int
    commands: int

    @property
    def pace(self) -> Pace:
        """Clients of a long soak take longer to think, so that all of it is under fire."""
        think = min(4.0, self.seconds / 20)
        return Pace(think_seconds_max=think, deadline_seconds=min(30.0, self.seconds / 4))

    @property
    def patience_seconds(self) -> float:
        """How long a client asks for one answer: the load, however long it is held up, and the time to come back."""
        return 2 * self.seconds + SETTLE_SECONDS


@dataclass(slots=True)
class Result:
    """What happened."""

    size: Size
    kills: dict[str, int] = field(default_factory=dict)
    breaks: dict[str, int] = field(default_factory=dict)
    recoveries: dict[str, list[float]] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)
    retries: dict[str, int] = field(default_factory=dict)
    endings: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """In one line."""
        return f"{len(self.wrong)} things are wrong" if self.wrong else "nothing lost, nothing done twice"


def recovery(kill: Kill, effects: list[tuple[float, float]]) -> float | None:
    """Seconds from a kill to the end of the first effect of a request that was sent after it."""
    ends = [ended for began, ended in effects if began > kill.at_seconds]
    return min(ends) - kill.at_seconds if ends else None


def commit() -> str:
    """What is tested."""
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def lines(result: Result) -> list[str]:
    """The result for a person at the terminal."""
    told = [f"seed {result.size.seed}"]
    told.append(f"kills: {sum(result.kills.values())} " + _counts({role: result.kills.get(role, 0) for role in ROLES}))
    told.append("broken wires: " + _counts(result.breaks))
    for role, seconds in sorted(result.recoveries.items()):
        median = statistics.median(seconds)
        told.append(f"{role} killed: recovered in {median:.1f} s (median), {max(seconds):.1f} s (longest)")
    told.append("retries: " + _counts(result.retries))
    told.append("ended by themselves: " + (_counts(result.endings) or "none"))
    for name, value in result.numbers.items():
        told.append(f"{name}: {_counts(value) if isinstance(value, dict) else value}")
    told += [f"WRONG: {wrong}" for wrong in result.wrong]
    told.append(f"verdict: {result.verdict}")
    return told


def save_result(result: Result, file: Path) -> None:
    """The result for a program."""
    content = {"commit": commit(), "python": sys.version.split()[0], **asdict(result)}
    file.write_text(json.dumps(content, indent=2) + "\n")


def document(result: Result, today: date) -> str:
    """The result as a page of the documents."""
    size = result.size
    rows = [
        ("verdict", result.verdict),
        ("date", f"{today:%Y-%m-%d}"),
        ("commit", commit()),
        ("machine", f"{os.cpu_count()} shared cores for everything, Python {sys.version.split()[0]}"),
        ("seed", f"`{size.seed}`"),
        ("under fire", f"{result.numbers.get('seconds under fire', 0)} s"),
        ("connections broken", f"{sum(result.breaks.values())}: {_counts(result.breaks)}"),
        ("tries that had to be repeated", f"{sum(result.retries.values())}: {_counts(result.retries)}"),
        ("ended without being killed", _counts(result.endings) or "none"),
        *((name, _counts(value) if isinstance(value, dict) else value) for name, value in result.numbers.items()),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows if name != "seconds under fire")
    kills = "\n".join(_kills_row(role, result) for role in ROLES)
    return f"{ABOUT}\n| | |\n|---|---|\n{table}\n\n{KILLS_HEAD}\n{kills}\n\n{FOUND}"


ABOUT = """# A soak, recorded

Made by `make soak ARGS="--record docs/soak.md"`. While clients work, each process is killed with SIGKILL and started
again after a while, and the connections between them are cut, held up, slowed, or swallowed without a word. A client
repeats each request under its key until it has a final answer; now and then it asks twice at once, or leaves before the
answer. At the end every answer, escrow, command, balance, hold, event and workflow is compared with what the accepted
requests alone make of them, and the ledger is verified offline. What each check asks for stands in
`tests/soak/verdict.py`.
"""
KILLS_HEAD = """\
Time to recover: from the kill, downtime included, to the end of the first request that was sent after it and took
effect behind Temporal. Kills overlap, so it may hold the recovery of another process as well.

| killed | times | recovered in (median) | longest |
|---|---|---|---|"""
FOUND = """\
A worker that finds a server away at its start ends with status 3; a postmaster that comes back while backends of the
one before still hold the shared memory ends with status 1. Both are started again, as containers are.

## What soaks found

| found | what became of it |
|---|---|
| A server or worker that died between a step's commit and the end of its workflow task left a run that did not know: \
open after its escrow's end, or refusing what the row allows | \
[decision 12](decisions/0012-a-run-may-be-behind-its-row.md) |
| A database connection on which nothing arrives any more was waited for without limit | given up after 12 s: \
`tests/db/test_engine.py::test_a_connection_that_fell_silent_is_given_up` |
| A connection to Temporal that broke in mid-call was answered with 500 | 503: \
`tests/api/test_operations.py::test_a_connection_to_temporal_that_breaks_is_an_absence_and_no_bug` |
| Two requests that worked on one idempotency key at once could tell different bytes | the kept answer, to both: \
`tests/api/test_idempotency.py::test_a_request_and_the_one_that_took_it_over_tell_the_same` |
"""


def _kills_row(role: str, result: Result) -> str:
    seconds = result.recoveries.get(role, [])
    told = (f"{statistics.median(seconds):.1f} s", f"{max(seconds):.1f} s") if seconds else ("–", "–")
    return f"| {role} | {result.kills.get(role, 0)} | {told[0]} | {told[1]} |"


def _counts(counts: Any) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count)
