"""From the first batch to the last: rows against seals, seals against the tree, the tree against what was signed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NoReturn
from uuid import UUID

import psycopg

from domain.sealing import merkle
from domain.sealing.merkle import HASH_BYTES, Frontier
from domain.sealing.records import ENTRY_BYTES, BatchHead, Entry, entries_of, leaves_of
from tools.seals.findings import Finding
from tools.seals.rows import Rows
from tools.seals.signed import Signed

_BATCHES = """
SELECT stream, batch_no, first_key, last_key, entry_count, total_count, root, nodes, entries FROM seal_batches
WHERE stream = %s AND batch_no >= %s ORDER BY batch_no
"""
_BATCHES_AHEAD = 20
MAX_KEY = 2**63 - 1


@dataclass(slots=True)
class Scan:
    """The batches of a stream. ``connection`` reads seals and looks rows up, ``rows`` comes from another one."""

    connection: psycopg.Connection[Any]
    rows: Rows
    signed: Signed
    stream: str = "ledger"
    edge: Frontier = field(default_factory=Frontier.empty)
    last_key: int = 0
    total: int = 0
    checkpoints: int = 0
    _covered: int = 0
    _covered_key: int = 0

    def run(self) -> int:
        """Check everything; how many rows have no seal yet. Raises ``Finding`` for the first that is wrong."""
        with self.connection.cursor("batches") as cursor:
            cursor.itersize = _BATCHES_AHEAD
            cursor.execute(_BATCHES, [self.stream, self.edge.size + 1])
            for stream, number, first, last, count, total, root, nodes, raw in cursor:
                head = BatchHead(stream, number, first, last, count, total, bytes(root))
                self._batch(head, bytes(nodes), bytes(raw))
        beyond = max(self.signed.roots, default=0)
        if beyond > self.edge.size:
            raise Finding(
                f"batch {self.edge.size + 1} is missing: the database ends with batch {self.edge.size}, sequence"
                f" {self.last_key}, and a checkpoint of {beyond} batches was signed: every row sealed behind sequence"
                f" {self.last_key} was dropped or has lost its seal"
            )
        unsealed = self.rows.rest()
        self._balanced(MAX_KEY)
        return unsealed

    def _batch(self, head: BatchHead, nodes: bytes, raw: bytes) -> None:
        number = self.edge.size + 1
        if head.batch_no != number:
            raise Finding(
                f"batch {number} is missing: dropped, with the seals of the rows behind sequence {self.last_key} and"
                f" before sequence {head.first_key}"
            )
        found = self.rows.until(head.last_key)
        sealed = list(entries_of(raw)) if len(raw) % ENTRY_BYTES == 0 else []
        if merkle.root(leaves_of(raw)) != head.root or not sealed:
            self._record_edited(head, sealed, found)
        if sealed != found:
            self._row_differs(head, sealed, found)
        expected = BatchHead(
            self.stream, number, sealed[0].key, sealed[-1].key, len(sealed), self.total + len(sealed), head.root
        )
        if head != expected:
            raise Finding(f"batch {number} of sequence {head.first_key} to {head.last_key}: its head was edited")
        made = self.edge.append(head.leaf())
        if b"".join(made) != nodes:
            place = next(at for at in range(len(made) + 1) if made[at:] != _hashes(nodes)[at:]) if made else 0
            raise Finding(f"batch {number}: the tree's nodes that are kept with it were edited (from level {place})")
        self._balanced(head.last_key)
        self.last_key, self.total = head.last_key, head.total_count
        self._checkpoint(head)

    def _checkpoint(self, head: BatchHead) -> None:
        size = self.edge.size
        root = self.signed.roots.get(size)
        if root is None:
            return
        if root != self.edge.root():
            raise Finding(
                f"history was rewritten, rows and seals together: the checkpoint of {size} batches was signed for other"
                f" rows. The first of them is in batch {self._covered + 1} or behind it, between sequence"
                f" {self._covered_key + 1} and {head.last_key}"
            )
        self._covered, self._covered_key = size, head.last_key
        self.checkpoints += 1

    def _balanced(self, until: int) -> None:
        entry = self.rows.unbalanced
        if entry is not None and entry.key <= until:
            raise Finding(f"{self._row(entry)}: its legs do not add up to zero, or are not as many as it says")

    def _record_edited(self, head: BatchHead, sealed: list[Entry], found: list[Entry]) -> NoReturn:
        """The entries that a batch keeps are not under its root."""
        entry = next((kept for kept, now in zip(sealed, found, strict=False) if kept != now), None)
        of = "" if entry is None else f", entry of sequence {entry.key}, {self.rows.noun} {entry.name()}"
        if merkle.root([now.leaf for now in found]) == head.root:
            raise Finding(
                f"batch {head.batch_no}{of}: the seal's own record was edited; the rows are as they were sealed"
            )
        raise Finding(f"batch {head.batch_no}{of}: the seal's own record or its root was edited")

    def _row_differs(self, head: BatchHead, sealed: list[Entry], found: list[Entry]) -> NoReturn:
        """Name the first row that is not as it was sealed."""
        at = next(
            (at for at, (kept, now) in enumerate(zip(sealed, found, strict=False)) if kept != now),
            min(len(sealed), len(found)),
        )
        kept = sealed[at] if at < len(sealed) else None
        now = found[at] if at < len(found) else None
        where = f"batch {head.batch_no}"
        if now is not None and (kept is None or now.key < kept.key):
            was = self._sealed_as(now)
            if was is not None:
                raise Finding(f"{self._row(now)}, {where}: reordered; it was sealed as sequence {was}")
            raise Finding(f"{self._row(now)}, {where}: inserted; no seal covers it")
        assert kept is not None
        if now is not None and now.key == kept.key and (now.id, now.tenant) == (kept.id, kept.tenant):
            raise Finding(f"{self._row(kept)}, {where}: edited; {self.rows.whole} is not what was sealed")
        stands = self._stands_at(kept)
        if stands is not None:
            raise Finding(f"{self._row(kept)}, {where}: reordered; it stands at sequence {stands} now")
        instead = "" if now is None or now.key != kept.key else f"; {self.rows.noun} {now.name()} stands in its place"
        raise Finding(f"{self._row(kept)}, {where}: dropped{instead}")

    def _row(self, entry: Entry) -> str:
        return f"sequence {entry.key}, {self.rows.noun} {entry.name()}"

    def _stands_at(self, entry: Entry) -> int | None:
        row = self.connection.execute(
            self.rows.lookup,
            [UUID(bytes=entry.tenant), UUID(bytes=entry.id)],
        ).fetchone()
        return None if row is None else int(row[0])

    def _sealed_as(self, entry: Entry) -> int | None:
        rows = self.connection.execute(
            "SELECT entries FROM seal_batches WHERE stream = %s AND position(%s::bytea IN entries) > 0",
            [self.stream, entry.tenant + entry.id],
        )
        for (raw,) in rows:
            for sealed in entries_of(bytes(raw)):
                if (sealed.tenant, sealed.id) == (entry.tenant, entry.id):
                    return sealed.key
        return None


def _hashes(raw: bytes) -> list[bytes]:
    return [raw[at : at + HASH_BYTES] for at in range(0, len(raw), HASH_BYTES)]
