"""An account as it is stored, at this moment's prices and under this moment's parameters."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from db import prices
from db.margin import accounts, parameters
from domain.errors import Refusal
from domain.margin import market
from domain.margin.model import Levels, Market, Position


@dataclass(frozen=True, slots=True)
class Standing:
    """An account, with the terms of every asset that counts and has a price."""

    user_id: str
    positions: list[Position]
    levels: Levels
    market: Market
    parameter_version: int


async def load_standing(connection: AsyncConnection, tenant: UUID, user: str, at: datetime) -> Standing:
    """The account of a user; refuses one that is not there, and one that cannot be valued at ``at``."""
    account = await accounts.find(connection, tenant, user)
    if account is None:
        raise Refusal("margin_account_unknown", "there is no margin account of this user")
    positions = await accounts.positions(connection, tenant, account)
    in_force = await parameters.in_force(connection, at)
    terms = market.build(in_force, await prices.current(connection))
    market.check_computable(positions, in_force, terms, at)
    return Standing(user, positions, account.state.levels, terms, in_force.version)
