"""Deliveries as they are begun: many in one statement, each event once for an endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.ids import PLATFORM_TENANT
from domain.webhooks.catalogue import Wanted


class Origin(StrEnum):
    """Why a delivery is there."""

    EVENT = "event"
    REPLAY = "replay"
    RETRY = "retry"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """A message for an endpoint; ``message_id`` is the event's."""

    tenant_id: UUID
    subscription_id: UUID
    message_id: UUID
    position: int | None
    event_type: str
    subject: str
    body: str


@dataclass(frozen=True, slots=True)
class Subscriber:
    """An endpoint that is active, and what it wants; what was recorded before ``since`` is not for it."""

    tenant_id: UUID
    subscription_id: UUID
    wanted: Wanted
    since: datetime


@dataclass(frozen=True, slots=True)
class Replay:
    """A range of the feed that an endpoint gets again, looked at up to ``position``."""

    tenant_id: UUID
    subscription_id: UUID
    replay_id: UUID
    from_at: datetime
    to_at: datetime
    undelivered_only: bool
    position: int | None
    upto: int


_WANTED = "tenant_id, subscription_id, event_types, user_id, escrow_id, recorded_at"
_ANY = text("SELECT EXISTS (SELECT FROM webhook_subscriptions WHERE status = 'active')")
_SUBSCRIBERS = text(
    f"SELECT {_WANTED} FROM webhook_subscriptions"
    " WHERE status = 'active' AND (:everybody OR tenant_id = ANY (CAST(:tenants AS uuid[])))"
)
_ONE = text(
    f"SELECT {_WANTED} FROM webhook_subscriptions"
    " WHERE status = 'active' AND tenant_id = :tenant AND subscription_id = :subscription"
)

_INSERT = """
INSERT INTO webhook_deliveries AS d
    (tenant_id, subscription_id, message_id, position, event_type, subject, body, origin)
SELECT tenant_id, subscription_id, message_id, position, event_type, subject, body, :origin
FROM unnest(CAST(:tenants AS uuid[]), CAST(:subscriptions AS uuid[]), CAST(:messages AS uuid[]),
    CAST(:positions AS bigint[]), CAST(:types AS text[]), CAST(:subjects AS text[]), CAST(:bodies AS text[]))
    WITH ORDINALITY AS n (tenant_id, subscription_id, message_id, position, event_type, subject, body, place)
ORDER BY place
"""
_ADD = text(f"{_INSERT} ON CONFLICT DO NOTHING")
#: What waits is left to wait.
_AGAIN = text(
    f"""{_INSERT} ON CONFLICT (tenant_id, subscription_id, message_id) DO UPDATE
    SET status = 'waiting', origin = 'replay', failures = 0, next_attempt_at = clock_timestamp(), finished_at = NULL
    WHERE d.status IN ('failed', 'cancelled') OR (d.status = 'delivered' AND NOT :undelivered_only)"""
)

_REPLAYS = text(
    "SELECT tenant_id, subscription_id, replay_id, from_at, to_at, undelivered_only, position, upto"
    " FROM webhook_replays WHERE tenant_id = :tenant AND subscription_id = :subscription AND finished_at IS NULL"
    " ORDER BY replay_id LIMIT 1 FOR NO KEY UPDATE"
)
_ADVANCE = text(
    "UPDATE webhook_replays SET position = :position, queued = queued + :queued,"
    " finished_at = CASE WHEN :finished THEN clock_timestamp() END"
    " WHERE tenant_id = :tenant AND subscription_id = :subscription AND replay_id = :replay"
)
#: The last position whose event was recorded before an instant, by halving: positions are dense, and grow with time.
_RECORDED = text("SELECT recorded_at FROM outbox WHERE position = :position")
#: A commit takes its place in the feed so much later, at most, than its event was recorded.
_COMMIT_MAX = timedelta(minutes=5)


async def any_at_all(connection: AsyncConnection) -> bool:
    """Whether anybody has an active endpoint."""
    return bool(await connection.scalar(_ANY))


async def subscribers(connection: AsyncConnection, tenants: Sequence[UUID]) -> list[Subscriber]:
    """The active endpoints of these tenants; of all when the platform itself is among them."""
    rows = await connection.execute(_SUBSCRIBERS, {"tenants": list(tenants), "everybody": PLATFORM_TENANT in tenants})
    return [_subscriber(row) for row in rows]


async def subscriber(connection: AsyncConnection, tenant: UUID, subscription: UUID) -> Subscriber | None:
    """One active endpoint."""
    row = (await connection.execute(_ONE, {"tenant": tenant, "subscription": subscription})).one_or_none()
    return None if row is None else _subscriber(row)


async def add(connection: AsyncConnection, deliveries: Sequence[NewDelivery], origin: Origin) -> None:
    """Begin deliveries, in the order given; one that is there already stays as it is."""
    if deliveries:
        await connection.execute(_ADD, _columns(deliveries, origin))


async def add_again(connection: AsyncConnection, deliveries: Sequence[NewDelivery], *, undelivered_only: bool) -> int:
    """Begin deliveries, those too that have ended; returns how many."""
    if not deliveries:
        return 0
    done = await connection.execute(
        _AGAIN, {**_columns(deliveries, Origin.REPLAY), "undelivered_only": undelivered_only}
    )
    return int(getattr(done, "rowcount", 0))


async def open_replay(connection: AsyncConnection, tenant: UUID, subscription: UUID) -> Replay | None:
    """The endpoint's oldest replay that is not done, locked."""
    row = (await connection.execute(_REPLAYS, {"tenant": tenant, "subscription": subscription})).one_or_none()
    return None if row is None else Replay(**row._asdict())


async def advance_replay(
    connection: AsyncConnection, replay: Replay, *, position: int, queued: int, finished: bool
) -> None:
    """A replay has looked at everything up to ``position``, and begun ``queued`` more deliveries."""
    await connection.execute(
        _ADVANCE,
        {
            "tenant": replay.tenant_id,
            "subscription": replay.subscription_id,
            "replay": replay.replay_id,
            "position": position,
            "queued": queued,
            "finished": finished,
        },
    )


async def last_before(connection: AsyncConnection, at: datetime, *, upto: int) -> int:
    """A position behind which everything lies that was recorded at ``at`` or later; 0 when that may be all."""
    early = at - _COMMIT_MAX
    low, high = 0, upto
    while low < high:
        middle = (low + high + 1) // 2
        recorded: datetime | None = await connection.scalar(_RECORDED, {"position": middle})
        if recorded is not None and recorded < early:
            low = middle
        else:
            high = middle - 1
    return low


def is_past(recorded_at: datetime, at: datetime) -> bool:
    """Whether everything from an event on that was recorded at ``recorded_at`` was so at ``at`` or later."""
    return recorded_at >= at + _COMMIT_MAX


def _subscriber(row: Any) -> Subscriber:
    wanted = Wanted(tuple(row.event_types), row.user_id, row.escrow_id)
    return Subscriber(row.tenant_id, row.subscription_id, wanted, row.recorded_at)


def _columns(deliveries: Sequence[NewDelivery], origin: Origin) -> dict[str, object]:
    return {
        "origin": origin.value,
        "tenants": [each.tenant_id for each in deliveries],
        "subscriptions": [each.subscription_id for each in deliveries],
        "messages": [each.message_id for each in deliveries],
        "positions": [each.position for each in deliveries],
        "types": [each.event_type for each in deliveries],
        "subjects": [each.subject for each in deliveries],
        "bodies": [each.body for each in deliveries],
    }
