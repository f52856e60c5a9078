"""What leads out of danger, and how far it is away: liquidation prices, and amounts that reach a target health.

Derived from Aave v3's rule as ``domain.margin.health`` has it: liquidatable while Σ value·threshold < debt, so for
one asset of which ``a`` is collateral and ``b`` debt, at the price p* = (D_rest − C_rest) / (a·LT − b). Amounts are in
whole minor units, rounded so that the rule itself, asked again, says that the target is reached.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from domain.fixed import VALUE_UNITS
from domain.margin.health import Valuation, health_factor
from domain.margin.model import (
    LIQUIDATION_BPS,
    AssetTerms,
    Levels,
    Market,
    Origin,
    Position,
    Side,
    most_minor,
)
from domain.money import BASIS_POINTS

#: The health that advice leads to, in basis points, unless the user's own warning level is tighter.
TARGET_BPS: Final = 15_000
#: Percentages are in 1e-8 percent.
PERCENT_SCALE: Final = 8
_BORROW, _DECLARED = Side.BORROW, Origin.DECLARED
_HUNDRED_PERCENT: Final = 100 * 10**PERCENT_SCALE


class LiquidationPrice(NamedTuple):
    """The price (1e-18 USD) at which the account is not liquidatable yet; strictly below it is, or strictly above it
    where the asset is owed rather than owned."""

    price: int
    below: bool


class Action(StrEnum):
    """What may be done."""

    REPAY = "repay"
    TOP_UP = "top_up"
    SELL = "sell"
    #: Where no single debt suffices.
    REPAY_SEVERAL = "repay_several"


_REPAY, _TOP_UP, _SELL, _REPAY_SEVERAL = Action


class Repayment(NamedTuple):
    """What is repaid of one debt."""

    asset: str
    amount_minor: int


class Recommendation(NamedTuple):
    """One way to ``target_bps``: repay debt of ``asset``, top up with it, or sell it and repay ``repay_minor`` of
    ``repay_asset`` at the prices used, without fees. ``health`` (1e-18) is what results, None where no debt is left.

    ``REPAY_SEVERAL``: repay ``also`` besides; all of it together is the way, and none of it alone.
    """

    action: Action
    asset: str
    amount_minor: int
    repay_asset: str | None
    repay_minor: int
    target_bps: int
    health: int | None
    also: tuple[Repayment, ...] = ()


class Holding(NamedTuple):
    """All of one asset on one side: its amount, what of it is declared, what it is worth by the rule, in how many
    positions."""

    terms: AssetTerms
    amount: int
    declared: int
    worth: int
    parts: tuple[int, ...]


def liquidation_price_drop(valuation: Valuation) -> int | None:
    """How far all collateral may fall together until the account is liquidatable, debt staying as it is: (1 − 1/HF)·100
    percent in 1e-8, rounded down. Negative when it is already; None without debt, and without collateral that counts.
    """
    if valuation.debt == 0 or valuation.weighted == 0:
        return None
    return (valuation.weighted - valuation.debt * BASIS_POINTS) * _HUNDRED_PERCENT // valuation.weighted


class Holdings(NamedTuple):
    """An account by asset: what is owned and what is owed."""

    collateral: Mapping[str, Holding]
    debt: Mapping[str, Holding]


def liquidation_prices(holdings: Holdings, valuation: Valuation) -> dict[str, LiquidationPrice | None]:
    """Of each asset of the account, the price at which it becomes liquidatable while all others stay as they are; None
    where no price does that. ``valuation`` is that of the same account.

    Exact to the rule for an asset on one side; one on both sides has a band of some 1e-8 USD in which both roundings
    meet, and the answer is its safe end.
    """
    collateral, debt = holdings
    if not debt:
        return dict.fromkeys(collateral)
    return {asset: _price(collateral.get(asset), debt.get(asset), valuation) for asset in {**collateral, **debt}}


def recommendations(holdings: Holdings, valuation: Valuation, levels: Levels) -> list[Recommendation]:
    """How to get to the target, one asset at a time; nothing when the account is there. What cannot reach it is left
    out: more than is owned, collateral that escrows hold and nobody may sell, more than is owed; where no debt is
    enough by itself, several are repaid together."""
    target = target_bps(levels)
    if valuation.weighted >= target * valuation.debt:
        return []
    collateral, debt = holdings
    found: list[Recommendation | None] = [_repay(owed, valuation, target) for owed in debt.values()]
    if not any(found):
        found = [_repay_several(debt, valuation, target)]
    found += [_top_up(owned, valuation, target) for owned in collateral.values()]
    largest = max(debt.values(), key=_worth)
    found += [_sell(owned, largest, valuation, target) for owned in collateral.values()]
    return [one for one in found if one is not None]


def main_recommendations(holdings: Holdings, valuation: Valuation, levels: Levels) -> list[Recommendation]:
    """Of ``recommendations``, those that concern the largest debt and the largest collateral: what an event says."""
    target = target_bps(levels)
    if valuation.weighted >= target * valuation.debt:
        return []
    largest = max(holdings.debt.values(), key=_worth)
    # Where the largest debt is not enough, no other one is.
    found: list[Recommendation | None] = [
        _repay(largest, valuation, target) or _repay_several(holdings.debt, valuation, target)
    ]
    if holdings.collateral:
        owned = max(holdings.collateral.values(), key=_worth)
        found += [_top_up(owned, valuation, target), _sell(owned, largest, valuation, target)]
    return [one for one in found if one is not None]


def target_bps(levels: Levels) -> int:
    """The health that advice leads to: the default, or the user's warning level where it is tighter."""
    return max(TARGET_BPS, levels.warning_bps)


