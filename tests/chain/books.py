"""Books of a contract that is a model, compared as the schedule compares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from temporalio.testing import ActivityEnvironment

from activities.chain.books import BooksReadingActivities, ChainBooksActivities
from activities.chain.messages import BooksCompared, CompareBooks, ReadBooks
from activities.chain.ports import Lane, ProviderHealth
from db.doorbell import Doorbell
from db.ids import new_id
from domain.chain import Block, Books, Fetched, Head, Source
from kit.clock import now
from tests.chain.contract import Contract
from tests.chain.desk import ChainDesk
from tests.chain.tokens import TOKENS


@dataclass
class ModelChain:
    """A chain that knows one contract and is asked for its books alone. ``forced`` came without asking."""

    contract: Contract
    name: str = "local"
    confirmations: int = 0
    finality_depth: int | None = 0
    poll_seconds: float = 1.0
    forced: dict[str, int] = field(default_factory=dict)
    forgotten: bool = False

    async def books(self, source: Source, token: bytes, block: Block, lane: Lane) -> Books | None:
        if self.forgotten:
            return None
        oracle, text = self.contract.oracle, f"0x{token.hex()}"
        held, owed = oracle.held[text], oracle.owed(text)
        return Books(oracle.sequence, held + owed + self.forced.get(text, 0), held, owed)

    async def head(self, lane: Lane) -> Head:
        raise NotImplementedError

    async def blocks(self, numbers: Sequence[int], lane: Lane) -> Sequence[Block]:
        raise NotImplementedError

    async def fetch(
        self, source: Source, first: int, last: int, lane: Lane, *, after: Block | None, after_sequence: int | None
    ) -> Fetched:
        raise NotImplementedError

    async def counter(self, source: Source, block: Block, lane: Lane) -> int | None:
        raise NotImplementedError

    def health(self) -> Sequence[ProviderHealth]:
        return ()

    async def close(self) -> None:
        """Nothing is held."""


async def read_books(desk: ChainDesk, chain: ModelChain | None = None) -> ReadBooks:
    """Read once."""
    reading = BooksReadingActivities(desk.engine, {"local": chain or ModelChain(desk.contract)}, {"local": TOKENS})
    return ReadBooks.model_validate(await ActivityEnvironment().run(reading.read, desk.run))


async def compare(desk: ChainDesk, chain: ModelChain | None = None) -> BooksCompared:
    """Read and compare once."""
    tenants, engine = desk.steps.engine, desk.engine
    steps = ChainBooksActivities(tenants, engine, Doorbell(tenants), {"local": TOKENS})
    environment = ActivityEnvironment()
    read = await read_books(desk, chain)
    asked = CompareBooks(run=desk.run, step=str(new_id()), at=now(), read=read)
    return BooksCompared.model_validate(await environment.run(steps.compare, asked))


async def compared(desk: ChainDesk, chain: ModelChain | None = None) -> Mapping[str, list[dict[str, Any]]]:
    """What differs, by token."""
    await compare(desk, chain)
    rows = await desk.steps.sql(
        "SELECT DISTINCT ON (token) token, parts FROM chain_books WHERE source_id = :source"
        " ORDER BY token, block_number DESC",
        source=desk.contract.source.source_id,
    )
    return {f"0x{bytes(row.token).hex()}": row.parts for row in rows}
