"""Time to liquidation, by interest and by chance, against walks that are counted step by step."""

from __future__ import annotations

import math
import statistics
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.fixed import USD_SCALE
from domain.margin.health import health_factor, value
from domain.margin.model import Position
from domain.margin.risk import Carry, Chance, Observation, carry, chance
from domain.margin.risk.chances import daily_volatility, first_passage
from domain.margin.risk.outlook import health_ratios
from tests.domain.risks import MARKET, histories, moves, owes, owns, terms

USD = 10**USD_SCALE


class TestCarry:
    """Interest that eats the distance to liquidation."""

    def test_a_worked_example(self) -> None:
        """Health 1.66 at 5 % a year: ln(1.66) / 0.05 years are 3,699.7 days."""
        found = carry([owns("ETH", 10), owes("USDC", 10_000)], MARKET)
        assert found == Carry(days=3_699, rate_bps=500)
        assert math.floor(math.log(1.66) / 0.05 * 365) == 3_699

    def test_growing_the_debt_day_by_day_agrees(self) -> None:
        found = carry([owns("ETH", 10), owes("USDC", 16_000)], MARKET)
        debt, days = 16_000.0, 0
        while (debt := debt * math.exp(0.05 / 365)) < 16_600:
            days += 1
        assert found.days == days

    def test_the_rate_is_weighted_by_debt(self) -> None:
        market = MARKET | {"USDC": terms("USDC", 1, rate_bps=1_000), "BTC": terms("BTC", 60_000, rate_bps=200)}
        found = carry([owns("ETH", 100), owes("USDC", 20_000), owes("BTC", 1)], market)
        assert found.rate_bps == 400
        assert found.days == math.floor(math.log(166_000 / 80_000) / 0.04 * 365)

    @pytest.mark.parametrize(
        ("positions", "rate", "days"),
        [
            ([owns("ETH", 1)], None, None),
            ([], None, None),
            ([owes("USDC", 1)], 500, 0),
            ([owns("ETH", 1), owes("USDC", 1_700)], 500, 0),
            ([owns("ETH", 1), owes("USDC", 1_660)], 500, 0),
        ],
    )
    def test_where_there_is_no_time(self, positions: list[Position], rate: int | None, days: int | None) -> None:
        assert carry(positions, MARKET) == Carry(days, rate)

    def test_without_a_rate_it_takes_for_ever(self) -> None:
        market = MARKET | {"USDC": terms("USDC", 1, rate_bps=0)}
        assert carry([owns("ETH", 1), owes("USDC", 1_000)], market) == Carry(None, 0)
        assert carry([owns("ETH", 1), owes("USDC", 1_700)], market) == Carry(0, 0)


def walked(steps: int, floor: int) -> float:
    """The probability that a fair walk of ``steps`` steps ever is at ``-floor``, counted place by place."""
    places, absorbed = {0: 1.0}, 0.0
    for _ in range(steps):
        after: dict[int, float] = {}
        for place, mass in places.items():
            for reached in (place - 1, place + 1):
                if reached == -floor:
                    absorbed += mass / 2
                else:
                    after[reached] = after.get(reached, 0.0) + mass / 2
        places = after
    return absorbed


