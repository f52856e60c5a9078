"""Alerts as rows. Every statement names its tenant, so that a role that sees all tenants may use these too."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.alerts.forms import delivery_form, delivery_of, policy_form, policy_of
from domain.alerts.climb import status
from domain.alerts.model import Acknowledgement, Alert, AlertType, Ending, Severity, Status

_COLUMNS = """
    n.tenant_id, n.notification_id, n.user_id, n.alert_type, n.severity, n.status, n.delivery_details,
    n.margin_event_id, n.message_body, n.failure_reason, n.facts, n.policy, n.occurrences, n.told, n.climbed,
    n.link_key, n.acknowledged_by, n.acknowledged_via, n.ended, n.raised_at, n.step_at, n.next_at, n.sent_at,
    n.delivered_at, n.failed_at, n.acknowledged_at, n.ended_at, n.passed_at, n.version, n.created_at
"""
_FIND = text(
    f"SELECT {_COLUMNS} FROM alert_notifications n WHERE n.tenant_id = :tenant AND n.notification_id = :notification"
)
_LOCK = text(
    f"SELECT {_COLUMNS} FROM alert_notifications n WHERE n.tenant_id = :tenant AND n.notification_id = :notification"
    " FOR UPDATE"
)
#: Locked in one order, so that two that take several never wait for one another.
_STANDING = text(
    f"""
    SELECT {_COLUMNS} FROM alert_notifications n
    JOIN unnest(CAST(:tenants AS uuid[]), CAST(:users AS text[])) AS k (tenant_id, user_id)
        ON n.tenant_id = k.tenant_id AND n.user_id = k.user_id
    WHERE n.passed_at IS NULL AND n.alert_type <> ALL (CAST(:without AS text[]))
    ORDER BY n.notification_id FOR UPDATE OF n
    """
)
_TYPES = """
    (tenant_id uuid, notification_id uuid, user_id text, alert_type text, severity text, channels jsonb, status text,
     delivery_details jsonb, margin_event_id uuid, message_body text, failure_reason text, facts jsonb, policy jsonb,
     occurrences int, told int, climbed int, must_acknowledge boolean, link_key text, acknowledged_by text,
     acknowledged_via text, ended text, raised_at timestamptz, step_at timestamptz, next_at timestamptz,
     sent_at timestamptz, delivered_at timestamptz, failed_at timestamptz, acknowledged_at timestamptz,
     ended_at timestamptz, passed_at timestamptz, version int)
"""
_ADD = text(
    f"""
    INSERT INTO alert_notifications (tenant_id, notification_id, user_id, alert_type, severity, channels, status,
        delivery_details, margin_event_id, failure_reason, facts, policy, occurrences, told, climbed,
        must_acknowledge, link_key, raised_at, next_at, version)
    SELECT tenant_id, notification_id, user_id, alert_type, severity, channels, status, delivery_details,
        margin_event_id, failure_reason, facts, policy, occurrences, told, climbed, must_acknowledge,
        decode(link_key, 'hex'), raised_at, next_at, version
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r {_TYPES}
    """
)
_SAVE = text(
    f"""
    UPDATE alert_notifications n SET severity = r.severity, channels = r.channels, status = r.status,
        delivery_details = r.delivery_details, message_body = coalesce(r.message_body, n.message_body),
        failure_reason = r.failure_reason, facts = r.facts, occurrences = r.occurrences, told = r.told,
        climbed = r.climbed, acknowledged_by = r.acknowledged_by, acknowledged_via = r.acknowledged_via,
        ended = r.ended, step_at = r.step_at, next_at = r.next_at, sent_at = r.sent_at,
        delivered_at = r.delivered_at, failed_at = r.failed_at, acknowledged_at = r.acknowledged_at,
        ended_at = r.ended_at, passed_at = r.passed_at, version = n.version + 1
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r {_TYPES}
    WHERE n.tenant_id = r.tenant_id AND n.notification_id = r.notification_id
    """
)


@dataclass(frozen=True, slots=True)
class Stored:
    """An alert as its row has it."""

    alert: Alert
    status: Status
    link_key: bytes
    message_body: str | None
    failure_reason: str | None
    next_at: datetime | None
    sent_at: datetime | None
    delivered_at: datetime | None
    failed_at: datetime | None
    created_at: datetime

    @property
    def notification_id(self) -> UUID:
        """Its id, by which lists are paged."""
        return self.alert.notification_id


async def find(connection: AsyncConnection, tenant: UUID, notification_id: UUID) -> Stored | None:
    """The alert with this id."""
    found = await connection.execute(_FIND, {"tenant": tenant, "notification": notification_id})
    row = found.one_or_none()
    return None if row is None else _stored(row)


async def lock(connection: AsyncConnection, tenant: UUID, notification_id: UUID) -> Stored | None:
    """The same, its row locked: whatever changes an alert does so under this lock."""
    found = await connection.execute(_LOCK, {"tenant": tenant, "notification": notification_id})
    row = found.one_or_none()
    return None if row is None else _stored(row)


async def lock_standing(connection: AsyncConnection, keys: Iterable[tuple[UUID, str]]) -> list[Alert]:
    """The alerts of these tenants' users whose cause goes on, locked, oldest first."""
    wanted = list(keys)
    without = [AlertType.RECOVERED.value, AlertType.CONTACT_CODE.value]
    rows = await connection.execute(
        _STANDING,
        {"tenants": [tenant for tenant, _ in wanted], "users": [user for _, user in wanted], "without": without},
    )
    return [_stored(row).alert for row in rows]


