"""The shapes that alerts have on the wire."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, time
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field, StrictBool, StringConstraints

from api.fields import WHOLE, Input, Line, UserId
from db.alerts.attempts import Phase, Written
from db.alerts.mailbox import MailboxMessage
from db.alerts.notifications import Stored
from db.alerts.people import StoredContact
from domain.alerts.model import AlertType, Channel, Delivery, DeliveryState, Ending, Severity, Status, Why
from domain.alerts.render import Message

#: Callers set policies of these types; a code is nothing to decide about.
PolicyType = Literal[
    AlertType.WARNING,
    AlertType.CALL,
    AlertType.IMMINENT,
    AlertType.DUE,
    AlertType.RECOVERED,
    AlertType.WEBHOOK_DISABLED,
    AlertType.AUDIT_DISAGREED,
    AlertType.RELAYER_HALTED,
    AlertType.PROVIDER_ACCUSED,
    AlertType.EVENT_DISAGREED,
    AlertType.BOOKS_DIFFER,
    AlertType.BACKFILL_FAILED,
]
Seconds = Annotated[int, Field(ge=0, le=604_800), WHOLE]
ClockTime = Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$"), Field(examples=["22:00"])]


class DeliveryView(BaseModel):
    """One message on its way to one contact."""

    number: int
    why: Why = Field(description="What made it: the alert itself, a way that failed, a step of the policy, or more")
    user_id: str
    contact_id: UUID
    channel: Channel
    address: str | None = Field(description="Null for a key that is bound to another user")
    state: DeliveryState = Field(description="`unknown`: it may be out; that is found out before it is sent again")
    attempts: int
    attempt_id: UUID | None
    reference: str | None = Field(description="The vendor's name of the message")
    code: str | None
    detail: str | None
    next_at: datetime | None = Field(description="When it is tried, or looked at, again")
    sent_at: datetime | None
    delivered_at: datetime | None
    failed_at: datetime | None


class AlertView(BaseModel):
    """An alert and where it stands."""

    notification_id: UUID
    user_id: str
    alert_type: AlertType
    severity: Severity
    channels: list[Channel]
    status: Status = Field(description="What all deliveries make together")
    must_acknowledge: bool = Field(description="Whether it climbs its policy until somebody acknowledges it")
    occurrences: int = Field(description="How often it happened within its window")
    margin_event_id: UUID | None
    message: str | None = Field(description="What was told last, as text")
    failure_reason: str | None
    ended: Ending | None = Field(description="Why nothing more is sent; null while it goes on")
    raised_at: datetime
    sent_at: datetime | None
    delivered_at: datetime | None
    failed_at: datetime | None
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    acknowledged_via: str | None
    ended_at: datetime | None
    next_at: datetime | None = Field(description="When something is due next")
    deliveries: list[DeliveryView]


class AttemptView(BaseModel):
    """One row of the log: before a call, its answer, and what came later."""

    entry_id: UUID
    sequence: int = Field(description="Its place in the sealed stream")
    phase: Phase
    delivery: int
    attempt_id: UUID | None
    channel: Channel | None
    vendor: str | None
    address: str | None
    subject: str | None
    body: str | None = Field(description="The message as it was sent")
    outcome: str | None
    reference: str | None
    code: str | None
    detail: str | None
    at: datetime
    recorded_at: datetime


class AlertDetailView(AlertView):
    """An alert with every attempt."""

    attempts: list[AttemptView]


class AcknowledgeInput(Input):
    """Who takes note; a key that is bound to a user says it by itself."""

    actor: UserId | None = None


class ContactInput(Input):
    """A way to a user. It is used once the code that is sent there came back."""

    user_id: UserId
    channel: Channel
    address: Annotated[str, StringConstraints(min_length=3, max_length=2000, pattern=r"^[^\x00-\x1F\x7F-\x9F]+$")] = (
        Field(description="A mail address, a number as +4915112345678, or an https URL", examples=["alice@example.com"])
    )


class CodeInput(Input):
    """The code that came over the contact."""

    code: Annotated[str, StringConstraints(pattern=r"^[0-9]{6}$")] = Field(examples=["123456"])


class ContactView(BaseModel):
    """A way to a user."""

    contact_id: UUID
    user_id: str
    channel: Channel
    address: str
    verified: bool
    verified_at: datetime | None
    created_at: datetime


class NewContactView(ContactView):
    """A contact that was just made; ``secret`` signs callbacks and is shown this once."""

    secret: str | None = Field(description="`whsec_…`, of a webhook contact; it is shown this once")


class PreferencesInput(Input):
    """What a user wishes."""

    locale: Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{2}([-_][A-Za-z0-9]{2,8})*$")] = Field(
        default="en", examples=["de-AT"]
    )
    time_zone: Line = Field(default="UTC", description="As in the IANA database", examples=["Europe/Berlin"])
    quiet_from: ClockTime | None = Field(default=None, description="By the user's clock; critical alerts ignore it")
    quiet_to: ClockTime | None = None
    minimum_severity: Severity = Field(default=Severity.LOW, description="What is less urgent is not told")


class PreferencesView(BaseModel):
    """What a user wishes."""

    user_id: str
    locale: str
    time_zone: str
    quiet_from: ClockTime | None
    quiet_to: ClockTime | None
    minimum_severity: Severity


class StepModel(Input):
    """One step of a policy."""

    after_seconds: Seconds = Field(default=0, description="Behind the step before; 0 of the first")
    to: list[UserId] = Field(
        default=["user"], min_length=1, max_length=20, description="`user` is whom the alert is about; else a user id"
    )
    channels: list[Channel] | None = Field(
        default=None, min_length=1, max_length=3, description="These, at once; null: those that the severity says"
    )


class PolicyInput(Input):
    """What follows an alert until somebody acknowledges it."""

    must_acknowledge: StrictBool = True
    steps: list[StepModel] = Field(default=[StepModel()], min_length=1, max_length=10)
    repeat: Annotated[int, Field(ge=0, le=50), WHOLE] = Field(default=0, description="How often all steps come again")
    repeat_seconds: Annotated[int, Field(ge=1, le=604_800), WHOLE] = 900
    window_seconds: Seconds = Field(default=900, description="What happens again within it is told in one message")


class PolicyView(BaseModel):
    """The policy of a type."""

    alert_type: AlertType
    default: bool = Field(description="Whether it is the house's, for the tenant decided nothing")
    must_acknowledge: bool
    steps: list[StepModel]
    repeat: int
    repeat_seconds: int
    window_seconds: int


class Policies(BaseModel):
    """The policies of all types."""

    items: list[PolicyView]


class TemplateView(BaseModel):
    """What there are words for."""

    alert_type: AlertType
    locales: list[str]


class Templates(BaseModel):
    """Every template."""

    items: list[TemplateView]


class PreviewInput(Input):
    """What a preview is made of; without facts it shows examples."""

    locale: Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{2}([-_][A-Za-z0-9]{2,8})*$")] = "en"
    facts: dict[Line, Any] | None = Field(default=None, max_length=50)
    occurrences: Annotated[int, Field(ge=1, le=1_000_000), WHOLE] = 1


class PreviewView(BaseModel):
    """An alert in words."""

    subject: str
    text: str
    html: str
    sms: str = Field(description="At most 160 characters of the telephones' alphabet")


class MailboxView(BaseModel):
    """A message as somebody would have got it."""

    message_id: UUID = Field(description="The attempt that brought it")
    channel: Channel
    address: str
    subject: str | None
    text: str
    html: str | None
    recorded_at: datetime


class GapView(BaseModel):
    """A user who owes, and has fewer than two ways to be told."""

    user_id: str
    verified_channels: list[Channel]
    reachable: bool = Field(description="False: nothing could be told at all")


def delivery_view(delivery: Delivery, viewer: str | None) -> DeliveryView:
    """A delivery as it is answered; ``viewer`` is the user that the key is bound to."""
    return DeliveryView(
        number=delivery.number,
        why=delivery.why,
        user_id=delivery.user_id,
        contact_id=delivery.contact_id,
        channel=delivery.channel,
        address=delivery.address if viewer in (None, delivery.user_id) else None,
        state=delivery.state,
        attempts=delivery.attempts,
        attempt_id=delivery.attempt_id,
        reference=delivery.reference,
        code=delivery.code,
        detail=delivery.detail,
        next_at=delivery.not_before,
        sent_at=delivery.sent_at,
        delivered_at=delivery.delivered_at,
        failed_at=delivery.failed_at,
    )


def alert_fields(found: Stored, viewer: str | None) -> dict[str, Any]:
    """The fields of an alert's answer; ``viewer`` is the user that the key is bound to."""
    alert, note = found.alert, found.alert.acknowledged
    return {
        "notification_id": alert.notification_id,
        "user_id": alert.user_id,
        "alert_type": alert.alert_type,
        "severity": alert.severity,
        "channels": sorted({each.channel for each in alert.deliveries}),
        "status": found.status,
        "must_acknowledge": alert.policy.must_acknowledge,
        "occurrences": alert.occurrences,
        "margin_event_id": alert.margin_event_id,
        "message": found.message_body,
        "failure_reason": found.failure_reason,
        "ended": alert.ended,
        "raised_at": alert.raised_at,
        "sent_at": found.sent_at,
        "delivered_at": found.delivered_at,
        "failed_at": found.failed_at,
        "acknowledged_at": None if note is None else note.at,
        "acknowledged_by": None if note is None else note.by,
        "acknowledged_via": None if note is None else note.via,
        "ended_at": alert.ended_at,
        "next_at": found.next_at,
        "deliveries": [delivery_view(each, viewer) for each in alert.deliveries],
    }


