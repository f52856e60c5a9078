"""Deliveries and attempts as their owners read them, and what owners begin by hand. Statements see the transaction's
tenant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.webhooks.delivering import DeliveryStatus

#: A count beyond this is not counted to its end.
COUNT_MAX = 10_000
#: From how many of the last deliveries figures are made.
SAMPLE = 500


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt. Without ``finished_at`` it is under way, or was lost with its process."""

    message_id: UUID
    number: int
    url: str
    started_at: datetime
    finished_at: datetime | None
    result: str | None
    request_headers: dict[str, str] | None
    status_code: int | None
    response_headers: dict[str, str] | None
    response_body: str | None
    response_truncated: bool | None
    duration_ms: int | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message for an endpoint, with its attempts in order."""

    message_id: UUID
    sequence: int
    position: int | None
    event_type: str
    subject: str
    body: str
    origin: str
    status: DeliveryStatus
    failures: int
    next_attempt_at: datetime | None
    finished_at: datetime | None
    recorded_at: datetime
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True)
class DeliveryFilter:
    """Which deliveries are listed; None is any."""

    status: DeliveryStatus | None = None
    event_type: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """How an endpoint does. ``waiting`` is counted up to ``COUNT_MAX``; the rest is of the attempts of the last
    ``SAMPLE`` deliveries, ``latencies`` in milliseconds: the median, the 95th and 99th of a hundred."""

    waiting: int
    oldest_waiting_at: datetime | None
    next_attempt_at: datetime | None
    attempts: int
    delivered: int
    latencies: tuple[int, int, int] | None


@dataclass(frozen=True, slots=True)
class ReplayState:
    """A replay and how far it is."""

    replay_id: UUID
    from_at: datetime
    to_at: datetime
    undelivered_only: bool
    queued: int
    recorded_at: datetime
    finished_at: datetime | None


_DELIVERY = (
    "message_id, sequence, position, event_type, subject, body, origin, status, failures, next_attempt_at, finished_at,"
    " recorded_at"
)
_ATTEMPT = (
    "message_id, number, url, started_at, finished_at, result, request_headers, status_code, response_headers,"
    " response_body, response_truncated, duration_ms, error"
)
_LIST = text(
    f"SELECT {_DELIVERY} FROM webhook_deliveries WHERE subscription_id = :subscription"
    " AND (CAST(:before AS bigint) IS NULL OR sequence < :before)"
    " AND (CAST(:status AS text) IS NULL OR status = :status)"
    " AND (CAST(:type AS text) IS NULL OR event_type = :type)"
    " AND (CAST(:since AS timestamptz) IS NULL OR recorded_at >= :since)"
    " AND (CAST(:until AS timestamptz) IS NULL OR recorded_at < :until) ORDER BY sequence DESC LIMIT :limit"
)
_FIND = f"SELECT {_DELIVERY} FROM webhook_deliveries WHERE subscription_id = :subscription AND message_id = :message"
_ATTEMPTS = text(
    f"SELECT {_ATTEMPT} FROM webhook_attempts WHERE subscription_id = :subscription"
    " AND message_id = ANY (CAST(:messages AS uuid[])) ORDER BY message_id, number"
)
_RETRY = text(
    "UPDATE webhook_deliveries SET origin = 'retry', status = 'waiting', failures = 0,"
    " next_attempt_at = clock_timestamp(), finished_at = NULL"
    " WHERE subscription_id = :subscription AND message_id = :message"
)
_WAITING = text(
    "SELECT (SELECT count(*) FROM (SELECT FROM webhook_deliveries WHERE subscription_id = :subscription"
    "  AND status = 'waiting' LIMIT :most) AS counted) AS waiting,"
    " (SELECT recorded_at FROM webhook_deliveries WHERE subscription_id = :subscription AND status = 'waiting'"
    "  ORDER BY sequence LIMIT 1) AS oldest,"
    " (SELECT min(next_attempt_at) FROM webhook_deliveries WHERE subscription_id = :subscription"
    "  AND status = 'waiting') AS next"
)
_SAMPLE = text(
    """
    WITH last AS (
        SELECT message_id FROM webhook_deliveries WHERE subscription_id = :subscription
        ORDER BY sequence DESC LIMIT :sample
    )
    SELECT count(*) AS attempts, count(*) FILTER (WHERE a.result = 'delivered') AS delivered,
        percentile_disc(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY a.duration_ms)
            FILTER (WHERE a.status_code IS NOT NULL) AS latencies
    FROM last JOIN webhook_attempts a ON a.subscription_id = :subscription AND a.message_id = last.message_id
    WHERE a.result NOT IN ('released', 'interrupted')
    """
)
_ADD_REPLAY = text(
    "INSERT INTO webhook_replays (tenant_id, subscription_id, replay_id, from_at, to_at, undelivered_only, upto)"
    " VALUES (:tenant, :subscription, :replay, :from_at, :to_at, :undelivered_only, feed_head())"
)
_REPLAY = text(
    "SELECT replay_id, from_at, to_at, undelivered_only, queued, recorded_at, finished_at FROM webhook_replays"
    " WHERE subscription_id = :subscription AND replay_id = :replay"
)


async def list_(
    connection: AsyncConnection, subscription: UUID, wanted: DeliveryFilter, *, before: int | None, limit: int
) -> list[Delivery]:
    """An endpoint's deliveries, the last written first, without their attempts."""
    rows = await connection.execute(
        _LIST,
        {
            "subscription": subscription,
            "before": before,
            "status": None if wanted.status is None else wanted.status.value,
            "type": wanted.event_type,
            "since": wanted.since,
            "until": wanted.until,
            "limit": limit,
        },
    )
    return [_delivery(row) for row in rows]


