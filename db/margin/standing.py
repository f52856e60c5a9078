"""A margin account as it stands, and what assets count for at an instant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.margin.model import Levels, Origin, Parameters, Position, Side

_ACCOUNT = text(
    """
    SELECT account_no, warning_bps, margin_call_bps, imminent_bps FROM margin_accounts WHERE user_id = :user_id
    """
)
_POSITIONS = text(
    """
    SELECT side, asset, amount_minor, origin FROM margin_positions WHERE account_no = :account_no
    ORDER BY side, asset, origin
    """
)
_PARAMETERS = text(
    """
    SELECT version, asset, ltv_bps, liquidation_threshold_bps, liquidation_bonus_bps, borrow_rate_bps
    FROM margin_parameters WHERE version = (
        SELECT version FROM margin_parameter_versions WHERE effective_from <= :at ORDER BY effective_from DESC LIMIT 1
    )
    """
)


@dataclass(frozen=True, slots=True)
class StoredAccount:
    """An account's positions and the levels at which its user is told."""

    positions: tuple[Position, ...]
    levels: Levels


@dataclass(frozen=True, slots=True)
class ParameterSet:
    """What each asset counts for, and the version that says so."""

    version: int
    by_asset: Mapping[str, Parameters]


async def find_account(connection: AsyncConnection, user_id: str) -> StoredAccount | None:
    """The account of a user of the transaction's tenant, if there is one."""
    row = (await connection.execute(_ACCOUNT, {"user_id": user_id})).one_or_none()
    if row is None:
        return None
    levels = Levels(row.warning_bps, row.margin_call_bps, row.imminent_bps)
    positions = await connection.execute(_POSITIONS, {"account_no": row.account_no})
    return StoredAccount(
        tuple(Position(Side(each.side), each.asset, int(each.amount_minor), Origin(each.origin)) for each in positions),
        levels,
    )


async def parameters_at(connection: AsyncConnection, at: datetime) -> ParameterSet:
    """The parameters in force at an instant."""
    rows = (await connection.execute(_PARAMETERS, {"at": at})).all()
    by_asset = {
        row.asset: Parameters(
            row.ltv_bps, row.liquidation_threshold_bps, row.liquidation_bonus_bps, row.borrow_rate_bps
        )
        for row in rows
    }
    return ParameterSet(rows[0].version, by_asset)
