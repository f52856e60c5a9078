"""The bytes that are sealed: one form for each version of a row, and the record that a batch keeps of each entry.

Every field of a form has an alphabet without its separator or says its length, so that two different rows never have
one form. PostgreSQL builds the same bytes in ``db.sealing.streams``; the tests hold both equal.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from domain.sealing.merkle import HASH_BYTES, leaf_hash

_POSTGRES_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_ENTRY: Final = struct.Struct(f">q16s16s{HASH_BYTES}s")
ENTRY_BYTES: Final = _ENTRY.size


class Entry(NamedTuple):
    """What a batch keeps of one row: its place in the stream, whose it is, its id, and the hash of its form."""

    key: int
    tenant: bytes
    id: bytes
    leaf: bytes

    def name(self) -> str:
        """As a person looks it up."""
        return f"{UUID(bytes=self.id)} of tenant {UUID(bytes=self.tenant)}"


class Leg(NamedTuple):
    """A row of ``ledger_legs`` as text; what is null is None."""

    leg_no: str
    account_id: str
    amount_minor: str
    hold_id: str | None
    asset: str
    pot: str


class Transaction(NamedTuple):
    """A row of ``ledger_transactions`` as text, its instants as ``instant_hex`` writes them; what is null is None."""

    sequence: str
    tenant_id: str
    transaction_id: str
    leg_count: str
    effective_at: str
    recorded_at: str
    escrow_id: str | None
    reverses_id: str | None
    kind: str
    reference: str | None
    description: str | None


def instant_hex(instant: datetime) -> str:
    """Microseconds since 2000 as PostgreSQL keeps them: a signed 64-bit number in 16 hexadecimal digits."""
    return f"{(instant - _POSTGRES_EPOCH) // timedelta(microseconds=1) & (1 << 64) - 1:016x}"


def ledger_form(t: Transaction, legs: Iterable[Leg]) -> bytes:
    """Version 1 of a transaction with all its legs, which come in the order of their numbers."""
    texts = f"{_counted(t.kind)}|{_counted(t.reference)}|{_counted(t.description)}"
    head = (
        f"holdfast ledger 1|{t.sequence}|{t.tenant_id}|{t.transaction_id}|{t.leg_count}|{t.effective_at}|"
        f"{t.recorded_at}|{t.escrow_id or ''}|{t.reverses_id or ''}|{texts}"
    )
    return (head + "".join(map(_leg_form, legs))).encode()


def ledger_entry(t: Transaction, legs: Iterable[Leg]) -> Entry:
    """The entry of a transaction."""
    tenant, identity = bytes.fromhex(t.tenant_id.replace("-", "")), bytes.fromhex(t.transaction_id.replace("-", ""))
    return Entry(int(t.sequence), tenant, identity, leaf_hash(ledger_form(t, legs)))


class Attempt(NamedTuple):
    """A row of ``alert_attempts`` as text, its instants as ``instant_hex`` writes them; what is null is None."""

    sequence: str
    tenant_id: str
    entry_id: str
    notification_id: str
    attempt_id: str | None
    delivery: str
    at: str
    recorded_at: str
    phase: str
    channel: str | None
    vendor: str | None
    address: str | None
    subject: str | None
    body: str | None
    html: str | None
    outcome: str | None
    reference: str | None
    code: str | None
    detail: str | None
    provider_event: str | None


def attempt_form(a: Attempt) -> bytes:
    """Version 1 of a row of the log of attempts."""
    head = (
        f"holdfast alert 1|{a.sequence}|{a.tenant_id}|{a.entry_id}|{a.notification_id}|{a.attempt_id or ''}|"
        f"{a.delivery}|{a.at}|{a.recorded_at}"
    )
    return (head + "".join(f"|{_counted(text)}" for text in a[8:])).encode()


def attempt_entry(a: Attempt) -> Entry:
    """The entry of a row of the log of attempts."""
    tenant, identity = bytes.fromhex(a.tenant_id.replace("-", "")), bytes.fromhex(a.entry_id.replace("-", ""))
    return Entry(int(a.sequence), tenant, identity, leaf_hash(attempt_form(a)))


def _leg_form(leg: Leg) -> str:
    return (
        f"\n{leg.leg_no}|{leg.account_id}|{leg.amount_minor}|{leg.hold_id or ''}|"
        f"{_counted(leg.asset)}|{_counted(leg.pot)}"
    )


def _counted(text: str | None) -> str:
    """A text behind its length in bytes; a null has no length."""
    if text is None:
        return ":"
    return f"{len(text) if text.isascii() else len(text.encode())}:{text}"


def entries_of(raw: bytes) -> Iterator[Entry]:
    """The entries that a batch keeps; raises ``ValueError`` when the bytes are not made of whole ones."""
    if len(raw) % ENTRY_BYTES:
        raise ValueError(f"{len(raw)} bytes are not whole entries of {ENTRY_BYTES}")
    return map(Entry._make, _ENTRY.iter_unpack(raw))


def leaves_of(raw: bytes) -> list[bytes]:
    """The leaf hashes alone."""
    return [raw[end - HASH_BYTES : end] for end in range(ENTRY_BYTES, len(raw) + 1, ENTRY_BYTES)]


@dataclass(frozen=True, slots=True)
class BatchHead:
    """A batch without its entries; ``total_count`` counts the stream's entries up to its end."""

    stream: str
    batch_no: int
    first_key: int
    last_key: int
    entry_count: int
    total_count: int
    root: bytes

    def form(self) -> str:
        """Version 1 of what is hashed."""
        keys = f"{self.stream}|{self.batch_no}|{self.first_key}|{self.last_key}"
        return f"holdfast batch 1|{keys}|{self.entry_count}|{self.total_count}|{self.root.hex()}"

    def leaf(self) -> bytes:
        """Its leaf in the tree that checkpoints are about; batch 1 is leaf 0."""
        return leaf_hash(self.form().encode())
