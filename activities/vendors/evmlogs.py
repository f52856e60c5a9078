"""Logs of the escrow contract as a node writes them, taken apart by the ABI's fixed places: strictly, and fast.

What the contract cannot have written, or not there, is ``NONSENSE``: a node that shows it is broken or lies.
"""

from __future__ import annotations

from binascii import Error as HexInvalid
from binascii import unhexlify
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from activities.chain.ports import ChainFault, FaultKind
from domain.chain import Block, Event
from kit.evm import WORD, Layout, interface

_QUANTITY_DIGITS_MAX: Final = 18
_NO_NUMBER: Final = bytes(WORD)
#: Of each event so many arguments are topics.
_INDEXED: Final = 3


class Log(msgspec.Struct, rename="camel", gc=False):
    """As ``eth_getLogs`` answers it (ethereum/execution-apis); ``block_timestamp`` is younger than the others, and not
    everywhere the same."""

    address: str
    topics: list[str]
    data: str
    block_number: str
    block_hash: str
    transaction_hash: str
    transaction_index: str
    log_index: str
    block_timestamp: Any = None
    removed: bool | None = False


def nonsense(message: str) -> ChainFault:
    """The fault of an answer that cannot be true."""
    return ChainFault(FaultKind.NONSENSE, message)


def quantity(text: str) -> int:
    """A number as JSON-RPC writes it: 0x and no more digits than it needs; at most 64 bits."""
    digits = text[2:]
    if not text.startswith("0x") or not digits.isalnum() or len(text) > _QUANTITY_DIGITS_MAX:
        raise nonsense(f"a number is {text[:40]!r}")
    try:
        return int(digits, 16)
    except ValueError:
        raise nonsense(f"a number is {text[:40]!r}") from None


def octets(text: str, size: int) -> bytes:
    """Bytes as JSON-RPC writes them, of a known size."""
    if len(text) == 2 + 2 * size and text.startswith("0x"):
        try:
            return unhexlify(text[2:])
        except (HexInvalid, ValueError):
            pass
    raise nonsense(f"{size} bytes are {text[:80]!r}")


@dataclass(frozen=True, slots=True)
class _Reading:
    """One event's places, looked up once."""

    kind: str
    digits: int
    zeros: int
    choices: tuple[tuple[int, frozenset[int]], ...]
    subject: slice | None
    account: slice
    token: slice | None
    amount: slice | None

    @classmethod
    def of(cls, layout: Layout) -> _Reading:
        subject, whose = layout.offset("escrow_id"), layout.offset("account", "by")
        token, amount = layout.offset("token"), layout.offset("amount")
        if whose is None or layout.offset("sequence") != 0 or layout.indexed != _INDEXED:
            raise ValueError(f"{layout.kind} does not say its number and whose it is, or not in {_INDEXED} topics")
        account = slice(whose + 12, whose + WORD)
        return cls(
            kind=layout.kind,
            digits=2 * (_INDEXED + 1 + layout.size),
            zeros=layout.zeros,
            choices=layout.choices,
            subject=None if subject is None else slice(subject, subject + WORD),
            account=account,
            token=None if token is None else slice(token + 12, token + WORD),
            amount=None if amount is None else slice(amount, amount + WORD),
        )