def alert_view(found: Stored, viewer: str | None) -> AlertView:
    """An alert as it is answered."""
    return AlertView(**alert_fields(found, viewer))


def attempt_views(found: Stored, log: Iterable[Written], viewer: str | None) -> list[AttemptView]:
    """The log of an alert as it is answered. What went to somebody else is no business of a bound key's user: where it
    went, and what it said, for it has a link that acknowledges in the other's name."""
    others = {each.number for each in found.alert.deliveries if viewer not in (None, each.user_id)}
    return [_attempt_view(one, shown=one.entry.delivery not in others) for one in log]


def _attempt_view(written: Written, *, shown: bool) -> AttemptView:
    entry = written.entry
    return AttemptView(
        entry_id=entry.entry_id,
        sequence=written.sequence,
        phase=entry.phase,
        delivery=entry.delivery,
        attempt_id=entry.attempt_id,
        channel=entry.channel,
        vendor=entry.vendor,
        address=entry.address if shown else None,
        subject=entry.subject if shown else None,
        body=entry.body if shown else None,
        outcome=entry.outcome,
        reference=entry.reference,
        code=entry.code,
        detail=entry.detail,
        at=entry.at,
        recorded_at=written.recorded_at,
    )


def contact_view(found: StoredContact) -> ContactView:
    """A contact as it is answered."""
    return ContactView(
        contact_id=found.contact_id,
        user_id=found.contact.user_id,
        channel=found.contact.channel,
        address=found.contact.address,
        verified=found.verified_at is not None,
        verified_at=found.verified_at,
        created_at=found.recorded_at,
    )


def clock(text: str | None) -> time | None:
    """The time of day that a text says."""
    return None if text is None else time.fromisoformat(text)


def mailbox_view(found: MailboxMessage) -> MailboxView:
    """A message in the mailbox as it is answered."""
    return MailboxView(
        message_id=found.message_id,
        channel=Channel(found.channel),
        address=found.address,
        subject=found.subject,
        text=found.body,
        html=found.html,
        recorded_at=found.recorded_at,
    )


def preview_view(message: Message) -> PreviewView:
    """A preview as it is answered."""
    return PreviewView(subject=message.subject, text=message.text, html=message.html, sms=message.sms)
