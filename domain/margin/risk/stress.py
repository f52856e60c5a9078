"""An account after a past crash, by the same rule as its health today."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from domain.fixed import value_floor
from domain.margin.health import health_factor, level_of, value
from domain.margin.model import AssetTerms, Level, Levels, Market, Position, Side
from domain.margin.risk.scenarios import Move, Scenario
from domain.money import BASIS_POINTS


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a scenario leaves, in 1e-8 USD; ``health`` in 1e-18, None without debt.

    ``loss`` is by how much the net value fell, negative where it rose. ``shortfall`` is the debt that would stay
    unpaid if all collateral were liquidated at the scenario's prices, each asset with its bonus; 0 for an account that
    would not be liquidated.
    """

    scenario: Scenario
    collateral: int
    debt: int
    health: int | None
    level: Level
    loss: int
    shortfall: int


def stress(positions: Sequence[Position], market: Market, levels: Levels, scenario: Scenario) -> Outcome:
    """The account under the scenario's prices; every asset of a position must be in ``market``."""
    shocked = {asset: _shocked(terms, scenario.move(asset)) for asset, terms in market.items()}
    before, after = value(positions, market), value(positions, shocked)
    level = level_of(after.weighted, after.debt, levels)
    return Outcome(
        scenario=scenario,
        collateral=after.collateral,
        debt=after.debt,
        health=health_factor(after.weighted, after.debt),
        level=level,
        loss=(before.collateral - before.debt) - (after.collateral - after.debt),
        shortfall=max(0, after.debt - _repayable(positions, shocked)) if level is Level.LIQUIDATION else 0,
    )


def _shocked(terms: AssetTerms, move: Move) -> AssetTerms:
    """The prices after a move, rounded down to 1e-18 USD."""
    mid, low, high = (price * move.after // move.before for price in (terms.mid, terms.low, terms.high))
    return replace(terms, mid=mid, low=low, high=high)


def _repayable(positions: Sequence[Position], market: Market) -> int:
    """The debt that all collateral repays when liquidators take its bonus on top."""
    repaid = 0
    for position in positions:
        if position.side is Side.COLLATERAL:
            terms = market[position.asset]
            worth = value_floor(position.amount_minor, terms.mid, terms.scale)
            repaid += worth * BASIS_POINTS // (BASIS_POINTS + terms.parameters.liquidation_bonus_bps)
    return repaid
