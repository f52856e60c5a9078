"""What was measured, as rows: printed, kept as JSON and in ``docs/benchmarks.md``.

What is kept is a list of runs. A section belongs to the run that measured it last; baselines are of the same run.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.load import Throughput

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


@dataclass(slots=True)
class Row:
    """One figure beside its baseline and its aim. ``lower`` says that less is better."""

    section: str
    name: str
    unit: str
    value: float
    rounds: Sequence[float] = ()
    baseline: str | None = None
    baseline_value: float | None = None
    aim: str | None = None
    met: bool | None = None
    lower: bool = False
    cpu_ms: Mapping[str, float] = field(default_factory=dict)
    errors: int = 0
    note: str = ""
    """What the first failed operation said."""
    grown: float | None = None

    @property
    def ratio(self) -> float | None:
        """Ours in relation to the baseline."""
        return self.value / self.baseline_value if self.baseline_value else None

    @property
    def growth(self) -> float | None:
        """The figure at ten times the data in relation to the figure at one time."""
        return self.grown / self.value if self.grown is not None and self.value else None


@dataclass(slots=True)
class Report:
    """All rows of a run, and under what circumstances they came about."""

    machine: Mapping[str, Any]
    rows: list[Row] = field(default_factory=list)
    memory: dict[str, dict[str, float]] = field(default_factory=dict)
    data: dict[str, dict[str, int]] = field(default_factory=dict)
    others_cores: list[float] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def grow(self, later: Sequence[Row]) -> None:
        """Put the figures at ten times the data beside those at one time."""
        found = {(row.section, row.name): row for row in later}
        for row in self.rows:
            twin = found.get((row.section, row.name))
            if twin is not None:
                row.grown = twin.value
                row.errors += twin.errors

    @property
    def sections(self) -> list[str]:
        """What the run measured, in its order."""
        return list(dict.fromkeys(row.section for row in self.rows))

    def without(self, sections: Sequence[str]) -> Report:
        """The run as it is kept once a later one measured some of its sections anew."""
        return replace(self, rows=[row for row in self.rows if row.section not in sections])

    def content(self) -> dict[str, Any]:
        """For comparison with another run; ``from_content`` reads it back."""
        found: dict[str, Any] = _rounded(
            {
                "machine": self.machine,
                "data": self.data,
                "rows": [asdict(row) | {"ratio": row.ratio, "growth": row.growth} for row in self.rows],
                "memory_mib": self.memory,
                "others_cores": self.others_cores,
                "warnings": self.warnings,
            }
        )
        return found

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> Report:
        """A run that was kept."""
        names = {each.name for each in fields(Row)}
        rows = [Row(**{name: value for name, value in row.items() if name in names}) for row in content["rows"]]
        memory, others = content["memory_mib"], content["others_cores"]
        return cls(content["machine"], rows, memory, content["data"], others, content["warnings"])

    def print(self, console: Console) -> None:
        """For the person at the terminal."""
        for section in self.sections:
            table = Table(*_COLUMNS, title=section, title_justify="left", box=None, padding=(0, 2))
            for row in self.rows:
                if row.section == section:
                    table.add_row(*_cells(row))
            console.print(table)
            for line in self._cpu(section):
                console.print(f"  [dim]{line}[/]")
        table = Table("process", *self.memory, title="Memory, MiB", title_justify="left", box=None, padding=(0, 2))
        for cells in _memory_lines(self.memory):
            table.add_row(*cells)
        console.print(table)
        for warning in self.warnings:
            console.print(f"[bold red]{warning}[/]")

    def markdown(self) -> str:
        """The run in the generated part of the page."""
        lines = ["", f"## Measured: {self.machine.get('date', 'no date')}", ""]
        lines += [*(f"- {name}: {value}" for name, value in self.machine.items())]
        busy = f"median {_median(self.others_cores):.2f}, at most {max(self.others_cores, default=0.0):.2f}"
        lines.append(f"- cores kept busy by anything else meanwhile: {busy}")
        lines += [f"- data at {scale}: {_told(rows)}" for scale, rows in self.data.items()]
        lines += [f"- **{warning}**" for warning in self.warnings]
        for section in self.sections:
            lines += ["", f"### {section}", "", *_markdown(_COLUMNS, self._section(section)), ""]
            lines += [f"- {line}" for line in self._cpu(section)]
        if self.memory:
            lines += ["", "### Memory, MiB", "", *_markdown(("process", *self.memory), _memory_lines(self.memory))]
        return "\n".join([*lines, ""])

    def _section(self, section: str) -> list[tuple[str, ...]]:
        return [_cells(row) for row in self.rows if row.section == section]

    def _cpu(self, section: str) -> list[str]:
        """What each operation cost, by process, and what the failed ones said."""
        rows = [row for row in self.rows if row.section == section]
        used = [
            f"CPU ms each, {row.name}: "
            + ", ".join(f"{role} {_number(ms)}" for role, ms in row.cpu_ms.items() if ms >= _CPU_MS_SHOWN)
            for row in rows
            if row.cpu_ms
        ]
        return used + [f"{row.errors} failed, {row.name}: {row.note}" for row in rows if row.errors]


_COLUMNS = ("what", "measured", "rounds", "baseline", "ratio", "aim", "at 10×", "growth")
#: A process that used less had nothing to do with it.
_CPU_MS_SHOWN = 0.001


def throughput_row(
    section: str,
    name: str,
    found: Sequence[Throughput],
    *,
    baseline: str | None = None,
    baseline_value: float | None = None,
    at_least: float | None = None,
) -> Row:
    """The median of the rounds, with what the processes used for each operation."""
    rate = median(one.rate for one in found)
    roles = dict.fromkeys(role for one in found for role in one.usage.by_role)
    per = [one.usage.per(one.operations) for one in found]
    return Row(
        section,
        name,
        "per s",
        rate,
        [one.rate for one in found],
        baseline=baseline,
        baseline_value=baseline_value,
        aim=None if at_least is None else f"≥ {at_least:,}",
        met=None if at_least is None else rate >= at_least,
        cpu_ms={role: median(each.get(role, 0.0) for each in per) for role in roles},
        errors=sum(one.errors.total for one in found),
        note=next((text for one in found for text in one.errors.seen), ""),
    )


def write(report: Report, page: Path, data: Path) -> None:
    """Keep the run as JSON beside earlier ones, less the sections that it measured anew, and put all of them into the
    generated part of ``page``; what people wrote in it stays."""
    earlier = json.loads(data.read_text())["runs"] if data.exists() else []
    kept = [Report.from_content(content).without(report.sections) for content in earlier]
    runs = [*(run for run in kept if run.rows), report]
    data.write_text(json.dumps({"runs": [run.content() for run in runs]}, indent=1) + "\n")
    text = page.read_text() if page.exists() else f"# Benchmarks\n\n{BEGIN}\n{END}\n"
    before, rest = text.split(BEGIN, 1)
    told = "\n".join(run.markdown() for run in runs)
    page.write_text(f"{before}{BEGIN}\n{told}\n{END}{rest.split(END, 1)[1]}")


def machine(cores: int) -> dict[str, Any]:
    """On what this ran."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {"processor": model, "cores used": cores, "python": platform.python_version()}


