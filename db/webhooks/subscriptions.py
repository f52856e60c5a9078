"""Subscriptions as their owners make and read them, and their keys. Statements see the transaction's tenant."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.webhooks.endpoint import DisabledReason, EndpointStatus, Ordering


@dataclass(frozen=True, slots=True)
class Subscription:
    """An endpoint, and what it gets."""

    subscription_id: UUID
    url: str
    description: str | None
    event_types: tuple[str, ...]
    user_id: str | None
    escrow_id: UUID | None
    headers: Mapping[str, str]
    rate_per_second: int | None
    concurrency: int
    ordering: Ordering
    owner_user_id: str | None
    status: EndpointStatus = EndpointStatus.ACTIVE
    disabled_reason: DisabledReason | None = None
    disabled_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """A subscription as it stands, with how well its endpoint does."""

    subscription: Subscription
    recorded_at: datetime
    paused_until: datetime | None
    failing_since: datetime | None
    failed_at: datetime | None
    succeeded_at: datetime | None

    @property
    def subscription_id(self) -> UUID:
        """Its id, by which lists are paged."""
        return self.subscription.subscription_id


@dataclass(frozen=True, slots=True)
class NewKeys:
    """Keys that were just made."""

    secret_id: UUID
    shared_key: bytes
    private_seed: bytes
    public_key: bytes


@dataclass(frozen=True, slots=True)
class KeyState:
    """A key in force, without what is secret of it; ``expires_at`` where another has taken its place."""

    secret_id: UUID
    public_key: bytes
    recorded_at: datetime
    expires_at: datetime | None


_OWN = (
    "url",
    "description",
    "event_types",
    "user_id",
    "escrow_id",
    "headers",
    "rate_per_second",
    "concurrency",
    "ordering",
    "owner_user_id",
    "status",
    "disabled_reason",
    "disabled_at",
)
_JSON = frozenset({"event_types", "headers"})
_VALUES = {name: f"CAST(:{name} AS jsonb)" if name in _JSON else f":{name}" for name in _OWN}
_COLUMNS = f"subscription_id, {', '.join(_OWN)}, recorded_at, paused_until, failing_since, failed_at, succeeded_at"

_INSERT = text(
    f"INSERT INTO webhook_subscriptions (tenant_id, subscription_id, {', '.join(_OWN)})"
    f" VALUES (:tenant, :subscription_id, {', '.join(_VALUES.values())})"
)
#: Who is enabled again begins with a clean sheet.
_UPDATE = text(
    f"UPDATE webhook_subscriptions SET {', '.join(f'{name} = {value}' for name, value in _VALUES.items())},"
    " failing_since = CASE WHEN status = 'active' THEN failing_since END,"
    " paused_until = CASE WHEN status = 'active' THEN paused_until END"
    " WHERE subscription_id = :subscription_id"
)
_LIVING = "status <> 'deleted'"
_FIND = f"SELECT {_COLUMNS} FROM webhook_subscriptions WHERE subscription_id = :id AND {_LIVING}"
_LIST = text(
    f"SELECT {_COLUMNS} FROM webhook_subscriptions WHERE {_LIVING}"
    " AND (CAST(:before AS uuid) IS NULL OR subscription_id < CAST(:before AS uuid))"
    " AND (CAST(:status AS text) IS NULL OR status = :status) ORDER BY subscription_id DESC LIMIT :limit"
)
_ADD_KEYS = text(
    "INSERT INTO webhook_secrets (tenant_id, subscription_id, secret_id, shared_key, private_seed, public_key)"
    " VALUES (:tenant, :subscription, :secret_id, :shared_key, :private_seed, :public_key)"
)
_RETIRE = text(
    "UPDATE webhook_secrets SET expires_at = least(coalesce(expires_at, 'infinity'), CAST(:at AS timestamptz))"
    " WHERE subscription_id = :subscription AND (expires_at IS NULL OR expires_at > :at)"
)
_KEYS = text(
    "SELECT secret_id, public_key, recorded_at, expires_at FROM webhook_secrets"
    " WHERE subscription_id = :subscription AND (expires_at IS NULL OR expires_at > clock_timestamp())"
    " ORDER BY secret_id DESC"
)


async def insert(connection: AsyncConnection, tenant: UUID, made: Subscription) -> None:
    """Write a new subscription."""
    await connection.execute(_INSERT, _parameters(made) | {"tenant": tenant})


async def update(connection: AsyncConnection, changed: Subscription) -> None:
    """Write everything that an owner may set. The row is locked by ``lock``."""
    await connection.execute(_UPDATE, _parameters(changed))


async def find(connection: AsyncConnection, subscription_id: UUID) -> Recorded | None:
    """A subscription that was not deleted."""
    row = (await connection.execute(text(_FIND), {"id": subscription_id})).one_or_none()
    return None if row is None else _recorded(row)


async def lock(connection: AsyncConnection, subscription_id: UUID) -> Recorded | None:
    """The same, and it stays so until the transaction ends."""
    row = (await connection.execute(text(f"{_FIND} FOR NO KEY UPDATE"), {"id": subscription_id})).one_or_none()
    return None if row is None else _recorded(row)


async def list_(
    connection: AsyncConnection, *, status: EndpointStatus | None, before: UUID | None, limit: int
) -> list[Recorded]:
    """Subscriptions that were not deleted, the newest first."""
    given = {"before": before, "status": None if status is None else status.value, "limit": limit}
    return [_recorded(row) for row in await connection.execute(_LIST, given)]


async def add_keys(connection: AsyncConnection, tenant: UUID, subscription_id: UUID, keys: NewKeys) -> None:
    """Let an endpoint's requests be signed by these keys too."""
    await connection.execute(
        _ADD_KEYS,
        {
            "tenant": tenant,
            "subscription": subscription_id,
            "secret_id": keys.secret_id,
            "shared_key": keys.shared_key,
            "private_seed": keys.private_seed,
            "public_key": keys.public_key,
        },
    )


async def retire_keys(connection: AsyncConnection, subscription_id: UUID, at: datetime) -> None:
    """Let every key that there is so far sign until ``at`` and no longer."""
    await connection.execute(_RETIRE, {"subscription": subscription_id, "at": at})


async def keys_of(connection: AsyncConnection, subscription_id: UUID) -> list[KeyState]:
    """The keys that sign now, the newest first."""
    rows = await connection.execute(_KEYS, {"subscription": subscription_id})
    return [KeyState(row.secret_id, bytes(row.public_key), row.recorded_at, row.expires_at) for row in rows]


def _parameters(said: Subscription) -> dict[str, Any]:
    given = {name: getattr(said, name) for name in _OWN}
    return given | {
        "subscription_id": said.subscription_id,
        "event_types": json.dumps(said.event_types),
        "headers": json.dumps(dict(said.headers)),
    }


def _recorded(row: Any) -> Recorded:
    own = {name: getattr(row, name) for name in _OWN}
    reason = None if row.disabled_reason is None else DisabledReason(row.disabled_reason)
    own |= {
        "event_types": tuple(row.event_types),
        "ordering": Ordering(row.ordering),
        "status": EndpointStatus(row.status),
        "disabled_reason": reason,
    }
    return Recorded(
        Subscription(row.subscription_id, **own),
        row.recorded_at,
        row.paused_until,
        row.failing_since,
        row.failed_at,
        row.succeeded_at,
    )
