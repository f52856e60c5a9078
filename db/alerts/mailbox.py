"""The local mailbox: what was told where no vendor is set up. A message that comes again is the one that is there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, slots=True)
class MailboxMessage:
    """A message as somebody would have got it."""

    message_id: UUID
    channel: str
    address: str
    subject: str | None
    body: str
    html: str | None
    recorded_at: datetime


async def put(
    connection: AsyncConnection,
    message_id: UUID,
    *,
    channel: str,
    address: str,
    subject: str | None,
    body: str,
    html: str | None,
) -> bool:
    """Keep a message for the tenant whose attempt it is; False for an attempt that nobody began. ``connection`` sees
    every tenant."""
    done = await connection.execute(
        text(
            "INSERT INTO mailbox_messages (tenant_id, message_id, channel, address, subject, body, html)"
            " SELECT tenant_id, attempt_id, :channel, :address, :subject, :body, :html FROM alert_attempts"
            " WHERE attempt_id = :id AND phase = 'begun'"
            " ON CONFLICT (tenant_id, message_id) DO NOTHING RETURNING message_id"
        ),
        {"id": message_id, "channel": channel, "address": address, "subject": subject, "body": body, "html": html},
    )
    return done.one_or_none() is not None or await has(connection, message_id)


async def has(connection: AsyncConnection, message_id: UUID) -> bool:
    """Whether a message is there."""
    found = await connection.scalar(
        text(
            "SELECT EXISTS (SELECT FROM mailbox_messages m JOIN alert_attempts a"
            " ON a.tenant_id = m.tenant_id AND a.attempt_id = m.message_id AND a.phase = 'begun'"
            " WHERE a.attempt_id = :id)"
        ),
        {"id": message_id},
    )
    return bool(found)


async def list_(
    connection: AsyncConnection,
    tenant: UUID,
    *,
    channel: str | None,
    address: str | None,
    before: UUID | None,
    limit: int,
) -> list[MailboxMessage]:
    """Up to ``limit`` messages below the id ``before``, the newest first."""
    rows = await connection.execute(
        text(
            "SELECT message_id, channel, address, subject, body, html, recorded_at FROM mailbox_messages"
            " WHERE tenant_id = :tenant AND (CAST(:channel AS text) IS NULL OR channel = :channel)"
            " AND (CAST(:address AS text) IS NULL OR address = :address)"
            " AND (CAST(:before AS uuid) IS NULL OR message_id < :before) ORDER BY message_id DESC LIMIT :limit"
        ),
        {"tenant": tenant, "channel": channel, "address": address, "before": before, "limit": limit},
    )
    return [MailboxMessage(*row) for row in rows]
