"""Steps that delete what was kept long enough, in bounded batches, for every tenant."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from db.engine import transaction
from db.retention import delete_old_idempotency_keys

BATCH_ROWS = 5_000


class RetentionActivities:
    """``engine`` acts as the role that sees every tenant."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @activity.defn(name="retention.delete_idempotency_keys")
    async def delete_idempotency_keys(self) -> int:
        """Delete one batch; returns how many rows went, less than ``BATCH_ROWS`` when nothing is left."""
        async with transaction(self._engine) as connection:
            return await delete_old_idempotency_keys(connection, limit=BATCH_ROWS)
