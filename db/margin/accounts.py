"""Margin accounts with their positions and levels, and what a look at one leaves. Every statement names its tenant, so
that a role that sees all tenants may use these too."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Context, Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.fixed import RATIO_SCALE
from domain.margin.model import Level, Levels, Origin, Position, Side, in_order
from domain.margin.rows import EventRow, SnapshotRow
from domain.margin.telling import AccountState

#: The default context would round what has more than 28 digits.
_EXACT = Context(prec=100)

_SELECT = """
    SELECT a.user_id, a.account_no, a.warning_bps, a.margin_call_bps, a.imminent_bps, a.told_level, a.warning_told_at,
        a.margin_call_told_at, a.imminent_told_at, a.liquidation_told_at, a.health_score, a.checked_at, a.version,
        coalesce(s.escrow_collateral, 'none') AS escrow_collateral
    FROM margin_accounts a LEFT JOIN margin_settings s ON s.tenant_id = a.tenant_id
    WHERE a.tenant_id = :tenant AND a.user_id = :user
"""
_FIND = text(_SELECT)
_LOCK = text(f"{_SELECT} FOR UPDATE OF a")
_OPEN = text("INSERT INTO margin_accounts (tenant_id, user_id) VALUES (:tenant, :user) ON CONFLICT DO NOTHING")
_POSITIONS = text(
    "SELECT side, asset, origin, amount_minor FROM margin_positions WHERE tenant_id = :tenant AND account_no = :account"
)

#: What is not wanted any more goes; what is wanted and new or different is written.
_REPLACE = text(
    """
    WITH wanted AS (
        SELECT side, asset, origin, amount_minor FROM jsonb_to_recordset(CAST(:rows AS jsonb))
            AS w (side text, asset text, origin text, amount_minor numeric)
    ), gone AS (
        DELETE FROM margin_positions p WHERE p.tenant_id = :tenant AND p.account_no = :account AND NOT EXISTS (
            SELECT FROM wanted w WHERE w.side = p.side AND w.asset = p.asset AND w.origin = p.origin
        )
    )
    INSERT INTO margin_positions AS p (tenant_id, account_no, side, asset, origin, amount_minor)
    SELECT :tenant, :account, side, asset, origin, amount_minor FROM wanted
    ON CONFLICT (tenant_id, account_no, side, asset, origin) DO UPDATE SET amount_minor = excluded.amount_minor
    WHERE p.amount_minor <> excluded.amount_minor
    """
)

#: Account, snapshot and event in one statement: none of them waits for the answer to another.
_STATE = """
    WITH account AS (
        UPDATE margin_accounts SET warning_bps = :warning, margin_call_bps = :margin_call, imminent_bps = :imminent,
            told_level = :told, warning_told_at = :warning_at, margin_call_told_at = :margin_call_at,
            imminent_told_at = :imminent_at, liquidation_told_at = :liquidation_at,
            health_score = CAST(:health_score AS numeric), checked_at = :calculated_at
        WHERE tenant_id = :tenant_id AND account_no = :account
    )
"""
_SNAPSHOT = """
    INSERT INTO margin_health_snapshots (tenant_id, snapshot_id, user_id, health_score, previous_health_score, status,
        total_collateral_usd, total_borrow_usd, collateral_breakdown, borrow_breakdown, liquidation_price_drop_percent,
        recommendations, borrowing, parameter_version, price_tick, cause, calculated_at)
    VALUES (:tenant_id, :snapshot_id, :user_id, CAST(:health_score AS numeric), CAST(:previous_health_score AS numeric),
        :status, CAST(:total_collateral_usd AS numeric), CAST(:total_borrow_usd AS numeric),
        CAST(:collateral_breakdown AS json), CAST(:borrow_breakdown AS json),
        CAST(:liquidation_price_drop_percent AS numeric), CAST(:recommendations AS json), CAST(:borrowing AS json),
        :parameter_version, :price_tick, :cause, :calculated_at)
"""
_EVENT = """
    INSERT INTO margin_events (tenant_id, event_id, snapshot_id, user_id, event_type, severity, health_score,
        previous_health_score, threshold_breached, message, recommendations, collateral_usd, borrow_usd)
    VALUES (:tenant_id, :event_id, :snapshot_id, :user_id, :event_type, :severity, CAST(:health_score AS numeric),
        CAST(:previous_health_score AS numeric), CAST(:threshold_breached AS numeric), :message,
        CAST(:recommendations AS json), CAST(:collateral_usd AS numeric), CAST(:borrow_usd AS numeric))
"""
_SETTLE = text(f"{_STATE} {_SNAPSHOT}")
_SETTLE_AND_TELL = text(f"{_STATE}, snapshot AS ({_SNAPSHOT}) {_EVENT}")

_TOUCHED = text(
    "SELECT a.tenant_id, a.user_id FROM margin_accounts a"
    " JOIN unnest(CAST(:tenants AS uuid[]), CAST(:users AS text[])) AS t (tenant_id, user_id)"
    " ON a.tenant_id = t.tenant_id AND a.user_id = t.user_id"
)

_IN_ESCROWS = text(
    """
    SELECT a.user_id FROM margin_accounts a WHERE a.tenant_id = :tenant AND (
        EXISTS (SELECT FROM escrows e WHERE e.tenant_id = a.tenant_id AND e.buyer_user_id = a.user_id
            AND e.closed_at IS NULL)
        OR EXISTS (SELECT FROM escrows e WHERE e.tenant_id = a.tenant_id AND e.seller_user_id = a.user_id
            AND e.closed_at IS NULL)
    ) ORDER BY a.user_id LIMIT :limit
    """
)


@dataclass(frozen=True, slots=True)
class MarginAccount:
    """An account as its row has it. ``health`` (1e-18, None without debt) and ``checked_at`` are of the last snapshot;
    ``escrow_collateral`` is the tenant's setting: none, buyer or seller."""

    user_id: str
    account_no: int
    state: AccountState
    health: int | None
    checked_at: datetime | None
    version: int
    escrow_collateral: str


