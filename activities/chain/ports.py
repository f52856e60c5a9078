"""What chains must offer: one node of a chain, and the chain through all of its nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from domain.chain import Block, Books, Event, Fetched, Head, Source


class FaultKind(StrEnum):
    """Why a node of a chain gave no usable answer."""

    UNAVAILABLE = "unavailable"
    RATE_LIMITED = "rate_limited"
    TOO_WIDE = "too_wide"
    TOO_MUCH = "too_much"
    BEHIND = "behind"
    NO_STATE = "no_state"
    NONSENSE = "nonsense"
    WRONG_CHAIN = "wrong_chain"
    REFUSED = "refused"


class ChainFault(Exception):
    """A node of a chain gave no usable answer.

    ``TOO_WIDE`` and ``TOO_MUCH`` ask for fewer blocks, ``limit_blocks`` says how many where the node did. ``BEHIND``:
    it does not have that block (yet). ``NO_STATE``: it keeps no state that old. ``REFUSED`` is final for this request.
    The message is in words, without any key or address of the node.
    """

    def __init__(
        self,
        kind: FaultKind,
        message: str,
        *,
        retry_after_seconds: float | None = None,
        limit_blocks: int | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.retry_after_seconds = retry_after_seconds
        self.limit_blocks = limit_blocks


class ChainReader(Protocol):
    """One node of one chain. Everything raises ``ChainFault``, and answers within the reader's own time limit.

    Nothing is tried again here and nothing is checked against another node: that is for who asks several.
    """

    @property
    def name(self) -> str:
        """What the configuration calls the provider."""

    async def network(self) -> str:
        """The chain's own identity (CAIP-2), as the node says."""

    async def head(self) -> Head:
        """The end of the chain."""

    async def blocks(self, numbers: Sequence[int]) -> Sequence[Block]:
        """The headers at these heights on the node's best chain, in this order; ``BEHIND`` where one is not there."""

    async def events(self, source: Source, first: int, last: int) -> Sequence[Event]:
        """Every event of the source in these blocks, in the chain's order, well-formed; ``at_seconds`` may be 0."""

    async def events_of(self, source: Source, block: Block) -> Sequence[Event]:
        """Every event of the source in exactly this block, by its hash; ``BEHIND`` where the node has left it."""

    async def counter(self, source: Source, block: Block) -> int | None:
        """The number of the source's last event as of exactly this block; None where it has none or keeps none."""

    async def books(self, source: Source, token: bytes, block: Block) -> Books | None:
        """What the source's contract says of its money in a token as of exactly this block; None where the node keeps
        no state that old, or there is no such contract."""

    async def close(self) -> None:
        """Let go of connections; a later call opens others."""


class Lane(StrEnum):
    """For whom a request is made: where the budget is short, the live end goes first."""

    LIVE = "live"
    JOB = "job"


@dataclass(frozen=True, slots=True)
class ProviderHealth:
    """How a provider does: ``ok``, ``lagging``, ``down``, ``accused`` (it was caught lying) or ``wrong_chain``."""

    provider: str
    status: str
    status_at: datetime
    reason: str | None
    head_number: int | None
    latency_ms: int | None
    requests: int
    failures: int
    range_blocks: int | None


class Forked(Exception):
    """The blocks that were asked for do not continue the block that they were to continue."""

    def __init__(self, number: int, expected: bytes, found: bytes, providers: Sequence[str]) -> None:
        super().__init__(f"block {number} is {found.hex()}, not {expected.hex()}")
        self.number = number
        self.expected = expected
        self.found = found
        self.providers = tuple(providers)


class ChainDesk(Protocol):
    """One chain through all of its providers: who fails is passed over, who lies is named, nobody is asked too often.

    Raises ``Unavailable`` (``chain:NAME``) where no provider, or not enough of them, can say.
    """

    @property
    def name(self) -> str:
        """What the configuration calls the chain."""

    @property
    def confirmations(self) -> int:
        """How many blocks on top make a block confirmed."""

    @property
    def finality_depth(self) -> int | None:
        """How many blocks on top make one final; None: the chain's own word counts."""

    @property
    def poll_seconds(self) -> float:
        """How often the head is looked at."""

    async def head(self, lane: Lane) -> Head:
        """The best head that is vouched for: the highest on which enough providers agree; its ``finalized`` is the
        lowest that they say."""

    async def blocks(self, numbers: Sequence[int], lane: Lane) -> Sequence[Block]:
        """Headers that enough providers agree on; where one is enough, none that is as far says otherwise."""

    async def fetch(
        self, source: Source, first: int, last: int, lane: Lane, *, after: Block | None, after_sequence: int | None
    ) -> Fetched:
        """Everything of a source in these blocks, complete and agreed on.

        ``after`` is the block that they continue, where it is known: raises ``Forked`` if enough providers say that
        they do not. ``after_sequence`` is the number of the last event before ``first``, where it is known: a sequenced
        source's numbers must then run on from it without a gap and end with the counter of block ``last``; a provider
        whose answer does not is named, and another one asked. Cuts the range into what each provider bears.
        """

    async def counter(self, source: Source, block: Block, lane: Lane) -> int | None:
        """The number of the source's last event as of exactly this block; None where nobody keeps it."""

    async def books(self, source: Source, token: bytes, block: Block, lane: Lane) -> Books | None:
        """What the source's contract says of its money in a token as of exactly this block, agreed on; None where
        nobody keeps it."""

    def health(self) -> Sequence[ProviderHealth]:
        """How each provider does, as seen from this process."""

    async def close(self) -> None:
        """Let go of connections."""
