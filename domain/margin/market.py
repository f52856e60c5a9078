"""The market of a computation: what assets count for and what they cost, and whether one may compute with that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from domain.errors import Refusal
from domain.margin.model import (
    LIQUIDATION_BPS,
    UNITS_MAX,
    AssetTerms,
    Levels,
    Market,
    Parameters,
    Position,
    most_minor,
)
from domain.money import BASIS_POINTS

#: A price whose sources observed it longer ago is no basis for any computation. Younger ones that are stale serve for
#: display and for warnings, and for nothing automatic.
PRICE_AGE_MAX: Final = timedelta(hours=24)
LEVEL_BPS_MAX: Final = 1_000_000
BORROW_RATE_BPS_MAX: Final = 100_000


class Quote(Protocol):
    """The price of one asset as ``domain.prices.model.Price`` has it."""

    @property
    def mid(self) -> int:
        """1e-18 USD per whole unit."""

    @property
    def low(self) -> int:
        """What collateral counts for where somebody borrows."""

    @property
    def high(self) -> int:
        """What debt counts for where somebody borrows."""

    @property
    def quality(self) -> str:
        """How it came about."""

    @property
    def confirmed(self) -> bool:
        """Whether anything automatic may happen on it."""

    @property
    def as_of(self) -> datetime:
        """When the sources observed it."""


@dataclass(frozen=True, slots=True)
class AssetParameters:
    """What one asset counts for, with its scale."""

    scale: int
    parameters: Parameters


@dataclass(frozen=True, slots=True)
class ParameterSet:
    """A version of what assets count for, in force from ``effective_from`` until the next one's."""

    version: int
    effective_from: datetime
    note: str
    assets: Mapping[str, AssetParameters]


def build(parameters: ParameterSet, quotes: Mapping[str, Quote]) -> dict[str, AssetTerms]:
    """The market of every asset that counts and has a price."""
    return {
        asset: AssetTerms(
            symbol=asset,
            scale=counts.scale,
            parameters=counts.parameters,
            mid=quote.mid,
            low=quote.low,
            high=quote.high,
            confirmed=quote.confirmed,
            quality=str(quote.quality),
            as_of=quote.as_of,
        )
        for asset, counts in parameters.assets.items()
        if (quote := quotes.get(asset)) is not None
    }


def check_computable(positions: Iterable[Position], parameters: ParameterSet, market: Market, at: datetime) -> None:
    """Refuse ``asset_not_accepted``, ``position_too_large`` or ``price_unusable`` unless every position can be valued
    at ``at``, and at any price after it."""
    for side, asset, amount, _ in positions:
        field = f"{side}_positions.{asset}"
        if asset not in parameters.assets:
            message = f"{asset} does not count in version {parameters.version} of the margin parameters"
            raise Refusal("asset_not_accepted", message, field=field)
        if amount > most_minor(parameters.assets[asset].scale):
            raise Refusal("position_too_large", f"a position has at most {UNITS_MAX} whole units", field=field)
        terms = market.get(asset)
        if terms is None:
            raise Refusal("price_unusable", f"{asset} has no price", field=field)
        if at - terms.as_of > PRICE_AGE_MAX:
            message = f"the last price of {asset} is of {terms.as_of.isoformat()}, which is too old"
            raise Refusal("price_unusable", message, field=field)


def check_levels(levels: Levels, loosest: Levels) -> Levels:
    """``levels``, unless one of them is looser than the platform's, or they contradict each other."""
    named = {
        "warning": (levels.warning_bps, loosest.warning_bps),
        "margin_call": (levels.margin_call_bps, loosest.margin_call_bps),
        "imminent": (levels.imminent_bps, loosest.imminent_bps),
    }
    worse: tuple[str, int] | None = None
    for name, (bps, least) in reversed(named.items()):
        field = f"levels.{name}"
        if bps < least:
            raise Refusal("level_looser", f"{name} is looser than the platform's {_ratio(least)}", field=field)
        if bps > LEVEL_BPS_MAX:
            raise Refusal("level_too_high", f"{name} is above {_ratio(LEVEL_BPS_MAX)}", field=field)
        if worse is not None and bps < worse[1]:
            raise Refusal("levels_out_of_order", f"{name} would be reached after {worse[0]}", field=field)
        worse = (name, bps)
    return levels


def check_parameters(assets: Mapping[str, Parameters]) -> None:
    """Refuse parameters that contradict themselves."""
    if not assets:
        raise Refusal("parameters_missing", "name at least one asset", field="assets")
    for asset, found in assets.items():
        if found.ltv_bps > found.liquidation_threshold_bps:
            message = "what may be borrowed against it is more than what supports debt"
            raise Refusal("shares_out_of_order", message, field=f"assets.{asset}.ltv")
        if found.liquidation_threshold_bps > BASIS_POINTS:
            message = "an asset does not count for more than its value"
            raise Refusal("shares_out_of_order", message, field=f"assets.{asset}.liquidation_threshold")
        for name, bps, most in (
            ("liquidation_bonus", found.liquidation_bonus_bps, BASIS_POINTS),
            ("borrow_rate", found.borrow_rate_bps, BORROW_RATE_BPS_MAX),
        ):
            if bps > most:
                raise Refusal("share_too_large", f"{name} is above {_ratio(most)}", field=f"assets.{asset}.{name}")


def check_effective_from(effective_from: datetime, at: datetime) -> None:
    """Refuse a version that would change what was already computed."""
    if effective_from < at:
        raise Refusal("effective_from_in_past", "it takes effect now or later", field="effective_from")


def _ratio(bps: int) -> str:
    whole, rest = divmod(bps, LIQUIDATION_BPS)
    return f"{whole}.{rest:04}"
