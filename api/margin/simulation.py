"""Simulations: hypothetical positions and prices through the rules that checks use; nothing is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from decimal import Context, Decimal
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from api.deps import Call
from api.margin.models import SimulationInput, SimulationView
from api.margin.views import liquidation_prices, read_levels, read_positions
from db import prices as db_prices
from db.margin import accounts, escrows, parameters
from db.margin.accounts import MarginAccount
from domain.errors import Refusal
from domain.fixed import PRICE_SCALE, parse_fixed
from domain.margin.advice import hold, recommendations
from domain.margin.health import value
from domain.margin.market import ParameterSet, build, check_computable
from domain.margin.model import DEFAULT_LEVELS, AssetTerms, Level, Origin, Position, in_order
from domain.margin.rows import BPS_SCALE, Sheet
from domain.margin.telling import AccountState, tell
from domain.money import format_minor
from kit.clock import now

#: What a hypothetical price says of itself.
HYPOTHETICAL: Final = "hypothetical"
_PERCENT_SCALE: Final = 18
_WHOLE: Final = 100 * 10**_PERCENT_SCALE
_EXACT = Context(prec=100)
_NOBODY = UUID(int=0)
_UNTOLD = AccountState(DEFAULT_LEVELS, Level.HEALTHY, {})


async def simulate(call: Call, connection: AsyncConnection, said: SimulationInput) -> SimulationView:
    """What a check would find and tell."""
    at, tenant = now(), call.principal.tenant_id
    account = None if said.user_id is None else await accounts.find(connection, tenant, said.user_id)
    assets = await call.services.assets.all(connection)
    declared = read_positions(said.collateral_positions, said.borrow_positions, assets)
    if declared is None:
        declared = await _declared(connection, tenant, said.user_id, account)
    in_force = await parameters.in_force(connection, at)
    held = await _held(connection, tenant, said.user_id, account, in_force)
    positions = in_order(declared + held)
    quotes = await db_prices.current(connection)
    market = _moved(build(in_force, quotes), in_force, said, at)
    check_computable(positions, in_force, market, at)
    state = _UNTOLD if account is None else account.state
    if said.levels is not None:
        state = state._replace(levels=read_levels(said.levels))
    sheet = Sheet(
        market,
        parameter_version=in_force.version,
        price_tick=max((quote.tick for quote in quotes.values()), default=0),
        at=at,
    )
    return _view(said.user_id, positions, sheet, state, None if account is None else account.health)


async def _declared(
    connection: AsyncConnection, tenant: UUID, user: str | None, account: MarginAccount | None
) -> list[Position]:
    """What the user has declared, where the request names no positions."""
    if user is None:
        raise Refusal("positions_required", "name positions, or a user who has some", field="collateral_positions")
    if account is None:
        raise Refusal("margin_account_unknown", "this user has no margin account", field="user_id")
    stored = await accounts.positions(connection, tenant, account)
    return [position for position in stored if position.origin is Origin.DECLARED]


async def _held(
    connection: AsyncConnection, tenant: UUID, user: str | None, account: MarginAccount | None, in_force: ParameterSet
) -> list[Position]:
    """What a check would add to that: the money of escrows that counts as the user's collateral."""
    if user is None:
        return []
    party = await escrows.setting(connection, tenant) if account is None else account.escrow_collateral
    return await escrows.counted(connection, tenant, user, party, in_force)


def _view(
    user: str | None, positions: list[Position], sheet: Sheet, state: AccountState, previous: int | None
) -> SimulationView:
    valuation, holdings = value(positions, sheet.market), hold(positions, sheet.market)
    row = sheet.snapshot(
        _NOBODY,
        _NOBODY,
        user or "",
        positions,
        holdings,
        valuation,
        state.levels,
        previous_health=previous,
        cause="simulation",
        advised=recommendations(holdings, valuation, state.levels),
    )
    _, raised = tell(state, valuation, sheet.at)
    breakdown = json.loads(row.collateral_breakdown)
    events = []
    if raised is not None:
        threshold = format_minor(raised.threshold_bps, BPS_SCALE)
        events.append({"event_type": raised.event_type, "severity": raised.severity, "threshold_breached": threshold})
    return SimulationView.model_validate(
        row._asdict()
        | {
            "user_id": user,
            "collateral_breakdown": breakdown,
            "borrow_breakdown": json.loads(row.borrow_breakdown),
            "recommendations": json.loads(row.recommendations),
            "borrowing": json.loads(row.borrowing),
            "liquidation_prices": liquidation_prices(breakdown),
            "events": events,
        }
    )


def _moved(
    market: Mapping[str, AssetTerms], in_force: ParameterSet, said: SimulationInput, at: datetime
) -> dict[str, AssetTerms]:
    """The market with the prices that are supposed. They are taken as confirmed."""
    moved = dict(market)
    for asset, price in said.prices.items():
        field = f"prices.{asset}"
        counts = in_force.assets.get(asset)
        if counts is None:
            raise Refusal("asset_not_accepted", f"{asset} does not count as margin", field=field)
        if asset in said.price_changes_percent:
            raise Refusal("price_ambiguous", "a price or a change, not both", field=field)
        mid = _positive(parse_fixed(price, PRICE_SCALE, code="price_invalid", field=field), field)
        moved[asset] = AssetTerms(asset, counts.scale, counts.parameters, mid, mid, mid, True, HYPOTHETICAL, at)
    for asset, percent in said.price_changes_percent.items():
        field = f"price_changes_percent.{asset}"
        terms = market.get(asset)
        if terms is None:
            raise Refusal("price_unusable", f"{asset} has no price that could change", field=field)
        factor = _WHOLE + int(Decimal(percent).scaleb(_PERCENT_SCALE, _EXACT))

        def changed(price: int, factor: int = factor, field: str = field) -> int:
            return _positive(price * factor // _WHOLE, field)

        moved[asset] = replace(
            terms,
            mid=changed(terms.mid),
            low=changed(terms.low),
            high=changed(terms.high),
            confirmed=True,
            quality=HYPOTHETICAL,
            as_of=at,
        )
    return moved


def _positive(price: int, field: str) -> int:
    if price <= 0:
        raise Refusal("price_invalid", "a price is above zero", field=field)
    return price
