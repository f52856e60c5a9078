"""The watch over escrows whose workflow is lost or behind: what is overdue gets a run that knows, what ended, none."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity
from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError, RPCStatusCode

from activities.escrow.messages import OpenEscrow
from activities.watching import BATCH, OVERDUE_AFTER, TASK_TIMEOUT, resume_each
from db import escrow as escrows
from db import outbox
from db.engine import transaction
from domain.escrow import CLOSED
from domain.ids import escrow_workflow_id

#: A run ends right after its escrow; one that is still there after this does not know.
ENDED_AFTER = timedelta(minutes=1)
#: How far back in the feed the watch looks for escrows that ended; it comes every few minutes.
ENDED_POSITIONS = 100_000
#: So many runs are asked for at a time.
ASKED_AT_ONCE = 100

_ENDS = tuple(f"escrow.{status}" for status in sorted(CLOSED))


class EscrowWatchActivities:
    """``engine`` acts as the role that sees every tenant."""

    def __init__(self, engine: AsyncEngine, *, ended_after: timedelta = ENDED_AFTER) -> None:
        self._engine = engine
        self._ended_after = ended_after

    @activity.defn(name="escrow.resume_overdue")
    async def resume_overdue(self) -> int:
        """Start the workflow of every escrow whose deadline passed without effect; returns how many there were.

        A workflow that runs does not know of the deadline, or is stuck: it is told to load the escrow, as a new one
        does, and lets the deadline act. One whose escrow ended unheard is told, too, and ends.
        """
        found = await resume_each(self._overdue, _resume)
        await self._end_runs(activity.client())
        return found

    async def _end_runs(self, client: Client) -> None:
        async with transaction(self._engine) as connection:
            ended = await outbox.recent_subjects(connection, _ENDS, positions=ENDED_POSITIONS, margin=self._ended_after)
        for begin in range(0, len(ended), ASKED_AT_ONCE):
            names = ", ".join(f"'{name}'" for name in ended[begin : begin + ASKED_AT_ONCE])
            async for run in client.list_workflows(f"ExecutionStatus = 'Running' AND WorkflowId IN ({names})"):
                try:
                    await client.get_workflow_handle(run.id).signal("reload")
                except RPCError as error:
                    if error.status is not RPCStatusCode.NOT_FOUND:
                        raise
            activity.heartbeat()

    async def _overdue(self, after: UUID | None) -> Sequence[tuple[UUID, UUID]]:
        async with transaction(self._engine) as connection:
            return await escrows.list_overdue(connection, OVERDUE_AFTER, after=after, limit=BATCH)


async def _resume(tenant_id: UUID, escrow_id: UUID) -> None:
    await activity.client().start_workflow(
        "EscrowWorkflow",
        OpenEscrow(tenant_id=tenant_id, escrow_id=escrow_id),
        id=escrow_workflow_id(escrow_id),
        task_queue=activity.info().task_queue,
        task_timeout=TASK_TIMEOUT,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        start_signal="reload",
        static_summary="resumed by the watch: a deadline had passed",
    )
