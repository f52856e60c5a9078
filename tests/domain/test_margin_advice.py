"""Liquidation prices and recommended amounts, asked back of the rule itself."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.fixed import PRICE_ONE, RATIO_ONE
from domain.margin.advice import (
    Action,
    LiquidationPrice,
    Recommendation,
    Repayment,
    hold,
    liquidation_price_drop,
    liquidation_prices,
    main_recommendations,
    recommendations,
)
from domain.margin.health import health_factor, is_below, value
from domain.margin.model import DEFAULT_LEVELS, LIQUIDATION_BPS, Levels, Market, Origin, Position, Side
from tests.domain.margins import MARKETS, SCALES, books, exact_health, market, owes, owns

#: A price that makes any amount worth more than all others.
BEYOND = 10**90


def prices(positions: list[Position], given: Market) -> dict[str, LiquidationPrice | None]:
    return liquidation_prices(hold(positions, given), value(positions, given))


def advice(positions: list[Position], given: Market, levels: Levels = DEFAULT_LEVELS) -> list[Recommendation]:
    return recommendations(hold(positions, given), value(positions, given), levels)


def is_liquidatable(positions: list[Position], given: Market, asset: str, price: int) -> bool:
    found = value(positions, {**given, asset: replace(given[asset], mid=price)})
    return is_below(found.weighted, found.debt, LIQUIDATION_BPS)


def test_the_price_of_the_first_example() -> None:
    positions = [owns("ETH", 10), owes("USDC", 8_300)]
    assert prices(positions, market()) == {
        "ETH": LiquidationPrice(1_000 * PRICE_ONE, below=True),
        "USDC": LiquidationPrice(2 * PRICE_ONE, below=False),
    }
    assert liquidation_price_drop(value(positions, market())) == 50 * 10**8


def test_where_no_price_liquidates() -> None:
    assert prices([owns("ETH", 1)], market()) == {"ETH": None}
    assert prices([owns("ETH", 1), owns("USDC", 1_000), owes("DAI", 10)], market())["ETH"] is None
    assert prices([owns("DAI", 1), owes("USDC", 10)], market())["DAI"] is None, "it does not count as collateral"


def test_debt_in_the_same_asset_is_considered() -> None:
    """10 ETH against 4 ETH and 8600 USDC: 8.3 p = 4 p + 8600 at 2000."""
    [found] = [prices([owns("ETH", 10), owes("ETH", 4), owes("USDC", 8_600)], market())["ETH"]]
    assert found is not None
    assert found.below
    assert 0 <= found.price - 2_000 * PRICE_ONE < 10**12
    short = prices([owns("ETH", 4), owes("ETH", 10), owns("USDC", 20_000)], market())["ETH"]
    assert short is not None
    assert not short.below, "a short position dies of a rising price"


@settings(max_examples=100)
@given(MARKETS, books())
def test_liquidation_prices_are_where_the_rule_turns(given_market: Market, positions: list[Position]) -> None:
    found = value(positions, given_market)
    sides = defaultdict(set)
    for position in positions:
        sides[position.asset].add(position.side)
    for asset, at in liquidation_prices(hold(positions, given_market), found).items():
        if at is None:
            at_the_ends = [is_liquidatable(positions, given_market, asset, price) for price in (1, BEYOND)]
            if sides[asset] == {Side.COLLATERAL}:
                assert at_the_ends[0] == at_the_ends[1], "its price decides nothing"
            elif sides[asset] == {Side.BORROW}:
                assert at_the_ends[0], "no price is low enough"
            continue
        assert not is_liquidatable(positions, given_market, asset, at.price)
        if len(sides[asset]) == 1 and (beyond := at.price + (-1 if at.below else 1)) > 0:
            assert is_liquidatable(positions, given_market, asset, beyond)


@settings(max_examples=100)
@given(MARKETS, books(), st.sampled_from([DEFAULT_LEVELS, Levels(20_000, 15_000, 11_000)]))
def test_what_is_recommended_reaches_the_target(
    given_market: Market, positions: list[Position], levels: Levels
) -> None:
    found = value(positions, given_market)
    holdings = hold(positions, given_market)
    advised = recommendations(holdings, found, levels)
    told = main_recommendations(holdings, found, levels)
    assert set(told) <= set(advised)
    target = Fraction(levels.warning_bps, 10_000)
    health = exact_health(positions, given_market)
    if health is None or health >= target:
        assert advised == []
        return
    repaying = {one.action for one in advised} & {Action.REPAY, Action.REPAY_SEVERAL}
    assert len(repaying) == 1, "repaying is always a way: one debt, or several together"
    assert repaying <= {one.action for one in told}
    for one in advised:
        assert one.target_bps == levels.warning_bps
        changed = apply(positions, one)
        after = value(changed, given_market)
        assert one.health == health_factor(after.weighted, after.debt)
        reached = exact_health(changed, given_market)
        assert reached is None or reached >= target
        if one.action is not Action.SELL:
            less = apply(positions, _one_unit_less(one))
            short = exact_health(less, given_market)
            assert short is not None
            assert short < target, "one minor unit less would not do"


def _one_unit_less(one: Recommendation) -> Recommendation:
    """The last amount without its last minor unit."""
    if not one.also:
        return one._replace(amount_minor=one.amount_minor - 1)
    *before, last = one.also
    return one._replace(also=(*before, last._replace(amount_minor=last.amount_minor - 1)))


@settings(max_examples=100)
@given(MARKETS, books())
def test_several_debts_are_repaid_in_the_order_of_their_worth(given_market: Market, positions: list[Position]) -> None:
    """All of them but the last whole, and no more of them than it takes."""
    debts = [Position(Side.BORROW, asset, 10 ** SCALES[asset] * (5 + n)) for n, asset in enumerate(SCALES)]
    positions = [p for p in positions if p.side is Side.COLLATERAL] + debts
    holdings, found = hold(positions, given_market), value(positions, given_market)
    several = [one for one in advice(positions, given_market) if one.action is Action.REPAY_SEVERAL]
    assert several == [one for one in main_recommendations(holdings, found, DEFAULT_LEVELS) if one.also]
    for one in several:
        repaid = [Repayment(one.asset, one.amount_minor), *one.also]
        ranked = sorted(holdings.debt.values(), key=lambda owed: owed.worth, reverse=True)
        assert [each.asset for each in repaid] == [owed.terms.symbol for owed in ranked[: len(repaid)]]
        for part, owed in zip(repaid[:-1], ranked, strict=False):
            assert part.amount_minor == owed.amount
        assert 0 < repaid[-1].amount_minor <= ranked[len(repaid) - 1].amount
        reached = exact_health(apply(positions, one), given_market)
        assert reached is None or reached >= Fraction(3, 2)
        for too_little in (_one_unit_less(one), one._replace(also=one.also[:-1])):
            missed = exact_health(apply(positions, too_little), given_market)
            assert missed is not None
            assert missed < Fraction(3, 2)


def test_debts_without_collateral_are_repaid_all() -> None:
    [only] = advice([owes("USDC", 10), owes("ETH", 1), owes("DAI", 3), owns("DAI", 1_000)], market())
    assert (only.action, only.asset, only.amount_minor) == (Action.REPAY_SEVERAL, "ETH", 10**18)
    assert only.also == (Repayment("USDC", 10_000_000), Repayment("DAI", 3 * 10**18))
    assert only.health is None


def test_the_last_of_several_debts_is_repaid_in_part() -> None:
    """1 ETH at 2000 counts 1660, which bears 1106.67 of debt at 1.5."""
    positions = [owns("ETH", 1), owes("BTC", "0.05"), owes("USDC", 2_000), owes("DAI", 500)]
    [several] = [one for one in advice(positions, market()) if one.action is Action.REPAY_SEVERAL]
    assert (several.asset, several.amount_minor) == ("BTC", 5_000_000)
    assert several.also == (Repayment("USDC", 1_393_333_334),)
    assert several.health is not None
    assert 0 <= several.health - Fraction(3, 2) * RATIO_ONE < 10**10


def apply(positions: list[Position], one: Recommendation) -> list[Position]:
    """The positions after what is recommended was done."""
    amounts = {(p.side, p.asset, p.origin): p.amount_minor for p in positions}

    def change(side: Side, asset: str, by: int) -> None:
        key = (side, asset, Origin.DECLARED)
        amounts[key] = amounts.get(key, 0) + by
        assert amounts[key] >= 0, "nothing is sold or repaid that is not there"

    match one.action:
        case Action.REPAY | Action.REPAY_SEVERAL:
            change(Side.BORROW, one.asset, -one.amount_minor)
            for asset, amount in one.also:
                change(Side.BORROW, asset, -amount)
        case Action.TOP_UP:
            change(Side.COLLATERAL, one.asset, one.amount_minor)
        case Action.SELL:
            assert one.repay_asset is not None
            change(Side.COLLATERAL, one.asset, -one.amount_minor)
            change(Side.BORROW, one.repay_asset, -one.repay_minor)
    return [Position(*key[:2], amount, key[2]) for key, amount in amounts.items() if amount]


def test_amounts_of_an_example() -> None:
    """10 ETH at 2000 count 16600 against 15000: 1.5 needs 11066.67 of debt, or 22500 of weighted collateral."""
    repay, top_up, sell = advice([owns("ETH", 10), owes("USDC", 15_000)], market())
    assert (repay.action, repay.asset, repay.amount_minor) == (Action.REPAY, "USDC", 3_933_333_334)
    assert (top_up.action, top_up.asset) == (Action.TOP_UP, "ETH")
    assert 0 <= top_up.amount_minor - Fraction(5_900, 1_660) * 10**18 < Fraction(10**10, 2_000)
    assert top_up.health is not None
    assert 0 <= top_up.health - Fraction(3, 2) * RATIO_ONE < 10**6
    sold = Fraction(5_900) / (Fraction(3, 2) - Fraction(83, 100)) / 2_000
    assert (sell.action, sell.asset, sell.repay_asset) == (Action.SELL, "ETH", "USDC")
    assert 0 <= Fraction(sell.amount_minor, 10**18) - sold < Fraction(1, 10**8)


def test_what_escrows_hold_is_not_for_sale() -> None:
    actions = {one.action for one in advice([owns("ETH", 10, Origin.ESCROW), owes("USDC", 15_000)], market())}
    assert actions == {Action.REPAY, Action.TOP_UP}


def test_debt_without_collateral_is_repaid_whole() -> None:
    [only] = advice([owes("USDC", 10)], market())
    assert (only.action, only.amount_minor, only.health) == (Action.REPAY, 10_000_000, None)


@pytest.mark.parametrize("positions", [[], [owns("ETH", 1)], [owns("ETH", 10), owes("USDC", 10)]])
def test_whoever_is_healthy_gets_no_advice(positions: list[Position]) -> None:
    assert advice(positions, market()) == []


@given(MARKETS, books())
def test_the_drop_is_what_all_collateral_may_lose(given_market: Market, positions: list[Position]) -> None:
    found = value(positions, given_market)
    health = exact_health(positions, given_market)
    drop = liquidation_price_drop(found)
    if not health:
        assert drop is None
        return
    assert drop == ((1 - 1 / health) * 100 * 10**8).__floor__()


def test_a_drop_is_negative_when_it_has_happened() -> None:
    drop = liquidation_price_drop(value([owns("ETH", 1), owes("USDC", 3_320)], market()))
    assert drop == -100 * 10**8
