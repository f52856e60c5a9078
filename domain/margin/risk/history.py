"""Historical simulation: today's positions under the returns of past days; value at risk and expected shortfall.

The value at risk is the percentile of the profits at one minus the confidence, interpolated linearly between the two
nearest (Hyndman and Fan, "Sample Quantiles in Statistical Packages", 1996, type 7: the default of R and numpy). The
expected shortfall is the mean of the worst ``int((n - 1) * (1 - confidence)) + 1`` profits, as
``conditional_value_at_risk`` of empyrical defines it. Both are losses: positive where money is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from fractions import Fraction
from typing import Final

from domain.fixed import PRICE_SCALE, USD_SCALE
from domain.margin.model import Market, Position, Side

#: A confidence is an integer in 1e-6: 990,000 is 99 %.
CONFIDENCE_SCALE: Final = 6
_CERTAIN: Final = 10**CONFIDENCE_SCALE
#: Fewer past days than this are no history, whatever the confidence.
_FEWEST_OBSERVATIONS: Final = 30

#: Daily closing prices (1e-18 USD per whole unit) of each asset, by UTC day.
Closes = Mapping[str, Mapping[date, int]]


@dataclass(frozen=True, slots=True)
class Window:
    """Which past returns count: those over ``horizon_days`` that end on the last ``days`` days up to ``last_day``.

    Returns over more than a day overlap: each day ends one.
    """

    last_day: date
    days: int
    horizon_days: int

    @property
    def first_close(self) -> date:
        """The earliest day whose close is needed."""
        return self.last_day - timedelta(days=self.closes - 1)

    @property
    def closes(self) -> int:
        """How many closes of each asset make every return of the window."""
        return self.days + self.horizon_days


@dataclass(frozen=True, slots=True)
class Observation:
    """How the assets moved over the horizon that ended on ``day``: later price over earlier price, exactly."""

    day: date
    moves: Mapping[str, Fraction]


@dataclass(frozen=True, slots=True)
class Simulation:
    """Losses in 1e-8 USD, rounded up. A negative one is a gain. ``tail`` counts the observations in the shortfall."""

    value_at_risk: int
    expected_shortfall: int
    tail: int
    worst_loss: int
    worst_day: date


def observations(closes: Closes, assets: Iterable[str], window: Window) -> list[Observation]:
    """The window's returns, oldest first. A day counts only where every asset has a close at both of its ends."""
    wanted = sorted(set(assets))
    found = []
    for back in reversed(range(window.days)):
        day = window.last_day - timedelta(days=back)
        before = day - timedelta(days=window.horizon_days)
        if all(day in closes.get(asset, ()) and before in closes[asset] for asset in wanted):
            moves = {asset: Fraction(closes[asset][day], closes[asset][before]) for asset in wanted}
            found.append(Observation(day, moves))
    return found


def required_observations(confidence: int) -> int:
    """How many observations a confidence needs, so that one lies in its tail on average; never below thirty."""
    return max(_FEWEST_OBSERVATIONS, -(-_CERTAIN // (_CERTAIN - confidence)))


def simulate(
    positions: Iterable[Position], market: Market, seen: Sequence[Observation], confidence: int
) -> Simulation | None:
    """The losses of these positions at today's mid prices, were each observation to happen again.

    None where ``required_observations`` are not there: a number from too few would be a guess.
    """
    if len(seen) < required_observations(confidence):
        return None
    worth = exposures(positions, market)
    ranked = sorted((_profit(worth, each), each.day) for each in seen)
    profits = [profit for profit, _ in ranked]
    position = (len(profits) - 1) * (_CERTAIN - confidence)
    below, weight = divmod(position, _CERTAIN)
    percentile = profits[below]
    if weight:
        percentile += (profits[below + 1] - profits[below]) * Fraction(weight, _CERTAIN)
    tail = below + 1
    mean = sum(profits[:tail], Fraction()) * Fraction(1, tail)
    return Simulation(_loss(percentile), _loss(mean), tail, _loss(profits[0]), ranked[0][1])


def exposures(positions: Iterable[Position], market: Market) -> dict[str, Fraction]:
    """What each asset contributes to the net value, in 1e-8 USD at mid, exactly; debt counts negative."""
    worth: dict[str, Fraction] = {}
    for position in positions:
        terms = market[position.asset]
        sign = 1 if position.side is Side.COLLATERAL else -1
        value = Fraction(sign * position.amount_minor * terms.mid, 10 ** (terms.scale + PRICE_SCALE - USD_SCALE))
        worth[position.asset] = worth.get(position.asset, Fraction()) + value
    return worth


def _profit(worth: Mapping[str, Fraction], seen: Observation) -> Fraction:
    return sum((value * (seen.moves[asset] - 1) for asset, value in worth.items()), Fraction())


def _loss(profit: Fraction) -> int:
    """The loss that a profit is, rounded up."""
    return -(profit.numerator // profit.denominator)
