"""Consumers of the feed: each has a name and a durable position, and is done with every event up to it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, DateTime, PrimaryKeyConstraint, Table, Text, func, text
from sqlalchemy.dialects.postgresql import UUID as PgUUID
from sqlalchemy.ext.asyncio import AsyncConnection

from db.columns import METADATA, recorded_at, tenant_id
from db.outbox import FeedEvent

feed_consumers = Table(
    "feed_consumers",
    METADATA,
    Column("name", Text, primary_key=True),
    Column(
        "position",
        BigInteger,
        nullable=False,
        server_default=text("0"),
        comment="it is done with every event up to this one",
    ),
    Column(
        "updated_at",
        DateTime(timezone=True),
        nullable=False,
        server_default=func.clock_timestamp(),
        comment="when it last moved; database clock",
    ),
)

feed_faults = Table(
    "feed_faults",
    METADATA,
    Column("consumer", Text, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("event_id", PgUUID(as_uuid=True), nullable=False),
    Column("error", Text, nullable=False, comment="what the last attempt ended with"),
    recorded_at(),
    PrimaryKeyConstraint("consumer", "position"),
)

publications = Table(
    "publications",
    METADATA,
    tenant_id(),
    Column("event_id", PgUUID(as_uuid=True), nullable=False),
    Column("stream", Text, nullable=False, comment="the stream of the broker that has the event"),
    Column(
        "sequence",
        BigInteger,
        nullable=False,
        comment="its place in that stream, from the broker's acknowledgement",
    ),
    Column(
        "published_at",
        DateTime(timezone=True),
        nullable=False,
        server_default=func.clock_timestamp(),
        comment="when the acknowledgement was recorded; database clock",
    ),
    PrimaryKeyConstraint("tenant_id", "event_id", "stream"),
)

ERROR_CHARACTERS = 2_000


@dataclass(frozen=True, slots=True)
class TenantEvent(FeedEvent):
    """An event of the feed over all tenants."""

    tenant_id: UUID


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a consumer stands: its position, the feed's last one, and the age of the oldest event between."""

    position: int
    head: int
    behind_seconds: float

    @property
    def behind(self) -> int:
        """How many events it has before it; positions are dense."""
        return self.head - self.position


@dataclass(frozen=True, slots=True)
class Fault:
    """An event that a consumer gives up."""

    event: TenantEvent
    error: str


@dataclass(frozen=True, slots=True)
class Publication:
    """An event that a stream of the broker has, at ``sequence``."""

    event: TenantEvent
    stream: str
    sequence: int


async def enlist(connection: AsyncConnection, name: str) -> None:
    """Make the consumer known, at the feed's beginning; one that is known stays where it is."""
    await connection.execute(
        text("INSERT INTO feed_consumers (name) VALUES (:name) ON CONFLICT DO NOTHING"), {"name": name}
    )


async def standing(connection: AsyncConnection, name: str) -> Standing | None:
    """Where the consumer stands, None before it was enlisted."""
    row = (
        await connection.execute(
            text(
                "SELECT c.position, (SELECT coalesce(max(position), 0) FROM outbox) AS head,"
                " coalesce(extract(epoch FROM clock_timestamp() - (SELECT o.recorded_at FROM outbox o"
                "  WHERE o.position > c.position ORDER BY o.position LIMIT 1)), 0) AS seconds"
                " FROM feed_consumers c WHERE c.name = :name"
            ),
            {"name": name},
        )
    ).one_or_none()
    return None if row is None else Standing(int(row[0]), int(row[1]), float(row[2]))


async def events_between(
    connection: AsyncConnection, *, after: int, upto: int, limit: int, types: Sequence[str] | None = None
) -> list[TenantEvent]:
    """The first events of every tenant with positions above ``after`` up to ``upto``, in order; of ``types`` only."""
    chosen = "" if types is None else "AND type = ANY(:types)"
    rows = await connection.execute(
        text(
            "SELECT tenant_id, event_id, position, topic, type, subject, occurred_at, recorded_at, data FROM outbox"
            f" WHERE position > :after AND position <= :upto {chosen} ORDER BY position LIMIT :limit"
        ),
        {"after": after, "upto": upto, "limit": limit} | ({} if types is None else {"types": list(types)}),
    )
    return [TenantEvent(**row) for row in rows.mappings()]


async def advance(connection: AsyncConnection, name: str, *, seen: int, upto: int) -> bool:
    """Move the consumer from where it was ``seen`` up to ``upto``; False when somebody else moved it meanwhile."""
    done = await connection.execute(
        text(
            "UPDATE feed_consumers SET position = :upto, updated_at = clock_timestamp()"
            " WHERE name = :name AND position = :seen"
        ),
        {"name": name, "seen": seen, "upto": upto},
    )
    return int(getattr(done, "rowcount", 0)) == 1


async def record_faults(connection: AsyncConnection, name: str, faults: Sequence[Fault]) -> None:
    """Keep what the consumer gave up, once."""
    rows = [
        {"position": f.event.position, "event_id": str(f.event.event_id), "error": f.error[:ERROR_CHARACTERS]}
        for f in faults
    ]
    await _insert_rows(
        connection,
        "INSERT INTO feed_faults (consumer, position, event_id, error) SELECT :name, position, event_id, error"
        " FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (position bigint, event_id uuid, error text)"
        " ON CONFLICT DO NOTHING",
        rows,
        {"name": name},
    )


async def record_publications(connection: AsyncConnection, published: Sequence[Publication]) -> None:
    """Keep what the broker acknowledged, in one statement; what is recorded already stays as it is."""
    rows = [
        {
            "tenant_id": str(p.event.tenant_id),
            "event_id": str(p.event.event_id),
            "stream": p.stream,
            "sequence": p.sequence,
        }
        for p in published
    ]
    await _insert_rows(
        connection,
        "INSERT INTO publications (tenant_id, event_id, stream, sequence)"
        " SELECT tenant_id, event_id, stream, sequence FROM jsonb_to_recordset(CAST(:rows AS jsonb))"
        " AS r (tenant_id uuid, event_id uuid, stream text, sequence bigint) ON CONFLICT DO NOTHING",
        rows,
        {},
    )


async def _insert_rows(
    connection: AsyncConnection, statement: str, rows: Sequence[Mapping[str, Any]], more: Mapping[str, Any]
) -> None:
    if rows:
        await connection.execute(text(statement), {"rows": json.dumps(rows), **more})