async def add(connection: AsyncConnection, alerts: Sequence[tuple[Alert, bytes]]) -> None:
    """Write new alerts, each with the key of its links. One that has taken no step yet is due at once."""
    if alerts:
        rows = [
            _row(alert, None if alert.climbed else alert.raised_at, None) | {"link_key": key.hex()}
            for alert, key in alerts
        ]
        await connection.execute(_ADD, {"rows": json.dumps(rows)})


async def save(
    connection: AsyncConnection, alerts: Sequence[Alert], *, next_at: datetime | None, told: str | None = None
) -> None:
    """Write alerts that were changed; ``next_at`` is when their workflow looks next, ``told`` what was told last."""
    if alerts:
        await connection.execute(_SAVE, {"rows": json.dumps([_row(alert, next_at, told) for alert in alerts])})


def _row(alert: Alert, next_at: datetime | None, told: str | None) -> dict[str, Any]:
    stands, note = status(alert), alert.acknowledged
    failed = [each.failed_at for each in alert.deliveries if each.failed_at]
    return {
        "tenant_id": str(alert.tenant_id),
        "notification_id": str(alert.notification_id),
        "user_id": alert.user_id,
        "alert_type": alert.alert_type,
        "severity": alert.severity,
        "channels": sorted({each.channel for each in alert.deliveries}),
        "status": stands,
        "delivery_details": [delivery_form(each) for each in alert.deliveries],
        "margin_event_id": None if alert.margin_event_id is None else str(alert.margin_event_id),
        "message_body": told,
        "failure_reason": alert.failure_reason or _reason(alert, stands),
        "facts": dict(alert.facts),
        "policy": policy_form(alert.policy),
        "occurrences": alert.occurrences,
        "told": alert.told,
        "climbed": alert.climbed,
        "must_acknowledge": alert.policy.must_acknowledge,
        "acknowledged_by": None if note is None else note.by,
        "acknowledged_via": None if note is None else note.via,
        "ended": alert.ended,
        "raised_at": alert.raised_at.isoformat(),
        "step_at": _iso(alert.step_at),
        "next_at": _iso(next_at),
        "sent_at": _iso(min((each.sent_at for each in alert.deliveries if each.sent_at), default=None)),
        "delivered_at": _iso(min((each.delivered_at for each in alert.deliveries if each.delivered_at), default=None)),
        "failed_at": _iso(max(failed, default=None) if stands is Status.FAILED else None),
        "acknowledged_at": _iso(None if note is None else note.at),
        "ended_at": _iso(alert.ended_at),
        "passed_at": _iso(alert.passed_at),
        "version": alert.version,
    }


def _reason(alert: Alert, stands: Status) -> str | None:
    """Why an alert that failed did: what its last failed delivery says."""
    if stands is not Status.FAILED:
        return None
    return next((each.detail or each.code for each in reversed(alert.deliveries) if each.failed_at), None)


