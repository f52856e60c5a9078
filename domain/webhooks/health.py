"""How well an endpoint does, and when nothing is sent to it any more."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from domain.webhooks.delivering import GONE, OURS, AttemptResult, throttle
from domain.webhooks.endpoint import DisabledReason

#: So long an endpoint may fail without a single success.
FAILING_MAX: Final = timedelta(days=5)
#: A failure after a longer silence begins a new series: the pauses between attempts are shorter than this.
SILENCE_MAX: Final = timedelta(hours=36)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one attempt showed of the endpoint."""

    result: AttemptResult
    at: datetime
    status_code: int | None = None
    retry_after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of an endpoint. ``failing_since``: the first failure behind the last success; ``paused_until``: it
    asked to be left alone; ``disabled`` why nothing is sent any more."""

    failing_since: datetime | None = None
    failed_at: datetime | None = None
    succeeded_at: datetime | None = None
    paused_until: datetime | None = None
    disabled: DisabledReason | None = None

    def after(self, seen: Iterable[Seen]) -> Health:
        """What is known after these attempts, which may come in any order."""
        health = self
        for one in sorted((each for each in seen if each.result not in OURS), key=lambda each: each.at):
            health = health._succeeded(one) if one.result is AttemptResult.DELIVERED else health._failed(one)
        return health

    def _succeeded(self, one: Seen) -> Health:
        at = one.at if self.succeeded_at is None else max(one.at, self.succeeded_at)
        return replace(self, succeeded_at=at, failing_since=None)

    def _failed(self, one: Seen) -> Health:
        before, since = self.failed_at, self.failing_since
        if since is None or (before is not None and one.at - before > SILENCE_MAX):
            since = one.at
        pause, paused = throttle(one.status_code, one.retry_after), self.paused_until
        if pause is not None:
            paused = one.at + pause if paused is None else max(paused, one.at + pause)
        disabled = self.disabled
        if one.status_code == GONE:
            disabled = disabled or DisabledReason.GONE
        elif one.at - since >= FAILING_MAX:
            disabled = disabled or DisabledReason.FAILING
        at = one.at if before is None else max(one.at, before)
        return replace(self, failing_since=since, failed_at=at, paused_until=paused, disabled=disabled)
