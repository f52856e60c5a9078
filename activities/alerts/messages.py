"""Messages of alerts. Addresses and texts stay in the database: histories are read by operators."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from activities.messages import Message, OriginMessage
from activities.ports import Handed, NotTaken, Rejected, Taken
from domain.alerts.delivery import Heard, Outcome
from domain.alerts.model import Channel, Status


class AlertRun(Message):
    """Start of an ``AlertWorkflow``."""

    tenant_id: UUID
    notification_id: UUID


class OutcomeMessage(Message):
    """What came of an attempt; ``looked``: it was found by a look afterwards."""

    attempt_id: UUID
    heard: Heard
    reference: str | None = None
    code: str | None = None
    detail: str | None = None
    retry_after_seconds: int | None = None
    looked: bool = False

    def to_outcome(self) -> Outcome:
        """As the rules have it."""
        return Outcome(self.attempt_id, self.heard, self.reference, self.code, self.detail, self.retry_after_seconds)


class AdvanceAlert(Message):
    """Input of the step that decides; ``step`` names it, ``at`` is the workflow's clock."""

    tenant_id: UUID
    notification_id: UUID
    step: str
    at: datetime
    outcomes: tuple[OutcomeMessage, ...] = ()

    def log_context(self) -> dict[str, str]:
        """Tenant and alert."""
        return {"tenant_id": str(self.tenant_id), "notification_id": str(self.notification_id)}


class SendAttempt(Message):
    """An attempt whose row is written: to be carried out, or looked at, once."""

    tenant_id: UUID
    notification_id: UUID
    attempt_id: UUID
    delivery: int
    channel: Channel

    def log_context(self) -> dict[str, str]:
        """Tenant, alert and attempt."""
        return {
            "tenant_id": str(self.tenant_id),
            "notification_id": str(self.notification_id),
            "attempt_id": str(self.attempt_id),
        }


class Moved(Message):
    """What was decided: what to send, what to look at, and when to decide again; None: when something is heard."""

    status: Status
    over: bool
    sends: tuple[SendAttempt, ...] = ()
    looks: tuple[SendAttempt, ...] = ()
    next_at: datetime | None = None


class AcknowledgeAlert(Message):
    """Somebody took note. The same ``command_id`` has one effect; ``via`` is api, link or sms."""

    command_id: UUID
    by: str
    via: str
    origin: OriginMessage = OriginMessage()


class RecordAcknowledgement(Message):
    """Input of that step."""

    tenant_id: UUID
    notification_id: UUID
    command: AcknowledgeAlert
    at: datetime

    def log_context(self) -> dict[str, str]:
        """Tenant, alert and request."""
        told = {"tenant_id": str(self.tenant_id), "notification_id": str(self.notification_id)}
        return told | self.command.origin.log_context()


class AlertOutcome(Message):
    """How an alert stands."""

    notification_id: UUID
    status: Status
    acknowledged_at: datetime | None = None
    acknowledged_by: str | None = None


def heard_of(attempt_id: UUID, handed: Handed, *, looked: bool = False) -> OutcomeMessage:
    """What a vendor's answer says of an attempt."""
    match handed:
        case Taken(reference=reference, detail=detail, delivered=delivered):
            heard = Heard.DELIVERED if delivered else Heard.TAKEN
            return OutcomeMessage(
                attempt_id=attempt_id, heard=heard, reference=reference, detail=detail or None, looked=looked
            )
        case Rejected(code=code, detail=detail):
            return OutcomeMessage(attempt_id=attempt_id, heard=Heard.REJECTED, code=code, detail=detail, looked=looked)
        case NotTaken(detail=detail, retry_after_seconds=seconds):
            after = None if seconds is None else max(0, round(seconds))
            return OutcomeMessage(
                attempt_id=attempt_id,
                heard=Heard.NOT_TAKEN,
                detail=detail,
                retry_after_seconds=after,
                looked=looked,
            )
        case _:
            return OutcomeMessage(attempt_id=attempt_id, heard=Heard.UNSURE, detail=handed.detail, looked=looked)
