"""Cursors: where the live end of a source stands. They are moved in the commit of what they stand behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.chain import coverage
from db.chain.rows import instant_of
from domain.chain import Block, RelayerStatus
from domain.chain.following import Position
from domain.chain.ranges import Ranges

_COLUMNS = "c.block_number, c.block_hash, c.last_sequence, c.confirmed_number, c.finalized_number"


class Overtaken(Exception):
    """Somebody else moved the cursor, or covered blocks that were to be written: what was planned is planned anew."""


class NotFollowing(Exception):
    """The relayer was told to stop, or stopped by itself; ``status`` says which."""

    def __init__(self, status: RelayerStatus) -> None:
        super().__init__(f"the relayer is {status}")
        self.status = status


@dataclass(frozen=True, slots=True)
class Stand:
    """A cursor as it is recorded, and what the relayer does."""

    position: Position
    status: RelayerStatus
    head_number: int | None


async def read(connection: AsyncConnection, source_id: int) -> Stand:
    """Where a source stands."""
    return await _read(connection, source_id, "")


async def lock(connection: AsyncConnection, source_id: int) -> tuple[Stand, Ranges]:
    """Where a source stands and what is covered, neither of which anybody else changes until the transaction ends."""
    covered = await coverage.lock(connection, source_id)
    return await _read(connection, source_id, " FOR UPDATE OF c"), covered


async def own(connection: AsyncConnection, source_id: int, position: Position) -> Ranges:
    """Lock as ``lock`` does, for who means to move the cursor on from ``position``; answers what is covered.

    Raises ``Overtaken`` where it stands elsewhere, ``NotFollowing`` where the relayer does not follow any more.
    """
    stand, covered = await lock(connection, source_id)
    if stand.status is not RelayerStatus.FOLLOWING:
        raise NotFollowing(stand.status)
    if stand.position != position:
        raise Overtaken(f"the cursor is at {stand.position.number}, not at {position.number}")
    return covered


async def move(
    connection: AsyncConnection, source_id: int, position: Position, at: datetime, head: Block | None = None
) -> None:
    """Set the cursor, and what was heard of the head at ``at``, where it was."""
    await connection.execute(
        text(
            "UPDATE chain_cursors SET block_number = :number, block_hash = :hash, last_sequence = :sequence,"
            " confirmed_number = :confirmed, finalized_number = :finalized,"
            " moved_at = CASE WHEN block_number < :number THEN :at ELSE moved_at END,"
            " head_number = coalesce(:head, head_number), head_at = coalesce(:head_at, head_at),"
            " asked_at = CASE WHEN CAST(:head AS bigint) IS NULL THEN asked_at ELSE :at END"
            " WHERE source_id = :source"
        ),
        {
            "source": source_id,
            "number": position.number,
            "hash": position.hash,
            "sequence": position.last_sequence,
            "confirmed": position.confirmed,
            "finalized": position.finalized,
            "at": at,
            "head": None if head is None else head.number,
            "head_at": None if head is None else instant_of(head.at_seconds),
        },
    )


async def heard(connection: AsyncConnection, source_id: int, head: Block, at: datetime) -> Stand:
    """Note that the head was heard of; answers where the source stands, and what the relayer is to do."""
    rows = await connection.execute(
        text(
            "UPDATE chain_cursors c SET head_number = :head, head_at = :head_at, asked_at = :at FROM chain_sources s"
            f" WHERE c.source_id = :source AND s.source_id = c.source_id RETURNING {_COLUMNS}, c.head_number, s.status"
        ),
        {"source": source_id, "head": head.number, "head_at": instant_of(head.at_seconds), "at": at},
    )
    return _stand(rows.one())


@dataclass(frozen=True, slots=True)
class Silent:
    """A relayer that should follow, and of which nothing was heard for long."""

    source_id: int
    tenant_id: UUID
    relayer_id: str


async def list_silent(connection: AsyncConnection, *, after: int, margin: timedelta, most: int) -> Sequence[Silent]:
    """Those who should follow and did not hear of their chain for longer than ``margin``, behind a source."""
    rows = await connection.execute(
        text(
            "SELECT s.source_id, s.tenant_id, s.relayer_id FROM chain_sources s JOIN chain_cursors c USING (source_id)"
            " WHERE s.status = 'following' AND s.source_id > :after"
            " AND greatest(c.asked_at, c.recorded_at) < clock_timestamp() - CAST(:margin AS interval)"
            " ORDER BY s.source_id LIMIT :most"
        ),
        {"after": after, "margin": margin, "most": most},
    )
    return [Silent(row.source_id, row.tenant_id, row.relayer_id) for row in rows]


async def _read(connection: AsyncConnection, source_id: int, locking: str) -> Stand:
    rows = await connection.execute(
        text(
            f"SELECT {_COLUMNS}, c.head_number, s.status FROM chain_cursors c JOIN chain_sources s USING (source_id)"
            f" WHERE c.source_id = :source{locking}"
        ),
        {"source": source_id},
    )
    return _stand(rows.one())


def _stand(row: Any) -> Stand:
    position = Position(
        number=row.block_number,
        hash=None if row.block_hash is None else bytes(row.block_hash),
        last_sequence=row.last_sequence,
        confirmed=row.confirmed_number,
        finalized=row.finalized_number,
    )
    return Stand(position, RelayerStatus(row.status), row.head_number)
