"""Working deliveries off: what an endpoint gets next, and what came of it. Each in one statement for many.

A delivery that is claimed is due again when its lease ends: until then nobody else takes it, and a process that died
with it loses nothing. Time is the database's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.webhooks.delivering import AttemptResult, Verdict
from domain.webhooks.endpoint import DisabledReason, EndpointStatus, Ordering
from domain.webhooks.health import Health


@dataclass(frozen=True, slots=True)
class Keys:
    """One of an endpoint's keys."""

    secret_id: UUID
    shared_key: bytes
    private_seed: bytes


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint as it is sent to; ``keys`` are those in force, the newest first; ``replaying``: a
    replay is to be worked on. ``now`` is the database's."""

    tenant_id: UUID
    subscription_id: UUID
    url: str
    headers: dict[str, str]
    rate_per_second: int | None
    concurrency: int
    ordering: Ordering
    status: EndpointStatus
    paused_until: datetime | None
    replaying: bool
    now: datetime
    keys: tuple[Keys, ...] = ()

    @property
    def resting(self) -> bool:
        """Whether it asked to be left alone."""
        return self.paused_until is not None and self.paused_until > self.now


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery whose attempt ``number`` is written down and may be made."""

    message_id: UUID
    sequence: int
    number: int
    failures: int
    subject: str
    body: str
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt, and how its delivery goes on."""

    message_id: UUID
    number: int
    result: AttemptResult
    finished_at: datetime
    verdict: Verdict
    request_headers: str | None = None
    status_code: int | None = None
    response_headers: str | None = None
    response_body: str | None = None
    response_truncated: bool | None = None
    duration_ms: int | None = None
    error: str | None = None


_ENDPOINT = text(
    "SELECT tenant_id, subscription_id, url, headers, rate_per_second, concurrency, ordering, status, paused_until,"
    " EXISTS (SELECT FROM webhook_replays r WHERE r.tenant_id = :tenant AND r.subscription_id = :subscription"
    "  AND r.finished_at IS NULL) AS replaying,"
    " clock_timestamp() AS now FROM webhook_subscriptions"
    " WHERE tenant_id = :tenant AND subscription_id = :subscription"
)
_KEYS = text(
    "SELECT secret_id, shared_key, private_seed FROM webhook_secrets"
    " WHERE tenant_id = :tenant AND subscription_id = :subscription"
    " AND (expires_at IS NULL OR expires_at > clock_timestamp()) ORDER BY secret_id DESC"
)

#: The rows are locked by then, so where they lie does not change; whatever the planner knows of them, it finds them so.
_CLAIM = """
WITH due AS MATERIALIZED (
    SELECT d.ctid AS row FROM webhook_deliveries d
    WHERE d.tenant_id = :tenant AND d.subscription_id = :subscription AND d.status = 'waiting'
        AND d.next_attempt_at <= :at {turn}
    LIMIT :most FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE webhook_deliveries d SET attempts = d.attempts + 1, next_attempt_at = :at + CAST(:lease AS interval)
    WHERE d.ctid = ANY (ARRAY(SELECT row FROM due))
    RETURNING d.message_id, d.sequence, d.attempts, d.failures, d.subject, d.body
), intents AS (
    INSERT INTO webhook_attempts (tenant_id, subscription_id, message_id, number, url, started_at)
    SELECT :tenant, :subscription, message_id, attempts, :url, :at FROM claimed
)
SELECT message_id, sequence, attempts, failures, subject, body FROM claimed ORDER BY sequence
"""
#: With an order, nobody overtakes one of the same subject that waits, or is on its way.
_CLAIMS = {
    Ordering.NONE: text(_CLAIM.format(turn="ORDER BY d.next_attempt_at")),
    Ordering.SUBJECT: text(
        _CLAIM.format(
            turn="AND NOT EXISTS (SELECT FROM webhook_deliveries e WHERE e.tenant_id = d.tenant_id"
            " AND e.subscription_id = d.subscription_id AND e.subject = d.subject AND e.status = 'waiting'"
            " AND e.sequence < d.sequence AND e.next_attempt_at > :at) ORDER BY d.sequence"
        )
    ),
}

