"""How one delivery moves. Never backwards: a late or repeated word of a vendor changes nothing that is further on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from domain.alerts.model import Channel, Delivery, DeliveryState

#: Pauses before another attempt at what was certainly not taken. Up to a fifth is added, by the chance in an id.
RETRY_SECONDS: Final = (2, 8, 30, 120)
#: A vendor that asks for more patience than this is one that does not work.
RETRY_AFTER_MAX: Final = timedelta(minutes=10)
#: Pauses before the looks at what became of a text message whose answer was lost.
LOOK_SECONDS: Final = (3, 10, 30, 120, 600)
#: A mail of which no event came for so long was not taken: its vendor cannot be asked.
SILENCE: Final = timedelta(minutes=10)
#: An attempt without an outcome after this has none: its call ends long before, and is not begun any more.
SEND_LIMIT: Final = timedelta(seconds=60)


class Heard(StrEnum):
    """What came of an attempt, as its answer or a later look says."""

    TAKEN = "taken"
    DELIVERED = "delivered"
    REJECTED = "rejected"
    NOT_TAKEN = "not_taken"
    UNSURE = "unsure"


class Word(StrEnum):
    """What a vendor says later, of its own accord."""

    SENT = "sent"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer to one attempt."""

    attempt_id: UUID
    heard: Heard
    reference: str | None = None
    code: str | None = None
    detail: str | None = None
    retry_after_seconds: int | None = None


#: A delivery only ever moves to a greater one; what was not taken, proven so, starts anew.
_FAR: Final[Mapping[DeliveryState, int]] = {
    DeliveryState.PENDING: 0,
    DeliveryState.SENDING: 1,
    DeliveryState.UNKNOWN: 2,
    DeliveryState.CANCELLED: 2,
    DeliveryState.SENT: 3,
    DeliveryState.FAILED: 4,
    DeliveryState.DELIVERED: 5,
}
_DOUBTFUL: Final = frozenset({DeliveryState.SENDING, DeliveryState.UNKNOWN})


def is_further(before: DeliveryState, after: DeliveryState) -> bool:
    """Whether ``after`` lies ahead of ``before``."""
    return _FAR[after] > _FAR[before]


def begin(delivery: Delivery, attempt_id: UUID, at: datetime) -> Delivery:
    """The delivery with an attempt under way; its row is written in the same commit, before the call."""
    return replace(
        delivery,
        state=DeliveryState.SENDING,
        attempt_id=attempt_id,
        attempts=delivery.attempts + 1,
        looks=0,
        begun_at=at,
        not_before=at + SEND_LIMIT,
    )


def hear(delivery: Delivery, outcome: Outcome, at: datetime) -> Delivery:
    """What the answer to an attempt makes of its delivery. An answer to an older attempt, or to one of which more is
    known, changes nothing but for the vendor's reference."""
    if outcome.attempt_id != delivery.attempt_id or delivery.state not in _DOUBTFUL:
        known = outcome.attempt_id == delivery.attempt_id and delivery.reference is None
        return replace(delivery, reference=outcome.reference) if known else delivery
    match outcome.heard:
        case Heard.TAKEN:
            return _arrive(delivery, DeliveryState.SENT, at, outcome.reference, outcome.detail)
        case Heard.DELIVERED:
            return _arrive(delivery, DeliveryState.DELIVERED, at, outcome.reference, outcome.detail)
        case Heard.REJECTED:
            return _fail(delivery, at, outcome.code, outcome.detail)
        case Heard.NOT_TAKEN:
            return _again(delivery, outcome, at)
        case Heard.UNSURE:
            return _doubt(delivery, outcome.detail, at)


