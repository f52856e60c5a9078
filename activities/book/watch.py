"""The watch over the book: a tick, new parameters or an end of a cooldown that nobody revalued wakes its workflow."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity
from temporalio.common import WorkflowIDConflictPolicy

from activities.book.messages import BookRun
from db import prices
from db.engine import transaction
from db.margin import book, parameters
from domain.ids import BOOK_WORKFLOW_ID
from kit.clock import now

#: The relay wakes the workflow within a second or so; the margin keeps the watch from doing the same work.
BEHIND_AFTER: Final = timedelta(seconds=30)
TASK_TIMEOUT: Final = timedelta(seconds=3)


class BookWatchActivities:
    """``engine`` acts as the role that sees every tenant."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @activity.defn(name="book.wake_behind")
    async def wake_behind(self) -> bool:
        """Wake the book's workflow, or start it, when the book is behind; returns whether it was."""
        async with transaction(self._engine) as connection:
            quotes = await prices.current(connection)
            # Parameters that took effect a moment ago may still be on their way through the book.
            counts = await parameters.in_force(connection, now() - BEHIND_AFTER)
            tick = max((quote.tick for quote in quotes.values()), default=0)
            since = counts.effective_from
            if not tick or not await book.is_behind(connection, tick=tick, since=since, margin=BEHIND_AFTER):
                return False
        await activity.client().start_workflow(
            "BookWorkflow",
            BookRun(),
            id=BOOK_WORKFLOW_ID,
            task_queue=activity.info().task_queue,
            task_timeout=TASK_TIMEOUT,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            start_signal="ticked",
            static_summary="woken by the watch: the book was behind",
        )
        return True
