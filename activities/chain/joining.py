"""Pieces of a range, joined in the order of blocks: what is agreed on so far, and whether the next piece goes on."""

from __future__ import annotations

from activities.chain.quorum import Agreed
from activities.chain.reading import Piece, Reading, gap_of
from domain.chain import Block, Event, Fetched, Source


class Joined:
    """What was fetched so far. ``sequence`` is the number of the last event, where it is known."""

    def __init__(self, after: Block | None, after_sequence: int | None) -> None:
        self.below = after
        self.sequence = after_sequence
        self.counter: int | None = None
        self.blocks: list[Block] = []
        self._events: list[Event] = []
        self._names: set[str] = set()
        #: Since the last counter: where that piece began, and how much there was then.
        self._unsure: tuple[int, int, int, Block | None, int | None] | None = None

    def gap(self, source: Source, reading: Reading) -> str | None:
        """What is missing between here and the end of the next piece."""
        return gap_of(source, reading, self.sequence)

    def continues(self, reading: Reading) -> bool:
        """Whether the next piece's first block has the last one here as its parent, as far as that is known."""
        first = reading.blocks[0]
        return self.below is None or self.below.number != first.number - 1 or first.parent_hash == self.below.hash

    def add(self, piece: Piece, agreed: Agreed[Reading]) -> None:
        """This piece is next."""
        got = agreed.answer
        before = (piece.first, len(self.blocks), len(self._events), self.below, self.sequence)
        self._unsure = None if got.counter is not None else self._unsure or before
        self.blocks.extend(got.blocks)
        self._events.extend(got.events)
        self._names.update(agreed.names)
        self.below, self.counter = got.blocks[-1], got.counter
        if got.events:
            self.sequence = got.events[-1].sequence
        elif got.counter is not None:
            self.sequence = got.counter

    def back(self, first: int) -> int:
        """Forget what no counter has confirmed, whose end may be what is missing; answers where that began, else
        ``first``."""
        if self._unsure is None:
            return first
        first, blocks, events, self.below, self.sequence = self._unsure
        del self.blocks[blocks:], self._events[events:]
        self._unsure = None
        return first

    def against(self, counter: int) -> str | None:
        """In words, that the counter as of the last block is another than the last event's number."""
        if self.sequence is None or counter == self.sequence:
            return None
        last = self.blocks[-1].number
        return f"events up to block {last} end with number {self.sequence}, and the counter says {counter}"

    def fetched(self, span: Piece) -> Fetched:
        """All of it. Unless the range is whole, blocks between its ends are those with events."""
        blocks = self.blocks
        if not span.whole:
            kept = {span.first, span.last, *(event.block_number for event in self._events)}
            blocks = [block for block in blocks if block.number in kept]
        return Fetched(
            first=span.first,
            last=span.last,
            blocks=tuple(blocks),
            events=tuple(self._events),
            counter=self.counter,
            providers=tuple(sorted(self._names)),
            whole=span.whole,
        )
