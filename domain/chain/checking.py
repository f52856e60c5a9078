"""Whether what a node said of a source can be all of it, and true: each check says in words what is wrong, or None.

That block hashes match does not prove that nothing was left out. Numbers without a gap, which end with the contract's
own counter at exactly that block, do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from domain.chain.model import Block, Event


def unlinked(blocks: Sequence[Block]) -> str | None:
    """Of neighbours, the upper must name the lower as its parent; heights must rise."""
    for below, above in pairwise(blocks):
        if above.number <= below.number:
            return f"block {above.number} follows block {below.number}"
        if above.number == below.number + 1 and above.parent_hash != below.hash:
            return (
                f"block {above.number} has parent {_hex(above.parent_hash)}, and {below.number} is {_hex(below.hash)}"
            )
    return None


def malformed(events: Sequence[Event], first: int, last: int, *, sequenced: bool) -> str | None:
    """Events must lie in the range, each once, in the chain's order, and be numbered where the source's are."""
    place = (first, -1)
    for event in events:
        here = (event.block_number, event.log_index)
        if here <= place:
            return f"an event twice, out of order, or below block {first}: block {here[0]}, log {here[1]}"
        if sequenced and event.sequence is None:
            return f"an event without a number: block {here[0]}, log {here[1]}"
        place = here
    if place[0] > last:
        return f"an event of block {place[0]}, where {last} was to be the last"
    return None


def strange(events: Sequence[Event], blocks: Mapping[int, Block]) -> str | None:
    """An event must be of the very block that its height's header is, and of its time where it says one."""
    for event in events:
        block = blocks.get(event.block_number)
        if block is None or block.hash != event.block_hash:
            there = "unknown" if block is None else _hex(block.hash)
            return f"an event of block {event.block_number} names {_hex(event.block_hash)}, and its header is {there}"
        if event.at_seconds not in (0, block.at_seconds):
            return f"an event of block {event.block_number} has another time than its block"
    return None


def incomplete(events: Sequence[Event], after: int | None, counter: int | None) -> str | None:
    """Numbers must run on from ``after`` without a gap and end with ``counter``; None of either is not known."""
    numbers = [event.sequence or 0 for event in events]
    begin = (numbers[0] - 1 if numbers else None) if after is None else after
    if begin is None:
        return None
    if numbers != list(range(begin + 1, begin + 1 + len(numbers))):
        for expected, (event, number) in enumerate(zip(events, numbers, strict=True), begin + 1):
            if number != expected:
                return f"in block {event.block_number} event {number} stands where {expected} is next"
    end = begin + len(numbers)
    if counter is not None and counter != end:
        return f"its events end with number {end}, and its counter says {counter}"
    return None


def difference(one: Sequence[Event], other: Sequence[Event]) -> str | None:
    """Where two lists of the same blocks' events first part, in words."""
    for mine, yours in zip(one, other, strict=False):
        if mine != yours:
            fields = [name for name in Event._fields if getattr(mine, name) != getattr(yours, name)]
            return f"block {mine.block_number}, log {mine.log_index}: another {', '.join(fields)}"
    if len(one) != len(other):
        return f"{len(one)} events where {len(other)} are"
    return None


def dated(events: Sequence[Event], blocks: Mapping[int, Block]) -> tuple[Event, ...]:
    """The same events, each with its block's time."""
    if all(event.at_seconds for event in events):
        return tuple(events)
    return tuple([Event(*event[:13], blocks[event.block_number].at_seconds) for event in events])


def _hex(digest: bytes) -> str:
    return f"0x{digest.hex()}"