async def attempts_of(
    connection: AsyncConnection, subscription: UUID, messages: Sequence[UUID]
) -> dict[UUID, tuple[Attempt, ...]]:
    """Every attempt of these deliveries, in order, by message."""
    rows = await connection.execute(_ATTEMPTS, {"subscription": subscription, "messages": list(messages)})
    found: dict[UUID, tuple[Attempt, ...]] = {}
    for row in rows:
        found[row.message_id] = (*found.get(row.message_id, ()), Attempt(**row._asdict()))
    return found


async def find(connection: AsyncConnection, subscription: UUID, message: UUID) -> Delivery | None:
    """One delivery."""
    row = (await connection.execute(text(_FIND), {"subscription": subscription, "message": message})).one_or_none()
    return None if row is None else _delivery(row)


async def lock(connection: AsyncConnection, subscription: UUID, message: UUID) -> Delivery | None:
    """One delivery, which stays so until the transaction ends."""
    query = text(f"{_FIND} FOR NO KEY UPDATE")
    row = (await connection.execute(query, {"subscription": subscription, "message": message})).one_or_none()
    return None if row is None else _delivery(row)


async def begin_again(connection: AsyncConnection, subscription: UUID, message: UUID) -> None:
    """Let a delivery that has ended be tried again at once, with every attempt that it had in the beginning."""
    await connection.execute(_RETRY, {"subscription": subscription, "message": message})


async def figures(connection: AsyncConnection, subscription: UUID) -> Figures:
    """How an endpoint does."""
    waiting = (await connection.execute(_WAITING, {"subscription": subscription, "most": COUNT_MAX})).one()
    sample = (await connection.execute(_SAMPLE, {"subscription": subscription, "sample": SAMPLE})).one()
    latencies = None if sample.latencies is None else tuple(sample.latencies)
    return Figures(waiting.waiting, waiting.oldest, waiting.next, sample.attempts, sample.delivered, latencies)


async def add_replay(
    connection: AsyncConnection,
    tenant: UUID,
    subscription: UUID,
    replay: UUID,
    *,
    from_at: datetime,
    to_at: datetime,
    undelivered_only: bool,
) -> ReplayState:
    """Ask for the events of a time to be delivered again."""
    await connection.execute(
        _ADD_REPLAY,
        {
            "tenant": tenant,
            "subscription": subscription,
            "replay": replay,
            "from_at": from_at,
            "to_at": to_at,
            "undelivered_only": undelivered_only,
        },
    )
    made = await find_replay(connection, subscription, replay)
    assert made is not None, "it was just written"
    return made


async def find_replay(connection: AsyncConnection, subscription: UUID, replay: UUID) -> ReplayState | None:
    """A replay and how far it is."""
    row = (await connection.execute(_REPLAY, {"subscription": subscription, "replay": replay})).one_or_none()
    return None if row is None else ReplayState(**row._asdict())


def _delivery(row: Any) -> Delivery:
    return Delivery(**row._asdict() | {"status": DeliveryStatus(row.status)})
