"""Following the live end of a chain: where it stands, what to fetch next, what is final, and what an operator may ask.

Everything here is a function of what is recorded and of what the chain's providers agree on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from typing import Final, NamedTuple

from domain.chain.model import Block, Fetched, Head, RelayerStatus
from domain.chain.ranges import Range, difference
from domain.errors import Refusal


@dataclass(frozen=True, slots=True)
class Position:
    """Where the live end stands: everything up to block ``number`` is here.

    ``hash`` is that block's, None before the first one and where it is not kept. ``last_sequence`` is the number of the
    last event up to there. ``finalized`` <= ``confirmed`` <= ``number``.
    """

    number: int
    hash: bytes | None
    last_sequence: int
    confirmed: int
    finalized: int

    @property
    def tip(self) -> Block | None:
        """The last block, as far as what follows it must know it: number and hash."""
        return None if self.hash is None else Block(self.number, self.hash, b"", 0)


class Depths(NamedTuple):
    """How many blocks on top make a block confirmed, and final unless that is left to the chain's own word."""

    confirmations: int
    finality: int | None


def marked(position: Position, head: Head, depths: Depths) -> Position:
    """The position with its watermarks moved to what the head says of it. They never go back here."""
    final = final_number(head, depths)
    finalized = position.finalized if final is None else max(position.finalized, min(position.number, final))
    confirmed = min(position.number, head.latest.number - depths.confirmations)
    return replace(position, finalized=finalized, confirmed=max(position.confirmed, confirmed, finalized))


def final_number(head: Head, depths: Depths) -> int | None:
    """The last block that the chain will not leave; None where nobody knows.

    A depth that an operator chose goes before the chain's own word: some chains call every block final.
    """
    return head.finalized if depths.finality is None else head.latest.number - depths.finality


class Sizes(NamedTuple):
    """How many blocks are fetched at once: among those that are final, and above, where every block is kept."""

    final: int
    open: int


#: Above finality a piece is small, so that all of its headers are fetched and a fork is found at its very block.
OPEN_BLOCKS: Final = 64


def pieces(position: Position, upto: int, covered: Iterable[Range], final: int | None, sizes: Sizes) -> list[Range]:
    """What is to be fetched next, in order: what nobody fetched yet of the blocks behind the position.

    It ends where something is covered already, since that is skipped before anything behind it is fetched.
    """
    wanted = difference([(position.number + 1, upto)], covered) if upto > position.number else ()
    if not wanted or wanted[0][0] != position.number + 1:
        return []
    first, last = wanted[0]
    cut: list[Range] = []
    while first <= last:
        below = final is not None and first <= final
        end = min(last, first + sizes.final - 1, final) if below and final is not None else first + sizes.open - 1
        cut.append((first, min(last, end)))
        first = cut[-1][1] + 1
    return cut


class Joins(StrEnum):
    """Whether what was fetched continues what is here: it does, its first block has another parent, or it is not
    whole."""

    YES = "yes"
    FORKED = "forked"
    BROKEN = "broken"


class Verdict(NamedTuple):
    """``reason`` says what is wrong, in words."""

    joins: Joins
    reason: str = ""


def joins(position: Position, fetched: Fetched, *, sequenced: bool) -> Verdict:
    """Whether a piece may be written behind a position.

    Blocks must begin behind it and be linked, events must stand in those blocks, and a sequenced source's numbers must
    run on without a gap and end with its counter.
    """
    blocks = fetched.blocks
    if not blocks or blocks[0].number != position.number + 1 or blocks[0].number != fetched.first:
        return Verdict(Joins.BROKEN, f"it does not begin with block {position.number + 1}")
    if blocks[-1].number != fetched.last:
        return Verdict(Joins.BROKEN, f"it does not end with block {fetched.last}")
    for before, block in pairwise(blocks):
        if block.number <= before.number or (fetched.whole and block.number != before.number + 1):
            return Verdict(Joins.BROKEN, f"blocks are missing around {block.number}")
        if block.number == before.number + 1 and block.parent_hash != before.hash:
            return Verdict(Joins.BROKEN, f"block {block.number} does not follow the one before it")
    hashes = {block.number: block.hash for block in blocks}
    if any(hashes.get(event.block_number) != event.block_hash for event in fetched.events):
        return Verdict(Joins.BROKEN, "an event stands in a block that is not among these")
    if position.hash is not None and blocks[0].parent_hash != position.hash:
        return Verdict(Joins.FORKED, f"block {blocks[0].number} does not continue {position.hash.hex()}")
    return _complete(position, fetched) if sequenced else Verdict(Joins.YES)


def _complete(position: Position, fetched: Fetched) -> Verdict:
    last = position.last_sequence
    for event in fetched.events:
        if event.sequence != last + 1:
            return Verdict(Joins.BROKEN, f"event {event.sequence} in block {event.block_number} follows event {last}")
        last = event.sequence
    if fetched.counter is not None and fetched.counter != last:
        return Verdict(
            Joins.BROKEN, f"the last event is {last}, the counter of block {fetched.last} says {fetched.counter}"
        )
    return Verdict(Joins.YES)


def behind(position: Position, fetched: Fetched) -> Position:
    """The position behind a piece that joins it."""
    numbers = [event.sequence for event in fetched.events if event.sequence is not None]
    return replace(
        position,
        number=fetched.last,
        hash=fetched.blocks[-1].hash,
        last_sequence=numbers[-1] if numbers else position.last_sequence,
    )


def went_back(position: Position, number: int, hash_: bytes | None, sequences: Iterable[int | None]) -> Position:
    """The position at a block below, after the events with these numbers were left."""
    left = [sequence for sequence in sequences if sequence is not None]
    return replace(
        position,
        number=number,
        hash=hash_,
        last_sequence=min(left) - 1 if left else position.last_sequence,
        confirmed=min(position.confirmed, number),
    )


def above(covered: Iterable[Range], number: int) -> Range | None:
    """The covered blocks that begin right behind a block; None where the next one is not covered."""
    for first, last in covered:
        if first <= number + 1 <= last:
            return number + 1, last
    return None


class Ask(StrEnum):
    """What an operator asks of a relayer."""

    PAUSE = "pause"
    RESUME = "resume"
    REWIND = "rewind"


_MAY: Final = {
    Ask.PAUSE: frozenset({RelayerStatus.FOLLOWING}),
    Ask.RESUME: frozenset({RelayerStatus.PAUSED, RelayerStatus.HALTED}),
    Ask.REWIND: frozenset({RelayerStatus.FOLLOWING, RelayerStatus.PAUSED, RelayerStatus.HALTED}),
}


def check_status(status: RelayerStatus, ask: Ask) -> None:
    """Refuse what a relayer in this status does not do."""
    if status not in _MAY[ask]:
        raise Refusal("relayer_not_running", f"the relayer is {status}: it cannot be asked to {ask}")


def after(status: RelayerStatus, ask: Ask) -> RelayerStatus:
    """The status that a command leads to; refuses as ``check_status`` does. A rewind changes none."""
    check_status(status, ask)
    return {Ask.PAUSE: RelayerStatus.PAUSED, Ask.RESUME: RelayerStatus.FOLLOWING}.get(ask, status)


def check_rewind(position: Position, to_block: int) -> None:
    """Refuse a rewind to a block that was not reached, or below what is final."""
    if to_block > position.number:
        raise Refusal("block_not_reached", f"the relayer stands at block {position.number}", field="to_block")
    if to_block < position.finalized:
        raise Refusal(
            "rewind_below_finalized", f"everything up to block {position.finalized} is final", field="to_block"
        )
