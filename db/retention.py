"""Deleting what is kept for a time only."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

#: An idempotency key answers its stored response for this long.
IDEMPOTENCY_KEPT_DAYS = 7


async def delete_old_idempotency_keys(connection: AsyncConnection, *, limit: int) -> int:
    """Delete up to ``limit`` keys of any tenant that are older than ``IDEMPOTENCY_KEPT_DAYS``; returns how many."""
    done = await connection.execute(
        text(
            "DELETE FROM idempotency_keys WHERE ctid = ANY (ARRAY(SELECT ctid FROM idempotency_keys"
            " WHERE recorded_at < clock_timestamp() - make_interval(days => :days) LIMIT :limit))"
        ),
        {"days": IDEMPOTENCY_KEPT_DAYS, "limit": limit},
    )
    return int(getattr(done, "rowcount", 0))
