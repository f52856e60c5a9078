"""How long until liquidation: by interest alone, and by chance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from domain.fixed import value_ceil
from domain.margin.health import value
from domain.margin.model import Market, Position, Side
from domain.margin.risk import chances
from domain.margin.risk.chances import Chance
from domain.margin.risk.history import Observation, exposures
from domain.money import BASIS_POINTS

#: A year of interest, as Aave counts it (31,536,000 seconds).
YEAR_DAYS: Final = 365
#: The daily returns without which no volatility is told.
FEWEST_RETURNS: Final = 30


@dataclass(frozen=True, slots=True)
class Carry:
    """Time to liquidation while prices stand still. ``rate_bps`` is a year's interest on the whole debt, weighted by
    value and rounded down; ``days`` is rounded down, 0 for an account that is below one, and None where interest never
    leads there: without debt, or without a rate."""

    days: int | None
    rate_bps: int | None


def carry(positions: Sequence[Position], market: Market) -> Carry:
    """``ln(health factor) / (borrow rate - supply rate)``: collateral earns nothing here, the supply rate is zero."""
    interest = 0
    for position in positions:
        if position.side is Side.BORROW:
            terms = market[position.asset]
            debt = value_ceil(position.amount_minor, terms.mid, terms.scale)
            interest += debt * terms.parameters.borrow_rate_bps
    valued = value(positions, market)
    if valued.debt == 0:
        return Carry(None, None)
    rate_bps = interest // valued.debt
    owed = valued.debt * BASIS_POINTS
    if valued.weighted <= owed:
        return Carry(0, rate_bps)
    if interest == 0:
        return Carry(None, rate_bps)
    distance = chances.log_ratio(valued.weighted, owed)
    return Carry(chances.days_of_growth(distance, YEAR_DAYS, interest, owed), rate_bps)


def chance(positions: Sequence[Position], market: Market, daily: Iterable[Observation], days: int) -> Chance:
    """The probability that the health factor reaches one within ``days``: first passage without drift.

    Its logarithm is taken for a Brownian motion with the volatility that today's positions would have had over the
    ``daily`` returns.
    """
    valued = value(positions, market)
    if valued.debt == 0:
        return Chance(None, None)
    owed = valued.debt * BASIS_POINTS
    if valued.weighted <= owed:
        return chances.CERTAIN
    ratios = health_ratios(positions, market, daily)
    if len(ratios) < FEWEST_RETURNS:
        return Chance(None, None)
    return chances.reaching(chances.log_ratio(valued.weighted, owed), chances.daily_volatility(ratios), days)


def health_ratios(positions: Sequence[Position], market: Market, daily: Iterable[Observation]) -> list[Fraction]:
    """By what factor each day's returns would change the health factor of today's positions, exactly.

    Weighted collateral and debt are both positive.
    """
    thresholds = {asset: terms.parameters.liquidation_threshold_bps for asset, terms in market.items()}
    collateral = exposures((each for each in positions if each.side is Side.COLLATERAL), market)
    weighted = {asset: worth * thresholds[asset] for asset, worth in collateral.items()}
    debts = exposures((each for each in positions if each.side is Side.BORROW), market)
    now = Fraction(sum(weighted.values(), Fraction()), sum(debts.values(), Fraction()))
    return [Fraction(_moved(weighted, each), _moved(debts, each) * now) for each in daily]


def _moved(worth: dict[str, Fraction], seen: Observation) -> Fraction:
    return sum((value * seen.moves[asset] for asset, value in worth.items()), Fraction())
