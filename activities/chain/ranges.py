"""How many blocks a provider is asked for at once: learned from what it bears and what it refuses.

There are two limits. One is the provider's own, a number of blocks that it never exceeds. It is searched for among the
published ones, so that a few refusals find it. The other is how much one answer may hold, which depends on how dense
the events are just there.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Final

#: Limits that providers publish, and steps between them; no two are further apart than a factor of two.
RUNGS: Final = (
    *(1, 2, 3, 5, 10, 20, 30, 50, 64, 100, 128, 200, 256, 500, 800),
    *(1_000, 2_000, 2_048, 3_000, 3_500, 5_000, 10_000, 20_000, 30_000, 50_000, 100_000),
    *(200_000, 300_000, 500_000, 1_000_000, 2_000_000, 3_000_000, 5_000_000, 10_000_000),
)
#: What is asked for before anything is known.
FIRST_BLOCKS: Final = 1_000
#: Larger answers are slower by the event.
EVENTS_AIM: Final = 8_000
#: After so many answers at the limit it is doubted: providers change, and errors lie.
DOUBT_AFTER: Final = 200
_DOUBT_AFTER_MAX: Final = 20_000


class SpanTuner:
    """The number of blocks for the next request to one provider, never more than ``most``."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._bears = 0
        self._refuses = most + 1
        self._dense: float = min(FIRST_BLOCKS, most)
        self._at_limit = 0
        self._doubt_after = DOUBT_AFTER

    @property
    def blocks(self) -> int:
        """How many to ask for next; at least one."""
        return max(1, min(self._cap(), int(self._dense)))

    @property
    def settled(self) -> int:
        """The most that the provider is known to bear; 0 before anything is known."""
        return self._bears

    def bore(self, blocks: int, events: int) -> None:
        """It answered for so many blocks, with so many events."""
        asked_all = blocks >= self.blocks
        if blocks >= self._refuses:
            self._refuses = self._most + 1
        self._bears = max(self._bears, blocks)
        room = blocks * EVENTS_AIM / max(events, 1)
        if room < self._dense:
            self._dense = room if events else self._dense
        elif asked_all:
            self._dense = min(self._most, room, self._dense * 2)
        if asked_all and self._refuses <= self._most:
            self._at_limit += 1
            if self._at_limit >= self._doubt_after:
                self._at_limit = 0
                self._doubt_after = min(self._doubt_after * 2, _DOUBT_AFTER_MAX)
                self._refuses, self._dense = self._most + 1, min(self._most, self._bears * 2)

    def too_wide(self, blocks: int, limit_blocks: int | None = None) -> None:
        """It does not answer for so many blocks, and said how many it does, where it did."""
        if limit_blocks is not None and 0 < limit_blocks < blocks:
            self._bears, self._refuses = limit_blocks, limit_blocks + 1
        else:
            self._refuses = min(self._refuses, max(blocks, 2))
            if self._bears >= self._refuses:
                self._bears = 0
        self._at_limit = 0

    def too_much(self, blocks: int, limit_blocks: int | None = None) -> None:
        """So many blocks hold more than it sends at once."""
        fewer = limit_blocks if limit_blocks is not None and 0 < limit_blocks < blocks else max(1.0, blocks / 4)
        self._dense = min(self._dense, fewer)

    def too_slow(self, blocks: int) -> None:
        """There was no answer for so many blocks: perhaps because they are many."""
        self._dense = min(self._dense, max(1.0, blocks / 2))

    def _cap(self) -> int:
        """Between what it bears and what it refuses: the middle of the rungs there, else what it bears."""
        if self._refuses > self._most:
            return self._most
        low, high = bisect_right(RUNGS, self._bears), bisect_left(RUNGS, self._refuses)
        return RUNGS[(low + high) // 2] if low < high else max(1, self._bears)
