"""Blocks of Bitcoin and its kin, taken apart from their bytes: what they hold follows from their hash alone.

A block's header is hashed to its name, and has the root of the tree over its transactions; ids are hashes over
transactions without their witnesses (BIP 141). So a node can leave nothing out and put nothing in. Hashes are in the
order in which people read them, which is not that of the bytes that are hashed.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

HEADER_BYTES: Final = 80
_HEADER: Final = struct.Struct("<4x32s32sI8x")
_OUTPOINT: Final = struct.Struct("<32sI")
_VALUE: Final = struct.Struct("<q")
#: Behind the version: a transaction without inputs there is none, so this tells of a witness (BIP 144), and on Litecoin
#: of the extension block.
_WITNESS, _EXTENSION = 1, 8
NOWHERE: Final = bytes(32)


class BlockInvalid(Exception):
    """Bytes that are no block, or not what their header says."""


class Header(NamedTuple):
    """What a header says, and its hash."""

    hash: bytes
    parent_hash: bytes
    merkle_root: bytes
    at_seconds: int


class Input(NamedTuple):
    """What is spent, and what is shown for it. A coinbase spends output 2**32 - 1 of nothing."""

    txid: bytes
    output: int
    script_sig: bytes
    witness: tuple[bytes, ...]


class Output(NamedTuple):
    """An amount in the smallest unit, and the script that guards it."""

    value: int
    script: bytes


@dataclass(frozen=True, slots=True)
class Transaction:
    """One transaction; ``extended`` is that which ties Litecoin's extension block to the chain."""

    txid: bytes
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    extended: bool = False


def hash256(content: bytes) -> bytes:
    """SHA-256 twice, in the order in which it is hashed on."""
    return hashlib.sha256(hashlib.sha256(content).digest()).digest()


def read_header(raw: bytes) -> Header:
    """Raises ``BlockInvalid``."""
    if len(raw) != HEADER_BYTES:
        raise BlockInvalid(f"a header of {len(raw)} bytes")
    parent, root, at_seconds = _HEADER.unpack(raw)
    return Header(hash256(raw)[::-1], parent[::-1], root[::-1], at_seconds)


def read_transaction(raw: bytes) -> Transaction:
    """One transaction and nothing behind it; raises ``BlockInvalid``."""
    try:
        found, end = _transaction(raw, 0)
    except (struct.error, IndexError):
        raise BlockInvalid("a transaction that is cut off") from None
    if end != len(raw):
        raise BlockInvalid("something behind a transaction")
    return found


def read_block(raw: bytes) -> tuple[Header, tuple[Transaction, ...]]:
    """A block that is complete and nothing else: raises ``BlockInvalid`` where its transactions are not those that its
    header was made over."""
    header = read_header(raw[:HEADER_BYTES])
    transactions: list[Transaction] = []
    try:
        count, at = _size(raw, HEADER_BYTES)
        for _ in range(count):
            transaction, at = _transaction(raw, at)
            transactions.append(transaction)
    except (struct.error, IndexError):
        raise BlockInvalid("a block that is cut off") from None
    # An extension block stands behind the transactions; the last of them, which is its header here, is in the tree.
    if not transactions or (at != len(raw) and not transactions[-1].extended):
        raise BlockInvalid("a block without transactions, or with something behind them")
    if merkle_root([transaction.txid for transaction in transactions]) != header.merkle_root:
        raise BlockInvalid("transactions that are not those of the header")
    return header, tuple(transactions)


def merkle_root(txids: Sequence[bytes]) -> bytes:
    """The root over ids. Two equal neighbours would let a block be told with a transaction twice (CVE-2012-2459), so
    they are no block: raises ``BlockInvalid``."""
    level = [txid[::-1] for txid in txids]
    while len(level) > 1:
        for at in range(0, len(level) - 1, 2):
            if level[at] == level[at + 1]:
                raise BlockInvalid("a transaction twice")
        if len(level) % 2:
            level.append(level[-1])
        level = [hash256(level[at] + level[at + 1]) for at in range(0, len(level), 2)]
    return level[0][::-1]


def _transaction(raw: bytes, start: int) -> tuple[Transaction, int]:
    """The transaction that begins at ``start``, and where it ends."""
    at, flags = start + 4, 0
    if raw[at] == 0:
        flags, at = raw[at + 1], at + 2
        if flags == 0 or flags & ~(_WITNESS | _EXTENSION):
            raise BlockInvalid(f"a transaction with flags {flags}")
    body = at
    count, at = _size(raw, at)
    spent: list[tuple[bytes, int, bytes]] = []
    for _ in range(count):
        txid, index = _OUTPOINT.unpack_from(raw, at)
        script, at = _bytes(raw, at + _OUTPOINT.size)
        at += 4
        spent.append((txid[::-1], index, script))
    count, at = _size(raw, at)
    outputs: list[Output] = []
    for _ in range(count):
        (value,) = _VALUE.unpack_from(raw, at)
        script, at = _bytes(raw, at + _VALUE.size)
        if value < 0:
            raise BlockInvalid("an amount below zero")
        outputs.append(Output(value, script))
    body_end = at
    witnesses: list[tuple[bytes, ...]] = []
    for _ in spent if flags & _WITNESS else ():
        count, at = _size(raw, at)
        items: list[bytes] = []
        for _ in range(count):
            item, at = _bytes(raw, at)
            items.append(item)
        witnesses.append(tuple(items))
    if flags & _EXTENSION:
        # In a block only the one that ties the extension has it, and nothing is in it.
        if raw[at] != 0:
            raise BlockInvalid("a transaction of the extension outside of it")
        at += 1
    if len(raw) < at + 4:
        raise IndexError
    txid = hash256(raw[start : start + 4] + raw[body:body_end] + raw[at : at + 4])[::-1]
    inputs = tuple(Input(*each, witnesses[place] if witnesses else ()) for place, each in enumerate(spent))
    return Transaction(txid, inputs, tuple(outputs), bool(flags & _EXTENSION)), at + 4


def _size(raw: bytes, at: int) -> tuple[int, int]:
    """A number as it is written before things that are counted, and where it ends."""
    first = raw[at]
    if first < 0xFD:
        return first, at + 1
    size = {0xFD: 2, 0xFE: 4, 0xFF: 8}[first]
    if len(raw) < at + 1 + size:
        raise IndexError
    return int.from_bytes(raw[at + 1 : at + 1 + size], "little"), at + 1 + size


def _bytes(raw: bytes, at: int) -> tuple[bytes, int]:
    size, at = _size(raw, at)
    if len(raw) < at + size:
        raise IndexError
    return raw[at : at + size], at + size
