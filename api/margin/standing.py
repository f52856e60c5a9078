"""An account as it is stored, at this moment's prices and under this moment's parameters."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from api.deps import Call
from db import prices
from db.margin.standing import find_account, parameters_at
from domain.errors import Refusal
from domain.margin.model import AssetTerms, Levels, Market, Position


@dataclass(frozen=True, slots=True)
class Standing:
    """An account with the terms of the assets that it has."""

    user_id: str
    positions: tuple[Position, ...]
    levels: Levels
    market: Market
    parameter_version: int


async def load_standing(call: Call, connection: AsyncConnection, user_id: str, at: datetime) -> Standing:
    """The account of a user; refuses one that is not there, and one that has an asset without a price."""
    stored = await find_account(connection, user_id)
    if stored is None:
        raise Refusal("margin_account_unknown", "there is no margin account of this user")
    current = await prices.current(connection)
    parameters = await parameters_at(connection, at)
    assets = await call.services.assets.all(connection)
    market = {}
    for symbol in {position.asset for position in stored.positions}:
        if symbol not in current or symbol not in parameters.by_asset:
            raise Refusal("price_unavailable", f"there is no price of {symbol} to value the account with")
        price = current[symbol]
        market[symbol] = AssetTerms(
            symbol=symbol,
            scale=assets[symbol].scale,
            parameters=parameters.by_asset[symbol],
            mid=price.mid,
            low=price.low,
            high=price.high,
            confirmed=price.confirmed,
            quality=price.quality,
            as_of=price.as_of,
        )
    return Standing(user_id, stored.positions, stored.levels, market, parameters.version)
