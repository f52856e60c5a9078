"""Events of chains as their owners read them, those of orphaned blocks too. Statements see the transaction's tenant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.chain import Settled

_LAST: Final = 2**63 - 1


class Finality(StrEnum):
    """How sure it is that an event stays: its block is on the chain, deep enough, or final."""

    SEEN = "seen"
    CONFIRMED = "confirmed"
    FINALIZED = "finalized"


class Orphans(StrEnum):
    """What becomes of events whose block was left."""

    EXCLUDE = "exclude"
    INCLUDE = "include"
    ONLY = "only"


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events are listed; None is any. ``finality`` is the least."""

    relayer_id: str | None = None
    kind: str | None = None
    subject: bytes | None = None
    escrow_id: UUID | None = None
    account: bytes | None = None
    token: bytes | None = None
    tx_hash: bytes | None = None
    from_block: int | None = None
    to_block: int | None = None
    finality: Finality = Finality.SEEN
    orphans: Orphans = Orphans.EXCLUDE


class Place(NamedTuple):
    """Where an event stands in the list."""

    source_id: int
    block_number: int
    log_index: int
    block_hash: bytes


@dataclass(frozen=True, slots=True)
class Listed:
    """An event, whose it is, and what came of it."""

    source_id: int
    relayer_id: str
    chain: str
    chain_kind: str
    network: str
    block_number: int
    block_hash: bytes
    tx_hash: bytes
    tx_index: int
    log_index: int
    consumer_id: UUID
    kind: str
    sequence: int | None
    subject: bytes | None
    account: bytes | None
    token: bytes | None
    amount: int | None
    payload: bytes
    at: datetime
    canonical: bool
    outcome: Settled | None
    outcome_code: str | None
    recorded_at: datetime
    confirmed_number: int
    finalized_number: int
    escrow_id: UUID | None

    @property
    def place(self) -> Place:
        """Where it stands in the list."""
        return Place(self.source_id, self.block_number, self.log_index, self.block_hash)

    @property
    def finality(self) -> Finality | None:
        """How sure it is that it stays; None of one whose block was left."""
        if not self.canonical:
            return None
        if self.block_number <= self.finalized_number:
            return Finality.FINALIZED
        return Finality.CONFIRMED if self.block_number <= self.confirmed_number else Finality.SEEN


#: The event's columns that a filter compares with a value.
_EQUAL: Final = ("kind", "subject", "account", "token", "tx_hash")
_BOUND: Final = {
    Finality.SEEN: "",
    Finality.CONFIRMED: " AND e.block_number <= c.confirmed_number",
    Finality.FINALIZED: " AND e.block_number <= c.finalized_number",
}
_CANONICAL: Final = {
    Orphans.EXCLUDE: " AND e.canonical",
    Orphans.INCLUDE: "",
    Orphans.ONLY: " AND NOT e.canonical",
}
_SOURCES = text(
    "SELECT s.source_id FROM chain_sources s WHERE (CAST(:relayer AS text) IS NULL OR s.relayer_id = :relayer)"
    " AND (CAST(:before AS bigint) IS NULL OR s.source_id <= :before)"
)
_ESCROW = text("SELECT source_id, onchain_id FROM chain_escrows WHERE escrow_id = :escrow")


async def list_(
    connection: AsyncConnection, wanted: EventFilter, *, before: Place | None, limit: int
) -> Sequence[Listed]:
    """Events, relayer by relayer, the last registered first, and of each the newest first; ``before`` is the place of
    the last one that was read.

    Each source's part reads one stretch of an index that has its order: a tenant's own few are found without walking
    past those of others.
    """
    given: dict[str, Any] = {
        "limit": limit,
        "first": wanted.from_block or 0,
        "last": _LAST if wanted.to_block is None else wanted.to_block,
    }
    where = _BOUND[wanted.finality] + _CANONICAL[wanted.orphans]
    for name in _EQUAL:
        value = getattr(wanted, name)
        if value is not None:
            where, given = f"{where} AND e.{name} = :{name}", {**given, name: value}
    sources = await _sources(connection, wanted, before)
    if wanted.escrow_id is not None:
        link = (await connection.execute(_ESCROW, {"escrow": wanted.escrow_id})).one_or_none()
        if link is None:
            return ()
        sources = [source for source in sources if source == link.source_id]
        where, given = f"{where} AND e.subject = :onchain", {**given, "onchain": link.onchain_id}
    upto = "CAST(:last AS bigint)"
    if before is not None:
        upto = f"CASE WHEN n.source_id = :b_source THEN least({upto}, CAST(:b_block AS bigint)) ELSE {upto} END"
        behind = "(e.block_number, e.log_index, e.block_hash) < (CAST(:b_block AS bigint), :b_log, :b_hash)"
        where += f" AND (n.source_id < :b_source OR {behind})"
        given |= dict(zip(("b_source", "b_block", "b_log", "b_hash"), before, strict=True))
    rows = await connection.execute(text(_statement(where, upto)), {**given, "sources": sources})
    return [_listed(row) for row in rows.mappings()]


async def _sources(connection: AsyncConnection, wanted: EventFilter, before: Place | None) -> list[int]:
    given = {"relayer": wanted.relayer_id, "before": None if before is None else before.source_id}
    return list((await connection.execute(_SOURCES, given)).scalars())


def _statement(where: str, upto: str) -> str:
    order = "block_number DESC, log_index DESC, block_hash DESC"
    return (
        "SELECT e.*, s.relayer_id, s.chain, s.kind AS chain_kind, s.network, c.confirmed_number, c.finalized_number,"
        " x.escrow_id FROM unnest(CAST(:sources AS int[])) AS n (source_id)"
        " JOIN chain_sources s USING (source_id) JOIN chain_cursors c USING (source_id) CROSS JOIN LATERAL ("
        "SELECT e.source_id, block_number, block_hash, tx_hash, tx_index, log_index, consumer_id, e.kind, sequence,"
        " subject, account, token, amount, payload, at, canonical, outcome, outcome_code, e.recorded_at"
        " FROM chain_events e WHERE e.source_id = n.source_id AND e.block_number >= CAST(:first AS bigint)"
        f" AND e.block_number <= {upto}{where} ORDER BY {order} LIMIT :limit) e"
        " LEFT JOIN chain_escrows x ON x.source_id = e.source_id AND x.onchain_id = e.subject"
        f" ORDER BY e.source_id DESC, {order} LIMIT :limit"
    )


def _listed(row: Any) -> Listed:
    amount, outcome = row["amount"], row["outcome"]
    typed = {
        "amount": None if amount is None else int(amount),
        "outcome": None if outcome is None else Settled(outcome),
    }
    return Listed(**{**row, **typed})
