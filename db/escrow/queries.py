"""Reading and writing escrows; an escrow and its milestones travel in one statement."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.escrow.rows import escrow_row, milestone_row, to_escrow
from domain.escrow import Escrow, Milestone, Status

_SELECT = """
    SELECT e.*, s.scale, s.chain, s.contract, m.milestones
    FROM escrows e
    JOIN assets s ON s.symbol = e.asset
    CROSS JOIN LATERAL (
        SELECT jsonb_agg(to_jsonb(m) ORDER BY m.position) AS milestones
        FROM escrow_milestones m WHERE m.tenant_id = e.tenant_id AND m.escrow_id = e.escrow_id
    ) AS m
"""

_FIND = text(_SELECT + "WHERE e.escrow_id = :escrow_id")
_FIND_BY_REFERENCE = text(_SELECT + "WHERE e.reference = :reference")
_LOCK = text("SELECT FROM escrows WHERE escrow_id = :escrow_id FOR UPDATE")

_MILESTONE_COLUMNS = """position smallint, milestone_id uuid, title text, amount_minor numeric, status text,
    released_minor numeric, refunded_minor numeric, approvals jsonb, dispute jsonb, funded_at timestamptz,
    approved_at timestamptz, auto_release_at timestamptz, closed_at timestamptz"""

_INSERT = text(
    f"""
    WITH made AS (
        INSERT INTO escrows (tenant_id, content_hash, escrow_id, reference, status, version, asset, amount_minor,
            buyer_user_id, buyer_address, seller_user_id, seller_address, arbiter_user_id, arbiter_address,
            policy_roles, policy_required, buyer_fee_basis_points, seller_fee_basis_points, fee_account,
            funding_deadline, inspection_period_seconds, expires_at, description, created_at, updated_at, closed_at,
            custody_relayer_id, custody_onchain_id, custody_token)
        VALUES (:tenant_id, :content_hash, :escrow_id, :reference, :status, :version, :asset, :amount_minor,
            :buyer_user_id, :buyer_address, :seller_user_id, :seller_address, :arbiter_user_id, :arbiter_address,
            :policy_roles, :policy_required, :buyer_fee_basis_points, :seller_fee_basis_points, :fee_account,
            :funding_deadline, :inspection_period_seconds, :expires_at, :description, :created_at, :updated_at,
            :closed_at, :custody_relayer_id, :custody_onchain_id, :custody_token)
    )
    INSERT INTO escrow_milestones (tenant_id, escrow_id, position, milestone_id, title, amount_minor, status,
        released_minor, refunded_minor, approvals, dispute, funded_at, approved_at, auto_release_at, closed_at)
    SELECT :tenant_id, :escrow_id, m.* FROM jsonb_to_recordset(CAST(:milestones AS jsonb)) AS m ({_MILESTONE_COLUMNS})
    """
)

_UPDATE = text(
    f"""
    WITH moved AS (
        UPDATE escrows SET status = :status, version = :version, updated_at = :updated_at, closed_at = :closed_at
        WHERE tenant_id = :tenant_id AND escrow_id = :escrow_id
    )
    UPDATE escrow_milestones AS m
    SET status = n.status, released_minor = n.released_minor, refunded_minor = n.refunded_minor,
        approvals = n.approvals, dispute = n.dispute, funded_at = n.funded_at,
        approved_at = n.approved_at, auto_release_at = n.auto_release_at, closed_at = n.closed_at
    FROM jsonb_to_recordset(CAST(:milestones AS jsonb)) AS n ({_MILESTONE_COLUMNS})
    WHERE m.tenant_id = :tenant_id AND m.escrow_id = :escrow_id AND m.position = n.position
    """
)

_PARTIES = ("buyer", "seller", "arbiter")


@dataclass(frozen=True, slots=True)
class EscrowFilter:
    """Which escrows; None asks for all. ``user_id`` and ``address`` match any role; times bound ``created_at``."""

    status: Status | None = None
    user_id: str | None = None
    address: str | None = None
    asset: str | None = None
    reference: str | None = None
    onchain_id: str | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None


async def find(connection: AsyncConnection, escrow_id: UUID) -> Escrow | None:
    """The escrow with this id, if the transaction's tenant has it."""
    row = (await connection.execute(_FIND, {"escrow_id": escrow_id})).one_or_none()
    return None if row is None else to_escrow(row)


async def find_many(connection: AsyncConnection, escrow_ids: Collection[UUID]) -> dict[UUID, Escrow]:
    """Those of these escrows that the transaction's tenant has."""
    rows = await connection.execute(text(_SELECT + "WHERE e.escrow_id = ANY (:ids)"), {"ids": list(escrow_ids)})
    return {escrow.escrow_id: escrow for escrow in map(to_escrow, rows)}


async def lock(connection: AsyncConnection, escrow_id: UUID) -> Escrow | None:
    """The escrow with this id, its row locked until the transaction ends."""
    # Two statements: after a wait, FOR UPDATE sees the new row but joins it with milestones of the old snapshot.
    await connection.execute(_LOCK, {"escrow_id": escrow_id})
    return await find(connection, escrow_id)


