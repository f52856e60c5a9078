"""The transactional outbox and the durable feed read from it.

An event is a row in the commit of what it tells. One relay at a time gives committed rows their ``position``; readers
page by position, so that a transaction that commits late appears behind the reader's cursor, never before it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import BigInteger, Column, Identity, Index, PrimaryKeyConstraint, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import UUID as PgUUID
from sqlalchemy.ext.asyncio import AsyncConnection

from db.columns import METADATA, instant, recorded_at, tenant_id
from domain.ids import PLATFORM_TENANT

SETTLEMENT_TOPIC = "settlement.events.v1"
PRICES_TOPIC = "market.prices.v1"
MARGIN_TOPIC = "margin.events.v1"
ALERTS_TOPIC = "alerts.events.v1"
TOPICS = (SETTLEMENT_TOPIC, PRICES_TOPIC, MARGIN_TOPIC, ALERTS_TOPIC)

#: The channel on which a commit wakes the relay.
WAKE_CHANNEL = "holdfast_outbox"
#: The channel on which the relay tells that the feed has grown.
FEED_CHANNEL = "holdfast_feed"
_RELAY_LOCK = 0x486F6C64_00000001

outbox = Table(
    "outbox",
    METADATA,
    tenant_id(),
    Column("event_id", PgUUID(as_uuid=True), nullable=False, comment="stable; consumers drop repeats by it"),
    Column("outbox_id", BigInteger, Identity(always=True), nullable=False, comment="order of writing"),
    Column("topic", Text, nullable=False),
    Column("type", Text, nullable=False, comment="what happened, past tense"),
    Column("subject", Text, nullable=False, comment="what it happened to; order is kept per subject"),
    Column("data", JSONB, nullable=False),
    instant("occurred_at"),
    recorded_at(),
    Column("position", BigInteger, comment="order in the feed; null until the relay saw the commit"),
    PrimaryKeyConstraint("tenant_id", "event_id"),
    Index("outbox_unnumbered_idx", "outbox_id", postgresql_where=text("position IS NULL")),
    Index("outbox_position_key", "position", unique=True, postgresql_where=text("position IS NOT NULL")),
    Index(None, "tenant_id", "topic", "position", postgresql_where=text("position IS NOT NULL")),
    Index(None, "tenant_id", "position", postgresql_where=text("position IS NOT NULL")),
    Index("outbox_escrow_idx", "tenant_id", "subject", postgresql_where=text("starts_with(subject, 'escrow:')")),
)


@dataclass(frozen=True, slots=True)
class OutboxEvent:
    """An event, ready to be written."""

    event_id: UUID
    topic: str
    type: str
    subject: str
    occurred_at: datetime
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """An event, as a reader of the feed gets it."""

    event_id: UUID
    position: int
    topic: str
    type: str
    subject: str
    occurred_at: datetime
    recorded_at: datetime
    data: dict[str, Any]


_LAST_POSITION = str(2**63 - 1)
_FEED_COLUMNS = "event_id, position, topic, type, subject, occurred_at, recorded_at, data"


async def feed(connection: AsyncConnection, *, topic: str | None, after: int, limit: int) -> list[FeedEvent]:
    """Up to ``limit`` events of the transaction's tenant and of the platform behind position ``after``, in order.

    Each part reads its own index as far as needed. Rows are compared as wholes, which only that index can order: with
    ``tenant_id`` by itself, the planner may walk past everybody's events to find a few.
    """
    key = "tenant_id, position" if topic is None else "tenant_id, topic, position"
    bound = "%s, %s" if topic is None else "%s, :topic, %s"
    part = (
        f"(SELECT {_FEED_COLUMNS} FROM outbox WHERE position IS NOT NULL AND ({key}) > ({bound % ('%s', ':after')})"
        f" AND ({key}) <= ({bound % ('%s', _LAST_POSITION)}) ORDER BY {key} LIMIT :limit)"
    )
    both = " UNION ALL ".join(part % (whose, whose) for whose in ("current_tenant()", ":platform"))
    rows = await connection.execute(
        text(f"SELECT {_FEED_COLUMNS} FROM ({both}) AS both_parts ORDER BY position LIMIT :limit"),
        {"after": after, "limit": limit, "platform": PLATFORM_TENANT} | ({"topic": topic} if topic is not None else {}),
    )
    return [FeedEvent(**row) for row in rows.mappings()]


async def append(connection: AsyncConnection, tenant_id: UUID, events: Sequence[OutboxEvent]) -> None:
    """Write events in the commit of what they tell; an event that is there already stays as it is."""
    if events:
        await connection.execute(
            text(
                "INSERT INTO outbox (tenant_id, event_id, topic, type, subject, occurred_at, data)"
                " SELECT :tenant, event_id, topic, type, subject, occurred_at, data"
                " FROM jsonb_to_recordset(CAST(:events AS jsonb)) AS e (n int, event_id uuid, topic text, type text,"
                " subject text, occurred_at timestamptz, data jsonb) ORDER BY n ON CONFLICT DO NOTHING"
            ),
            {"tenant": tenant_id, "events": json.dumps([row_of(n, event) for n, event in enumerate(events)])},
        )


def row_of(n: int, event: OutboxEvent) -> dict[str, Any]:
    """An event as statements that write many take it; ``n`` is its place among them."""
    return {
        "n": n,
        "event_id": str(event.event_id),
        "topic": event.topic,
        "type": event.type,
        "subject": event.subject,
        "occurred_at": event.occurred_at.isoformat(),
        "data": event.data,
    }


async def recent_subjects(
    connection: AsyncConnection, types: Sequence[str], *, positions: int, margin: timedelta
) -> list[str]:
    """What events of these types happened to, of any tenant: among the last ``positions`` of the feed, those that are
    older than ``margin``."""
    rows = await connection.execute(
        text(
            "SELECT DISTINCT subject FROM outbox WHERE position > (SELECT max(position) FROM outbox) - :positions"
            " AND type = ANY (:types) AND recorded_at < clock_timestamp() - CAST(:margin AS interval)"
        ),
        {"positions": positions, "types": list(types), "margin": margin},
    )
    return list(rows.scalars())


async def number_committed(connection: AsyncConnection, *, limit: int) -> Mapping[str, int]:
    """Give up to ``limit`` committed events their positions and return how many of each type; none when another relay
    is at it.

    Takes a transaction-scoped advisory lock: positions are handed out by one transaction at a time, so that a reader
    that saw position n has been able to see every position below n.
    """
    if not await connection.scalar(text("SELECT pg_try_advisory_xact_lock(:lock)"), {"lock": _RELAY_LOCK}):
        return {}
    rows = await connection.execute(
        text(
            """
            WITH last AS (SELECT coalesce(max(position), 0) AS position FROM outbox WHERE position IS NOT NULL),
            unnumbered AS (
                SELECT outbox_id, row_number() OVER (ORDER BY outbox_id) AS step FROM (
                    SELECT outbox_id FROM outbox WHERE position IS NULL ORDER BY outbox_id LIMIT :limit
                ) AS committed
            ), numbered AS (
                UPDATE outbox SET position = last.position + unnumbered.step
                FROM last, unnumbered WHERE outbox.outbox_id = unnumbered.outbox_id RETURNING outbox.type
            )
            SELECT type, count(*) FROM numbered GROUP BY type
            """
        ),
        {"limit": limit},
    )
    return {type_: int(count) for type_, count in rows}


async def lag(connection: AsyncConnection) -> tuple[int, float]:
    """How many committed events wait for a position, and the age of the oldest in seconds."""
    row = (
        await connection.execute(
            text(
                "SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(recorded_at)), 0)"
                " FROM outbox WHERE position IS NULL"
            )
        )
    ).one()
    return int(row[0]), float(row[1])


async def tenant_head(connection: AsyncConnection) -> int:
    """The position of the last event that the transaction's tenant sees, 0 before the first."""
    part = (
        "(SELECT position FROM outbox WHERE position IS NOT NULL AND (tenant_id, position) > (%s, 0)"
        f" AND (tenant_id, position) <= (%s, {_LAST_POSITION}) ORDER BY tenant_id DESC, position DESC LIMIT 1)"
    )
    both = ", ".join(part % (whose, whose) for whose in ("current_tenant()", ":platform"))
    head = await connection.scalar(text(f"SELECT coalesce(greatest({both}), 0)"), {"platform": PLATFORM_TENANT})
    return int(head or 0)


async def feed_head(connection: AsyncConnection) -> int:
    """The last position of the feed over all tenants; any role may ask."""
    return int(await connection.scalar(text("SELECT feed_head()")) or 0)


async def feed_news(connection: AsyncConnection, *, after: int, most: int) -> dict[UUID, int]:
    """Of the first ``most`` events behind a position: whose, and each one's last position. Any role may ask.

    What is ``PLATFORM_TENANT``'s is everybody's.
    """
    rows = await connection.execute(
        text("SELECT tenant_id, latest FROM feed_news(:after, :most)"), {"after": after, "most": most}
    )
    return {row.tenant_id: row.latest for row in rows}


def rendered(event: FeedEvent) -> bytes:
    """The event's JSON in one line: the same in the feed, in its stream and at the broker."""
    return to_json(
        {
            "id": event.event_id,
            "position": event.position,
            "topic": event.topic,
            "type": event.type,
            "subject": event.subject,
            "occurred_at": event.occurred_at,
            "data": event.data,
        }
    )
