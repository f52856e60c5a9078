"""What came of a request to an endpoint, as its attempt keeps it and as the rules judge it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from activities.ports import Answered, NoAnswer, Reached
from db.webhooks.sending import Claimed, Outcome
from domain.webhooks.delivering import AttemptResult, is_success, judge, parse_retry_after
from domain.webhooks.health import Seen

#: Of an answer, so much is kept.
BODY_CHARACTERS: Final = 4_096
HEADERS_MAX: Final = 40
HEADER_CHARACTERS: Final = 512
ERROR_CHARACTERS: Final = 500
HIDDEN: Final = "(hidden)"


def outcome_of(
    claimed: Claimed, reached: Reached, *, at: datetime, shown: Mapping[str, str], chance_ppm: int
) -> tuple[Outcome, Seen]:
    """The outcome of an attempt that ended at ``at``; ``shown`` are the request's headers, fit to be seen."""
    headers = json.dumps(shown)
    if isinstance(reached, Answered):
        retry_after = parse_retry_after(reached.headers.get("retry-after"), at)
        result = AttemptResult.DELIVERED if is_success(reached.status) else AttemptResult.REJECTED
        body = reached.body.decode(errors="replace").replace("\x00", "\ufffd")
        outcome = Outcome(
            claimed.message_id,
            claimed.number,
            result,
            at,
            judge(result, failures=claimed.failures, at=at, chance_ppm=chance_ppm, retry_after=retry_after),
            request_headers=headers,
            status_code=reached.status,
            response_headers=_kept(reached.headers),
            response_body=body[:BODY_CHARACTERS],
            response_truncated=reached.truncated or len(body) > BODY_CHARACTERS,
            duration_ms=reached.duration_ms,
        )
        return outcome, Seen(result, at, reached.status, retry_after)
    if isinstance(reached, NoAnswer):
        result, duration_ms = AttemptResult.NO_ANSWER, reached.duration_ms
    else:
        result, duration_ms = AttemptResult.BLOCKED if reached.blocked else AttemptResult.NOT_SENT, 0
    outcome = Outcome(
        claimed.message_id,
        claimed.number,
        result,
        at,
        judge(result, failures=claimed.failures, at=at, chance_ppm=chance_ppm),
        request_headers=headers if isinstance(reached, NoAnswer) else None,
        duration_ms=duration_ms,
        error=_clean(reached.reason),
    )
    return outcome, Seen(result, at)


def fault_of(claimed: Claimed, *, at: datetime, chance_ppm: int) -> tuple[Outcome, Seen]:
    """A bug of ours stood in the way; it is tried again like a failure, so that it does not come back at once."""
    result = AttemptResult.NOT_SENT
    verdict = judge(result, failures=claimed.failures, at=at, chance_ppm=chance_ppm)
    outcome = Outcome(
        claimed.message_id, claimed.number, result, at, verdict, error="a fault of the sender; it was logged"
    )
    return outcome, Seen(AttemptResult.INTERRUPTED, at)


def ours_of(claimed: Claimed, result: AttemptResult, *, at: datetime, why: str) -> tuple[Outcome, Seen]:
    """An attempt that was never begun, or that we cut off ourselves; it is due again at once."""
    verdict = judge(result, failures=claimed.failures, at=at, chance_ppm=0)
    return Outcome(claimed.message_id, claimed.number, result, at, verdict, error=why), Seen(result, at)


def ended_at(claimed: Claimed, elapsed_seconds: float) -> datetime:
    """When an attempt ended, by the clock that said when it was claimed."""
    return claimed.started_at + timedelta(seconds=elapsed_seconds)


def _kept(headers: Mapping[str, str]) -> str:
    kept = {_clean(name): _clean(value)[:HEADER_CHARACTERS] for name, value in list(headers.items())[:HEADERS_MAX]}
    return json.dumps(kept)


def _clean(said: str) -> str:
    """Without what a database refuses."""
    return said.replace("\x00", "\ufffd").encode(errors="replace").decode()[:ERROR_CHARACTERS]
