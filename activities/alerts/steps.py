"""Steps that move an alert: each decides under the alert's row lock, and writes what it decides in one commit.

The row of an attempt is written here, before the call: an attempt that begins has met the lock, and so has the
acknowledgement, so after an acknowledgement no attempt begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio import activity

from activities.alerts.messages import (
    AdvanceAlert,
    AlertOutcome,
    Moved,
    OutcomeMessage,
    RecordAcknowledgement,
    SendAttempt,
)
from db.alerts import attempts, notifications, people
from db.alerts.attempts import Entry, Phase
from db.alerts.notifications import Stored
from db.audit import AuditRecord, Origin
from db.doorbell import Doorbell
from db.ids import new_id
from db.outbox import ALERTS_TOPIC, OutboxEvent
from db.step import Step, step
from domain.alerts import climb, links
from domain.alerts.climb import Advanced
from domain.alerts.model import (
    USER,
    Acknowledgement,
    Alert,
    AlertType,
    Channel,
    Delivery,
    DeliveryState,
    Ending,
    Person,
    Preferences,
    Status,
)
from domain.alerts.render import callback_body, render
from domain.errors import Refusal
from domain.ids import alert_workflow_id

_begun = Counter("holdfast_alert_attempts_total", "Attempts to deliver an alert that began", ["channel"])
_heard = Counter("holdfast_alert_outcomes_total", "What came of attempts", ["channel", "outcome"])
_noted = Counter("holdfast_alert_acknowledged_total", "Alerts that somebody took note of", ["via"])


class AlertActivities:
    """``engine`` acts under row-level security; ``vendors`` names, by channel, whom messages are handed to, and
    ``base_url`` is where people reach us, for links: without one messages have none."""

    def __init__(
        self, engine: AsyncEngine, doorbell: Doorbell, *, vendors: dict[Channel, str], base_url: str | None = None
    ) -> None:
        self._engine = engine
        self._doorbell = doorbell
        self._vendors = vendors
        self._base_url = None if base_url is None else base_url.rstrip("/")

    @activity.defn(name="alerts.advance")
    async def advance(self, asked: AdvanceAlert) -> Moved:
        """Take in what was heard, decide what is due, and write the rows of the attempts that begin."""
        step_id = f"{alert_workflow_id(asked.notification_id)}:advance:{asked.step}"
        async with step(self._engine, self._doorbell, tenant_id=asked.tenant_id, step_id=step_id) as opened:
            if opened.receipt is not None:
                return Moved.model_validate(opened.receipt)
            stored = await _locked(opened.connection, asked.tenant_id, asked.notification_id)
            alert, at = stored.alert, max(asked.at, stored.alert.raised_at)
            entries = [_entry_of(alert, outcome, at) for outcome in asked.outcomes]
            for outcome in asked.outcomes:
                alert = climb.hear(alert, outcome.to_outcome(), at)
            advanced = climb.advance(alert, await _people(opened.connection, alert), at, new_id)
            moved = _moved(advanced)
            if not entries and advanced.alert == stored.alert and advanced.next_at == stored.next_at:
                opened.skip()
                return moved
            wishes = await _wishes(opened.connection, advanced)
            begun, told = self._begun_entries(advanced, stored.link_key, wishes, at)
            await notifications.save(opened.connection, [advanced.alert], next_at=advanced.next_at, told=told)
            await attempts.append(opened.connection, asked.tenant_id, [*entries, *begun])
            facts = {"status": moved.status, "begun": len(begun), "heard": [one.heard for one in asked.outcomes]}
            await _finish(
                opened,
                stored,
                advanced.alert,
                at,
                moved.model_dump(mode="json"),
                "alert.advanced",
                Origin(workflow_id=alert_workflow_id(asked.notification_id)),
                facts,
            )
        for number in advanced.begun:
            _begun.labels(advanced.alert.delivery(number).channel).inc()
        for outcome, entry in zip(asked.outcomes, entries, strict=True):
            _heard.labels(entry.channel, outcome.heard).inc()
        return moved

    @activity.defn(name="alerts.acknowledge")
    async def acknowledge(self, asked: RecordAcknowledgement) -> AlertOutcome:
        """Write that somebody took note. Its commit decides: no attempt begins behind it.

        Who comes second is told who was first. Refuses ``alert_unknown`` and ``alert_closed``.
        """
        command = asked.command
        workflow_id = alert_workflow_id(asked.notification_id)
        step_id = f"{workflow_id}:{command.command_id}"
        async with step(self._engine, self._doorbell, tenant_id=asked.tenant_id, step_id=step_id) as opened:
            if opened.receipt is not None:
                return AlertOutcome.model_validate(opened.receipt)
            stored = await _locked(opened.connection, asked.tenant_id, asked.notification_id)
            before = stored.alert
            at = max(asked.at, before.raised_at)
            after = climb.acknowledge(before, Acknowledgement(at, command.by, command.via))
            if after is before:
                opened.skip()
                return outcome_of(before)
            advanced = climb.advance(after, {}, at, new_id)
            assert not advanced.begun, "nothing begins once somebody took note"
            await notifications.save(opened.connection, [advanced.alert], next_at=advanced.next_at)
            detail = f"by {command.by} via {command.via}"
            noted = Entry(new_id(), before.notification_id, Phase.ACKNOWLEDGED, 0, at, detail=detail)
            await attempts.append(opened.connection, asked.tenant_id, [noted])
            answer = outcome_of(advanced.alert)
            facts = {"by": command.by, "via": command.via}
            origin = command.origin.to_origin(workflow_id)
            result = answer.model_dump(mode="json")
            await _finish(opened, stored, advanced.alert, at, result, "alert.acknowledged", origin, facts, extra=facts)
        _noted.labels(command.via).inc()
        return answer

    def _begun_entries(
        self, advanced: Advanced, link_key: bytes, wishes: dict[str, Preferences], at: datetime
    ) -> tuple[list[Entry], str | None]:
        """The rows of the attempts that begin, with the whole messages, and the last of the texts."""
        alert, entries, told = advanced.alert, [], None
        for number in advanced.begun:
            delivery = alert.delivery(number)
            link = code = None
            if alert.policy.must_acknowledge:
                code = links.code(link_key)
                if self._base_url is not None:
                    link = f"{self._base_url}/a/{links.token(link_key, alert.notification_id, number)}"
            message = render(alert, wishes.get(delivery.user_id, Preferences()), link=link, code=code)
            told = message.text
            subject: str | None = message.subject
            body, html = message.text, None
            if delivery.channel is Channel.EMAIL:
                html = message.html
            elif delivery.channel is Channel.SMS:
                subject, body = None, message.sms
            else:
                subject, body = None, callback_body(alert, message, at, link=link).decode()
            entry = _entry(alert, delivery, Phase.BEGUN, at)
            entries.append(
                replace(entry, vendor=self._vendors[delivery.channel], subject=subject, body=body, html=html)
            )
        return entries, told


async def _locked(connection: AsyncConnection, tenant: UUID, notification_id: UUID) -> Stored:
    stored = await notifications.lock(connection, tenant, notification_id)
    if stored is None:
        raise Refusal("alert_unknown", "there is no such alert")
    return stored


async def _people(connection: AsyncConnection, alert: Alert) -> dict[str, Person]:
    """Everybody whom the alert may concern. A code goes to the contact that it verifies, and to no other."""
    named = {alert.user_id if who == USER else who for each in alert.policy.steps for who in each.to}
    found = await people.people(connection, alert.tenant_id, named | {alert.user_id})
    if alert.alert_type is AlertType.CONTACT_CODE:
        stored = await people.find_contact(connection, alert.tenant_id, UUID(alert.facts["contact_id"]))
        contacts = () if stored is None or stored.removed_at is not None else (stored.contact,)
        return {alert.user_id: Person(contacts, found[alert.user_id].preferences)}
    return found


async def _wishes(connection: AsyncConnection, advanced: Advanced) -> dict[str, Preferences]:
    users = {advanced.alert.delivery(number).user_id for number in advanced.begun}
    return await people.preferences(connection, advanced.alert.tenant_id, users) if users else {}


def _moved(advanced: Advanced) -> Moved:
    alert = advanced.alert

    def task(number: int) -> SendAttempt:
        delivery = alert.delivery(number)
        assert delivery.attempt_id is not None, "its attempt has begun"
        return SendAttempt(
            tenant_id=alert.tenant_id,
            notification_id=alert.notification_id,
            attempt_id=delivery.attempt_id,
            delivery=number,
            channel=delivery.channel,
        )

    return Moved(
        status=climb.status(alert),
        over=alert.over,
        sends=tuple(task(number) for number in advanced.begun),
        looks=tuple(task(number) for number in advanced.looks),
        next_at=advanced.next_at,
    )


def _entry(alert: Alert, delivery: Delivery, phase: Phase, at: datetime) -> Entry:
    return Entry(
        new_id(),
        alert.notification_id,
        phase,
        delivery.number,
        at,
        attempt_id=delivery.attempt_id,
        channel=delivery.channel,
        address=delivery.address,
    )


def _entry_of(alert: Alert, outcome: OutcomeMessage, at: datetime) -> Entry:
    """The row that says what came of an attempt."""
    [delivery] = [each for each in alert.deliveries if each.attempt_id == outcome.attempt_id]
    return replace(
        _entry(alert, delivery, Phase.FOUND if outcome.looked else Phase.ENDED, at),
        outcome=outcome.heard,
        reference=outcome.reference,
        code=outcome.code,
        detail=outcome.detail,
    )


async def _finish(
    opened: Step,
    stored: Stored,
    alert: Alert,
    at: datetime,
    result: dict[str, Any],
    action: str,
    origin: Origin,
    facts: dict[str, Any],
    *,
    extra: dict[str, Any] | None = None,
) -> None:
    """Audit, events and receipt of a step that changed an alert."""
    subject = alert_workflow_id(alert.notification_id)
    types = changes(stored, alert)
    await opened.finish(
        result=result,
        audit=AuditRecord(subject, action, at, origin, facts),
        events=[alert_event(alert, one, at, extra) for one in types],
    )


def changes(stored: Stored, alert: Alert) -> Sequence[str]:
    """What others are told of: each new status of the whole, and each further step of the policy."""
    found = []
    if alert.climbed > max(1, stored.alert.climbed):
        found.append("alert.escalated")
    status = climb.status(alert)
    # A receipt makes it fail before anybody looked for another way; that there is none is only known here.
    lost = any(each.state is DeliveryState.FAILED and not each.handed_on for each in stored.alert.deliveries)
    if status is not Status.PENDING and (status is not stored.status or (status is Status.FAILED and lost)):
        found.append(f"alert.{status.lower()}")
    if alert.ended is Ending.SUPPRESSED and stored.alert.ended is None and "alert.suppressed" not in found:
        found.append("alert.suppressed")
    return found


def alert_event(alert: Alert, event_type: str, at: datetime, extra: dict[str, Any] | None = None) -> OutboxEvent:
    """An event about an alert; its data names no address."""
    data = {
        "notification_id": str(alert.notification_id),
        "user_id": alert.user_id,
        "alert_type": alert.alert_type,
        "severity": alert.severity,
        "status": climb.status(alert),
        "occurrences": alert.occurrences,
        "margin_event_id": None if alert.margin_event_id is None else str(alert.margin_event_id),
        "ended": alert.ended,
    }
    subject = alert_workflow_id(alert.notification_id)
    return OutboxEvent(new_id(), ALERTS_TOPIC, event_type, subject, at, data | (extra or {}))


def outcome_of(alert: Alert) -> AlertOutcome:
    """How an alert stands, as callers are answered."""
    note = alert.acknowledged
    return AlertOutcome(
        notification_id=alert.notification_id,
        status=climb.status(alert),
        acknowledged_at=None if note is None else note.at,
        acknowledged_by=None if note is None else note.by,
    )
