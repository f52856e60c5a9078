"""The watch over escrows whose workflow is lost: what is open and overdue gets a run again."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity
from temporalio.common import WorkflowIDConflictPolicy

from activities.escrow.messages import OpenEscrow
from db import escrow as escrows
from db.engine import transaction
from domain.ids import escrow_workflow_id

#: A run that is alive acts within seconds of a deadline; the margin keeps the watch from disturbing it.
OVERDUE_AFTER = timedelta(minutes=2)
BATCH_ESCROWS = 200
TASK_TIMEOUT = timedelta(seconds=3)


class EscrowWatchActivities:
    """``engine`` acts as the role that sees every tenant."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @activity.defn(name="escrow.resume_overdue")
    async def resume_overdue(self) -> int:
        """Start the workflow of every escrow whose deadline passed without effect; returns how many there were.

        A workflow that runs does not know of the deadline, or is stuck: it is told to load the escrow, as a new one
        does, and lets the deadline act.
        """
        async with transaction(self._engine) as connection:
            overdue = await escrows.list_overdue(connection, OVERDUE_AFTER, limit=BATCH_ESCROWS)
        client = activity.client()
        for tenant_id, escrow_id in overdue:
            await client.start_workflow(
                "EscrowWorkflow",
                OpenEscrow(tenant_id=tenant_id, escrow_id=escrow_id),
                id=escrow_workflow_id(escrow_id),
                task_queue=activity.info().task_queue,
                task_timeout=TASK_TIMEOUT,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                start_signal="reload",
                static_summary="resumed by the watch: a deadline had passed",
            )
            activity.heartbeat(str(escrow_id))
        return len(overdue)
