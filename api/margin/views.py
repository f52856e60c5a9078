"""How margin answers are made, and positions and levels read from requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from api.fields import Amount
from api.margin.models import (
    AccountView,
    AssetSharesView,
    DeclaredView,
    HealthView,
    LevelsInput,
    LevelsView,
    MarginEventView,
    ParametersView,
)
from db.margin.accounts import MarginAccount
from db.margin.reports import MarginEvent, Snapshot
from domain.errors import Refusal
from domain.fixed import parse_fixed
from domain.margin.market import ParameterSet, check_levels
from domain.margin.model import DEFAULT_LEVELS, Levels, Parameters, Position, Side, in_order
from domain.margin.rows import BPS_SCALE, ratio
from domain.money import Asset, format_minor, parse_minor


def read_positions(
    collateral: Mapping[str, Amount] | None, borrow: Mapping[str, Amount] | None, assets: Mapping[str, Asset]
) -> list[Position] | None:
    """Declared positions from a request, None where it names neither side; refuses by the field at fault."""
    if collateral is None and borrow is None:
        return None
    found = []
    for side, amounts in ((Side.COLLATERAL, collateral), (Side.BORROW, borrow)):
        for symbol, amount in (amounts or {}).items():
            field = f"{side}_positions.{symbol}"
            asset = assets.get(symbol)
            if asset is None:
                message = f"there is no asset {symbol!r}; see GET /api/v1/assets"
                raise Refusal("asset_unknown", message, field=field)
            found.append(Position(side, symbol, parse_minor(amount, asset.scale, field=field)))
    return in_order(position for position in found if position.amount_minor)


def read_levels(said: LevelsInput) -> Levels:
    """A user's levels from a request; refuses looser ones than the platform's."""

    def bps(name: str, amount: Amount | None, default: int) -> int:
        return default if amount is None else parse_ratio(amount, f"levels.{name}")

    return check_levels(
        Levels(
            bps("warning", said.warning, DEFAULT_LEVELS.warning_bps),
            bps("margin_call", said.margin_call, DEFAULT_LEVELS.margin_call_bps),
            bps("imminent", said.imminent, DEFAULT_LEVELS.imminent_bps),
        ),
        DEFAULT_LEVELS,
    )


def parse_ratio(text: Amount, field: str) -> int:
    """A ratio in basis points; refuses what is finer."""
    return parse_fixed(text, BPS_SCALE, code="ratio_too_fine", field=field)


def health_view(snapshot: Snapshot, events: Sequence[MarginEvent]) -> HealthView:
    """A snapshot as it is answered."""
    fields = asdict(snapshot)
    return HealthView.model_validate(
        fields
        | {
            "liquidation_prices": liquidation_prices(snapshot.collateral_breakdown),
            "events": [asdict(event) for event in events if event.snapshot_id == snapshot.snapshot_id],
        }
    )


def liquidation_prices(breakdown: Sequence[Mapping[str, str | None]]) -> dict[str, str | None]:
    """By collateral asset, from its lines of a breakdown."""
    return {str(line["asset"]): line["liquidation_price"] for line in breakdown}


def event_view(event: MarginEvent) -> MarginEventView:
    """An event as it is answered."""
    return MarginEventView.model_validate(asdict(event))


def account_view(account: MarginAccount, positions: Sequence[Position], assets: Mapping[str, Asset]) -> AccountView:
    """An account as it is answered."""

    def side(wanted: Side) -> list[DeclaredView]:
        return [
            DeclaredView(asset=asset, amount=format_minor(amount, assets[asset].scale), origin=origin)
            for position_side, asset, amount, origin in positions
            if position_side is wanted
        ]

    return AccountView(
        user_id=account.user_id,
        collateral_positions=side(Side.COLLATERAL),
        borrow_positions=side(Side.BORROW),
        levels=levels_view(account.state.levels),
        told_status=account.state.told.status,
        health_score=ratio(account.health),
        checked_at=account.checked_at,
        version=account.version,
    )


def levels_view(levels: Levels) -> LevelsView:
    """Levels as they are answered."""
    return LevelsView(
        warning=format_minor(levels.warning_bps, BPS_SCALE),
        margin_call=format_minor(levels.margin_call_bps, BPS_SCALE),
        imminent=format_minor(levels.imminent_bps, BPS_SCALE),
    )


def parameters_view(found: ParameterSet) -> ParametersView:
    """A version of the parameters as it is answered."""
    return ParametersView(
        version=found.version,
        effective_from=found.effective_from,
        note=found.note,
        levels=levels_view(DEFAULT_LEVELS),
        assets={symbol: _shares(each.parameters) for symbol, each in found.assets.items()},
    )


def _shares(found: Parameters) -> AssetSharesView:
    return AssetSharesView(
        ltv=format_minor(found.ltv_bps, BPS_SCALE),
        liquidation_threshold=format_minor(found.liquidation_threshold_bps, BPS_SCALE),
        liquidation_bonus=format_minor(found.liquidation_bonus_bps, BPS_SCALE),
        borrow_rate=format_minor(found.borrow_rate_bps, BPS_SCALE),
    )
