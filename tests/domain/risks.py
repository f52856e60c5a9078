"""Accounts, markets and past days for the tests of risk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction

from hypothesis import strategies as st

from domain.fixed import PRICE_ONE
from domain.margin.model import AssetTerms, Parameters, Position, Side
from domain.margin.risk import Observation

LAST = date(2026, 3, 31)
SCALES = {"ETH": 18, "BTC": 8, "USDC": 6, "SOL": 9}
DOLLARS = {"ETH": 2_000, "BTC": 60_000, "USDC": 1, "SOL": 100}
THRESHOLDS = {"ETH": 8_300, "BTC": 7_800, "USDC": 7_800, "SOL": 6_500}


def terms(asset: str, dollars: int | Fraction, *, rate_bps: int = 500, bonus_bps: int = 500) -> AssetTerms:
    mid = int(dollars * PRICE_ONE)
    parameters = Parameters(THRESHOLDS[asset] - 500, THRESHOLDS[asset], bonus_bps, rate_bps)
    at = datetime(2026, 4, 1, tzinfo=UTC)
    return AssetTerms(asset, SCALES[asset], parameters, mid, mid, mid, confirmed=True, quality="good", as_of=at)


MARKET: dict[str, AssetTerms] = {asset: terms(asset, dollars) for asset, dollars in DOLLARS.items()}


def owns(asset: str, units: str | int) -> Position:
    return Position(Side.COLLATERAL, asset, int(Fraction(units) * 10 ** SCALES[asset]))


def owes(asset: str, units: str | int) -> Position:
    return Position(Side.BORROW, asset, int(Fraction(units) * 10 ** SCALES[asset]))


def days(*dollars: int | str, last: date = LAST) -> dict[date, int]:
    """Closes on consecutive days, the last one on ``last``."""
    first = last - timedelta(days=len(dollars) - 1)
    return {first + timedelta(days=number): int(Fraction(each) * PRICE_ONE) for number, each in enumerate(dollars)}


def seen(moves: Sequence[Mapping[str, Fraction]]) -> list[Observation]:
    """Those moves on consecutive days."""
    first = LAST - timedelta(days=len(moves) - 1)
    return [Observation(first + timedelta(days=number), each) for number, each in enumerate(moves)]


def moves(*changes_percent: int | str, asset: str = "ETH") -> list[Observation]:
    """One asset's changes in percent; the dollar stands still."""
    return seen([{asset: 1 + Fraction(each) / 100, "USDC": Fraction(1)} for each in changes_percent])


AMOUNTS = st.integers(1, 10**24)
RATIOS = st.integers(1, 3_000).map(lambda thousandths: Fraction(thousandths, 1_000))


@st.composite
def books(draw: st.DrawFn) -> list[Position]:
    """The positions of an account, each side and asset once."""
    keys = [(side, asset) for side in Side for asset in ("ETH", "BTC", "USDC")]
    chosen: Iterable[tuple[Side, str]] = draw(st.lists(st.sampled_from(keys), min_size=1, max_size=5, unique=True))
    return [Position(side, asset, draw(AMOUNTS)) for side, asset in chosen]


@st.composite
def histories(draw: st.DrawFn, size: int = 40) -> list[Observation]:
    """Past days of three assets, with repetitions, so that ties are met."""
    asked = st.lists(RATIOS, min_size=3, max_size=3)
    drawn = draw(st.lists(asked, min_size=5, max_size=12))
    return seen([dict(zip(("ETH", "BTC", "USDC"), drawn[number % len(drawn)], strict=True)) for number in range(size)])