#: Subscriptions are compared so that no index helps with it: the one that does is the key, by the message.
_NOTE = text(
    """
    WITH came AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (message_id uuid, number int, result text,
            finished_at timestamptz, status text, failures int, next_attempt_at timestamptz, request_headers text,
            status_code int, response_headers text, response_body text, response_truncated boolean, duration_ms int,
            error text)
    ), noted AS (
        UPDATE webhook_attempts a SET finished_at = came.finished_at, result = came.result,
            request_headers = CAST(came.request_headers AS json), status_code = came.status_code,
            response_headers = CAST(came.response_headers AS json), response_body = came.response_body,
            response_truncated = came.response_truncated, duration_ms = came.duration_ms, error = came.error
        FROM came WHERE a.tenant_id = :tenant AND a.subscription_id IS NOT DISTINCT FROM :subscription
            AND a.message_id = came.message_id AND a.number = came.number AND a.finished_at IS NULL
    )
    UPDATE webhook_deliveries d SET status = came.status, failures = came.failures,
        next_attempt_at = came.next_attempt_at,
        finished_at = CASE WHEN came.status = 'waiting' THEN NULL ELSE came.finished_at END
    FROM came WHERE d.tenant_id = :tenant AND d.subscription_id IS NOT DISTINCT FROM :subscription
        AND d.message_id = came.message_id AND d.status = 'waiting'
        AND (d.attempts = came.number OR came.status = 'delivered')
    """
)

_DUE = text(
    """
    SELECT w.tenant_id, w.subscription_id
    FROM unnest(CAST(:tenants AS uuid[]), CAST(:subscriptions AS uuid[])) AS w (tenant_id, subscription_id)
    WHERE EXISTS (
        SELECT FROM webhook_deliveries d WHERE d.tenant_id = w.tenant_id AND d.subscription_id = w.subscription_id
            AND d.status = 'waiting' AND d.next_attempt_at <= clock_timestamp()
    )
    """
)
_NEXT = text(
    "SELECT min(next_attempt_at) FROM webhook_deliveries"
    " WHERE tenant_id = :tenant AND subscription_id = :subscription AND status = 'waiting'"
)
_OVERDUE = text(
    """
    SELECT s.tenant_id, s.subscription_id FROM webhook_subscriptions s
    WHERE s.status = 'active' AND (s.paused_until IS NULL OR s.paused_until <= clock_timestamp() - :margin)
        AND (:after IS NULL OR s.subscription_id > :after)
        AND (
            EXISTS (SELECT FROM webhook_deliveries d WHERE d.tenant_id = s.tenant_id
                AND d.subscription_id = s.subscription_id AND d.status = 'waiting'
                AND d.next_attempt_at < clock_timestamp() - :margin)
            OR EXISTS (SELECT FROM webhook_replays r WHERE r.tenant_id = s.tenant_id
                AND r.subscription_id = s.subscription_id AND r.finished_at IS NULL
                AND r.recorded_at < clock_timestamp() - :margin)
        )
    ORDER BY s.subscription_id LIMIT :most
    """.replace(":margin", "CAST(:margin AS interval)").replace(":after", "CAST(:after AS uuid)")
)
_CANCEL = text(
    """
    WITH left_over AS (
        SELECT ctid AS row FROM webhook_deliveries
        WHERE tenant_id = :tenant AND subscription_id = :subscription AND status = 'waiting'
        LIMIT :most FOR UPDATE
    )
    UPDATE webhook_deliveries d SET status = 'cancelled', next_attempt_at = NULL, finished_at = clock_timestamp()
    WHERE d.ctid = ANY (ARRAY(SELECT row FROM left_over))
    """
)
_HEALTH = text(
    "SELECT status, url, owner_user_id, failing_since, failed_at, succeeded_at, paused_until"
    " FROM webhook_subscriptions WHERE tenant_id = :tenant AND subscription_id = :subscription FOR NO KEY UPDATE"
)
_SET_HEALTH = text(
    "UPDATE webhook_subscriptions SET failing_since = :failing_since, failed_at = :failed_at,"
    " succeeded_at = :succeeded_at, paused_until = :paused_until"
    " WHERE tenant_id = :tenant AND subscription_id = :subscription"
)
_DISABLE = text(
    "UPDATE webhook_subscriptions SET status = 'disabled', disabled_reason = :reason, disabled_at = :at"
    " WHERE tenant_id = :tenant AND subscription_id = :subscription AND status = 'active'"
)


async def endpoint(connection: AsyncConnection, tenant: UUID, subscription: UUID) -> Endpoint | None:
    """An endpoint with the keys in force; None where there is none."""
    which = {"tenant": tenant, "subscription": subscription}
    row = (await connection.execute(_ENDPOINT, which)).one_or_none()
    if row is None:
        return None
    keys = await connection.execute(_KEYS, which)
    fields = row._asdict() | {"ordering": Ordering(row.ordering), "status": EndpointStatus(row.status)}
    return Endpoint(**fields, keys=tuple(Keys(k.secret_id, bytes(k.shared_key), bytes(k.private_seed)) for k in keys))


