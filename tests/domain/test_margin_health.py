"""The health rule against exact fractions, on its thresholds and one unit to each side."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.fixed import RATIO_ONE
from domain.margin.health import REARM_PERCENT, health_factor, is_below, level_of, settled_level, value
from domain.margin.model import DEFAULT_LEVELS, Level, Levels, Market, Position, Status
from tests.domain.margins import MARKETS, books, exact_health, exact_level, market, owes, owns

DEBTS = st.integers(1, 10**24)
LEVELS = st.tuples(st.integers(0, 5_000), st.integers(0, 5_000), st.integers(0, 5_000)).map(
    lambda more: Levels(15_000 + sum(more), 12_000 + sum(more[1:]), 10_500 + more[2])
)


def test_the_first_example() -> None:
    """10 ETH at 2000 and 0.5 BTC at 60000 against 15000 USDC: (16600 + 23400) / 15000."""
    found = value([owns("ETH", 10), owns("BTC", "0.5"), owes("USDC", 15_000)], market())
    assert (found.collateral, found.debt) == (50_000 * 10**8, 15_000 * 10**8)
    assert health_factor(found.weighted, found.debt) == 40_000 * RATIO_ONE // 15_000


@given(MARKETS, books())
def test_health_is_that_of_fractions(prices: Market, positions: list[Position]) -> None:
    found = value(positions, prices)
    expected = exact_health(positions, prices)
    health = health_factor(found.weighted, found.debt)
    if expected is None:
        assert health is None
    else:
        assert health == (expected * RATIO_ONE).__floor__()
    assert level_of(found.weighted, found.debt, DEFAULT_LEVELS) is exact_level(expected, DEFAULT_LEVELS)


@given(DEBTS, LEVELS, st.sampled_from(list(Level)[1:]))
def test_thresholds_are_strict_to_the_unit(debt: int, levels: Levels, level: Level) -> None:
    threshold = levels.threshold_bps(level)
    at = threshold * debt
    assert not is_below(at, debt, threshold)
    assert is_below(at - 1, debt, threshold)
    assert level_of(at, debt, levels) < level
    assert level_of(at - 1, debt, levels) >= level
    assert level_of(at + 1, debt, levels) < level


@given(DEBTS, LEVELS, st.sampled_from(list(Level)[1:]))
def test_a_level_is_left_two_percent_above_it(debt: int, levels: Levels, level: Level) -> None:
    leaves = -(-levels.threshold_bps(level) * REARM_PERCENT * debt // 100)
    assert settled_level(level, leaves, debt, levels, confirmed=True) < level
    assert settled_level(level, leaves - 1, debt, levels, confirmed=True) >= level


@given(st.sampled_from(list(Level)), st.integers(0, 10**12), st.integers(0, 10**8), st.booleans())
def test_liquidation_is_due_on_confirmed_prices_only(told: Level, weighted: int, debt: int, confirmed: bool) -> None:
    settled = settled_level(told, weighted, debt, DEFAULT_LEVELS, confirmed=confirmed)
    strict = level_of(weighted, debt, DEFAULT_LEVELS)
    if settled is Level.LIQUIDATION and told is not Level.LIQUIDATION:
        assert confirmed
    if strict is not Level.LIQUIDATION or confirmed:
        assert settled >= strict
    else:
        assert settled >= Level.IMMINENT


@pytest.mark.parametrize(("positions", "health"), [([], None), ([owns("ETH", 1)], None), ([owes("USDC", 1)], 0)])
def test_one_side_alone(positions: list[Position], health: int | None) -> None:
    found = value(positions, market())
    assert health_factor(found.weighted, found.debt) == health
    status = level_of(found.weighted, found.debt, DEFAULT_LEVELS).status
    assert status is (Status.HEALTHY if health is None else Status.LIQUIDATION)


def test_dust_is_valued_against_the_user() -> None:
    found = value([Position(owns("ETH", 1).side, "ETH", 1), Position(owes("DAI", 1).side, "DAI", 1)], market())
    assert (found.collateral, found.debt) == (0, 1)