class TestFirstPassage:
    """The probability of touching a barrier."""

    @pytest.mark.parametrize("floor", [1, 5, 20, 45])
    def test_a_walk_of_many_small_steps(self, floor: int) -> None:
        """400 steps of a twentieth each are one day of a volatility of one."""
        assert first_passage(floor / 20, 1.0, 1) == pytest.approx(walked(400, floor), abs=1e-3)

    def test_simulated_paths(self) -> None:
        """Paths in steps touch a little less often than without, by a barrier moved by 0.5826 of a step (Broadie,
        Glasserman and Kou, 1997)."""
        chance, steps, paths = Random(20260331), 100, 3_000
        step = 0.04 * math.sqrt(30 / steps)
        touched = 0
        for _ in range(paths):
            place = 0.0
            for _ in range(steps):
                place += chance.gauss(0, step)
                if place <= -0.15:
                    touched += 1
                    break
        moved = first_passage(0.15 + 0.5826 * step, 0.04, 30)
        assert touched / paths == pytest.approx(moved, abs=4 * math.sqrt(moved * (1 - moved) / paths))

    def test_closed_cases(self) -> None:
        assert first_passage(0.0, 0.02, 10) == 1.0
        assert first_passage(0.1, 0.0, 10) == 0.0
        assert first_passage(1.0, 1.0, 1) == pytest.approx(2 * statistics.NormalDist().cdf(-1), rel=1e-12)
        assert first_passage(0.2, 0.05, 16) == pytest.approx(0.317310507862914, rel=1e-12)  # one sigma, both sides
        assert 0 < first_passage(8.0, 1.0, 1) < 2e-15, "no cancellation in the far tail"

    @settings(max_examples=100)
    @given(st.floats(0, 5), st.floats(0.001, 1), st.integers(1, 364))
    def test_farther_is_rarer_and_longer_is_likelier(self, distance: float, volatility: float, days: int) -> None:
        found = first_passage(distance, volatility, days)
        assert 0 <= found <= 1
        assert first_passage(distance + 0.1, volatility, days) <= found <= first_passage(distance, volatility, days + 1)


class TestChance:
    """What an account's past says of its health."""

    HISTORY = moves(*(5, -5, 3, -2) * 10)

    def test_against_a_simple_computation(self) -> None:
        """With stable debt the health moves as the collateral does."""
        logs = [math.log(1 + float(each) / 100) for each in (5, -5, 3, -2) * 10]
        sigma = statistics.stdev(logs)
        found = chance([owns("ETH", 10), owes("USDC", 15_000)], MARKET, self.HISTORY, 7)
        touch = 2 * statistics.NormalDist().cdf(-math.log(16_600 / 15_000) / (sigma * math.sqrt(7)))
        assert found.daily_volatility == pytest.approx(sigma, rel=1e-9)
        assert found.probability == pytest.approx(touch, rel=1e-9)

    def test_debt_in_the_same_asset_hedges(self) -> None:
        found = chance([owns("ETH", 10), owes("ETH", 8)], MARKET, self.HISTORY, 365)
        assert found == Chance(0.0, 0.0)

    def test_who_is_there_already(self) -> None:
        assert chance([owns("ETH", 1), owes("USDC", 1_660)], MARKET, self.HISTORY, 1) == Chance(1.0, None)
        assert chance([owns("ETH", 1), owes("USDC", 5_000)], MARKET, [], 1) == Chance(1.0, None)
        assert chance([owes("USDC", 1)], MARKET, [], 1) == Chance(1.0, None)

    def test_without_debt_or_without_a_past_there_is_no_number(self) -> None:
        assert chance([owns("ETH", 1)], MARKET, self.HISTORY, 1) == Chance(None, None)
        assert chance([owns("ETH", 1), owes("USDC", 1)], MARKET, self.HISTORY[:29], 1) == Chance(None, None)
        assert chance([owns("ETH", 1), owes("USDC", 1)], MARKET, self.HISTORY[:30], 1).probability is not None

    @settings(max_examples=30)
    @given(histories())
    def test_ratios_are_those_of_the_rule(self, history: list[Observation]) -> None:
        """The rule's own health at the moved prices, but for its roundings."""
        positions = [owns("ETH", 10**9), owns("BTC", 10**7), owes("USDC", 10**11)]
        valued = value(positions, MARKET)
        before = health_factor(valued.weighted, valued.debt)
        assert before is not None
        for ratio, day in zip(health_ratios(positions, MARKET, history), history, strict=True):
            market = {
                asset: terms(asset, Fraction(one.mid, 10**18) * day.moves.get(asset, 1))
                for asset, one in MARKET.items()
            }
            moved = value(positions, market)
            after = health_factor(moved.weighted, moved.debt)
            assert after is not None
            assert abs(Fraction(after, before) / ratio - 1) < Fraction(1, 10**15)

    def test_a_volatility_needs_no_particular_size(self) -> None:
        huge = 10**200
        assert daily_volatility([Fraction(huge + 1, huge), Fraction(1)] * 20) == 0.0
