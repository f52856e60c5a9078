"""A chain that is a list, for tests of what is made of chains: final, and as dense as wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from hashlib import sha256
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from activities.chain.ports import Forked, Lane, ProviderHealth
from db.chain import sources
from db.engine import tenant_transaction
from db.ids import new_id
from domain.chain import Block, Books, ChainKind, Event, Fetched, Head, Source
from domain.errors import Unavailable

CHAIN = "mem"


def hash_of(number: int, salt: str = "") -> bytes:
    return sha256(f"{salt}{number}".encode()).digest()


def block_of(number: int, salt: str = "") -> Block:
    return Block(number, hash_of(number, salt), hash_of(number - 1, salt), 1_700_000_000 + number)


class MemoryChain:
    """Blocks 0 to ``length - 1`` with ``density`` events each from ``start`` on, numbered from 1."""

    def __init__(self, length: int, *, density: int = 3, start: int = 0) -> None:
        self.length = length
        self.density = density
        self.start = start

    def counter(self, number: int) -> int:
        """The number of the last event up to a block."""
        return max(0, number - self.start + 1) * self.density

    def events(self, first: int, last: int) -> list[Event]:
        made = []
        for number in range(max(first, self.start), last + 1):
            block = block_of(number)
            for index in range(self.density):
                sequence = self.counter(number - 1) + index + 1
                made.append(
                    Event(
                        block_number=number,
                        block_hash=block.hash,
                        tx_hash=sha256(b"tx%d" % sequence).digest(),
                        tx_index=index,
                        log_index=index,
                        ordinal=0,
                        kind="Funded",
                        sequence=sequence,
                        subject=sequence.to_bytes(32),
                        account=bytes(20),
                        token=bytes(20),
                        amount=2**256 - sequence,
                        payload=b"payload",
                        at_seconds=block.at_seconds,
                    )
                )
        return made


class MemoryDesk:
    """A desk over such a chain, which counts what it is asked and can be told to fail."""

    name = CHAIN
    confirmations = 1
    finality_depth: int | None = None
    poll_seconds = 0.05

    def __init__(self, chain: MemoryChain) -> None:
        self.chain = chain
        self.finalized: int | None = None
        self.fetched: list[tuple[int, int]] = []
        self.requests = 0
        #: Cleared, fetches wait.
        self.open = asyncio.Event()
        self.open.set()
        #: Blocks from here on are held up.
        self.held_from: int | None = None
        #: So many fetches find nobody.
        self.away = 0
        self.keeps_state = True
        #: The next fetch that begins here, and does not know what comes before, loses its first event.
        self.loses_at: int | None = None
        self.seconds = 0.0

    async def head(self, lane: Lane) -> Head:
        self.requests += 1
        last = self.chain.length - 1
        return Head(block_of(last), last if self.finalized is None else self.finalized)

    async def blocks(self, numbers: Sequence[int], lane: Lane) -> Sequence[Block]:
        self.requests += 1
        return [block_of(number) for number in numbers]

    async def fetch(
        self, source: Source, first: int, last: int, lane: Lane, *, after: Block | None, after_sequence: int | None
    ) -> Fetched:
        self.requests += 1
        if self.away:
            self.away -= 1
            raise Unavailable("chain:mem", "nobody answers")
        if self.held_from is not None and last >= self.held_from:
            await self.open.wait()
        await asyncio.sleep(self.seconds)
        if after is not None and after.hash != hash_of(after.number):
            raise Forked(after.number, after.hash, hash_of(after.number), ["memory"])
        events = self.chain.events(first, last)
        if self.loses_at == first and after_sequence is None:
            self.loses_at = None
            events = events[1:]
        numbers = sorted({first, last} | {event.block_number for event in events})
        self.fetched.append((first, last))
        counter = self.chain.counter(last) if self.keeps_state else None
        blocks = tuple(block_of(number) for number in numbers)
        return Fetched(first, last, blocks, tuple(events), counter, ("memory",), whole=False)

    async def counter(self, source: Source, block: Block, lane: Lane) -> int | None:
        self.requests += 1
        return self.chain.counter(block.number) if self.keeps_state else None

    async def books(self, source: Source, token: bytes, block: Block, lane: Lane) -> Books | None:
        """None: its contract holds no money."""
        return None

    def health(self) -> Sequence[ProviderHealth]:
        return ()

    async def close(self) -> None:
        """Nothing is held."""


async def followed(engine: AsyncEngine, tenant: UUID, *, start_block: int = 0, **changes: Any) -> Source:
    """A source of a tenant, registered as the API does it; ``changes`` replace fields."""
    address = new_id().bytes + bytes(4)
    fields: dict[str, Any] = {
        "source_id": 0,
        "tenant_id": tenant,
        "relayer_id": f"{CHAIN}:0x{address.hex()}",
        "chain": CHAIN,
        "kind": ChainKind.EVM,
        "network": "eip155:31337",
        "addresses": (address,),
        "start_block": start_block,
        "sequenced": True,
        "settles": False,
    }
    async with tenant_transaction(engine, tenant) as connection:
        source = Source(**(fields | changes))
        return await sources.register(connection, source, follow_from=0, last_sequence=0)
