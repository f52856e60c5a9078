"""Which blocks of a source are covered: all of their events are here, and nothing is missing among them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.chain.ranges import Range, Ranges


async def covered(connection: AsyncConnection, source_id: int, within: Range | None = None) -> Ranges:
    """The covered blocks, all of them or those within a range."""
    first, last = within or (0, 2**62)
    rows = await connection.execute(
        text(
            "SELECT lower(r) AS first, upper(r) - 1 AS last FROM chain_coverage,"
            " unnest(blocks * int8multirange(int8range(:first, :end))) AS r WHERE source_id = :source ORDER BY 1"
        ),
        {"source": source_id, "first": first, "end": last + 1},
    )
    return tuple((row.first, row.last) for row in rows)


async def cover(connection: AsyncConnection, source_id: int, first: int, last: int) -> None:
    """These blocks are covered from now on; with their rows in one commit."""
    await _set(connection, "blocks + int8multirange(int8range(:first, :end))", source_id, first, last)


async def uncover(connection: AsyncConnection, source_id: int, first: int, last: int) -> None:
    """These blocks are to be fetched again."""
    await _set(connection, "blocks - int8multirange(int8range(:first, :end))", source_id, first, last)


async def _set(connection: AsyncConnection, value: str, source_id: int, first: int, last: int) -> None:
    done: Any = await connection.execute(
        text(f"UPDATE chain_coverage SET blocks = {value} WHERE source_id = :source"),
        {"source": source_id, "first": first, "end": last + 1},
    )
    if done.rowcount != 1:
        raise RuntimeError(f"source {source_id} has no coverage")


async def lock(connection: AsyncConnection, source_id: int) -> Ranges:
    """What is covered, which nobody else changes until the transaction ends. Whoever writes a source's rows takes this
    lock first, and the cursor's after it."""
    await connection.execute(
        text("SELECT FROM chain_coverage WHERE source_id = :source FOR UPDATE"), {"source": source_id}
    )
    return await covered(connection, source_id)