async def find(connection: AsyncConnection, tenant: UUID, user: str) -> MarginAccount | None:
    """The account of a user."""
    row = (await connection.execute(_FIND, {"tenant": tenant, "user": user})).one_or_none()
    return None if row is None else _account(row)


async def lock(connection: AsyncConnection, tenant: UUID, user: str) -> MarginAccount | None:
    """The account of a user, its row locked: one look at a time."""
    row = (await connection.execute(_LOCK, {"tenant": tenant, "user": user})).one_or_none()
    return None if row is None else _account(row)


async def open_(connection: AsyncConnection, tenant: UUID, user: str) -> MarginAccount:
    """The account of a user, locked; one that never was is opened."""
    await connection.execute(_OPEN, {"tenant": tenant, "user": user})
    found = await lock(connection, tenant, user)
    assert found is not None, "it was just written, or was there"
    return found


async def positions(connection: AsyncConnection, tenant: UUID, account: MarginAccount) -> list[Position]:
    """The account's positions, in order."""
    rows = await connection.execute(_POSITIONS, {"tenant": tenant, "account": account.account_no})
    return in_order(Position(Side(row.side), row.asset, int(row.amount_minor), Origin(row.origin)) for row in rows)


async def replace_positions(
    connection: AsyncConnection, tenant: UUID, account: MarginAccount, wanted: Iterable[Position]
) -> None:
    """Make these the positions of a locked account."""
    rows = [
        {"side": side, "asset": asset, "origin": origin, "amount_minor": str(amount)}
        for side, asset, amount, origin in wanted
    ]
    await connection.execute(_REPLACE, {"tenant": tenant, "account": account.account_no, "rows": json.dumps(rows)})


async def settle(
    connection: AsyncConnection,
    account: MarginAccount,
    state: AccountState,
    snapshot: SnapshotRow,
    event: EventRow | None,
) -> None:
    """Write what a look at a locked account found: its state, the snapshot, and the event where one was raised."""
    told_at, levels = state.told_at, state.levels
    found = snapshot._asdict() | {
        "account": account.account_no,
        "warning": levels.warning_bps,
        "margin_call": levels.margin_call_bps,
        "imminent": levels.imminent_bps,
        "told": int(state.told),
        "warning_at": told_at.get(Level.WARNING),
        "margin_call_at": told_at.get(Level.MARGIN_CALL),
        "imminent_at": told_at.get(Level.IMMINENT),
        "liquidation_at": told_at.get(Level.LIQUIDATION),
    }
    if event is None:
        await connection.execute(_SETTLE, found)
    else:
        # What both rows have is the same in both.
        await connection.execute(_SETTLE_AND_TELL, found | event._asdict())


async def touched(connection: AsyncConnection, users: Sequence[tuple[UUID, str]]) -> set[tuple[UUID, str]]:
    """Which of these users of tenants have a margin account. For a role that sees every tenant."""
    rows = await connection.execute(
        _TOUCHED, {"tenants": [tenant for tenant, _ in users], "users": [user for _, user in users]}
    )
    return {(row.tenant_id, row.user_id) for row in rows}


async def in_escrows(connection: AsyncConnection, tenant: UUID, *, limit: int) -> list[str]:
    """Users of a tenant who have a margin account and are buyer or seller of an escrow that is open."""
    rows = await connection.execute(_IN_ESCROWS, {"tenant": tenant, "limit": limit})
    return list(rows.scalars())


async def any_at_all(connection: AsyncConnection) -> bool:
    """Whether any tenant has a margin account. For a role that sees every tenant."""
    return bool(await connection.scalar(text("SELECT EXISTS (SELECT FROM margin_accounts)")))


def scaled(value: Decimal | None, places: int) -> int | None:
    """A column's number in units of ``10**-places``."""
    return None if value is None else int(value.scaleb(places, _EXACT))


def _account(row: Any) -> MarginAccount:
    told_at: Mapping[Level, datetime | None] = {
        Level.WARNING: row.warning_told_at,
        Level.MARGIN_CALL: row.margin_call_told_at,
        Level.IMMINENT: row.imminent_told_at,
        Level.LIQUIDATION: row.liquidation_told_at,
    }
    return MarginAccount(
        user_id=row.user_id,
        account_no=row.account_no,
        state=AccountState(
            Levels(row.warning_bps, row.margin_call_bps, row.imminent_bps),
            Level(row.told_level),
            {level: at for level, at in told_at.items() if at is not None},
        ),
        health=scaled(row.health_score, RATIO_SCALE),
        checked_at=row.checked_at,
        version=row.version,
        escrow_collateral=row.escrow_collateral,
    )
