"""Accounts and markets for the tests of margin, and the rule once more in exact fractions."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from fractions import Fraction

from hypothesis import strategies as st

from domain.fixed import PRICE_ONE
from domain.margin.health import Valuation
from domain.margin.model import AssetTerms, Level, Levels, Market, Origin, Parameters, Position, Side

T0 = datetime(2026, 3, 1, 9, 0, 0, tzinfo=UTC)
SCALES = {"ETH": 18, "BTC": 8, "USDC": 6, "DAI": 18}
THRESHOLDS = {"ETH": 8_300, "BTC": 7_800, "USDC": 7_800, "DAI": 0}


def terms(symbol: str, mid: int, *, confirmed: bool = True, threshold: int | None = None) -> AssetTerms:
    counts = THRESHOLDS[symbol] if threshold is None else threshold
    parameters = Parameters(counts * 9 // 10, counts, 500, 500)
    return AssetTerms(symbol, SCALES[symbol], parameters, mid, mid, mid, confirmed, "good", T0)


def market(confirmed: bool = True, **dollars: int | str) -> Market:
    prices = {"ETH": 2_000, "BTC": 60_000, "USDC": 1, "DAI": 1} | dollars
    return {
        asset: terms(asset, int(Fraction(price) * PRICE_ONE), confirmed=confirmed) for asset, price in prices.items()
    }


def owns(asset: str, units: str | int, origin: Origin = Origin.DECLARED) -> Position:
    return Position(Side.COLLATERAL, asset, int(Fraction(units) * 10 ** SCALES[asset]), origin)


def owes(asset: str, units: str | int) -> Position:
    return Position(Side.BORROW, asset, int(Fraction(units) * 10 ** SCALES[asset]))


def exact_health(positions: Iterable[Position], market: Market) -> Fraction | None:
    """The health factor without any rounding but that of each position; None without debt."""
    weighted, debt = Fraction(0), Fraction(0)
    for position in positions:
        one = market[position.asset]
        worth = Fraction(position.amount_minor * one.mid, 10 ** (one.scale + 10))
        if position.side is Side.COLLATERAL:
            weighted += worth.__floor__() * Fraction(one.parameters.liquidation_threshold_bps, 10_000)
        else:
            debt += worth.__ceil__()
    return None if debt == 0 else weighted / debt


def exact_level(health: Fraction | None, levels: Levels) -> Level:
    if health is None:
        return Level.HEALTHY
    below = [level for level in list(Level)[1:] if health < Fraction(levels.threshold_bps(level), 10_000)]
    return max(below, default=Level.HEALTHY)


def worth(weighted: int, debt: int, *, confirmed: bool = True) -> Valuation:
    """A valuation of which only the health matters."""
    return Valuation(weighted, debt, weighted, 0, debt, confirmed)


AMOUNTS = st.integers(1, 10**30) | st.integers(1, 10**9)
MARKETS = st.fixed_dictionaries(
    {asset: st.integers(1, 10**24) | st.sampled_from([1, PRICE_ONE, 10**23]) for asset in SCALES}
).flatmap(
    lambda mids: st.fixed_dictionaries({asset: st.integers(0, 10_000) for asset in SCALES}).map(
        lambda counts: {asset: terms(asset, mids[asset], threshold=counts[asset]) for asset in SCALES}
    )
)


@st.composite
def books(draw: st.DrawFn, *, sides: int = 2) -> list[Position]:
    """The positions of an account, each side, asset and origin once."""
    keys = [(Side.COLLATERAL, asset, origin) for asset in SCALES for origin in Origin]
    keys += [(Side.BORROW, asset, Origin.DECLARED) for asset in SCALES] if sides == 2 else []
    chosen = draw(st.lists(st.sampled_from(keys), min_size=1, max_size=6, unique=True))
    return [Position(side, asset, draw(AMOUNTS), origin) for side, asset, origin in chosen]
