"""A chain in memory and nodes of it, good and bad: what providers are to a desk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from uuid import UUID

from activities.chain.ports import ChainFault, FaultKind
from domain.chain import Block, Books, ChainKind, Event, Head, Source

NETWORK = "eip155:31337"
ADDRESS = bytes(range(20))
ZERO = bytes(32)


def source(*, sequenced: bool = True, start_block: int = 0) -> Source:
    return Source(
        source_id=1,
        tenant_id=UUID(int=1),
        relayer_id="dev:0x" + ADDRESS.hex(),
        chain="dev",
        kind=ChainKind.EVM,
        network=NETWORK,
        addresses=(ADDRESS,),
        start_block=start_block,
        sequenced=sequenced,
        settles=False,
    )


@dataclass(frozen=True, slots=True)
class Mined:
    """A block with what the source has in it, and the source's last number as of it."""

    block: Block
    events: tuple[Event, ...]
    counter: int


@dataclass
class ModelChain:
    """One history. A copy that mines on is another."""

    mined: list[Mined] = field(default_factory=list)

    @classmethod
    def of(cls, *events_per_block: int) -> ModelChain:
        chain = cls()
        for count in events_per_block:
            chain.mine(count)
        return chain

    @property
    def top(self) -> Block:
        return self.mined[-1].block

    def mine(self, events: int = 0, salt: str = "") -> Block:
        number = len(self.mined)
        parent, counter = (self.mined[-1].block.hash, self.mined[-1].counter) if self.mined else (ZERO, 0)
        block_hash = sha256(parent + f"{number}:{events}:{salt}".encode()).digest()
        block = Block(number, block_hash, parent, 1_700_000_000 + number)
        made = tuple(self._event(block, place, counter + place + 1) for place in range(events))
        self.mined.append(Mined(block, made, counter + events))
        return block

    def fork(self, depth: int) -> ModelChain:
        """Another history that shares all but the last ``depth`` blocks."""
        return ModelChain(self.mined[: len(self.mined) - depth])

    def events(self, first: int, last: int) -> tuple[Event, ...]:
        return tuple(event for each in self.mined[first : last + 1] for event in each.events)

    def blocks(self, first: int, last: int) -> tuple[Block, ...]:
        return tuple(each.block for each in self.mined[first : last + 1])

    @staticmethod
    def _event(block: Block, place: int, sequence: int) -> Event:
        tx = sha256(b"tx" + block.hash + place.to_bytes(4)).digest()
        return Event(
            block_number=block.number,
            block_hash=block.hash,
            tx_hash=tx,
            tx_index=place,
            log_index=place,
            ordinal=0,
            kind="Funded",
            sequence=sequence,
            subject=tx,
            account=ADDRESS,
            token=bytes(20),
            amount=sequence * 1_000,
            payload=sequence.to_bytes(32),
            at_seconds=block.at_seconds,
        )


