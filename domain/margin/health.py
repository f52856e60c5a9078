"""The health of an account, after Aave v3 (GenericLogic.calculateUserAccountData), in integers.

Collateral is valued rounded down, debt rounded up, each position by itself; the weighted sum is divided by the debt
once. Aave rounds that quotient half up at 1e-22 before it cuts it at 1e-18; we only cut, so that the number shown and
the comparison below never disagree.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from domain.fixed import RATIO_ONE, VALUE_UNITS
from domain.margin.model import LIQUIDATION_BPS, Level, Levels, Market, Position, Side
from domain.money import BASIS_POINTS

# Members of an enumeration by names of this module: looking one up in its class costs ten times as much.
_COLLATERAL = Side.COLLATERAL
_HEALTHY, _WARNING, _MARGIN_CALL, _IMMINENT, _LIQUIDATION = Level

#: An account leaves a level when its health is this far, in percent, above the threshold.
REARM_PERCENT = 102


class Valuation(NamedTuple):
    """An account in 1e-8 USD. ``weighted`` is the sum of each collateral's value times its liquidation threshold in
    basis points; ``capacity`` the sum of values at the low price times loan-to-value, ``debt_high`` debt at the high
    price: these two say what may be borrowed. ``confirmed``: every price in it may drive something automatic."""

    collateral: int
    debt: int
    weighted: int
    capacity: int
    debt_high: int
    confirmed: bool


def value(positions: Iterable[Position], market: Market) -> Valuation:
    """The account's valuation. Every asset of a position must be in ``market``."""
    collateral = debt = weighted = capacity = debt_high = 0
    confirmed = True
    for side, asset, amount, _ in positions:
        terms = market[asset]
        mid, unit = terms.mid, VALUE_UNITS[terms.scale]
        if not terms.confirmed:
            confirmed = False
        if side is _COLLATERAL:
            worth = amount * mid // unit
            collateral += worth
            weighted += worth * terms.parameters.liquidation_threshold_bps
            low = worth if terms.low == mid else amount * terms.low // unit
            capacity += low * terms.parameters.ltv_bps
        else:
            worth = -(-amount * mid // unit)
            debt += worth
            debt_high += worth if terms.high == mid else -(-amount * terms.high // unit)
    return Valuation(collateral, debt, weighted, capacity, debt_high, confirmed)


def health_factor(weighted: int, debt: int) -> int | None:
    """The health factor in 1e-18, rounded down; None without debt, which no price can endanger."""
    return None if debt == 0 else weighted * RATIO_ONE // (debt * BASIS_POINTS)


def is_below(weighted: int, debt: int, threshold_bps: int) -> bool:
    """Whether the health factor is strictly below a threshold; exact, without a division."""
    return weighted < threshold_bps * debt


def level_of(weighted: int, debt: int, levels: Levels, *, percent: int = 100) -> Level:
    """The level of a health factor, every threshold taken at ``percent`` of itself."""
    if debt == 0:
        return _HEALTHY
    scaled = weighted * 100
    if scaled < LIQUIDATION_BPS * percent * debt:
        return _LIQUIDATION
    if scaled < levels.imminent_bps * percent * debt:
        return _IMMINENT
    if scaled < levels.margin_call_bps * percent * debt:
        return _MARGIN_CALL
    if scaled < levels.warning_bps * percent * debt:
        return _WARNING
    return _HEALTHY


def settled_level(told: Level, weighted: int, debt: int, levels: Levels, *, confirmed: bool) -> Level:
    """The level that an account told ``told`` should be told next: worse at once, better only 2 % above a threshold.

    Without confirmed prices nothing gets as far as ``LIQUIDATION``; an account that is there stays until it recovers.
    """
    strict = level_of(weighted, debt, levels)
    rearmed = level_of(weighted, debt, levels, percent=REARM_PERCENT)
    level = min(max(told, strict), rearmed)
    if level is _LIQUIDATION and told is not _LIQUIDATION and not confirmed:
        return max(told, _IMMINENT)
    return level
