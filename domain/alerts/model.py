"""What alerts are made of: people with their contacts and wishes, policies, and an alert with its deliveries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, time, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID


class AlertType(StrEnum):
    """What an alert tells of."""

    WARNING = "margin_warning"
    CALL = "margin_call"
    IMMINENT = "liquidation_imminent"
    DUE = "liquidation_due"
    RECOVERED = "margin_recovered"
    WEBHOOK_DISABLED = "webhook_disabled"
    AUDIT_DISAGREED = "audit_disagreed"
    RELAYER_HALTED = "relayer_halted"
    PROVIDER_ACCUSED = "provider_accused"
    EVENT_DISAGREED = "event_disagreed"
    BOOKS_DIFFER = "books_differ"
    BACKFILL_FAILED = "backfill_failed"
    CONTACT_CODE = "contact_code"


class Severity(StrEnum):
    """How urgent an alert is."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """Greater is more urgent."""
        return tuple(Severity).index(self)


class Channel(StrEnum):
    """A way to somebody."""

    EMAIL = "email"
    SMS = "sms"
    WEBHOOK = "webhook"


class DeliveryState(StrEnum):
    """Where a delivery stands. Only ``UNKNOWN`` and ``SENDING`` are doubtful; see ``delivery``."""

    PENDING = "pending"
    SENDING = "sending"
    UNKNOWN = "unknown"
    SENT = "sent"
    DELIVERED = "delivered"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Why(StrEnum):
    """Why a delivery was made."""

    RAISED = "raised"
    #: Another way to the same person failed.
    FALLBACK = "fallback"
    ESCALATED = "escalated"
    #: More of the same happened within the window.
    MORE = "more"


class Status(StrEnum):
    """What the deliveries of an alert make together."""

    PENDING = "PENDING"
    UNKNOWN = "UNKNOWN"
    SENT = "SENT"
    PARTIALLY_SENT = "PARTIALLY_SENT"
    DELIVERED = "DELIVERED"
    PARTIALLY_DELIVERED = "PARTIALLY_DELIVERED"
    FAILED = "FAILED"
    ACKNOWLEDGED = "ACKNOWLEDGED"
    #: Its user wants to hear of nothing so small, or nobody had been told of what is over.
    SUPPRESSED = "SUPPRESSED"


class Ending(StrEnum):
    """Why an alert is over."""

    ACKNOWLEDGED = "acknowledged"
    RECOVERED = "recovered"
    #: A worse alert of the same user took its place.
    SUPERSEDED = "superseded"
    SUPPRESSED = "suppressed"


#: The person that an alert is about, in a policy.
USER: Final = "user"
#: Whose contacts are told of what concerns a tenant and none of its users.
OPERATORS: Final = "operators"

#: Ways that are taken at once, and those that are taken one after the other when one failed.
WAYS: Final[Mapping[Severity, tuple[tuple[Channel, ...], tuple[Channel, ...]]]] = {
    Severity.LOW: ((Channel.EMAIL,), (Channel.WEBHOOK,)),
    Severity.MEDIUM: ((Channel.EMAIL, Channel.WEBHOOK), (Channel.SMS,)),
    Severity.HIGH: ((Channel.EMAIL, Channel.WEBHOOK), (Channel.SMS,)),
    Severity.CRITICAL: ((Channel.EMAIL, Channel.SMS, Channel.WEBHOOK), ()),
}


@dataclass(frozen=True, slots=True)
class Contact:
    """A way to one person that was verified, or, for the code that verifies it, is about to be."""

    contact_id: UUID
    user_id: str
    channel: Channel
    address: str


@dataclass(frozen=True, slots=True)
class Preferences:
    """What a user wishes. Quiet hours are by the user's clock and may span midnight; critical alerts ignore them."""

    locale: str = "en"
    time_zone: str = "UTC"
    quiet_from: time | None = None
    quiet_to: time | None = None
    minimum_severity: Severity = Severity.LOW


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who can be told."""

    contacts: Sequence[Contact] = ()
    preferences: Preferences = field(default_factory=Preferences)


@dataclass(frozen=True, slots=True)
class Step:
    """Who is told, ``after_seconds`` behind the step before. Without channels those of the severity; with them, these,
    at once."""

    after_seconds: int = 0
    to: tuple[str, ...] = (USER,)
    channels: tuple[Channel, ...] | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """What follows an alert until somebody acknowledges it. All steps come ``1 + repeat`` times, ``repeat_seconds``
    apart. What happens again within ``window_seconds`` is told in one message."""

    must_acknowledge: bool = False
    steps: tuple[Step, ...] = (Step(),)
    repeat: int = 0
    repeat_seconds: int = 900
    window_seconds: int = 900


_ALL: Final = tuple(Channel)
_URGENT: Final = Policy(
    must_acknowledge=True, steps=(Step(), Step(120, (USER,), _ALL)), repeat=5, repeat_seconds=300, window_seconds=300
)
#: What is wrong on our side, and is not worse an hour later.
_OURS: Final = Policy(must_acknowledge=True, steps=(Step(), Step(300, (USER,), _ALL)), repeat=3, window_seconds=3_600)
#: What holds where a tenant has decided nothing.
POLICIES: Final[Mapping[AlertType, Policy]] = {
    AlertType.WARNING: Policy(window_seconds=3_600),
    AlertType.CALL: Policy(must_acknowledge=True, steps=(Step(), Step(300, (USER,), _ALL)), repeat=3),
    AlertType.IMMINENT: _URGENT,
    AlertType.DUE: _URGENT,
    AlertType.RECOVERED: Policy(window_seconds=0),
    AlertType.WEBHOOK_DISABLED: Policy(window_seconds=600),
    AlertType.AUDIT_DISAGREED: _OURS,
    AlertType.RELAYER_HALTED: _URGENT,
    AlertType.PROVIDER_ACCUSED: Policy(window_seconds=3_600),
    AlertType.EVENT_DISAGREED: _OURS,
    AlertType.BOOKS_DIFFER: _OURS,
    AlertType.BACKFILL_FAILED: Policy(),
    AlertType.CONTACT_CODE: Policy(window_seconds=0),
}

#: How bad the alerts of margin are; a worse one takes the place of those below it.
WORSE: Final = (AlertType.WARNING, AlertType.CALL, AlertType.IMMINENT, AlertType.DUE)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message on its way to one contact. ``attempt_id`` is the attempt that is under way or was the last;
    ``not_before`` when the next one, or the next look at what became of it, is due.

    ``handed_on``: its failure has started the next way. ``bounced``: it came back after it seemed to have arrived.
    """

    number: int
    why: Why
    step: int
    contact_id: UUID
    user_id: str
    channel: Channel
    address: str
    state: DeliveryState = DeliveryState.PENDING
    attempt_id: UUID | None = None
    attempts: int = 0
    looks: int = 0
    not_before: datetime | None = None
    begun_at: datetime | None = None
    sent_at: datetime | None = None
    delivered_at: datetime | None = None
    failed_at: datetime | None = None
    reference: str | None = None
    code: str | None = None
    detail: str | None = None
    handed_on: bool = False
    bounced: bool = False


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Who took note, when, and how: ``api``, ``link`` or ``sms``."""

    at: datetime
    by: str
    via: str


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. ``facts`` is what texts are made of. ``climbed`` counts the steps that were taken, over all rounds;
    ``step_at`` is when the next is due. ``told`` of the ``occurrences`` were in a message. ``passed_at``: since when
    what it tells of has passed, or a worse alert stands in its place; an acknowledged alert stands until then."""

    tenant_id: UUID
    notification_id: UUID
    user_id: str
    alert_type: AlertType
    severity: Severity
    policy: Policy
    facts: Mapping[str, Any]
    raised_at: datetime
    margin_event_id: UUID | None = None
    occurrences: int = 1
    told: int = 0
    climbed: int = 0
    step_at: datetime | None = None
    deliveries: tuple[Delivery, ...] = ()
    acknowledged: Acknowledgement | None = None
    ended: Ending | None = None
    ended_at: datetime | None = None
    passed_at: datetime | None = None
    failure_reason: str | None = None
    version: int = 1

    @property
    def over(self) -> bool:
        """Whether nothing more is sent."""
        return self.ended is not None

    @property
    def window_ends_at(self) -> datetime:
        """Until when more of the same joins it."""
        return self.raised_at + timedelta(seconds=self.policy.window_seconds)

    def delivery(self, number: int) -> Delivery:
        """The delivery with this number."""
        return self.deliveries[number - 1]

    def with_delivery(self, changed: Delivery) -> Alert:
        """The alert with one delivery changed."""
        at = changed.number - 1
        return replace(self, deliveries=(*self.deliveries[:at], changed, *self.deliveries[at + 1 :]))
