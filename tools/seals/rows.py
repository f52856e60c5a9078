"""The rows of a stream as they are now, each with the hash that it ought to be sealed under; made here, not in SQL."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any, ClassVar, LiteralString

import psycopg
from psycopg.types.string import TextLoader

from domain.sealing.records import Attempt, Entry, Leg, Transaction, attempt_entry, ledger_entry

#: Keys are positive; who puts a row in front of the first is found too.
BEFORE_ALL = -(2**63)
_HEAD = len(Transaction._fields)
_ROWS = """
SELECT t.sequence, t.tenant_id, t.transaction_id, t.leg_count, encode(timestamptz_send(t.effective_at), 'hex'),
       encode(timestamptz_send(t.recorded_at), 'hex'), t.escrow_id, t.reverses_id, t.kind, t.reference, t.description,
       l.leg_no, l.account_id, l.amount_minor, l.hold_id, l.asset, l.pot
FROM ledger_transactions t LEFT JOIN ledger_legs l USING (tenant_id, transaction_id)
WHERE t.sequence > %s ORDER BY t.sequence, l.leg_no
"""
_ATTEMPTS = """
SELECT sequence, tenant_id, entry_id, notification_id, attempt_id, delivery, encode(timestamptz_send(at), 'hex'),
       encode(timestamptz_send(recorded_at), 'hex'), phase, channel, vendor, address, subject, body, html, outcome,
       reference, code, detail, provider_event
FROM alert_attempts WHERE sequence > %s ORDER BY sequence
"""
_ROWS_AHEAD = 5_000
#: In the order of the index, with the legs looked up one by one: nothing is sorted as a whole, here or in the server.
_STREAMING = "SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL enable_seqscan = off"


@dataclass(slots=True)
class Rows:
    """The rows of a stream in the order of their keys; one is looked at ahead of the reader. ``noun`` is what messages
    call a row, ``whole`` what its seal is over; ``lookup`` finds its key by tenant and id."""

    noun: ClassVar[str]
    whole: ClassVar[str]
    lookup: ClassVar[LiteralString]

    connection: psycopg.Connection[Any]
    after: int = BEFORE_ALL
    count: int = 0
    #: The first transaction whose legs do not add up to nothing in each asset, or are not as many as it says.
    unbalanced: Entry | None = None
    _rows: Generator[Entry] = field(init=False)
    _next: Entry | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._rows = self._read()
        self._next = next(self._rows, None)

    def close(self) -> None:
        """Leave the connection free, wherever reading ended."""
        self._rows.close()

    def until(self, key: int) -> list[Entry]:
        """The entries up to ``key`` that were not taken yet."""
        taken = []
        while self._next is not None and self._next.key <= key:
            taken.append(self._next)
            self._next = next(self._rows, None)
        return taken

    def rest(self) -> int:
        """How many more there are; they are looked at too."""
        left = 0
        while self._next is not None:
            left += 1
            self._next = next(self._rows, None)
        return left

    def _read(self) -> Generator[Entry]:
        raise NotImplementedError


@dataclass(slots=True)
class LedgerRows(Rows):
    """Transactions with their legs."""

    noun = "transaction"
    whole = "the transaction or one of its legs"
    lookup = "SELECT sequence FROM ledger_transactions WHERE tenant_id = %s AND transaction_id = %s"

    def _read(self) -> Generator[Entry]:
        self.connection.execute(_STREAMING)
        with self.connection.cursor("rows") as cursor:
            cursor.itersize = _ROWS_AHEAD
            for kind in ("int2", "int8", "numeric", "uuid"):
                cursor.adapters.register_loader(kind, TextLoader)
            cursor.execute(_ROWS, [self.after])
            for _, rows in groupby(cursor, itemgetter(0)):
                found = list(rows)
                transaction = Transaction._make(found[0][:_HEAD])
                legs = [Leg._make(row[_HEAD:]) for row in found if row[_HEAD] is not None]
                self.count += 1
                entry = ledger_entry(transaction, legs)
                if self.unbalanced is None and not _balanced(transaction, legs):
                    self.unbalanced = entry
                yield entry


@dataclass(slots=True)
class AttemptRows(Rows):
    """The log of attempts to deliver alerts."""

    noun = "entry"
    whole = "the entry"
    lookup = "SELECT sequence FROM alert_attempts WHERE tenant_id = %s AND entry_id = %s"

    def _read(self) -> Generator[Entry]:
        self.connection.execute(_STREAMING)
        with self.connection.cursor("rows") as cursor:
            cursor.itersize = _ROWS_AHEAD
            for kind in ("int2", "int8", "uuid"):
                cursor.adapters.register_loader(kind, TextLoader)
            cursor.execute(_ATTEMPTS, [self.after])
            for row in cursor:
                self.count += 1
                yield attempt_entry(Attempt._make(row))


def _balanced(transaction: Transaction, legs: list[Leg]) -> bool:
    if str(len(legs)) != transaction.leg_count:
        return False
    sums: dict[str, int] = {}
    for leg in legs:
        sums[leg.asset] = sums.get(leg.asset, 0) + int(leg.amount_minor)
    return not any(sums.values())
