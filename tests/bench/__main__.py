"""``python -m tests.bench``: measure, print, and keep the result in ``docs/benchmarks.md`` and ``.json``."""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from time import monotonic

import uvloop
from rich.console import Console

from kit.clock import now
from tests.bench import book, chain, commands, lifecycles, postings, preload, requests, webhooks
from tests.bench.meter import OTHERS_CORES_MAX
from tests.bench.preload import Scale
from tests.bench.report import Report, Row, machine, write
from tests.bench.stack import CORES, Bench, running
from tests.e2e.stack import ROOT

Measure = Callable[[Bench, int], Awaitable[list[Row]]]
SECTIONS: Mapping[str, Measure] = {
    "lifecycles": lifecycles.measure,
    "api": requests.measure,
    "postings": postings.measure,
    "commands": commands.measure,
    "book": book.measure,
    "webhooks": webhooks.measure,
    "chain": chain.measure,
}
#: What brings its own data, and is not measured again beside ten times the rest.
OWN_DATA = frozenset({"book", "webhooks", "chain"})
ROUNDS: Mapping[str, int] = {
    "lifecycles": 3,
    "api": 2,
    "postings": 2,
    "commands": 2,
    "book": 1,
    "webhooks": 3,
    "chain": 1,
}
GROWN_ROUNDS = 1
GROWN_FACTOR = 10
PAGE, DATA = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "benchmarks.json"


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__)
    parser.add_argument("--only", action="append", choices=list(SECTIONS), help="one section; may be repeated")
    parser.add_argument("--quick", action="store_true", help="a look that proves nothing: short, one round, not kept")
    parser.add_argument("--rounds", type=int, metavar="N", help="of every section; without it 2, of lifecycles 3")
    parser.add_argument("--no-growth", action="store_true", help="leave out ten times the data")
    parser.add_argument(
        "--arrivals", type=int, default=100, metavar="PERCENT", help="of the API's; kept beside those at 100"
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="write the results there, not to docs/")
    return parser.parse_args()


async def run(options: argparse.Namespace, console: Console) -> Report:
    """Measure every wanted section at one time the data, then at ten times."""
    wanted = options.only or list(SECTIONS)
    rounds = {name: 1 if options.quick else options.rounds or ROUNDS[name] for name in wanted}
    began = monotonic()

    def say(text: str) -> None:
        console.print(f"[dim]{monotonic() - began:6.0f} s[/]  {text}")

    say(f"load of the machine before: {' '.join(f'{one:.2f}' for one in os.getloadavg())}")
    told = ", ".join(f"{name} {count}" for name, count in rounds.items())
    report = Report(machine(CORES) | {"commit": _commit(), "rounds": told, "date": _today()})
    async with running(quick=options.quick) as bench:
        bench.arrivals_percent = options.arrivals
        say("the stack is up")
        gc.collect()
        gc.freeze()
        report.memory["idle"] = bench.meter.memory_mib()
        stays = options.quick or options.no_growth or OWN_DATA.issuperset(wanted)
        factors = [1] if stays else [1, GROWN_FACTOR]
        for factor in factors:
            await bench.grow(Scale(factor))
            report.data[f"{factor}×"] = preload.counts(bench.database_url)
            say(f"data at {factor}×: {report.data[f'{factor}×']}")
            rows: list[Row] = []
            for name in wanted:
                if factor != 1 and name in OWN_DATA:
                    continue
                rows += await SECTIONS[name](bench, rounds[name] if factor == 1 else GROWN_ROUNDS)
                say(f"measured: {name}")
            report.memory[f"after {factor}×"] = bench.meter.memory_mib()
            if factor == 1:
                report.rows = rows
            else:
                report.grow(rows)
        report.others_cores = bench.meter.others
        report.warnings += bench.warnings
    _warn(report)
    return report


def _warn(report: Report) -> None:
    busy = [cores for cores in report.others_cores if cores > OTHERS_CORES_MAX]
    if busy:
        report.warnings.append(
            f"{len(busy)} of {len(report.others_cores)} windows shared the machine with others"
            f" (up to {max(busy):.2f} cores): trust the ratios alone"
        )
    errors = sum(row.errors for row in report.rows)
    if errors:
        report.warnings.append(f"{errors} operations failed")


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def _today() -> str:
    return f"{now():%Y-%m-%d %H:%M} UTC"


def main() -> int:
    """0 when everything was measured without a failed operation."""
    options = arguments()
    console = Console(highlight=False, width=max(160, Console().width))
    report = uvloop.run(run(options, console))
    report.print(console)
    if options.keep is not None:
        options.keep.mkdir(parents=True, exist_ok=True)
        write(report, options.keep / PAGE.name, options.keep / DATA.name)
    elif not options.quick:
        write(report, PAGE, DATA)
        console.print(f"kept in {PAGE.relative_to(ROOT)} and {DATA.relative_to(ROOT)}")
    return 1 if any(row.errors for row in report.rows) else 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # A process that opened a Temporal client can crash in the interpreter's own exit.
    os._exit(status)
