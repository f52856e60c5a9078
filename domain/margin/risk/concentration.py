"""How much of the collateral is one thing.

The Herfindahl–Hirschman index is the sum of the squared shares in percent: 10,000 when all is one asset, 10,000 / n
when n assets are equal. Nothing is claimed about assets that fall together: two of them count as two.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from domain.fixed import RATIO_ONE, value_floor
from domain.margin.model import Market, Position, Side

#: The index when there is one asset.
_ALL: Final = 10_000


@dataclass(frozen=True, slots=True)
class Share:
    """What one asset is of the collateral: its value in 1e-8 USD and its share in 1e-18, rounded down."""

    asset: str
    value: int
    share: int


@dataclass(frozen=True, slots=True)
class Concentration:
    """The shares, the largest first, and the index, rounded down."""

    shares: tuple[Share, ...]
    herfindahl: int


def concentration(positions: Iterable[Position], market: Market) -> Concentration | None:
    """The collateral's concentration, every position valued as in the health; None when it is worth nothing."""
    values: dict[str, int] = {}
    for position in positions:
        if position.side is Side.COLLATERAL:
            terms = market[position.asset]
            worth = value_floor(position.amount_minor, terms.mid, terms.scale)
            values[position.asset] = values.get(position.asset, 0) + worth
    total = sum(values.values())
    if total == 0:
        return None
    ranked = sorted(values.items(), key=lambda entry: (-entry[1], entry[0]))
    shares = tuple(Share(asset, value, value * RATIO_ONE // total) for asset, value in ranked)
    return Concentration(shares, sum(value * value for value in values.values()) * _ALL // (total * total))
