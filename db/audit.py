"""The audit log: who did what to what, and when; append-only, written in the commit of the act itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, Identity, Index, PrimaryKeyConstraint, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import UUID as PgUUID
from sqlalchemy.ext.asyncio import AsyncConnection

from db.columns import METADATA, instant, recorded_at, tenant_id

audit_log = Table(
    "audit_log",
    METADATA,
    tenant_id(),
    Column("audit_id", BigInteger, Identity(always=True), nullable=False),
    Column("subject", Text, nullable=False, comment="what was acted on, as escrow:<id>"),
    Column("action", Text, nullable=False, comment="what was done, past tense"),
    Column("actor_user", Text, comment="the party that the act was done for; null for the clock"),
    Column("actor_key_id", PgUUID(as_uuid=True), comment="the API key that asked"),
    Column("request_id", Text),
    Column("workflow_id", Text),
    instant("at", comment="when it took effect"),
    recorded_at(),
    Column("details", JSONB, nullable=False),
    PrimaryKeyConstraint("tenant_id", "audit_id"),
    Index(None, "tenant_id", "subject", "audit_id"),
)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an act came from: the party it is done for, the key that asked, the request and the workflow."""

    user_id: str | None = None
    key_id: UUID | None = None
    request_id: str | None = None
    workflow_id: str | None = None


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One act, ready to be written."""

    subject: str
    action: str
    at: datetime
    origin: Origin
    details: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One act, as it was written."""

    audit_id: int
    subject: str
    action: str
    at: datetime
    recorded_at: datetime
    actor_user: str | None
    actor_key_id: UUID | None
    request_id: str | None
    workflow_id: str | None
    details: dict[str, Any]


async def write(connection: AsyncConnection, tenant: UUID, record: AuditRecord) -> None:
    """Write one record in the caller's transaction; steps use ``db.step``, this is for the API's configuration."""
    await connection.execute(
        audit_log.insert().values(
            tenant_id=tenant,
            subject=record.subject,
            action=record.action,
            actor_user=record.origin.user_id,
            actor_key_id=record.origin.key_id,
            request_id=record.origin.request_id,
            workflow_id=record.origin.workflow_id,
            at=record.at,
            details=dict(record.details),
        )
    )


async def list_for(connection: AsyncConnection, subject: str, *, after: int, limit: int) -> list[AuditEntry]:
    """Up to ``limit`` acts on ``subject`` after the entry ``after`` (0 from the start), oldest first."""
    rows = await connection.execute(
        text(
            "SELECT audit_id, subject, action, at, recorded_at, actor_user, actor_key_id, request_id, workflow_id,"
            " details FROM audit_log WHERE subject = :subject AND audit_id > :after ORDER BY audit_id LIMIT :limit"
        ),
        {"subject": subject, "after": after, "limit": limit},
    )
    return [AuditEntry(**row) for row in rows.mappings()]
