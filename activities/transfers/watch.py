"""The watch over pending transfers whose workflow is lost: what is overdue gets a run again."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity
from temporalio.common import WorkflowIDConflictPolicy

from activities.transfers.messages import OpenPendingTransfer
from db import transfers
from db.engine import transaction
from domain.ids import transfer_workflow_id

#: A run that is alive acts within seconds of the expiry; the margin keeps the watch from disturbing it.
OVERDUE_AFTER = timedelta(minutes=2)
BATCH_TRANSFERS = 200
#: A freeze leaves transfers overdue whose workflows are well: a look has to get past them.
LOOK_TRANSFERS_MAX = 20_000
TASK_TIMEOUT = timedelta(seconds=3)


class TransferWatchActivities:
    """``engine`` acts as the role that sees every tenant."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @activity.defn(name="transfers.resume_overdue")
    async def resume_overdue(self) -> int:
        """Start the workflow of every transfer whose expiry passed without effect; returns how many there were.

        A workflow that runs is left as it is. A new one loads the transfer and lets it expire. An attempt goes on where
        the one before it stopped.
        """
        details = activity.info().heartbeat_details
        found, after = (int(details[0]), UUID(details[1])) if details else (0, None)
        while found < LOOK_TRANSFERS_MAX:
            async with transaction(self._engine) as connection:
                overdue = await transfers.list_overdue(connection, OVERDUE_AFTER, after=after, limit=BATCH_TRANSFERS)
            for tenant_id, transfer_id in overdue:
                await _resume(tenant_id, transfer_id)
                found += 1
                activity.heartbeat(found, str(transfer_id))
            if len(overdue) < BATCH_TRANSFERS:
                break
            after = overdue[-1][1]
        return found


async def _resume(tenant_id: UUID, transfer_id: UUID) -> None:
    await activity.client().start_workflow(
        "PendingTransferWorkflow",
        OpenPendingTransfer(tenant_id=tenant_id, transfer_id=transfer_id),
        id=transfer_workflow_id(transfer_id),
        task_queue=activity.info().task_queue,
        task_timeout=TASK_TIMEOUT,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        static_summary="resumed by the watch: its expiry had passed",
    )