class Node:
    """A node of a model chain. Subclasses, and ``fault`` before each answer, make it a bad one.

    ``behind`` is how many of the chain's last blocks it has not. ``cap`` is the most blocks that it answers for at
    once, ``most_events`` the most events. ``state_from``: it keeps no state of blocks below.
    """

    def __init__(
        self,
        name: str,
        chain: ModelChain,
        *,
        network: str = NETWORK,
        behind: int = 0,
        cap: int | None = None,
        tells_cap: bool = False,
        most_events: int | None = None,
        state_from: int = 0,
        final_depth: int | None = None,
        delay_seconds: float = 0.0,
        fault: Callable[[str], ChainFault | None] = lambda _: None,
    ) -> None:
        self._name = name
        self.chain = chain
        self.said_network = network
        self.behind = behind
        self.cap = cap
        self.tells_cap = tells_cap
        self.most_events = most_events
        self.state_from = state_from
        self.final_depth = final_depth
        self.delay_seconds = delay_seconds
        self.fault = fault
        self.calls: list[str] = []
        self.refused = 0

    @property
    def name(self) -> str:
        return self._name

    @property
    def last(self) -> int:
        return len(self.chain.mined) - 1 - self.behind

    async def network(self) -> str:
        await self._begin("network")
        return self.said_network

    async def head(self) -> Head:
        await self._begin("head")
        final = None if self.final_depth is None else max(0, self.last - self.final_depth)
        return Head(self._mined(self.last).block, final)

    async def blocks(self, numbers: Sequence[int]) -> Sequence[Block]:
        await self._begin("blocks")
        return [self._mined(number).block for number in numbers]

    async def events(self, source: Source, first: int, last: int) -> Sequence[Event]:
        await self._begin("events")
        if self.cap is not None and last - first + 1 > self.cap:
            self.refused += 1
            raise ChainFault(FaultKind.TOO_WIDE, "too wide", limit_blocks=self.cap if self.tells_cap else None)
        found = self._told(self.chain.events(first, min(last, self.last)))
        if self.most_events is not None and len(found) > self.most_events:
            self.refused += 1
            raise ChainFault(FaultKind.TOO_MUCH, "too much")
        return found

    async def events_of(self, source: Source, block: Block) -> Sequence[Event]:
        await self._begin("events_of")
        mined = self._mined(block.number)
        if mined.block.hash != block.hash:
            raise ChainFault(FaultKind.BEHIND, f"block {block.number} is another one here")
        return self._told(mined.events)

    async def counter(self, source: Source, block: Block) -> int | None:
        await self._begin("counter")
        mined = self._mined(block.number)
        if mined.block.hash != block.hash:
            raise ChainFault(FaultKind.BEHIND, f"block {block.number} is another one here")
        if block.number < self.state_from:
            raise ChainFault(FaultKind.NO_STATE, "no state that old")
        return self._counted(mined.counter)

    async def books(self, source: Source, token: bytes, block: Block) -> Books | None:
        await self._begin("books")
        mined = self._mined(block.number)
        if block.number < self.state_from:
            raise ChainFault(FaultKind.NO_STATE, "no state that old")
        return Books(self._counted(mined.counter), 3, 1, 2)

    async def close(self) -> None:
        """Nothing is held."""

    async def _begin(self, method: str) -> None:
        self.calls.append(method)
        await asyncio.sleep(self.delay_seconds)
        fault = self.fault(method)
        if fault is not None:
            raise fault

    def _mined(self, number: int) -> Mined:
        if not 0 <= number <= self.last:
            raise ChainFault(FaultKind.BEHIND, f"block {number} is not here")
        return self.chain.mined[number]

    def _told(self, events: tuple[Event, ...]) -> tuple[Event, ...]:
        """What it says that there is."""
        return events

    def _counted(self, counter: int) -> int:
        """What it says that the counter is."""
        return counter


class Silent(Node):
    """It says that there are no events."""

    def _told(self, events: tuple[Event, ...]) -> tuple[Event, ...]:
        return ()


class Leaving(Node):
    """It leaves out an event now and then."""

    left_out = (3, 13)

    def _told(self, events: tuple[Event, ...]) -> tuple[Event, ...]:
        return tuple(event for event in events if event.sequence not in self.left_out)


class Cutting(Node):
    """It leaves out everything behind a number, and its counter agrees with that."""

    last_told = 3

    def _told(self, events: tuple[Event, ...]) -> tuple[Event, ...]:
        return tuple(event for event in events if (event.sequence or 0) <= self.last_told)

    def _counted(self, counter: int) -> int:
        return min(counter, self.last_told)


class Inflating(Node):
    """It says other amounts than there are."""

    def _told(self, events: tuple[Event, ...]) -> tuple[Event, ...]:
        return tuple(event._replace(amount=(event.amount or 0) * 10) for event in events)


def failing(kind: FaultKind, times: int | None = None, **more: float) -> Callable[[str], ChainFault | None]:
    """A fault for so many answers, or for all."""
    left = [times]

    def fault(_: str) -> ChainFault | None:
        if left[0] is None or left[0] > 0:
            left[0] = None if left[0] is None else left[0] - 1
            return ChainFault(kind, f"a fault: {kind}", **more)  # type: ignore[arg-type]
        return None

    return fault
