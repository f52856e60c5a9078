"""Idempotency keys: one request, one effect, one answer, also across a crash between effect and answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    Column,
    Index,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import UUID as PgUUID
from sqlalchemy.ext.asyncio import AsyncConnection

from db.columns import METADATA, instant, recorded_at, tenant_id

idempotency_keys = Table(
    "idempotency_keys",
    METADATA,
    tenant_id(),
    Column("caller", Text, nullable=False, comment="the user a key is bound to; empty for service keys"),
    Column("key", Text, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False, comment="SHA-256 over method, path and body"),
    Column("operation_id", PgUUID(as_uuid=True), nullable=False, comment="names the effect; kept when taken over"),
    instant("locked_until", comment="until when the request counts as in flight"),
    Column("status", SmallInteger),
    Column("headers", JSONB),
    Column("body", LargeBinary),
    recorded_at(),
    PrimaryKeyConstraint("tenant_id", "caller", "key"),
    Index(None, "recorded_at"),
    CheckConstraint("(status IS NULL) = (body IS NULL)", name="answer_whole"),
)


class Standing(StrEnum):
    """What is known of a key: unheard of, taken over from a crashed request, answered, being worked on, or used for
    something else."""

    NEW = "new"
    TAKEN_OVER = "taken_over"
    STORED = "stored"
    IN_FLIGHT = "in_flight"
    MISMATCH = "mismatch"


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """An answer, byte for byte."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Begun:
    """How a request with an idempotency key may go on, and under which operation id."""

    standing: Standing
    operation_id: UUID
    response: StoredResponse | None = None


_INSERT = text(
    """
    INSERT INTO idempotency_keys AS k (tenant_id, caller, key, fingerprint, operation_id, locked_until)
    VALUES (:tenant, :caller, :key, :fingerprint, :operation_id,
            clock_timestamp() + make_interval(secs => :lease))
    ON CONFLICT (tenant_id, caller, key) DO UPDATE SET locked_until = excluded.locked_until
        WHERE k.status IS NULL AND k.locked_until < clock_timestamp() AND k.fingerprint = excluded.fingerprint
    RETURNING operation_id
    """
)

_SELECT = text(
    "SELECT fingerprint, operation_id, status, headers, body FROM idempotency_keys"
    " WHERE tenant_id = :tenant AND caller = :caller AND key = :key"
)

_FINISH = text(
    "UPDATE idempotency_keys SET status = :status, headers = CAST(:headers AS jsonb), body = :body"
    " WHERE tenant_id = :tenant AND caller = :caller AND key = :key AND operation_id = :operation_id"
    " AND status IS NULL"
)


async def begin(
    connection: AsyncConnection,
    *,
    tenant: UUID,
    caller: str,
    key: str,
    fingerprint: bytes,
    operation_id: UUID,
    lease_seconds: int,
) -> Begun:
    """Claim ``key`` for a request, or say why not. Commit before working, or racers will not see the claim.

    A claim whose lease lapsed without an answer belonged to a request that died; it is taken over under its original
    operation id, so that what it may have done is recognised instead of done again.
    """
    name = {"tenant": tenant, "caller": caller, "key": key}
    claimed = await connection.scalar(
        _INSERT, name | {"fingerprint": fingerprint, "operation_id": operation_id, "lease": lease_seconds}
    )
    if claimed is not None:
        return Begun(Standing.NEW if claimed == operation_id else Standing.TAKEN_OVER, claimed)
    row = (await connection.execute(_SELECT, name)).one()
    if row.fingerprint != fingerprint:
        return Begun(Standing.MISMATCH, row.operation_id)
    if row.status is None:
        return Begun(Standing.IN_FLIGHT, row.operation_id)
    return Begun(Standing.STORED, row.operation_id, StoredResponse(row.status, dict(row.headers), bytes(row.body)))


async def finish(
    connection: AsyncConnection, *, tenant: UUID, caller: str, key: str, operation_id: UUID, response: StoredResponse
) -> StoredResponse:
    """Keep the answer for every later request with this key, and return the one that is kept.

    That is an earlier one, where the request was taken over while it was merely slow and somebody else answered it.
    """
    name = {"tenant": tenant, "caller": caller, "key": key}
    kept = await connection.execute(
        _FINISH,
        name
        | {
            "operation_id": operation_id,
            "status": response.status,
            "headers": json.dumps(response.headers),
            "body": response.body,
        },
    )
    if getattr(kept, "rowcount", 0) == 1:
        return response
    row = (await connection.execute(_SELECT, name)).one_or_none()
    if row is None or row.operation_id != operation_id or row.status is None:
        return response  # the key was deleted by retention meanwhile
    return StoredResponse(row.status, dict(row.headers), bytes(row.body))


async def renew(
    connection: AsyncConnection, *, tenant: UUID, caller: str, key: str, operation_id: UUID, lease_seconds: int
) -> None:
    """Extend the lease of a request that is still being worked on."""
    await connection.execute(
        text(
            "UPDATE idempotency_keys SET locked_until = clock_timestamp() + make_interval(secs => :lease)"
            " WHERE tenant_id = :tenant AND caller = :caller AND key = :key AND operation_id = :operation_id"
            " AND status IS NULL"
        ),
        {"tenant": tenant, "caller": caller, "key": key, "operation_id": operation_id, "lease": lease_seconds},
    )


async def release(connection: AsyncConnection, *, tenant: UUID, caller: str, key: str, operation_id: UUID) -> None:
    """End the lease without an answer (the world was not available), so that a retry may work at once.

    The row stays, and with it the operation id: what was started may still take effect.
    """
    await connection.execute(
        text(
            "UPDATE idempotency_keys SET locked_until = clock_timestamp() - interval '1 second'"
            " WHERE tenant_id = :tenant AND caller = :caller AND key = :key AND operation_id = :operation_id"
            " AND status IS NULL"
        ),
        {"tenant": tenant, "caller": caller, "key": key, "operation_id": operation_id},
    )
