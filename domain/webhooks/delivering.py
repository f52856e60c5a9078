"""What becomes of a delivery after an attempt: delivered, tried again, or given up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final

from domain.errors import Refusal

#: The pauses behind each failed attempt: the example of Standard Webhooks 1.0, ten attempts in three days and some.
DELAYS: Final = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
ATTEMPTS_MAX: Final = len(DELAYS) + 1
#: A pause is up to this much shorter or longer, so that what failed together does not come back together.
JITTER_PERCENT: Final = 20
MILLION: Final = 1_000_000

#: Longer than this nobody's ``Retry-After`` is waited for.
RETRY_AFTER_MAX: Final = timedelta(hours=24)
#: By these an endpoint asks to be left alone for a while; the pause is where it does not say for how long.
THROTTLING: Final = frozenset({429, 502, 503, 504})
THROTTLE_PAUSE: Final = timedelta(seconds=5)
THROTTLE_PAUSE_MAX: Final = timedelta(hours=1)
GONE: Final = 410


class DeliveryStatus(StrEnum):
    """Where a delivery stands. ``FAILED``: every attempt was in vain. ``CANCELLED``: its endpoint was deleted."""

    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"
    CANCELLED = "cancelled"


class AttemptResult(StrEnum):
    """What became of an attempt.

    ``DELIVERED`` is a 2xx, ``REJECTED`` any other answer. ``NO_ANSWER``: the request may have arrived. ``NOT_SENT`` and
    ``BLOCKED``: it did not, the latter because the address is none that may be called. ``RELEASED`` was never begun,
    ``INTERRUPTED`` was cut off by the sender itself; neither counts against the endpoint.
    """

    DELIVERED = "delivered"
    REJECTED = "rejected"
    NO_ANSWER = "no_answer"
    NOT_SENT = "not_sent"
    BLOCKED = "blocked"
    RELEASED = "released"
    INTERRUPTED = "interrupted"


#: Attempts that say nothing about the endpoint.
OURS: Final = frozenset({AttemptResult.RELEASED, AttemptResult.INTERRUPTED})


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a delivery goes on. ``next_attempt_at`` is None where it does not."""

    status: DeliveryStatus
    failures: int
    next_attempt_at: datetime | None


def check_again(status: DeliveryStatus) -> None:
    """Refuses to try again what is going to be tried again anyhow."""
    if status is DeliveryStatus.WAITING:
        raise Refusal("delivery_waiting", "the delivery is waiting for its next attempt already")


def check_range(begins: datetime, ends: datetime) -> None:
    """Refuses a range in which nothing can lie."""
    if ends <= begins:
        raise Refusal("range_empty", "the range ends before it begins", field="to")


def is_success(status_code: int) -> bool:
    """2xx and nothing else; a redirect is a failure."""
    return 200 <= status_code <= 299


def judge(
    result: AttemptResult, *, failures: int, at: datetime, chance_ppm: int, retry_after: timedelta | None = None
) -> Verdict:
    """How a delivery goes on after an attempt that ended at ``at``.

    ``failures`` are those before; ``chance_ppm`` is a random number below a million; ``retry_after`` is what the
    endpoint asked for.
    """
    if result is AttemptResult.DELIVERED:
        return Verdict(DeliveryStatus.DELIVERED, failures, None)
    if result in OURS:
        return Verdict(DeliveryStatus.WAITING, failures, at)
    failures += 1
    if failures >= ATTEMPTS_MAX:
        return Verdict(DeliveryStatus.FAILED, failures, None)
    pause = jittered(DELAYS[failures - 1], chance_ppm)
    if retry_after is not None:
        pause = max(pause, min(retry_after, RETRY_AFTER_MAX))
    return Verdict(DeliveryStatus.WAITING, failures, at + pause)


def jittered(pause: timedelta, chance_ppm: int) -> timedelta:
    """The pause, up to ``JITTER_PERCENT`` shorter or longer."""
    spread = 2 * JITTER_PERCENT * chance_ppm // 100
    return pause * (MILLION - JITTER_PERCENT * MILLION // 100 + spread) // MILLION


def throttle(status_code: int | None, retry_after: timedelta | None) -> timedelta | None:
    """For how long the whole endpoint is left alone after an answer; None where it did not ask for that."""
    if status_code not in THROTTLING:
        return None
    return THROTTLE_PAUSE if retry_after is None else min(retry_after, THROTTLE_PAUSE_MAX)


def parse_retry_after(said: str | None, at: datetime) -> timedelta | None:
    """What a ``Retry-After`` asks for, in seconds or as an HTTP date; None for none and for nonsense."""
    if said is None:
        return None
    said = said.strip()
    if said.isascii() and said.isdigit():
        return min(timedelta(seconds=int(said[:9])), RETRY_AFTER_MAX)
    try:
        until = parsedate_to_datetime(said)
    except (ValueError, OverflowError):
        return None
    until = until.replace(tzinfo=UTC) if until.tzinfo is None else until
    return max(timedelta(0), min(until - at, RETRY_AFTER_MAX))
