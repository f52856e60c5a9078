"""Logarithms and probabilities, the one place of the rules where floats are allowed: no amount leaves this module.

A health factor arrives as the two integers that it is the quotient of, and leaves as a time or as a probability.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final


@dataclass(frozen=True, slots=True)
class Chance:
    """The probability of reaching a health factor of one within the days that were asked for, and the volatility of its
    logarithm, one day's. Both are None without debt, and where returns are too few; an account that is there already
    has no need of a volatility."""

    probability: float | None
    daily_volatility: float | None


#: Of an account whose health factor is not above one.
CERTAIN: Final = Chance(1.0, None)


def reaching(distance: float, volatility: float, days: int) -> Chance:
    """The chance that a health factor whose logarithm is ``distance`` reaches one."""
    return Chance(first_passage(distance, volatility, days), volatility)


def log_ratio(numerator: int, denominator: int) -> float:
    """The natural logarithm of a quotient of two positive integers of any size."""
    return math.log(numerator / denominator)


def daily_volatility(ratios: Iterable[Fraction]) -> float:
    """The standard deviation of the logarithms of at least two daily ratios, about their mean (n - 1)."""
    logs = [log_ratio(ratio.numerator, ratio.denominator) for ratio in ratios]
    mean = math.fsum(logs) / len(logs)
    return math.sqrt(math.fsum((each - mean) ** 2 for each in logs) / (len(logs) - 1))


def first_passage(distance: float, volatility: float, days: int) -> float:
    """The probability that a Brownian motion without drift falls by ``distance`` at some time within ``days``.

    By the reflection principle it is twice the probability of being below at the end: 2 * Phi(-distance / (volatility *
    sqrt(days))). ``distance`` is not negative, ``volatility`` is that of one day.
    """
    if distance <= 0:
        return 1.0
    spread = volatility * math.sqrt(days)
    # 2 * Phi(-z) = erfc(z / sqrt(2)), without the cancellation of 1 - Phi.
    return math.erfc(distance / (spread * math.sqrt(2))) if spread > 0 else 0.0


def days_of_growth(distance: float, days: int, growth: int, whole: int) -> int:
    """How many days, rounded down, until what grows by ``growth / whole`` in ``days``, compounding all the time, has
    grown by the factor exp(``distance``). ``growth`` is positive."""
    return max(0, math.floor(distance * days * (whole / growth)))