def hold(positions: Iterable[Position], market: Market) -> Holdings:
    """The positions by asset. Side, asset and origin name a position once."""
    owned: dict[str, Holding] = {}
    owed: dict[str, Holding] = {}
    for side, asset, amount, origin in positions:
        terms = market[asset]
        unit = VALUE_UNITS[terms.scale]
        if side is _BORROW:
            owed[asset] = Holding(terms, amount, amount, -(-amount * terms.mid // unit), (amount,))
            continue
        declared = amount if origin is _DECLARED else 0
        holding = Holding(terms, amount, declared, amount * terms.mid // unit, (amount,))
        owned[asset] = _together(holding, owned[asset]) if asset in owned else holding
    return Holdings(owned, owed)


def _worth(holding: Holding) -> int:
    return holding.worth


def _together(one: Holding, other: Holding) -> Holding:
    return Holding(
        one.terms,
        one.amount + other.amount,
        one.declared + other.declared,
        one.worth + other.worth,
        one.parts + other.parts,
    )


def _price(owned: Holding | None, owed: Holding | None, valuation: Valuation) -> LiquidationPrice | None:
    if owned is None:
        assert owed is not None
        return _rising(owed, valuation)
    threshold = owned.terms.parameters.liquidation_threshold_bps
    missing = LIQUIDATION_BPS * valuation.debt - (valuation.weighted - owned.worth * threshold)
    if owed is None:
        return _falling(owned, missing, threshold) if threshold and missing > 0 else None
    missing -= LIQUIDATION_BPS * owed.worth
    slope = owned.amount * threshold - LIQUIDATION_BPS * owed.amount
    rounding = len(owned.parts) * threshold + LIQUIDATION_BPS
    unit = VALUE_UNITS[owned.terms.scale]
    if slope > 0 and missing > 0:
        return LiquidationPrice(-(-(missing + rounding) * unit // slope), below=True)
    if slope < 0 and (price := (missing + rounding) * unit // slope) > 0:
        return LiquidationPrice(price, below=False)
    return None


def _falling(owned: Holding, missing: int, threshold: int) -> LiquidationPrice:
    """The smallest price at which the positions are worth enough."""
    unit = VALUE_UNITS[owned.terms.scale]
    needed = -(-missing // threshold)
    low = -(-needed * unit // owned.amount)
    if len(owned.parts) > 1:
        # Each position is rounded down by itself, so several may need a little more than their sum does.
        high = -(-(needed + len(owned.parts) - 1) * unit // owned.amount)
        while low < high:
            middle = (low + high) // 2
            if sum(part * middle // unit for part in owned.parts) >= needed:
                high = middle
            else:
                low = middle + 1
    return LiquidationPrice(low, below=True)


def _rising(owed: Holding, valuation: Valuation) -> LiquidationPrice | None:
    """The greatest price at which the debt is not too much."""
    bearable = valuation.weighted // LIQUIDATION_BPS - (valuation.debt - owed.worth)
    price = bearable * VALUE_UNITS[owed.terms.scale] // owed.amount
    return LiquidationPrice(price, below=False) if price > 0 else None


def _repay(owed: Holding, valuation: Valuation, target: int) -> Recommendation | None:
    part = _part(owed, valuation.debt - owed.worth, valuation.weighted, target)
    if part is None:
        return None
    amount, health = part
    return Recommendation(_REPAY, owed.terms.symbol, amount, None, 0, target, health)


def _repay_several(debt: Mapping[str, Holding], valuation: Valuation, target: int) -> Recommendation:
    """Debts in the order of their worth, the largest first, as many as it takes and the last one in part.

    For an account that one of them alone does not bring to the target: it has two or more.
    """
    repaid: list[Repayment] = []
    left = valuation.debt
    for owed in sorted(debt.values(), key=_worth, reverse=True):
        left -= owed.worth
        part = _part(owed, left, valuation.weighted, target)
        if part is not None:
            amount, health = part
            (asset, first), *more = (*repaid, Repayment(owed.terms.symbol, amount))
            return Recommendation(_REPAY_SEVERAL, asset, first, None, 0, target, health, tuple(more))
        repaid.append(Repayment(owed.terms.symbol, owed.amount))
    raise AssertionError("without debt no target is missed")


def _part(owed: Holding, others: int, weighted: int, target: int) -> tuple[int, int | None] | None:
    """How much of a debt to repay, and the health that results where ``others`` (1e-8 USD) stay; None when they alone
    are too much."""
    bearable = weighted // target - others
    if bearable < 0:
        return None
    mid, unit = owed.terms.mid, VALUE_UNITS[owed.terms.scale]
    rest = bearable * unit // mid
    return owed.amount - rest, health_factor(weighted, others - -rest * mid // unit)


def _top_up(owned: Holding, valuation: Valuation, target: int) -> Recommendation | None:
    threshold = owned.terms.parameters.liquidation_threshold_bps
    if threshold == 0:
        return None
    mid, unit, declared = owned.terms.mid, VALUE_UNITS[owned.terms.scale], owned.declared
    before = declared * mid // unit
    needed = before - (valuation.weighted - target * valuation.debt) // threshold
    after = -(-needed * unit // mid)
    if after > most_minor(owned.terms.scale):
        return None
    weighted = valuation.weighted + (after * mid // unit - before) * threshold
    health = health_factor(weighted, valuation.debt)
    return Recommendation(_TOP_UP, owned.terms.symbol, after - declared, None, 0, target, health)


def _sell(owned: Holding, owed: Holding, valuation: Valuation, target: int) -> Recommendation | None:
    mid, unit = owned.terms.mid, VALUE_UNITS[owned.terms.scale]
    owed_mid, owed_unit = owed.terms.mid, VALUE_UNITS[owed.terms.scale]
    threshold = owned.terms.parameters.liquidation_threshold_bps
    # What the roundings of both positions and of the repayment, by up to a minor unit, may cost is sold on top.
    rounding = threshold + target * (3 + owed_mid // owed_unit)
    gap = target * valuation.debt - valuation.weighted + rounding
    sold = -(-(gap // (target - threshold) + 1) * unit // mid)
    if sold > owned.declared:
        return None
    repaid = min(sold * mid // unit * owed_unit // owed_mid, owed.amount)
    before, after = owned.declared * mid // unit, (owned.declared - sold) * mid // unit
    weighted = valuation.weighted - (before - after) * threshold
    debt = valuation.debt - owed.worth - -(owed.amount - repaid) * owed_mid // owed_unit
    if weighted < target * debt:
        return None
    health = health_factor(weighted, debt)
    return Recommendation(_SELL, owned.terms.symbol, sold, owed.terms.symbol, repaid, target, health)
