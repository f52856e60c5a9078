"""How fast a backfill job goes, and when it will end: estimates, and nothing that anybody is owed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import exp
from typing import Final

#: How fast old pace is forgotten: what was half a minute ago counts a third of what is now.
PACE_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a job goes: averages in which the past fades. None before the first commit."""

    blocks_per_second: float | None = None
    events_per_second: float | None = None

    def after(self, blocks: int, events: int, seconds: float) -> Pace:
        """The pace after so much was done in so many seconds."""
        seconds = max(seconds, 0.001)
        return Pace(
            _faded(self.blocks_per_second, blocks / seconds, seconds),
            _faded(self.events_per_second, events / seconds, seconds),
        )

    def left(self, blocks: int, events: int | None) -> timedelta | None:
        """How long what is left takes: by its blocks, or by its events where it is known how many and that is longer,
        since neither alone tells where both are unevenly spread."""
        if blocks <= 0:
            return timedelta(0)
        if not self.blocks_per_second:
            return None
        seconds = blocks / self.blocks_per_second
        if events is not None and self.events_per_second:
            seconds = max(seconds, events / self.events_per_second)
        return timedelta(seconds=min(seconds, 10 * 365 * 86_400))


def finish_at(at: datetime, left: timedelta | None) -> datetime | None:
    """When something ends that takes so long."""
    return None if left is None else at + left


def _faded(before: float | None, now: float, seconds: float) -> float:
    if before is None:
        return now
    kept = exp(-seconds / PACE_SECONDS)
    return before * kept + now * (1 - kept)