def _iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _stored(row: Any) -> Stored:
    note = row.acknowledged_at
    kept = None if row.status == Status.FAILED and row.delivery_details else row.failure_reason
    alert = Alert(
        tenant_id=row.tenant_id,
        notification_id=row.notification_id,
        user_id=row.user_id,
        alert_type=AlertType(row.alert_type),
        severity=Severity(row.severity),
        policy=policy_of(row.policy),
        facts=row.facts,
        raised_at=row.raised_at,
        margin_event_id=row.margin_event_id,
        occurrences=row.occurrences,
        told=row.told,
        climbed=row.climbed,
        step_at=row.step_at,
        deliveries=tuple(delivery_of(form) for form in row.delivery_details),
        acknowledged=None if note is None else Acknowledgement(note, row.acknowledged_by, row.acknowledged_via),
        ended=None if row.ended is None else Ending(row.ended),
        ended_at=row.ended_at,
        passed_at=row.passed_at,
        failure_reason=kept,
        version=row.version,
    )
    return Stored(
        alert,
        Status(row.status),
        bytes(row.link_key),
        row.message_body,
        row.failure_reason,
        row.next_at,
        row.sent_at,
        row.delivered_at,
        row.failed_at,
        row.created_at,
    )


@dataclass(frozen=True, slots=True)
class AlertFilter:
    """Which alerts; None asks for all. Times bound when they were raised."""

    user_id: str | None = None
    alert_type: AlertType | None = None
    severity: Severity | None = None
    status: Status | None = None
    channel: str | None = None
    open: bool | None = None
    raised_from: datetime | None = None
    raised_to: datetime | None = None


_TESTS: Mapping[str, str] = {
    "user_id": "n.user_id = :user_id",
    "alert_type": "n.alert_type = :alert_type",
    "severity": "n.severity = :severity",
    "status": "n.status = :status",
    "channel": "n.channels @> to_jsonb(CAST(:channel AS text))",
    "open": "(n.ended IS NULL) = :open",
    "raised_from": "n.raised_at >= :raised_from",
    "raised_to": "n.raised_at < :raised_to",
}


async def list_(
    connection: AsyncConnection, tenant: UUID, wanted: AlertFilter, *, before: UUID | None, limit: int
) -> list[Stored]:
    """Up to ``limit`` alerts below the id ``before``, the newest first; codes that verify a contact are none."""
    given = {name: getattr(wanted, name) for name in _TESTS}
    given = {name: value for name, value in given.items() if value is not None}
    conditions = [_TESTS[name] for name in given]
    conditions += ["n.tenant_id = :tenant", f"n.alert_type <> '{AlertType.CONTACT_CODE.value}'"]
    if before is not None:
        conditions.append("n.notification_id < :before")
        given["before"] = before
    rows = await connection.execute(
        text(
            f"SELECT {_COLUMNS} FROM alert_notifications n WHERE {' AND '.join(conditions)}"
            " ORDER BY n.notification_id DESC LIMIT :limit"
        ),
        given | {"tenant": tenant, "limit": limit},
    )
    return [_stored(row) for row in rows]


async def list_overdue(
    connection: AsyncConnection, *, after: UUID | None, margin_seconds: int, limit: int
) -> list[tuple[UUID, UUID]]:
    """Tenant and id of alerts, of all tenants, whose workflow should have looked at them ``margin_seconds`` ago."""
    rows = await connection.execute(
        text(
            "SELECT tenant_id, notification_id FROM alert_notifications WHERE next_at IS NOT NULL"
            " AND next_at < clock_timestamp() - make_interval(secs => :margin)"
            " AND notification_id > coalesce(CAST(:after AS uuid), '00000000-0000-0000-0000-000000000000')"
            " ORDER BY notification_id LIMIT :limit"
        ),
        {"margin": margin_seconds, "after": after, "limit": limit},
    )
    return [(row.tenant_id, row.notification_id) for row in rows]


async def tenant_of(connection: AsyncConnection, notification_id: UUID) -> UUID | None:
    """Whose alert this is, before its tenant is known; what names it has to be checked before anything is shown."""
    found = await connection.scalar(text("SELECT find_alert(:id)"), {"id": notification_id})
    return None if found is None else UUID(str(found))


async def sent_to(connection: AsyncConnection, tenant: UUID, contact_id: UUID) -> list[Stored]:
    """Open alerts that somebody has to take note of and that were sent to this contact, the newest first."""
    rows = await connection.execute(
        text(
            f"SELECT {_COLUMNS} FROM alert_notifications n WHERE n.tenant_id = :tenant AND n.passed_at IS NULL"
            " AND n.ended IS NULL AND n.must_acknowledge"
            " AND n.delivery_details @> jsonb_build_array(jsonb_build_object('contact_id', CAST(:contact AS text)))"
            " ORDER BY n.notification_id DESC LIMIT 50"
        ),
        {"tenant": tenant, "contact": str(contact_id)},
    )
    return [_stored(row) for row in rows]