async def claim(connection: AsyncConnection, to: Endpoint, *, most: int, lease: timedelta) -> list[Claimed]:
    """Take up to ``most`` deliveries that are due and write their attempts down, in the order of writing."""
    rows = await connection.execute(
        _CLAIMS[to.ordering],
        {
            "tenant": to.tenant_id,
            "subscription": to.subscription_id,
            "url": to.url,
            "at": to.now,
            "most": most,
            "lease": lease,
        },
    )
    return [
        Claimed(row.message_id, row.sequence, row.attempts, row.failures, row.subject, row.body, to.now) for row in rows
    ]


async def note(connection: AsyncConnection, tenant: UUID, subscription: UUID, came: Sequence[Outcome]) -> None:
    """Write what came of attempts, and how their deliveries go on.

    A delivery that was claimed again meanwhile stays with whoever has it, unless this one says that it arrived.
    """
    rows = [_row(outcome) for outcome in came]
    await connection.execute(_NOTE, {"tenant": tenant, "subscription": subscription, "rows": json.dumps(rows)})


def _row(outcome: Outcome) -> dict[str, Any]:
    verdict = outcome.verdict
    return {
        "message_id": str(outcome.message_id),
        "number": outcome.number,
        "result": outcome.result,
        "finished_at": outcome.finished_at.isoformat(),
        "status": verdict.status,
        "failures": verdict.failures,
        "next_attempt_at": None if verdict.next_attempt_at is None else verdict.next_attempt_at.isoformat(),
        "request_headers": outcome.request_headers,
        "status_code": outcome.status_code,
        "response_headers": outcome.response_headers,
        "response_body": outcome.response_body,
        "response_truncated": outcome.response_truncated,
        "duration_ms": outcome.duration_ms,
        "error": outcome.error,
    }


async def with_due(connection: AsyncConnection, endpoints: Iterable[tuple[UUID, UUID]]) -> set[tuple[UUID, UUID]]:
    """Those of the endpoints (tenant and subscription) that have deliveries due."""
    pairs = list(endpoints)
    rows = await connection.execute(
        _DUE, {"tenants": [each[0] for each in pairs], "subscriptions": [each[1] for each in pairs]}
    )
    return {(row.tenant_id, row.subscription_id) for row in rows}


async def next_due(connection: AsyncConnection, tenant: UUID, subscription: UUID) -> datetime | None:
    """When the next delivery is due, perhaps in the past; None when none waits."""
    found: datetime | None = await connection.scalar(_NEXT, {"tenant": tenant, "subscription": subscription})
    return found


async def list_overdue(
    connection: AsyncConnection, *, after: UUID | None, margin: timedelta, most: int
) -> list[tuple[UUID, UUID]]:
    """Tenant and id of active endpoints behind an id whose deliveries or replays wait longer than ``margin``."""
    rows = await connection.execute(_OVERDUE, {"after": after, "margin": margin, "most": most})
    return [(row.tenant_id, row.subscription_id) for row in rows]


async def cancel_waiting(connection: AsyncConnection, tenant: UUID, subscription: UUID, *, most: int) -> int:
    """Let up to ``most`` deliveries of a deleted endpoint end; returns how many it were."""
    done = await connection.execute(_CANCEL, {"tenant": tenant, "subscription": subscription, "most": most})
    return int(getattr(done, "rowcount", 0))


@dataclass(frozen=True, slots=True)
class Standing:
    """How an endpoint stands, with its row locked."""

    status: EndpointStatus
    url: str
    owner: str | None
    health: Health


async def lock_health(connection: AsyncConnection, tenant: UUID, subscription: UUID) -> Standing:
    """What is known of an endpoint, which stays so until the transaction ends."""
    row = (await connection.execute(_HEALTH, {"tenant": tenant, "subscription": subscription})).one()
    health = Health(row.failing_since, row.failed_at, row.succeeded_at, row.paused_until)
    return Standing(EndpointStatus(row.status), row.url, row.owner_user_id, health)


async def set_health(connection: AsyncConnection, tenant: UUID, subscription: UUID, health: Health) -> None:
    """Write what is known of an endpoint."""
    await connection.execute(
        _SET_HEALTH,
        {
            "tenant": tenant,
            "subscription": subscription,
            "failing_since": health.failing_since,
            "failed_at": health.failed_at,
            "succeeded_at": health.succeeded_at,
            "paused_until": health.paused_until,
        },
    )


async def disable(
    connection: AsyncConnection, tenant: UUID, subscription: UUID, reason: DisabledReason, at: datetime
) -> bool:
    """Send nothing more; False when that was so already."""
    done = await connection.execute(
        _DISABLE, {"tenant": tenant, "subscription": subscription, "reason": reason, "at": at}
    )
    return int(getattr(done, "rowcount", 0)) == 1
