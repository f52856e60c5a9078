"""Whether an account may borrow, and how much: loan-to-value, which is not the threshold at which it is liquidated.

After Aave v3 (ValidationLogic.validateBorrow): collateral times loan-to-value has to cover the debt, and the health to
be one at least. Collateral counts at the low price and debt at the high one; on a price that is stale or not confirmed
nobody borrows.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from domain.margin.health import Valuation, is_below
from domain.margin.model import LIQUIDATION_BPS
from domain.money import BASIS_POINTS


class Obstacle(StrEnum):
    """Why an account may not borrow."""

    PRICES = "prices_not_confirmed"
    HEALTH = "liquidatable"
    CAPACITY = "no_capacity_left"


class Borrowing(NamedTuple):
    """In 1e-8 USD: what the collateral carries, what is owed, and what is left. ``obstacle``: why nothing may be."""

    capacity: int
    debt: int
    available: int
    obstacle: Obstacle | None


def borrowing(valuation: Valuation) -> Borrowing:
    """What the account may borrow. The first obstacle is named: prices, then health, then capacity."""
    capacity = valuation.capacity // BASIS_POINTS
    left = max(0, capacity - valuation.debt_high)
    obstacle = None
    if not valuation.confirmed:
        obstacle = Obstacle.PRICES
    elif is_below(valuation.weighted, valuation.debt, LIQUIDATION_BPS):
        obstacle = Obstacle.HEALTH
    elif left == 0:
        obstacle = Obstacle.CAPACITY
    return Borrowing(capacity, valuation.debt_high, left, obstacle)