class LogDecoder:
    """Logs to events. Made once; it keeps nothing of what it decodes."""

    def __init__(self, layouts: Mapping[str, Layout] | None = None) -> None:
        chosen = interface().layouts if layouts is None else layouts
        self._readings = {topic: _Reading.of(layout) for topic, layout in chosen.items()}

    def events(
        self, logs: Sequence[Log], address: bytes, first: int, last: int, block: Block | None = None
    ) -> list[Event]:
        """The events of blocks ``first`` to ``last``, or of ``block`` alone, in the chain's order.

        Raises ``ChainFault``: ``NONSENSE`` for a log of another contract, of another block, that was removed, that is
        there twice or out of order, or that the contract cannot have written.
        """
        wanted = f"0x{address.hex()}"
        numbers, seen, found = _Numbers(), set[str](), list[Event]()
        said_hash = said_number = said_transaction = said_index = ""
        number, block_hash, index, transaction, ordinal, at, log_before = -1, b"", -1, b"", 0, 0, -1
        for log in logs:
            if log.removed:
                raise nonsense("a log that a reorganisation removed")
            if log.address != wanted and log.address.lower() != wanted:
                raise nonsense("a log of another contract")
            if log.block_hash != said_hash:
                before, (number, block_hash, at) = number, _block(log)
                said_hash, said_number, said_transaction = log.block_hash, log.block_number, ""
                index = log_before = -1
                if number <= before:
                    raise nonsense(f"logs of block {number} behind those of block {before}, or of two blocks there")
                if not first <= number <= last or (block is not None and block_hash != block.hash):
                    raise nonsense(f"a log of block {number}, which was not asked for")
            if log.transaction_hash != said_transaction:
                said_transaction, said_index = log.transaction_hash, log.transaction_index
                index_before, index, ordinal = index, numbers[said_index], 0
                transaction = octets(said_transaction, WORD)
                if index <= index_before or said_transaction in seen:
                    raise nonsense(f"transactions of block {number} twice or out of order")
                seen.add(said_transaction)
            place = numbers[log.log_index]
            if place <= log_before or log.block_number != said_number or log.transaction_index != said_index:
                raise nonsense(f"logs of block {number} twice, out of order, or in two places")
            reading = self._readings.get(log.topics[0]) if log.topics else None
            if reading is None:
                raise nonsense(f"a log of block {number} with an event that the contract does not have")
            payload = _payload(reading, log)
            sequence = int.from_bytes(payload[:WORD])
            account, token, amount = payload[reading.account], reading.token, reading.amount
            row = (
                number,
                block_hash,
                transaction,
                index,
                place,
                ordinal,
                reading.kind,
                sequence,
                account if reading.subject is None else payload[reading.subject],
                account,
                None if token is None else payload[token],
                None if amount is None else int.from_bytes(payload[amount]),
                payload,
                at,
            )
            # As Event() makes it, without the call in between.
            found.append(tuple.__new__(Event, row))
            ordinal, log_before = ordinal + 1, place
        return found


class _Numbers(dict[str, int]):
    """The same few numbers are written again and again."""

    def __missing__(self, text: str) -> int:
        number = self[text] = quantity(text)
        return number


def _block(log: Log) -> tuple[int, bytes, int]:
    """The number, hash and time (0 where the node does not say) of a log's block."""
    at_seconds = quantity(log.block_timestamp) if isinstance(log.block_timestamp, str) else 0
    return quantity(log.block_number), octets(log.block_hash, WORD), at_seconds


def _payload(reading: _Reading, log: Log) -> bytes:
    """Topics behind the first, and data, as the contract can have written them."""
    try:
        _, first, second, third = log.topics
    except ValueError:
        raise nonsense(f"{reading.kind} with {len(log.topics)} topics") from None
    text = first + second + third + log.data
    # Where each word must begin it does; so each has its length, and between the marks are its digits.
    if len(text) != reading.digits or not (
        text.startswith("0x")
        and text.startswith("0x", 66)
        and text.startswith("0x", 132)
        and text.startswith("0x", 198)
    ):
        raise nonsense(f"{reading.kind} with words of another size, or too few or too many of them")
    try:
        payload = unhexlify(text[2:66] + text[68:132] + text[134:198] + text[200:])
    except (HexInvalid, ValueError):
        raise nonsense(f"{reading.kind} with digits that are none") from None
    if int.from_bytes(payload) & reading.zeros:
        raise nonsense(f"{reading.kind} with a word that is larger than its type")
    for at, allowed in reading.choices:
        if payload[at] not in allowed:
            raise nonsense(f"{reading.kind} with a role that there is not")
    if payload.startswith(_NO_NUMBER):
        raise nonsense(f"{reading.kind} with the number 0")
    return payload