def receive(
    delivery: Delivery,
    attempt_id: UUID,
    word: Word,
    at: datetime,
    *,
    code: str | None = None,
    detail: str | None = None,
) -> Delivery:
    """What a vendor's receipt makes of a delivery. That it arrived is true of whichever attempt; that it failed only of
    the last. A mail that comes back after it arrived stays delivered, and has ``bounced``."""
    if delivery.attempt_id is None:
        return delivery
    # Vendors count in seconds; nothing came back before it was sent.
    at = max(at, delivery.sent_at or delivery.begun_at or at)
    if word is Word.FAILED:
        if attempt_id != delivery.attempt_id:
            return delivery
        if delivery.state is DeliveryState.DELIVERED:
            return replace(delivery, bounced=True, code=code, detail=detail)
        return _fail(delivery, at, code, detail) if is_further(delivery.state, DeliveryState.FAILED) else delivery
    after = DeliveryState.SENT if word is Word.SENT else DeliveryState.DELIVERED
    if not is_further(delivery.state, after) or (attempt_id != delivery.attempt_id and word is Word.SENT):
        return delivery
    return _arrive(delivery, after, at, delivery.reference, detail)


def pass_time(delivery: Delivery, at: datetime) -> Delivery:
    """What the clock alone makes of a delivery: an attempt without an outcome is doubtful; a mail of which nothing is
    heard for ``SILENCE`` was not taken, and a callback, which its receiver knows by its id, is sent again."""
    if delivery.not_before is None or at < delivery.not_before:
        return delivery
    if delivery.state is DeliveryState.SENDING:
        return _doubt(delivery, "no outcome was recorded", at)
    if delivery.state is DeliveryState.UNKNOWN and delivery.channel is not Channel.SMS:
        assert delivery.attempt_id is not None, "what is doubtful was attempted"
        silence = Outcome(delivery.attempt_id, Heard.NOT_TAKEN, detail=f"nothing was heard of it: {delivery.detail}")
        return _again(delivery, silence, at)
    return delivery


def to_look(delivery: Delivery, at: datetime) -> bool:
    """Whether its vendor is to be asked now what became of it."""
    due = delivery.not_before is not None and at >= delivery.not_before
    return delivery.state is DeliveryState.UNKNOWN and delivery.channel is Channel.SMS and due


def _arrive(
    delivery: Delivery, state: DeliveryState, at: datetime, reference: str | None, detail: str | None
) -> Delivery:
    return replace(
        delivery,
        state=state,
        reference=reference or delivery.reference,
        detail=detail or None,
        code=None,
        not_before=None,
        sent_at=delivery.sent_at or at,
        delivered_at=at if state is DeliveryState.DELIVERED else None,
        failed_at=None,
    )


def _fail(delivery: Delivery, at: datetime, code: str | None, detail: str | None) -> Delivery:
    return replace(delivery, state=DeliveryState.FAILED, code=code, detail=detail, failed_at=at, not_before=None)


def _again(delivery: Delivery, outcome: Outcome, at: datetime) -> Delivery:
    """Another attempt later, unless there were enough."""
    if delivery.attempts > len(RETRY_SECONDS):
        return _fail(delivery, at, "not_taken", outcome.detail)
    pause = timedelta(seconds=RETRY_SECONDS[delivery.attempts - 1])
    pause += pause * (outcome.attempt_id.int % 1_000) // 5_000
    if outcome.retry_after_seconds is not None:
        pause = max(pause, min(timedelta(seconds=outcome.retry_after_seconds), RETRY_AFTER_MAX))
    return replace(delivery, state=DeliveryState.PENDING, not_before=at + pause, detail=outcome.detail)


def _doubt(delivery: Delivery, detail: str | None, at: datetime) -> Delivery:
    """It may have been acted on. Looked at later; after the last look a person has to."""
    looks = delivery.looks + 1
    later: datetime | None
    if delivery.channel is Channel.SMS:
        later = at + timedelta(seconds=LOOK_SECONDS[looks - 1]) if looks <= len(LOOK_SECONDS) else None
    elif delivery.channel is Channel.EMAIL:
        later = at + SILENCE
    else:
        later = at + timedelta(seconds=RETRY_SECONDS[0])
    return replace(delivery, state=DeliveryState.UNKNOWN, not_before=later, looks=looks, detail=detail)
