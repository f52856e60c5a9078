"""The watch over pending transfers whose workflow is lost: what is overdue gets a run again."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity
from temporalio.common import WorkflowIDConflictPolicy

from activities.transfers.messages import OpenPendingTransfer
from activities.watching import BATCH, OVERDUE_AFTER, TASK_TIMEOUT, resume_each
from db import transfers
from db.engine import transaction
from domain.ids import transfer_workflow_id


class TransferWatchActivities:
    """``engine`` acts as the role that sees every tenant."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @activity.defn(name="transfers.resume_overdue")
    async def resume_overdue(self) -> int:
        """Start the workflow of every transfer whose expiry passed without effect; returns how many there were.

        A workflow that runs is left as it is. A new one loads the transfer and lets it expire.
        """
        return await resume_each(self._overdue, _resume)

    async def _overdue(self, after: UUID | None) -> Sequence[tuple[UUID, UUID]]:
        async with transaction(self._engine) as connection:
            return await transfers.list_overdue(connection, OVERDUE_AFTER, after=after, limit=BATCH)


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
