"""Where two histories part: the walk back along what is kept, to the last block that the chain still has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from domain.chain.following import Position

#: Heights compared in one request. Most forks are a block or two deep, so the first look is short.
LOOKS: Final = (16, 64, 256)


@dataclass(frozen=True, slots=True)
class Ancestor:
    """The last block that both histories have. ``hash`` is None where it lies before everything that is kept."""

    number: int
    hash: bytes | None


@dataclass(frozen=True, slots=True)
class Reorg:
    """A stretch of blocks that the chain has left: those above the ancestor, ``depth`` of them, the last ``old_hash``.

    ``new_hash`` is what stands at that height now, or at the head where that is lower. ``below_finalized``: it would
    leave what is final, so nothing is changed and an operator decides.
    """

    ancestor: Ancestor
    depth: int
    old_hash: bytes
    new_hash: bytes
    below_finalized: bool
    providers: tuple[str, ...]


def looks(kept: Sequence[int], head_number: int) -> list[list[int]]:
    """Heights to compare, the highest first, in looks that grow: of what is kept, those that the head has reached."""
    heights = sorted((number for number in kept if number <= head_number), reverse=True)
    cut: list[list[int]] = []
    while heights:
        size = LOOKS[min(len(cut), len(LOOKS) - 1)]
        cut.append(heights[:size])
        heights = heights[size:]
    return cut


def common(kept: Mapping[int, bytes], seen: Mapping[int, bytes]) -> Ancestor | None:
    """The highest block of a look that both histories have; None where they have none of it in common."""
    same = [number for number, found in seen.items() if kept.get(number) == found]
    return Ancestor(max(same), kept[max(same)]) if same else None


def parted(
    position: Position,
    kept: Mapping[int, bytes],
    seen: Mapping[int, bytes],
    found: Ancestor | None,
    providers: tuple[str, ...],
) -> Reorg:
    """What the chain has left, after its blocks were ``seen`` to differ from what is ``kept`` above ``found``.

    Without a block in common, the fork lies below what is final where anything of that is kept; else the history that
    is here begins above the fork, and goes back to its beginning.
    """
    anchor = min(kept)
    below = found is None and anchor <= position.finalized
    if found is None or found.number < position.finalized:
        found = Ancestor(position.finalized, None)
    return Reorg(
        ancestor=found,
        depth=position.number - found.number,
        old_hash=position.hash or kept[max(kept)],
        new_hash=seen[max(seen)],
        below_finalized=below,
        providers=providers,
    )
