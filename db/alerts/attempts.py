"""The log of attempts: a row before each call, a row with its answer, and what was found or received later."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.alerts.model import Channel


class Phase(StrEnum):
    """What a row of the log tells."""

    BEGUN = "begun"
    ENDED = "ended"
    FOUND = "found"
    RECEIPT = "receipt"
    ACKNOWLEDGED = "acknowledged"


@dataclass(frozen=True, slots=True)
class Entry:
    """One row. ``delivery`` 0 is the alert itself; ``address`` is where the message went."""

    entry_id: UUID
    notification_id: UUID
    phase: Phase
    delivery: int
    at: datetime
    attempt_id: UUID | None = None
    channel: Channel | None = None
    vendor: str | None = None
    address: str | None = None
    subject: str | None = None
    body: str | None = None
    html: str | None = None
    outcome: str | None = None
    reference: str | None = None
    code: str | None = None
    detail: str | None = None
    provider_event: str | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """A row as it was written: ``sequence`` is its place among all, by which it is sealed."""

    entry: Entry
    sequence: int
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class About:
    """What a vendor's receipt is about."""

    tenant_id: UUID
    notification_id: UUID
    attempt_id: UUID


_NAMES = (
    "entry_id, notification_id, attempt_id, phase, delivery, channel, vendor, address, subject, body, html, outcome,"
    " reference, code, detail, provider_event, at"
)
#: A receipt that came before is no second row.
_APPEND = text(
    f"""
    INSERT INTO alert_attempts (tenant_id, {_NAMES})
    SELECT :tenant, {_NAMES} FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r
        (n int, entry_id uuid, notification_id uuid, attempt_id uuid, phase text, delivery smallint, channel text,
         vendor text, address text, subject text, body text, html text, outcome text, reference text, code text,
         detail text, provider_event text, at timestamptz)
    ORDER BY n
    ON CONFLICT (tenant_id, provider_event) WHERE provider_event IS NOT NULL DO NOTHING
    RETURNING entry_id
    """
)


async def append(connection: AsyncConnection, tenant: UUID, entries: Sequence[Entry]) -> set[UUID]:
    """Write rows in their order; the ids of those that are new."""
    if not entries:
        return set()
    rows = [{"n": n, **_row(entry)} for n, entry in enumerate(entries)]
    done = await connection.execute(_APPEND, {"tenant": tenant, "rows": json.dumps(rows)})
    return set(done.scalars())


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "entry_id": str(entry.entry_id),
        "notification_id": str(entry.notification_id),
        "attempt_id": None if entry.attempt_id is None else str(entry.attempt_id),
        "phase": entry.phase,
        "delivery": entry.delivery,
        "channel": entry.channel,
        "vendor": entry.vendor,
        "address": entry.address,
        "subject": entry.subject,
        "body": entry.body,
        "html": entry.html,
        "outcome": entry.outcome,
        "reference": entry.reference,
        "code": entry.code,
        "detail": entry.detail,
        "provider_event": entry.provider_event,
        "at": entry.at.isoformat(),
    }


async def begun(
    connection: AsyncConnection, tenant: UUID, attempt_id: UUID, *, fresh_seconds: int
) -> tuple[Entry, bool] | None:
    """What was about to be sent under this attempt, and whether its row is younger than ``fresh_seconds``."""
    found = await connection.execute(
        text(
            f"SELECT {_NAMES}, recorded_at > clock_timestamp() - make_interval(secs => :fresh) AS fresh"
            " FROM alert_attempts WHERE tenant_id = :tenant AND attempt_id = :attempt AND phase = 'begun'"
        ),
        {"tenant": tenant, "attempt": attempt_id, "fresh": fresh_seconds},
    )
    row = found.one_or_none()
    return None if row is None else (_entry(row), bool(row.fresh))


async def list_of(connection: AsyncConnection, tenant: UUID, notification_id: UUID) -> list[Written]:
    """Every row of an alert, in order; an alert has a few dozen."""
    rows = await connection.execute(
        text(
            f"SELECT {_NAMES}, sequence, recorded_at FROM alert_attempts WHERE tenant_id = :tenant"
            " AND notification_id = :notification ORDER BY sequence LIMIT 2000"
        ),
        {"tenant": tenant, "notification": notification_id},
    )
    return [Written(_entry(row), row.sequence, row.recorded_at) for row in rows]


async def find_about(connection: AsyncConnection, attempt_id: UUID | None, reference: str | None) -> About | None:
    """What a receipt names, by our own id or by the vendor's, before its tenant is known."""
    found = await connection.execute(
        text("SELECT tenant_id, notification_id, attempt_id FROM find_alert_attempt(:attempt, :reference)"),
        {"attempt": attempt_id, "reference": reference},
    )
    row = found.one_or_none()
    return None if row is None else About(row.tenant_id, row.notification_id, row.attempt_id)


def _entry(row: Any) -> Entry:
    return Entry(
        entry_id=row.entry_id,
        notification_id=row.notification_id,
        phase=Phase(row.phase),
        delivery=row.delivery,
        at=row.at,
        attempt_id=row.attempt_id,
        channel=None if row.channel is None else Channel(row.channel),
        vendor=row.vendor,
        address=row.address,
        subject=row.subject,
        body=row.body,
        html=row.html,
        outcome=row.outcome,
        reference=row.reference,
        code=row.code,
        detail=row.detail,
        provider_event=row.provider_event,
    )
