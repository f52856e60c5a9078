"""What assets count for, version by version. Platform-wide: every role reads it, and versions are only ever added."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.margin.market import AssetParameters, ParameterSet
from domain.margin.model import Parameters

_SELECT = """
    SELECT v.version, v.effective_from, v.note, p.asset, s.scale,
        p.ltv_bps, p.liquidation_threshold_bps, p.liquidation_bonus_bps, p.borrow_rate_bps
    FROM ({versions}) AS v
    JOIN margin_parameters p ON p.version = v.version
    JOIN assets s ON s.symbol = p.asset
    ORDER BY p.asset
"""
_IN_FORCE = text(
    _SELECT.format(
        versions="SELECT version, effective_from, note FROM margin_parameter_versions"
        " WHERE effective_from <= :at ORDER BY effective_from DESC LIMIT 1"
    )
)
_VERSION = text(
    _SELECT.format(
        versions="SELECT version, effective_from, note FROM margin_parameter_versions WHERE version = :version"
    )
)


async def in_force(connection: AsyncConnection, at: datetime) -> ParameterSet:
    """The version in force at an instant; the first one is older than everything."""
    return _set(list(await connection.execute(_IN_FORCE, {"at": at})))


async def get(connection: AsyncConnection, version: int) -> ParameterSet:
    """One version."""
    return _set(list(await connection.execute(_VERSION, {"version": version})))


async def add(
    connection: AsyncConnection, *, effective_from: datetime, note: str, assets: Mapping[str, Parameters]
) -> int:
    """Write a new version and answer its number. Two versions do not take effect at the same instant."""
    version = await connection.scalar(
        text(
            "INSERT INTO margin_parameter_versions (effective_from, note) VALUES (:effective_from, :note)"
            " RETURNING version"
        ),
        {"effective_from": effective_from, "note": note},
    )
    rows = [
        {
            "asset": asset,
            "ltv": each.ltv_bps,
            "threshold": each.liquidation_threshold_bps,
            "bonus": each.liquidation_bonus_bps,
            "rate": each.borrow_rate_bps,
        }
        for asset, each in assets.items()
    ]
    await connection.execute(
        text(
            "INSERT INTO margin_parameters"
            " (version, asset, ltv_bps, liquidation_threshold_bps, liquidation_bonus_bps, borrow_rate_bps)"
            " SELECT :version, asset, ltv, threshold, bonus, rate FROM jsonb_to_recordset(CAST(:rows AS jsonb))"
            " AS r (asset text, ltv int, threshold int, bonus int, rate int)"
        ),
        {"version": version, "rows": json.dumps(rows)},
    )
    return int(version or 0)


def _set(rows: list[Any]) -> ParameterSet:
    first = rows[0]
    return ParameterSet(
        first.version,
        first.effective_from,
        first.note,
        {
            row.asset: AssetParameters(
                row.scale,
                Parameters(
                    ltv_bps=row.ltv_bps,
                    liquidation_threshold_bps=row.liquidation_threshold_bps,
                    liquidation_bonus_bps=row.liquidation_bonus_bps,
                    borrow_rate_bps=row.borrow_rate_bps,
                ),
            )
            for row in rows
        },
    )
