"""When a relayer is not well, and what is the matter with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from domain.chain.model import RelayerStatus


class Trouble(StrEnum):
    """What can be the matter. Codes are for ever."""

    HALTED = "relayer_halted"
    BEHIND = "relayer_behind"
    SILENT = "relayer_silent"
    GAPS = "relayer_has_gaps"
    STILL = "chain_still"
    UNCONFIGURED = "chain_not_configured"


@dataclass(frozen=True, slots=True)
class Limits:
    """How far behind a relayer may be, how long without news of its chain, and how old the chain's last block may be;
    None is any age."""

    lag_blocks_max: int
    lag_seconds_max: int
    still_seconds_max: int | None = None


@dataclass(frozen=True, slots=True)
class Course:
    """Where a relayer stands. ``head_number`` is the chain's, when it was last asked at ``heard_at``; both None before
    it ever was. ``gap_blocks`` are missing below ``block_number`` and no job is at them."""

    status: RelayerStatus
    reason: str | None
    registered_at: datetime
    block_number: int
    block_at: datetime | None
    head_number: int | None
    head_at: datetime | None
    heard_at: datetime | None
    gap_blocks: int

    @property
    def lag_blocks(self) -> int | None:
        """Blocks of the chain that are not here yet."""
        return None if self.head_number is None else max(self.head_number - self.block_number, 0)

    @property
    def ahead_blocks(self) -> int:
        """Blocks that are here, and that the chain was without when it was last asked."""
        return 0 if self.head_number is None or self.block_at is None else max(self.block_number - self.head_number, 0)

    @property
    def lag_seconds(self) -> int | None:
        """By how much the last block that is here is older than the chain's last, both by the chain's clock."""
        if not self.lag_blocks:
            return self.lag_blocks
        if self.head_at is None or self.block_at is None:
            return None
        return max(round((self.head_at - self.block_at).total_seconds()), 0)

    def silent_seconds(self, now: datetime) -> int:
        """Since when nothing was heard of the chain; from its registration on, where nothing ever was."""
        return max(round((now - (self.heard_at or self.registered_at)).total_seconds()), 0)


def troubles(course: Course, limits: Limits | None, now: datetime) -> Sequence[tuple[Trouble, str]]:
    """What is the matter, in words; ``limits`` is None where no configuration names the chain.

    One that was paused is well until its lag says otherwise: who forgets to resume it is told. One that has no live end
    of its own has only what jobs bring, and is always well.
    """
    if course.status is RelayerStatus.OBSERVING:
        return ()
    found: list[tuple[Trouble, str]] = []
    if course.status is RelayerStatus.HALTED:
        found.append((Trouble.HALTED, f"it stopped by itself: {course.reason or 'no reason was written down'}"))
    if limits is None:
        found.append((Trouble.UNCONFIGURED, "the configuration has no chain of this name any more"))
    else:
        blocks, silent = course.lag_blocks, course.silent_seconds(now)
        paused = ", and paused" if course.status is RelayerStatus.PAUSED else ""
        if blocks is not None and blocks > limits.lag_blocks_max:
            found.append((Trouble.BEHIND, f"{blocks} blocks behind, {limits.lag_blocks_max} at most{paused}"))
        if course.ahead_blocks > limits.lag_blocks_max:
            ends = f"the chain ends at block {course.head_number}, {course.ahead_blocks} blocks below what is here"
            found.append((Trouble.SILENT, f"{ends}: its providers began anew, or have another chain"))
        elif silent > limits.lag_seconds_max:
            words = f"no news of the chain for {silent} seconds, {limits.lag_seconds_max} at most{paused}"
            found.append((Trouble.SILENT, words))
        # Providers that all stand at one head agree with each other, and nothing is behind them.
        old = None if course.head_at is None else round((now - course.head_at).total_seconds())
        if old is not None and limits.still_seconds_max is not None and old > limits.still_seconds_max:
            words = f"the chain's last block is {old} seconds old, {limits.still_seconds_max} at most{paused}"
            found.append((Trouble.STILL, words))
    if course.gap_blocks:
        found.append((Trouble.GAPS, f"{course.gap_blocks} blocks are missing, and no backfill is at them"))
    return found
