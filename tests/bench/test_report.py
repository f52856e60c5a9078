"""The report keeps what people wrote, and puts ten times the data beside one time."""

from __future__ import annotations

import json
from pathlib import Path

from tests.bench.report import BEGIN, END, Report, Row, write
from tests.house.source import ROOT


def _report() -> Report:
    report = Report({"processor": "a slow one"})
    report.rows = [
        Row(
            "Postings",
            "16 callers",
            "per s",
            5_500.0,
            [5_400.0, 5_600.0],
            baseline="pgbench",
            baseline_value=11_000.0,
            aim="≥ 5,000",
            met=True,
            cpu_ms={"worker": 0.25},
        ),
        Row("Postings", "64 callers", "per s", 100.0, errors=2, note="Refused: no"),
    ]
    return report


def test_what_is_written_by_hand_stays(tmp_path: Path) -> None:
    page, data = tmp_path / "benchmarks.md", tmp_path / "benchmarks.json"
    page.write_text(f"# By hand\n\n{BEGIN}\nold figures\n{END}\n\n## Why\n")
    write(_report(), page, data)
    text = page.read_text()
    assert text.startswith("# By hand\n")
    assert text.endswith("## Why\n")
    assert "old figures" not in text
    assert "| 16 callers, per s | 5,500 | 5,400 5,600 | 11,000 pgbench | 0.50 | ≥ 5,000 ✓ |" in text
    assert "2 failed, 64 callers: Refused: no" in text
    assert json.loads(data.read_text())["runs"][0]["rows"][0]["ratio"] == 0.5


def test_a_section_that_is_measured_anew_replaces_itself_alone(tmp_path: Path) -> None:
    page, data = tmp_path / "benchmarks.md", tmp_path / "benchmarks.json"
    first = _report()
    first.rows.append(Row("Commands", "deposits", "per s", 4_000.0))
    write(first, page, data)
    later = Report({"processor": "a fast one", "date": "later"})
    later.rows = [Row("Postings", "16 callers", "per s", 9_000.0)]
    write(later, page, data)
    text = page.read_text()
    assert text.index("| deposits, per s | 4,000 |") < text.index("| 16 callers, per s | 9,000 |")
    assert "5,500" not in text
    assert "64 callers" not in text
    assert [run["machine"]["processor"] for run in json.loads(data.read_text())["runs"]] == ["a slow one", "a fast one"]


def test_ten_times_the_data_stands_beside_one_time() -> None:
    report = _report()
    report.grow([Row("Postings", "16 callers", "per s", 4_400.0, errors=1)])
    [first, second] = report.rows
    assert (first.grown, first.growth, first.errors) == (4_400.0, 0.8, 1)
    assert (second.grown, second.growth) == (None, None)


def test_the_page_has_a_place_for_the_figures() -> None:
    text = (ROOT / "docs/benchmarks.md").read_text()
    assert text.index(BEGIN) < text.index(END)
