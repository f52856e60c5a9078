"""A chain in memory, and a desk over it that can be made to lag, to be away, and to change while it is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256

from activities.chain.ports import ChainDesk, Forked, Lane, ProviderHealth
from domain.chain import Block, Books, Event, Fetched, Head, Source
from domain.errors import Unavailable

BEGAN = 1_700_000_000


def digest(*parts: object) -> bytes:
    return sha256("|".join(map(str, parts)).encode()).digest()


@dataclass(frozen=True, slots=True)
class Mined:
    """A block with the transactions that it holds, by name, and the events of each."""

    block: Block
    events: tuple[Event, ...]


class ModelChain:
    """Blocks on top of one another; what was left is forgotten. A transaction has two events, and keeps its name
    wherever it is mined."""

    def __init__(self) -> None:
        self.blocks: list[Mined] = []
        self.finalized = 0
        self._made = 0
        self.mine()

    def mine(self, *transactions: str) -> Block:
        """Put a block on top. A transaction that is there already is left out."""
        self._made += 1
        there = {event.tx_hash for mined in self.blocks for event in mined.events}
        number = len(self.blocks)
        parent = self.blocks[-1].block.hash if self.blocks else bytes(32)
        block = Block(number, digest("block", self._made, number), parent, BEGAN + number)
        sequence, events = self.sequence, list[Event]()
        wanted = [digest("tx", name) for name in transactions]
        for tx_index, tx_hash in enumerate(hash_ for hash_ in wanted if hash_ not in there):
            for ordinal in range(2):
                sequence += 1
                events.append(_event(block, tx_hash, tx_index, len(events), ordinal, sequence))
        self.blocks.append(Mined(block, tuple(events)))
        return block

    def drop(self, depth: int) -> None:
        """Forget so many blocks, never what is final."""
        depth = min(depth, self.head.number - self.finalized)
        if depth:
            del self.blocks[-depth:]

    def finalize(self, number: int) -> None:
        self.finalized = max(self.finalized, min(number, self.head.number))

    @property
    def head(self) -> Block:
        return self.blocks[-1].block

    @property
    def sequence(self) -> int:
        return self.sequence_at(len(self.blocks) - 1)

    def sequence_at(self, number: int) -> int:
        return sum(len(mined.events) for mined in self.blocks[: number + 1])

    def events(self, first: int, last: int) -> tuple[Event, ...]:
        return tuple(event for mined in self.blocks[first : last + 1] for event in mined.events)


@dataclass(eq=False)
class ModelDesk:
    """A desk whose only provider is the model. ``away`` answers nothing, ``lag`` blocks are not seen yet, ``before``
    happens before each fetch."""

    chain: ModelChain
    name: str = "model"
    confirmations: int = 2
    finality_depth: int | None = None
    poll_seconds: float = 0.02
    away: bool = False
    lag: int = 0
    sparse: bool = False
    before: Callable[[], None] | None = None
    fetches: list[tuple[int, int]] = field(default_factory=list)

    async def head(self, lane: Lane) -> Head:
        self._reach()
        seen = max(0, self.chain.head.number - self.lag)
        return Head(self.chain.blocks[seen].block, min(self.chain.finalized, seen))

    async def blocks(self, numbers: Sequence[int], lane: Lane) -> Sequence[Block]:
        self._reach()
        if max(numbers) >= len(self.chain.blocks):
            raise Unavailable(f"chain:{self.name}", "nobody has that block")
        return [self.chain.blocks[number].block for number in numbers]

    async def fetch(
        self, source: Source, first: int, last: int, lane: Lane, *, after: Block | None, after_sequence: int | None
    ) -> Fetched:
        self._reach()
        if self.before is not None:
            self.before()
        if last >= len(self.chain.blocks):
            raise Unavailable(f"chain:{self.name}", "nobody has that block")
        self.fetches.append((first, last))
        mined = self.chain.blocks[first : last + 1]
        if after is not None and mined[0].block.parent_hash != after.hash:
            raise Forked(after.number, after.hash, mined[0].block.parent_hash, ["model"])
        blocks = [each.block for each in mined]
        if self.sparse:
            ends = {first, last}
            blocks = [each.block for each in mined if each.events or each.block.number in ends]
        return Fetched(
            first,
            last,
            tuple(blocks),
            self.chain.events(first, last),
            self.chain.sequence_at(last) if source.sequenced else None,
            ("model",),
            whole=not self.sparse,
        )

    async def counter(self, source: Source, block: Block, lane: Lane) -> int | None:
        return self.chain.sequence_at(block.number)

    async def books(self, source: Source, token: bytes, block: Block, lane: Lane) -> Books | None:
        """None: its contract holds no money."""
        return None

    def health(self) -> Sequence[ProviderHealth]:
        return [ProviderHealth("model", "ok", datetime.now(UTC), None, None, None, 0, 0, None)]

    async def close(self) -> None:
        """Nothing is held."""

    def _reach(self) -> None:
        if self.away:
            raise Unavailable(f"chain:{self.name}", "away")


#: The chains of the tests' worker, by name; a test that wants one puts it there.
CHAINS: dict[str, ChainDesk] = {}


def _event(block: Block, tx_hash: bytes, tx_index: int, log_index: int, ordinal: int, sequence: int) -> Event:
    return Event(
        block_number=block.number,
        block_hash=block.hash,
        tx_hash=tx_hash,
        tx_index=tx_index,
        log_index=log_index,
        ordinal=ordinal,
        kind="Funded",
        sequence=sequence,
        subject=digest("escrow", tx_hash.hex()),
        account=tx_hash[:20],
        token=bytes(20),
        amount=2**256 - sequence,
        payload=tx_hash + bytes([ordinal]),
        at_seconds=block.at_seconds,
    )
