"""Tenants and their API keys. Only a key's SHA-256 is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as PgUUID
from sqlalchemy.ext.asyncio import AsyncConnection

from db.columns import METADATA, instant, recorded_at, tenant_id
from domain.ids import PLATFORM_TENANT

tenants = Table(
    "tenants",
    METADATA,
    tenant_id(),
    Column("name", Text, nullable=False),
    recorded_at(),
    PrimaryKeyConstraint("tenant_id"),
    UniqueConstraint("name"),
    CheckConstraint(f"tenant_id <> '{PLATFORM_TENANT}'::uuid", name="platform"),
)

api_keys = Table(
    "api_keys",
    METADATA,
    tenant_id(),
    Column("key_id", PgUUID(as_uuid=True), nullable=False),
    Column("key_hash", LargeBinary, nullable=False, comment="SHA-256 of the whole key"),
    Column("prefix", Text, nullable=False, comment="the key's first characters, to recognise it by"),
    Column("last_four", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("user_id", Text, comment="the only user this key can act as; null for a service key"),
    recorded_at(),
    instant("expires_at", nullable=True),
    instant("revoked_at", nullable=True),
    Column("use_count", BigInteger, nullable=False, server_default=text("0")),
    Column("last_used_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("tenant_id", "key_id"),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),
    UniqueConstraint("key_hash"),
    UniqueConstraint("key_id"),
    CheckConstraint("octet_length(key_hash) = 32", name="hash_length"),
)

_KEY_COLUMNS = (
    "tenant_id, key_id, prefix, last_four, name, scopes, user_id, recorded_at, expires_at, revoked_at, use_count,"
    " last_used_at"
)


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant: one desk, whose rows no other tenant sees."""

    tenant_id: UUID
    name: str
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class ApiKeyRow:
    """A key as it is stored; the key itself is not."""

    tenant_id: UUID
    key_id: UUID
    prefix: str
    last_four: str
    name: str
    scopes: list[str]
    user_id: str | None
    recorded_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    use_count: int
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class NewKey:
    """What is stored of a key that was just made."""

    key_id: UUID
    key_hash: bytes
    prefix: str
    last_four: str
    name: str
    scopes: list[str]
    user_id: str | None = None
    expires_at: datetime | None = None


async def find_api_key(connection: AsyncConnection, key_hash: bytes) -> ApiKeyRow | None:
    """The key with this hash, of whatever tenant, revoked and expired ones included; the caller judges them."""
    rows = await connection.execute(text(f"SELECT {_KEY_COLUMNS} FROM find_api_key(:key_hash)"), {"key_hash": key_hash})
    row = rows.mappings().one_or_none()
    return None if row is None else ApiKeyRow(**row)


async def count_key_uses(connection: AsyncConnection, uses: Mapping[UUID, int], at: datetime) -> None:
    """Add uses to keys of any tenant, in one statement."""
    keys = sorted(uses)  # one order for all, or two processes that count at once could deadlock
    await connection.execute(
        text("SELECT count_api_key_uses(:keys, :counts, :at)"),
        {"keys": keys, "counts": [uses[key] for key in keys], "at": at},
    )


async def create_tenant(connection: AsyncConnection, *, new_tenant: UUID, name: str) -> bool:
    """Make a tenant, whoever asks; False, and nothing is written, when the name is taken.

    Sets the transaction's tenant to the new one, so that its first key can be written next.
    """
    made = await connection.scalar(text("SELECT create_tenant(:tenant, :name)"), {"tenant": new_tenant, "name": name})
    return bool(made)


async def find_tenant(connection: AsyncConnection, tenant: UUID) -> Tenant | None:
    """The transaction's own tenant."""
    rows = await connection.execute(
        text("SELECT tenant_id, name, recorded_at FROM tenants WHERE tenant_id = :tenant"), {"tenant": tenant}
    )
    row = rows.mappings().one_or_none()
    return None if row is None else Tenant(**row)


async def create_key(connection: AsyncConnection, tenant: UUID, key: NewKey) -> ApiKeyRow:
    """Store a key of the transaction's tenant."""
    rows = await connection.execute(
        text(
            "INSERT INTO api_keys (tenant_id, key_id, key_hash, prefix, last_four, name, scopes, user_id, expires_at)"
            " VALUES (:tenant, :key_id, :key_hash, :prefix, :last_four, :name, :scopes, :user_id, :expires_at)"
            f" RETURNING {_KEY_COLUMNS}"
        ),
        {
            "tenant": tenant,
            "key_id": key.key_id,
            "key_hash": key.key_hash,
            "prefix": key.prefix,
            "last_four": key.last_four,
            "name": key.name,
            "scopes": key.scopes,
            "user_id": key.user_id,
            "expires_at": key.expires_at,
        },
    )
    return ApiKeyRow(**rows.mappings().one())


async def list_keys(connection: AsyncConnection, *, before: UUID | None, limit: int) -> list[ApiKeyRow]:
    """The tenant's keys, newest first, from behind the key ``before``."""
    rows = await connection.execute(
        text(
            f"SELECT {_KEY_COLUMNS} FROM api_keys"
            " WHERE CAST(:before AS uuid) IS NULL OR key_id < :before ORDER BY key_id DESC LIMIT :limit"
        ),
        {"before": before, "limit": limit},
    )
    return [ApiKeyRow(**row) for row in rows.mappings()]


async def revoke_key(connection: AsyncConnection, key_id: UUID, at: datetime) -> ApiKeyRow | None:
    """Revoke a key of the tenant, keeping the first revocation's time; None when there is no such key."""
    rows = await connection.execute(
        text(
            "UPDATE api_keys SET revoked_at = coalesce(revoked_at, :at) WHERE key_id = :key_id"
            f" RETURNING {_KEY_COLUMNS}"
        ),
        {"key_id": key_id, "at": at},
    )
    row = rows.mappings().one_or_none()
    return None if row is None else ApiKeyRow(**row)
