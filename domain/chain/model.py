"""What is followed on a chain, and what is seen there: blocks, events, heads.

Hashes and addresses are bytes in the order in which the chain's users read them. Times are seconds since 1970.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

from domain.chain.identity import source_namespace


class ChainKind(StrEnum):
    """What a chain is made of: accounts and contracts, or outputs that are spent."""

    EVM = "evm"
    UTXO = "utxo"


class RelayerStatus(StrEnum):
    """What a relayer does. ``OBSERVING`` has no live end: jobs alone fill it. ``HALTED`` stopped by itself, and an
    operator decides; nothing of it is published meanwhile."""

    FOLLOWING = "following"
    PAUSED = "paused"
    HALTED = "halted"
    OBSERVING = "observing"


@dataclass(frozen=True, slots=True)
class Source:
    """What one relayer follows: a contract, or addresses of interest on a UTXO chain.

    ``chain`` is the configuration's name, ``network`` the chain's own identity (CAIP-2: ``eip155:1``).
    ``addresses`` are 20 bytes each on EVM (exactly one), else output scripts. ``sequenced``: events carry one
    contiguous number, and the contract says the last one. ``start_block`` is the first block that can hold one.
    """

    source_id: int
    tenant_id: UUID
    relayer_id: str
    chain: str
    kind: ChainKind
    network: str
    addresses: tuple[bytes, ...]
    start_block: int
    sequenced: bool
    settles: bool

    @property
    def namespace(self) -> UUID:
        """Of the ids under which consumers know its events."""
        return source_namespace(self.network, self.addresses)


class Block(NamedTuple):
    """A block's header, as far as following needs it."""

    number: int
    hash: bytes
    parent_hash: bytes
    at_seconds: int


class Event(NamedTuple):
    """One event of a source, as one block has it.

    ``log_index`` is its place in the block and moves when it is mined again; ``ordinal``, its place among the source's
    events of its transaction, does not. ``subject`` is what it is about (an escrow's id on chain, or the script),
    ``amount`` is in the chain's smallest unit. ``payload`` is all that the chain says of it, see the kind's decoder.
    """

    block_number: int
    block_hash: bytes
    tx_hash: bytes
    tx_index: int
    log_index: int
    ordinal: int
    kind: str
    sequence: int | None
    subject: bytes | None
    account: bytes | None
    token: bytes | None
    amount: int | None
    payload: bytes
    at_seconds: int


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain as one provider sees it. ``finalized`` is the last block that the chain itself calls so; None
    where it does not say, then depth decides."""

    latest: Block
    finalized: int | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """Everything of a source in blocks ``first`` to ``last``, checked by whoever hands it over.

    ``blocks`` are parent-linked and complete where the range was fetched ``whole``; else the first, the last, and those
    with events. ``counter`` is the source's last number as of block ``last``, None where the chain could not say.
    ``providers`` are those who agreed on it.
    """

    first: int
    last: int
    blocks: tuple[Block, ...]
    events: tuple[Event, ...]
    counter: int | None
    providers: tuple[str, ...]
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Books:
    """What a contract says of its money in one token as of one block, in the token's smallest unit.

    ``balance`` is what the token says that it has, ``held`` what it holds for escrows, ``owed`` what it has credited to
    accounts that have not withdrawn it yet. ``sequence`` is the number of its last event.
    """

    sequence: int
    balance: int
    held: int
    owed: int


class Settled(StrEnum):
    """What a finalized event came to.

    ``SETTLED`` moved an escrow, or is a consequence of what did. ``UNSUPPORTED`` is of a token or of terms that the
    desk does not keep. ``DISAGREES`` is what the desk's own rules would not have done, and an operator must look.
    """

    SETTLED = "settled"
    UNSUPPORTED = "unsupported"
    DISAGREES = "disagrees"


#: A number larger than this is none of a counter's: it would not fit the column.
MAX_SEQUENCE: Final = 2**63 - 1
