"""Reading snapshots and events, and noting which events have left. Numbers are text, as they are answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_SNAPSHOT_COLUMNS = """snapshot_id, user_id, health_score::text, previous_health_score::text, status,
    total_collateral_usd::text, total_borrow_usd::text, collateral_breakdown, borrow_breakdown,
    liquidation_price_drop_percent::text, recommendations, borrowing, parameter_version, price_tick, cause,
    calculated_at"""
_EVENT_COLUMNS = """event_id, snapshot_id, user_id, event_type, severity, health_score::text,
    previous_health_score::text, threshold_breached::text, message, recommendations, collateral_usd::text,
    borrow_usd::text, published_to_pubsub, created_at"""


#: How far the ids of a snapshot and of its event are apart at most.
_APART_MILLISECONDS = 60_000


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A row of ``margin_health_snapshots``."""

    snapshot_id: UUID
    user_id: str
    health_score: str | None
    previous_health_score: str | None
    status: str
    total_collateral_usd: str
    total_borrow_usd: str
    collateral_breakdown: list[dict[str, Any]]
    borrow_breakdown: list[dict[str, Any]]
    liquidation_price_drop_percent: str | None
    recommendations: list[dict[str, Any]]
    borrowing: dict[str, Any]
    parameter_version: int
    price_tick: int
    cause: str
    calculated_at: datetime


@dataclass(frozen=True, slots=True)
class MarginEvent:
    """A row of ``margin_events``."""

    event_id: UUID
    snapshot_id: UUID
    user_id: str
    event_type: str
    severity: str
    health_score: str | None
    previous_health_score: str | None
    threshold_breached: str
    message: str
    recommendations: list[dict[str, Any]]
    collateral_usd: str
    borrow_usd: str
    published_to_pubsub: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events; None asks for all. ``created_from`` counts from then on, ``created_to`` before."""

    user: str | None = None
    event_type: str | None = None
    severity: str | None = None
    published: bool | None = None
    created_from: datetime | None = None
    created_to: datetime | None = None


_EVENT_TESTS = {
    "user": "user_id = :user",
    "event_type": "event_type = :event_type",
    "severity": "severity = :severity",
    "published": "published_to_pubsub = :published",
    "created_from": "created_at >= :created_from",
    "created_to": "created_at < :created_to",
}


async def find_snapshot(connection: AsyncConnection, snapshot_id: UUID) -> Snapshot | None:
    """One snapshot of the transaction's tenant."""
    rows = await connection.execute(
        text(f"SELECT {_SNAPSHOT_COLUMNS} FROM margin_health_snapshots WHERE snapshot_id = :snapshot"),
        {"snapshot": snapshot_id},
    )
    row = rows.mappings().one_or_none()
    return None if row is None else Snapshot(**row)


async def list_snapshots(
    connection: AsyncConnection,
    user: str,
    *,
    calculated_from: datetime | None = None,
    calculated_to: datetime | None = None,
    before: UUID | None = None,
    limit: int,
) -> list[Snapshot]:
    """Up to ``limit`` snapshots of a user behind the snapshot ``before``, the newest first."""
    conditions = ["user_id = :user"]
    if calculated_from is not None:
        conditions.append("calculated_at >= :calculated_from")
    if calculated_to is not None:
        conditions.append("calculated_at < :calculated_to")
    if before is not None:
        conditions.append("snapshot_id < :before")
    parameters = {
        "user": user,
        "calculated_from": calculated_from,
        "calculated_to": calculated_to,
        "before": before,
        "limit": limit,
    }
    rows = await connection.execute(
        text(
            f"SELECT {_SNAPSHOT_COLUMNS} FROM margin_health_snapshots WHERE {' AND '.join(conditions)}"
            " ORDER BY snapshot_id DESC LIMIT :limit"
        ),
        {name: value for name, value in parameters.items() if value is not None},
    )
    return [Snapshot(**row) for row in rows.mappings()]


async def list_events(
    connection: AsyncConnection, wanted: EventFilter, *, before: UUID | None = None, limit: int
) -> list[MarginEvent]:
    """Up to ``limit`` events of the transaction's tenant behind the event ``before``, the newest first."""
    parameters: dict[str, Any] = {
        name: getattr(wanted, name) for name in _EVENT_TESTS if getattr(wanted, name) is not None
    }
    conditions = ["true", *(_EVENT_TESTS[name] for name in parameters)]
    if before is not None:
        conditions.append("event_id < :before")
        parameters["before"] = before
    rows = await connection.execute(
        text(
            f"SELECT {_EVENT_COLUMNS} FROM margin_events WHERE {' AND '.join(conditions)}"
            " ORDER BY event_id DESC LIMIT :limit"
        ),
        parameters | {"limit": limit},
    )
    return [MarginEvent(**row) for row in rows.mappings()]


async def events_of(connection: AsyncConnection, user: str, snapshots: Sequence[UUID]) -> list[MarginEvent]:
    """The events that these snapshots of a user raised."""
    if not snapshots:
        return []
    rows = await connection.execute(
        text(
            f"SELECT {_EVENT_COLUMNS} FROM margin_events WHERE user_id = :user AND event_id > :earliest"
            " AND snapshot_id = ANY(CAST(:snapshots AS uuid[])) ORDER BY event_id"
        ),
        {"user": user, "snapshots": list(snapshots), "earliest": _earlier(min(snapshots))},
    )
    return [MarginEvent(**row) for row in rows.mappings()]


def _earlier(made: UUID) -> UUID:
    """An id from before: an event has its id at about the time of its snapshot's, and this bounds the search."""
    milliseconds = (made.int >> 80) - _APART_MILLISECONDS
    return UUID(int=max(0, milliseconds) << 80)


async def mark_published(connection: AsyncConnection, events: Sequence[tuple[UUID, UUID]]) -> None:
    """Note of these events of tenants that they have left. For the role that sees every tenant."""
    if events:
        await connection.execute(
            text(
                "UPDATE margin_events e SET published_to_pubsub = true"
                " FROM unnest(CAST(:tenants AS uuid[]), CAST(:events AS uuid[])) AS t (tenant_id, event_id)"
                " WHERE e.tenant_id = t.tenant_id AND e.event_id = t.event_id AND NOT e.published_to_pubsub"
            ),
            {"tenants": [tenant for tenant, _ in events], "events": [event for _, event in events]},
        )
