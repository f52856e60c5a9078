"""Historical simulation, against computations that were written another way."""

from __future__ import annotations

import heapq
import math
import statistics
from datetime import timedelta
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.fixed import USD_SCALE
from domain.margin.model import Position, Side
from domain.margin.risk import Observation, Window, observations, required_observations, simulate
from tests.domain.risks import DOLLARS, LAST, MARKET, SCALES, books, days, histories, moves, owes, owns

USD = 10**USD_SCALE
ONE_ETH = [owns("ETH", 1)]


def independent(positions: list[Position], history: list[Observation], percent: int) -> tuple[int, int]:
    """Value at risk and expected shortfall at a whole percentage, by revaluing and by the standard library."""

    def net(prices: dict[str, Fraction]) -> Fraction:
        worth = [Fraction(each.amount_minor, 10 ** SCALES[each.asset]) * prices[each.asset] for each in positions]
        owned = [each.side is Side.COLLATERAL for each in positions]
        return sum((value if mine else -value for value, mine in zip(worth, owned, strict=True)), Fraction())

    now = {asset: Fraction(price) for asset, price in DOLLARS.items()}
    losses = [
        net(now) - net({asset: price * day.moves.get(asset, 1) for asset, price in now.items()}) for day in history
    ]
    at_risk = statistics.quantiles(losses, n=100, method="inclusive")[percent - 1]
    worst = heapq.nlargest(int((len(losses) - 1) * Fraction(100 - percent, 100)) + 1, losses)
    return math.ceil(at_risk * USD), math.ceil(statistics.mean(worst) * USD)


@settings(max_examples=60)
@given(books(), histories(size=103), st.integers(50, 99))
def test_both_figures_agree_with_the_standard_library(
    positions: list[Position], history: list[Observation], percent: int
) -> None:
    found = simulate(positions, MARKET, history, percent * 10_000)
    assert found is not None
    assert (found.value_at_risk, found.expected_shortfall) == independent(positions, history, percent)


def test_a_worked_example() -> None:
    """41 days of 1 ETH at 2,000: losses of 1 % … 41 %. At 95 % the place is 40 * 0.05 = 2: the third worst, 39 %."""
    history = moves(*(-number for number in range(1, 42)))
    found = simulate(ONE_ETH, MARKET, history, 950_000)
    assert found is not None
    assert (found.value_at_risk, found.expected_shortfall, found.tail) == (780 * USD, 800 * USD, 3)
    assert (found.worst_loss, found.worst_day) == (820 * USD, LAST)
    between = simulate(ONE_ETH, MARKET, history, 960_000)  # the place is 1.6: between 40 % and 39 %, nearer to 39 %
    assert between is not None
    assert (between.value_at_risk, between.expected_shortfall, between.tail) == (788 * USD, 810 * USD, 2)


def test_a_loss_is_rounded_up_and_a_gain_down() -> None:
    third = [Observation(each.day, {"ETH": Fraction(2, 3)}) for each in moves(*[0] * 30)]
    lost = simulate(ONE_ETH, MARKET, third, 500_000)
    won = simulate([owes("ETH", 1)], MARKET, third, 500_000)
    assert lost is not None
    assert won is not None
    assert (lost.value_at_risk, won.value_at_risk) == (66_666_666_667, -66_666_666_666)


def test_too_few_days_give_no_number() -> None:
    assert required_observations(990_000) == 100
    assert required_observations(999_000) == 1_000
    assert required_observations(985_000) == 67
    assert required_observations(500_000) == 30
    assert simulate(ONE_ETH, MARKET, moves(*[-1] * 99), 990_000) is None
    assert simulate(ONE_ETH, MARKET, moves(*[-1] * 100), 990_000) is not None
    assert simulate(ONE_ETH, MARKET, [], 500_000) is None


def test_returns_are_exact_and_overlap() -> None:
    closes = {"ETH": days(100, 110, 121, 99), "USDC": days(1, 1, 1, 1)}
    window = Window(LAST, days=2, horizon_days=2)
    assert (window.closes, window.first_close) == (4, LAST - timedelta(days=3))
    assert observations(closes, ["ETH"], window) == [
        Observation(LAST - timedelta(days=1), {"ETH": Fraction(121, 100)}),
        Observation(LAST, {"ETH": Fraction(9, 10)}),
    ]


@pytest.mark.parametrize(("lost", "left"), [(0, [2, 1]), (1, [2]), (2, [0]), (3, [1, 0])])
def test_a_day_without_a_close_at_either_end_does_not_count(lost: int, left: list[int]) -> None:
    whole, holed = days(100, 110, 121, 99), days(1, 1, 1, 1)
    del holed[LAST - timedelta(days=lost)]
    found = observations({"ETH": whole, "USDC": holed}, ["ETH", "USDC"], Window(LAST, days=3, horizon_days=1))
    assert [(LAST - each.day).days for each in found] == left
    assert len(observations({"ETH": whole, "USDC": holed}, ["ETH"], Window(LAST, days=3, horizon_days=1))) == 3


def test_an_asset_without_any_close_leaves_nothing() -> None:
    assert observations({"ETH": days(1, 2)}, ["ETH", "BTC"], Window(LAST, days=1, horizon_days=1)) == []


@settings(max_examples=60)
@given(books(), histories(), st.integers(500_000, 966_666))
def test_the_shortfall_is_at_least_the_value_at_risk(
    positions: list[Position], history: list[Observation], confidence: int
) -> None:
    found = simulate(positions, MARKET, history, confidence)
    assert found is not None
    assert found.worst_loss >= found.expected_shortfall >= found.value_at_risk


@settings(max_examples=40)
@given(books(), histories(), st.integers(2, 1_000))
def test_losses_grow_with_the_account(positions: list[Position], history: list[Observation], times: int) -> None:
    larger = [Position(each.side, each.asset, each.amount_minor * times) for each in positions]
    one, many = (simulate(each, MARKET, history, 950_000) for each in (positions, larger))
    assert one is not None
    assert many is not None
    for before, after in (
        (one.value_at_risk, many.value_at_risk),
        (one.expected_shortfall, many.expected_shortfall),
    ):
        assert 0 <= times * before - after < times, "nothing but the one rounding is lost"


@settings(max_examples=40)
@given(books(), histories(), st.randoms(use_true_random=False))
def test_the_order_of_days_does_not_matter(
    positions: list[Position], history: list[Observation], chance: Random
) -> None:
    shuffled = [each.moves for each in history]
    chance.shuffle(shuffled)
    other = [Observation(each.day, moved) for each, moved in zip(history, shuffled, strict=True)]
    one, two = (simulate(positions, MARKET, each, 950_000) for each in (history, other))
    assert one is not None
    assert two is not None
    assert (one.value_at_risk, one.expected_shortfall) == (two.value_at_risk, two.expected_shortfall)


@settings(max_examples=40)
@given(books(), histories(), st.integers(1, 10**18))
def test_money_that_stands_still_changes_no_loss(
    positions: list[Position], history: list[Observation], cash: int
) -> None:
    still = [Observation(each.day, {**each.moves, "USDC": Fraction(1)}) for each in history]
    more = [*positions, Position(Side.COLLATERAL, "USDC", cash)]
    assert simulate(more, MARKET, still, 950_000) == simulate(positions, MARKET, still, 950_000)
