"""The watch over backfill jobs whose workflow is lost, or was never started; and what becomes of old ones."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity
from temporalio.common import WorkflowIDConflictPolicy

from activities.chain.backfill_messages import BackfillRun
from activities.watching import BATCH, OVERDUE_AFTER, TASK_TIMEOUT, resume_each
from db.chain import jobs
from db.engine import transaction
from domain.ids import backfill_workflow_id

DELETED_AT_ONCE = 500


class BackfillWatchActivities:
    """``engine`` acts as the role that sees every tenant."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @activity.defn(name="backfill.resume_idle")
    async def resume_idle(self) -> int:
        """Start the workflow of every job that should work and shows nothing; returns how many there were. A workflow
        that runs is left as it is."""
        return await resume_each(self._idle, _resume)

    @activity.defn(name="backfill.delete_old")
    async def delete_old(self) -> int:
        """Delete one batch of jobs that ended long ago; returns how many, less than ``DELETED_AT_ONCE`` at the end."""
        async with transaction(self._engine) as connection:
            return await jobs.delete_old(connection, limit=DELETED_AT_ONCE)

    async def _idle(self, after: UUID | None) -> Sequence[tuple[UUID, UUID]]:
        async with transaction(self._engine) as connection:
            return await jobs.list_idle(connection, OVERDUE_AFTER, after=after, limit=BATCH)


async def _resume(tenant_id: UUID, job_id: UUID) -> None:
    await activity.client().start_workflow(
        "BackfillWorkflow",
        BackfillRun(tenant_id=tenant_id, job_id=job_id),
        id=backfill_workflow_id(job_id),
        task_queue=activity.info().task_queue,
        task_timeout=TASK_TIMEOUT,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        static_summary="started by the watch: the job showed nothing",
    )
