"""What one provider says of a source in a range, held against itself before anybody else is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from activities.chain.pool import Member
from activities.chain.ports import ChainFault, FaultKind, Lane
from activities.chain.quorum import Contradicted
from domain.chain import Block, Books, ChainKind, Event, Source
from domain.chain.checking import dated, incomplete, malformed, strange, unlinked

#: Headers in one question; a provider counts each as a request.
HEADERS_MAX: Final = 250
#: So few blocks of the live end are asked for by their hashes: a node that has not the block says so, where a range
#: would be answered with nothing.
BY_HASH_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class Reading:
    """An answer that does not contradict itself. ``counter`` is as of the last block, None where none is kept."""

    blocks: tuple[Block, ...]
    events: tuple[Event, ...]
    counter: int | None


@dataclass(frozen=True, slots=True)
class Piece:
    """What is asked for: all headers, or those of the ends and of blocks with events.

    ``below`` is the block that it is to continue, where that is known: what continues another is of another history,
    whose numbers are its own.
    """

    source: Source
    first: int
    last: int
    lane: Lane
    whole: bool
    below: Block | None = None

    def continued_by(self, reading: Reading) -> bool:
        """Whether an answer goes on from ``below``, as far as that is known."""
        return self.below is None or reading.blocks[0].parent_hash == self.below.hash


async def read(member: Member, piece: Piece, after_sequence: int | None) -> Reading:
    """One provider's answer for a piece; raises ``ChainFault``.

    One that has a gap, or does not end with the counter, is asked for once more, as a node behind a balancer may have
    been late. ``Contradicted`` if it is so again.
    """
    gap: str | None = None
    for _ in range(2):
        reading = await _read(member, piece)
        gap = gap_of(piece.source, reading, after_sequence if piece.continued_by(reading) else None)
        if gap is None:
            return reading
    raise Contradicted(f"blocks {piece.first} to {piece.last}, asked twice: {gap}")


def gap_of(source: Source, reading: Reading, after_sequence: int | None) -> str | None:
    """What is missing in a reading of a sequenced source; None where nothing is known to be."""
    return incomplete(reading.events, after_sequence, reading.counter) if source.sequenced else None


def same(one: Reading, other: Reading) -> bool:
    """Whether two providers agree; one that keeps no counter does not disagree about it."""
    return (
        one.blocks[0].hash == other.blocks[0].hash
        and one.blocks[-1].hash == other.blocks[-1].hash
        and (one.counter is None or other.counter is None or one.counter == other.counter)
        and one.events == other.events
    )


def miscounted(said: Reading, true: Reading) -> str | None:
    """In words, that a counter is another than those say who agree."""
    if said.counter is None or true.counter is None or said.counter == true.counter:
        return None
    return f"counter {said.counter} where {true.counter} is"


async def headers(member: Member, numbers: Sequence[int], lane: Lane) -> list[Block]:
    """Headers at these heights, in this order; raises ``ChainFault``."""
    found: list[Block] = []
    size = HEADERS_MAX
    while len(found) < len(numbers):
        wanted = numbers[len(found) : len(found) + size]
        try:
            got = await member.ask(lane, len(wanted), lambda reader, wanted=wanted: reader.blocks(wanted))  # type: ignore[misc]
        except ChainFault as fault:
            if fault.kind not in (FaultKind.TOO_WIDE, FaultKind.TOO_MUCH) or len(wanted) == 1:
                raise
            size = max(1, len(wanted) // 4)
            continue
        if [block.number for block in got] != list(wanted):
            raise ChainFault(FaultKind.NONSENSE, "other headers than were asked for")
        found.extend(got)
    return found


async def counter(member: Member, source: Source, block: Block, lane: Lane) -> int | None:
    """The source's last number as of a block; None where the node keeps none that old."""
    try:
        return await member.ask(lane, 1, lambda reader: reader.counter(source, block))
    except ChainFault as fault:
        if fault.kind is FaultKind.NO_STATE:
            return None
        raise


async def books(member: Member, source: Source, token: bytes, block: Block, lane: Lane) -> Books | None:
    """What the source's contract says of its money as of a block; None where the node keeps no state that old."""
    try:
        return await member.ask(lane, 1, lambda reader: reader.books(source, token, block))
    except ChainFault as fault:
        if fault.kind is FaultKind.NO_STATE:
            return None
        raise


async def _read(member: Member, piece: Piece) -> Reading:
    source, first, last, lane = piece.source, piece.first, piece.last, piece.lane
    if lane is Lane.LIVE and last - first < BY_HASH_MAX:
        blocks = await headers(member, range(first, last + 1), lane)
        events = [event for block in blocks for event in await _events_of(member, source, block, lane)]
    else:
        events = await _events(member, piece)
        numbers = range(first, last + 1) if piece.whole else {first, last, *(e.block_number for e in events)}
        blocks = await headers(member, sorted(numbers), lane)
    wrong = malformed(events, first, last, sequenced=source.sequenced)
    if wrong is not None:
        raise ChainFault(FaultKind.NONSENSE, wrong)
    by_number = {block.number: block for block in blocks}
    # The chain may have been reorganised between two questions: that is no fault, and not told from one here.
    moved = unlinked(blocks) or strange(events, by_number)
    if moved is not None:
        raise ChainFault(FaultKind.BEHIND, f"its answers do not belong together: {moved}")
    numbered = await counter(member, source, blocks[-1], lane) if source.sequenced else None
    return Reading(tuple(blocks), dated(events, by_number), numbered)


async def _events_of(member: Member, source: Source, block: Block, lane: Lane) -> Sequence[Event]:
    return await member.ask(lane, 1, lambda reader: reader.events_of(source, block))


async def _events(member: Member, piece: Piece) -> list[Event]:
    """Events of the piece, in as many questions as the provider needs; it is learned how many blocks it bears."""
    source, found, start = piece.source, list[Event](), piece.first
    while start <= piece.last:
        end = min(piece.last, start + member.spans.blocks - 1)
        blocks = end - start + 1
        cost = 2 * blocks if source.kind is ChainKind.UTXO else 1
        try:
            got = await member.ask(
                piece.lane,
                cost,
                lambda reader, start=start, end=end: reader.events(source, start, end),  # type: ignore[misc]
            )
        except ChainFault as fault:
            _narrow(member, blocks, fault)
            continue
        member.spans.bore(blocks, len(got))
        found.extend(got)
        start = end + 1
    return found


def _narrow(member: Member, blocks: int, fault: ChainFault) -> None:
    """Ask for fewer blocks from now on; raises the fault where that is no help."""
    if fault.kind is FaultKind.UNAVAILABLE:
        member.spans.too_slow(blocks)
    if fault.kind not in (FaultKind.TOO_WIDE, FaultKind.TOO_MUCH):
        raise fault
    if blocks == 1:
        raise ChainFault(FaultKind.REFUSED, f"a single block is too much: {fault.message}") from fault
    if fault.kind is FaultKind.TOO_WIDE:
        member.spans.too_wide(blocks, fault.limit_blocks)
    else:
        member.spans.too_much(blocks, fault.limit_blocks)