async def find_by_reference(connection: AsyncConnection, reference: str) -> tuple[Escrow, bytes] | None:
    """The escrow that carries the client's ``reference``, with the hash of what was asked for."""
    row = (await connection.execute(_FIND_BY_REFERENCE, {"reference": reference})).one_or_none()
    return None if row is None else (to_escrow(row), bytes(row.content_hash))


async def insert(connection: AsyncConnection, tenant: UUID, escrow: Escrow, content_hash: bytes) -> None:
    """Write a new escrow; refuses ``reference_taken``."""
    await connection.execute(
        _INSERT,
        escrow_row(escrow)
        | {"tenant_id": tenant, "content_hash": content_hash, "milestones": _milestones(escrow.milestones)},
    )


async def update(connection: AsyncConnection, tenant: UUID, before: Escrow, after: Escrow) -> None:
    """Write where a locked escrow stands now: its own row, and the milestones that changed."""
    changed = tuple(new for old, new in zip(before.milestones, after.milestones, strict=True) if old != new)
    await connection.execute(
        _UPDATE,
        {
            "tenant_id": tenant,
            "escrow_id": after.escrow_id,
            "status": after.status,
            "version": after.version,
            "updated_at": after.updated_at,
            "closed_at": after.closed_at,
            "milestones": _milestones(changed),
        },
    )


async def list_(connection: AsyncConnection, wanted: EscrowFilter, *, before: UUID | None, limit: int) -> list[Escrow]:
    """Up to ``limit`` escrows with an id below ``before``, newest first.

    A filter by user or address asks one index per role for its newest matches, so that it never sorts a user's whole
    history.
    """
    conditions, parameters = _conditions(wanted)
    if before is not None:
        conditions.append("e.escrow_id < :before")
        parameters["before"] = before
    columns = [column for column in ("user_id", "address") if getattr(wanted, column) is not None]
    where = " AND ".join(conditions) or "true"
    if not columns:
        ids = f"SELECT e.escrow_id FROM escrows e WHERE {where} ORDER BY e.escrow_id DESC LIMIT :limit"
    else:
        branches = [
            f"(SELECT e.escrow_id FROM escrows e WHERE {where} AND {match} ORDER BY e.escrow_id DESC LIMIT :limit)"
            for match in _party_matches(columns)
        ]
        parameters |= {column: getattr(wanted, column) for column in columns}
        ids = " UNION ".join(branches) + " ORDER BY escrow_id DESC LIMIT :limit"
    query = f"{_SELECT} WHERE e.escrow_id IN ({ids}) ORDER BY e.escrow_id DESC"
    rows = await connection.execute(text(query), parameters | {"limit": limit})
    return [to_escrow(row) for row in rows]


async def list_overdue(
    connection: AsyncConnection, margin: timedelta, *, after: UUID | None = None, limit: int
) -> list[tuple[UUID, UUID]]:
    """Tenant and id of open escrows, of any tenant, on which the clock should have acted longer ago than ``margin``.

    By id, those behind ``after``.
    """
    rows = await connection.execute(
        text(
            """
            SELECT e.tenant_id, e.escrow_id FROM escrows e
            WHERE e.closed_at IS NULL AND e.custody_relayer_id IS NULL
              AND (CAST(:after AS uuid) IS NULL OR e.escrow_id > :after) AND EXISTS (
                SELECT FROM escrow_milestones m
                WHERE m.tenant_id = e.tenant_id AND m.escrow_id = e.escrow_id
                  AND clock_timestamp() - CAST(:margin AS interval) > CASE m.status
                      WHEN 'pending' THEN coalesce(e.funding_deadline, e.expires_at)
                      WHEN 'funded' THEN e.expires_at
                      WHEN 'approved' THEN m.auto_release_at
                  END
            )
            ORDER BY e.escrow_id LIMIT :limit
            """
        ),
        {"margin": margin, "after": after, "limit": limit},
    )
    return [(row.tenant_id, row.escrow_id) for row in rows]


def _conditions(wanted: EscrowFilter) -> tuple[list[str], dict[str, Any]]:
    tests = {
        "status": "e.status = :status",
        "asset": "e.asset = :asset",
        "reference": "e.reference = :reference",
        "onchain_id": "e.custody_onchain_id = :onchain_id",
        "created_from": "e.created_at >= :created_from",
        "created_to": "e.created_at < :created_to",
    }
    parameters = {name: getattr(wanted, name) for name in tests if getattr(wanted, name) is not None}
    return [tests[name] for name in parameters], parameters


def _party_matches(columns: list[str]) -> list[str]:
    """The ways in which all ``columns`` can match: each in any role, not necessarily the same one."""
    matches = [f"e.{role}_{columns[0]} = :{columns[0]}" for role in _PARTIES]
    for column in columns[1:]:
        anywhere = " OR ".join(f"e.{role}_{column} = :{column}" for role in _PARTIES)
        matches = [f"{match} AND ({anywhere})" for match in matches]
    return matches


def _milestones(milestones: tuple[Milestone, ...]) -> str:
    return json.dumps([milestone_row(milestone) for milestone in milestones])
