"""Past crashes on accounts of today, and concentration."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.fixed import RATIO_ONE, USD_SCALE
from domain.margin.health import health_factor, value
from domain.margin.model import DEFAULT_LEVELS, AssetTerms, Level, Position, Side
from domain.margin.risk import MOVE_SCALE, SCENARIOS, Measure, Move, Outcome, Scenario, concentration, stress
from tests.domain.risks import AMOUNTS, MARKET, books, owes, owns, terms

USD = 10**USD_SCALE
CENT = 10**MOVE_SCALE
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}


def fall(**percent: int) -> Scenario:
    """Assets fall by whole percentages, others not at all."""
    moves = {asset: Move(100, 100 - by) for asset, by in percent.items()}
    day = date(2026, 1, 1)
    return Scenario("test", "A test", day, day, Measure.CLOSE_TO_CLOSE, moves, Move(1, 1), ())


def after(positions: list[Position], scenario: Scenario) -> Outcome:
    return stress(positions, MARKET, DEFAULT_LEVELS, scenario)


def test_a_worked_crash() -> None:
    """10 ETH at 2,000 against 10,000 USDC; ETH falls by 42 %: 11,600 * 0.83 / 10,000 = 0.9628."""
    outcome = after([owns("ETH", 10), owes("USDC", 10_000)], fall(ETH=42))
    assert (outcome.collateral, outcome.debt) == (11_600 * USD, 10_000 * USD)
    assert outcome.health == 962_800_000_000_000_000
    assert (outcome.level, outcome.loss, outcome.shortfall) == (Level.LIQUIDATION, 8_400 * USD, 0)


def test_what_liquidation_leaves_unpaid() -> None:
    """ETH falls by half: 10,000 of collateral repay 10,000 / 1.05 = 9,523.80952380 of 10,000."""
    outcome = after([owns("ETH", 10), owes("USDC", 10_000)], fall(ETH=50))
    assert (outcome.level, outcome.shortfall) == (Level.LIQUIDATION, 47_619_047_620)


def test_who_is_not_liquidated_has_no_shortfall() -> None:
    """A bonus of all of it makes collateral repay half its value; that matters only once somebody liquidates."""
    market = MARKET | {"ETH": terms("ETH", 2_000, bonus_bps=10_000)}
    positions = [owns("ETH", 10), owes("USDC", 15_000)]
    calm, crash = (stress(positions, market, DEFAULT_LEVELS, fall(ETH=by)) for by in (9, 10))
    assert (calm.level, calm.shortfall) == (Level.IMMINENT, 0)
    assert (crash.level, crash.shortfall) == (Level.LIQUIDATION, 6_000 * USD)


def test_debt_that_falls_is_a_gain() -> None:
    outcome = after([owns("USDC", 1_000), owes("ETH", "0.1")], fall(ETH=50))
    assert (outcome.loss, outcome.debt) == (-100 * USD, 100 * USD)


def test_without_debt_there_is_no_health() -> None:
    outcome = after([owns("ETH", 1)], fall(ETH=90))
    assert (outcome.health, outcome.level, outcome.shortfall) == (None, Level.HEALTHY, 0)
    assert after([], fall(ETH=90)).loss == 0


def test_every_price_moves_and_the_parameters_do_not() -> None:
    moved = replace(MARKET["ETH"], low=MARKET["ETH"].low - 5, high=MARKET["ETH"].high + 5)
    scenario = BY_NAME["black_thursday_2020"]
    positions = [owns("ETH", 3), owes("USDC", 1)]
    shocked: dict[str, AssetTerms] = MARKET | {
        "ETH": replace(moved, mid=moved.mid * 11_235 // 19_487, low=0, high=moved.high)
    }
    outcome = stress(positions, MARKET | {"ETH": moved}, DEFAULT_LEVELS, scenario)
    again = value(positions, shocked)
    assert (outcome.collateral, outcome.health) == (again.collateral, health_factor(again.weighted, again.debt))


@settings(max_examples=60)
@given(books(), AMOUNTS, st.sampled_from(SCENARIOS))
def test_money_that_stands_still_raises_no_loss(positions: list[Position], cash: int, scenario: Scenario) -> None:
    still = replace(scenario, moves={**scenario.moves, "USDC": Move(1, 1)})
    more = [*positions, Position(Side.COLLATERAL, "USDC", cash)]
    one, two = after(positions, still), after(more, still)
    assert two.loss == one.loss
    assert two.shortfall <= one.shortfall
    assert two.level <= one.level


@settings(max_examples=60)
@given(books(), st.sampled_from(SCENARIOS))
def test_the_outcome_against_fractions(positions: list[Position], scenario: Scenario) -> None:
    outcome = after(positions, scenario)
    for side, found in ((Side.COLLATERAL, outcome.collateral), (Side.BORROW, outcome.debt)):
        exact = Fraction()
        held = [each for each in positions if each.side is side]
        for each in held:
            move = scenario.move(each.asset)
            price = Fraction(MARKET[each.asset].mid * move.after, move.before)
            exact += each.amount_minor * price / 10 ** (MARKET[each.asset].scale + 10)
        slack = len(held) + sum(Fraction(each.amount_minor, 10 ** (MARKET[each.asset].scale + 10)) for each in held)
        assert abs(found - exact) <= slack


class TestScenarios:
    """The table itself: whole, dated, sourced, and nothing in it that is no crash."""

    def test_names_are_unique_and_dates_in_order(self) -> None:
        assert len(BY_NAME) == len(SCENARIOS) == 10
        assert [each.last_day for each in SCENARIOS] == sorted(each.last_day for each in SCENARIOS)

    @pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
    def test_a_scenario_is_whole(self, scenario: Scenario) -> None:
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*_20\d\d", scenario.name)
        assert scenario.name.endswith(str(scenario.last_day.year))
        assert scenario.first_day < scenario.last_day
        assert {"ETH", "BTC", "USDC", "USDT", "DAI"} == set(scenario.moves)
        assert all(0 < move.after <= move.before for move in (*scenario.moves.values(), scenario.others))
        assert any(move.after < move.before for move in scenario.moves.values())
        assert scenario.sources
        assert all(source.publication and source.title for source in scenario.sources)

    @pytest.mark.parametrize(
        ("name", "asset", "percent"),
        [
            ("black_thursday_2020", "BTC", "-37.17"),
            ("black_thursday_2020", "ETH", "-42.35"),
            ("may_2021", "BTC", "-28.50"),
            ("terra_2022", "ETH", "-25.58"),
            ("tether_2022", "USDT", "-4.00"),
            ("celsius_2022", "BTC", "-15.97"),
            ("june_2022", "ETH", "-44.48"),
            ("ftx_2022", "BTC", "-22.92"),
            ("usdc_2023", "USDC", "-12.00"),
            ("carry_trade_2024", "ETH", "-20.99"),
            ("tariffs_2025", "BTC", "-14.07"),
        ],
    )
    def test_how_far_it_fell(self, name: str, asset: str, percent: str) -> None:
        move = BY_NAME[name].moves[asset]
        change = 100 * Fraction(move.after - move.before, move.before)
        assert round(change, 2) == Fraction(percent)
        assert move.change_percent == percent

    def test_an_asset_that_nobody_tells_of(self) -> None:
        assert BY_NAME["ftx_2022"].move("SOL") == BY_NAME["ftx_2022"].moves["ETH"]
        assert BY_NAME["usdc_2023"].move("SOL") == Move(CENT, CENT)

    def test_what_is_assumed_is_told(self) -> None:
        assert [asset for asset in ("ETH", "USDC", "DAI", "SOL") if BY_NAME["usdc_2023"].is_assumed(asset)] == [
            "ETH",
            "SOL",
        ]
        assert BY_NAME["ftx_2022"].is_assumed("USDC")
        assert not BY_NAME["ftx_2022"].is_assumed("ETH")


class TestConcentration:
    """Shares of the collateral and their index."""

    def test_one_asset_is_all(self) -> None:
        found = concentration([owns("ETH", 1), owes("USDC", 100)], MARKET)
        assert found is not None
        assert found.herfindahl == 10_000
        assert [(each.asset, each.value, each.share) for each in found.shares] == [("ETH", 2_000 * USD, RATIO_ONE)]

    def test_equal_parts(self) -> None:
        found = concentration([owns("ETH", 30), owns("BTC", 1), owns("USDC", 60_000)], MARKET)
        assert found is not None
        assert found.herfindahl == 3_333
        assert [each.asset for each in found.shares] == ["BTC", "ETH", "USDC"]

    def test_the_largest_comes_first_and_origins_are_one(self) -> None:
        found = concentration([owns("USDC", 500), owns("ETH", 1), owns("USDC", 1_500), owns("BTC", "0.1")], MARKET)
        assert found is not None
        assert [(each.asset, each.share) for each in found.shares] == [
            ("BTC", RATIO_ONE * 6 // 10),
            ("ETH", RATIO_ONE * 2 // 10),
            ("USDC", RATIO_ONE * 2 // 10),
        ]
        assert found.herfindahl == 4_400

    def test_nothing_is_not_concentrated(self) -> None:
        assert concentration([owes("USDC", 1)], MARKET) is None
        assert concentration([Position(Side.COLLATERAL, "ETH", 1)], MARKET) is None, "worth less than 1e-8 USD"
