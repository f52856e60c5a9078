"""The page about risk has the table of scenarios as the code has it."""

from __future__ import annotations

from domain.margin.risk import MOVE_SCALE, SCENARIOS, Move, Scenario, Source
from domain.money import format_minor
from tests.house.source import ROOT

HEAD = """| scenario | from, to (UTC) | measured | BTC | ETH | stablecoins | source |
|---|---|---|---|---|---|---|
"""


def moved(move: Move) -> str:
    if move.after == move.before:
        return "unchanged"
    before, after = (format_minor(price, MOVE_SCALE) for price in (move.before, move.after))
    return f"{before} → {after} ({move.change_percent} %)"


def said(source: Source) -> str:
    published = "" if source.published is None else f", {source.published}"
    return f"{source.publication}, *{source.title}*{published}"


def row(scenario: Scenario) -> str:
    stable = ", ".join(
        f"{asset} {moved(move)}"
        for asset, move in scenario.moves.items()
        if asset not in ("BTC", "ETH") and move.after != move.before
    )
    return (
        f"| `{scenario.name}`: {scenario.title} | {scenario.first_day}, {scenario.last_day} "
        f"| {scenario.measure.replace('_', ' ')} | {moved(scenario.moves['BTC'])} | {moved(scenario.moves['ETH'])} "
        f"| {stable or 'unchanged'} | {'; '.join(said(source) for source in scenario.sources)} |\n"
    )


def test_the_page_has_the_scenarios_as_they_are() -> None:
    table = HEAD + "".join(row(scenario) for scenario in SCENARIOS)
    assert table in (ROOT / "docs/risk.md").read_text(encoding="utf-8"), f"the page should say:\n{table}"