def _cells(row: Row) -> tuple[str, ...]:
    aim = "" if row.aim is None else f"{row.aim} {'✓' if row.met else '✗'}"
    return (
        f"{row.name}, {row.unit}",
        _number(row.value),
        " ".join(_number(value) for value in row.rounds),
        "" if row.baseline_value is None else f"{_number(row.baseline_value)} {row.baseline}",
        "" if row.ratio is None else f"{row.ratio:.2f}",
        aim,
        "" if row.grown is None else _number(row.grown),
        "" if row.growth is None else f"{row.growth:.2f}",
    )


def _memory_lines(memory: Mapping[str, Mapping[str, float]]) -> list[tuple[str, ...]]:
    roles = dict.fromkeys(role for used in memory.values() for role in used)
    return [(role, *(_number(used[role]) if role in used else "" for used in memory.values())) for role in roles]


def _markdown(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    head = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return [*head, *(f"| {' | '.join(line)} |" for line in lines)]


def _number(value: float) -> str:
    if value != value:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _told(rows: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {table}" for table, count in rows.items())


def _median(values: Sequence[float]) -> float:
    return median(values) if values else 0.0


def _rounded(value: Any) -> Any:
    match value:
        case float():
            return round(value, 4)
        case dict():
            return {name: _rounded(one) for name, one in value.items()}
        case list() | tuple():
            return [_rounded(one) for one in value]
    return value
