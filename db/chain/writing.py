"""The live end's rows: a piece behind the cursor, and what a reorganisation leaves. The caller holds the locks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.chain import coverage
from db.chain.rows import copy_events, put_blocks
from domain.chain import Block, Fetched, Source
from domain.chain.lineage import Reorg

__all__ = ["Left", "Stretch", "append", "hash_at", "kept", "leave", "record_reorg", "stretch"]

_LEFT: Final = (
    "consumer_id, kind, sequence, subject, account, token, amount, block_number, block_hash, tx_hash, log_index, at"
)


@dataclass(frozen=True, slots=True)
class Left:
    """An event whose block the chain has left."""

    consumer_id: UUID
    kind: str
    sequence: int | None
    subject: bytes | None
    account: bytes | None
    token: bytes | None
    amount: int | None
    block_number: int
    block_hash: bytes
    tx_hash: bytes
    log_index: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Stretch:
    """The events of some blocks: how many, and their first and last number, where they are numbered."""

    events: int
    first: int | None
    last: int | None

    @property
    def is_contiguous(self) -> bool:
        """Whether every number between the first and the last is there once."""
        return self.events == 0 or (
            self.first is not None and self.last is not None and self.last - self.first + 1 == self.events
        )


async def append(connection: AsyncConnection, source: Source, fetched: Fetched) -> None:
    """Write a piece that continues what is here, and cover its blocks.

    A chain may come back to blocks that it had left: their events are there, as orphans, and are written again.
    """
    await put_blocks(connection, source, fetched.blocks)
    if fetched.events:
        await connection.execute(
            text(
                "DELETE FROM chain_events WHERE source_id = :source AND block_number BETWEEN :first AND :last"
                " AND block_hash = ANY (:hashes)"
            ),
            {
                "source": source.source_id,
                "first": fetched.first,
                "last": fetched.last,
                "hashes": list({event.block_hash for event in fetched.events}),
            },
        )
        await copy_events(connection, source, fetched.events)
    await coverage.cover(connection, source.source_id, fetched.first, fetched.last)


async def leave(connection: AsyncConnection, source_id: int, above: int, upto: int) -> list[Left]:
    """Mark what stands above a block as left, rows stay; answers the events among it, newest first."""
    bounds = {"source": source_id, "above": above, "upto": upto}
    await connection.execute(
        text(
            "UPDATE chain_blocks SET canonical = false WHERE source_id = :source AND number > :above"
            " AND number <= :upto AND canonical"
        ),
        bounds,
    )
    rows = await connection.execute(
        text(
            "UPDATE chain_events SET canonical = false WHERE source_id = :source AND block_number > :above"
            f" AND block_number <= :upto AND canonical RETURNING {_LEFT}"
        ),
        bounds,
    )
    await coverage.uncover(connection, source_id, above + 1, upto)
    left = [_left(row) for row in rows]
    return sorted(left, key=lambda event: (event.block_number, event.log_index), reverse=True)


async def kept(connection: AsyncConnection, source_id: int, finalized: int, upto: int) -> dict[int, bytes]:
    """The blocks that are here from the last final one to ``upto``; that one is lower where ``finalized`` itself is
    not kept."""
    rows = await connection.execute(
        text(
            "SELECT number, hash FROM chain_blocks WHERE source_id = :source AND canonical AND number <= :upto"
            " AND number >= coalesce((SELECT max(number) FROM chain_blocks"
            " WHERE source_id = :source AND canonical AND number <= :finalized), 0)"
        ),
        {"source": source_id, "finalized": finalized, "upto": upto},
    )
    return {row.number: bytes(row.hash) for row in rows}


async def hash_at(connection: AsyncConnection, source_id: int, number: int) -> Block | None:
    """The block that is kept at a height, if it is."""
    rows = await connection.execute(
        text(
            "SELECT number, hash, parent_hash, at FROM chain_blocks"
            " WHERE source_id = :source AND number = :number AND canonical"
        ),
        {"source": source_id, "number": number},
    )
    row = rows.one_or_none()
    return None if row is None else Block(row.number, bytes(row.hash), bytes(row.parent_hash), int(row.at.timestamp()))


async def stretch(connection: AsyncConnection, source_id: int, first: int, last: int) -> Stretch:
    """The events in blocks ``first`` to ``last``."""
    rows = await connection.execute(
        text(
            "SELECT count(*) AS events, min(sequence) AS low, max(sequence) AS high FROM chain_events"
            " WHERE source_id = :source AND block_number BETWEEN :first AND :last AND canonical"
        ),
        {"source": source_id, "first": first, "last": last},
    )
    row = rows.one()
    return Stretch(row.events, row.low, row.high)


async def record_reorg(
    connection: AsyncConnection, source: Source, reorg: Reorg, *, events_reverted: int, at: datetime
) -> None:
    """Keep that the chain left blocks, or would have left what is final."""
    await connection.execute(
        text(
            "INSERT INTO chain_reorgs (source_id, tenant_id, ancestor_number, depth, old_hash, new_hash,"
            " events_reverted, below_finalized, providers, found_at) VALUES (:source, :tenant, :ancestor, :depth,"
            " :old, :new, :events, :below, CAST(:providers AS jsonb), :at)"
        ),
        {
            "source": source.source_id,
            "tenant": source.tenant_id,
            "ancestor": reorg.ancestor.number,
            "depth": reorg.depth,
            "old": reorg.old_hash,
            "new": reorg.new_hash,
            "events": events_reverted,
            "below": reorg.below_finalized,
            "providers": json.dumps(list(reorg.providers)),
            "at": at,
        },
    )


def _left(row: Any) -> Left:
    def raw(value: Any) -> bytes | None:
        return None if value is None else bytes(value)

    return Left(
        consumer_id=row.consumer_id,
        kind=row.kind,
        sequence=row.sequence,
        subject=raw(row.subject),
        account=raw(row.account),
        token=raw(row.token),
        amount=None if row.amount is None else int(row.amount),
        block_number=row.block_number,
        block_hash=bytes(row.block_hash),
        tx_hash=bytes(row.tx_hash),
        log_index=row.log_index,
        at=row.at,
    )
