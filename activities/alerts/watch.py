"""The watch over alerts that nobody carries: their workflow is started, or woken."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity
from temporalio.common import WorkflowIDConflictPolicy

from activities.alerts.messages import AlertRun
from activities.watching import BATCH, TASK_TIMEOUT, resume_each
from db.alerts import notifications
from db.engine import transaction
from domain.ids import alert_workflow_id

#: An alert that its workflow carries is looked at within seconds of what is due.
OVERDUE_AFTER_SECONDS = 30


class AlertWatchActivities:
    """``engine`` acts as the role that sees every tenant."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @activity.defn(name="alerts.resume_overdue")
    async def resume_overdue(self) -> int:
        """Wake the workflow of every alert that should have been looked at, or start it; how many there were."""
        return await resume_each(self._overdue, _resume)

    async def _overdue(self, after: UUID | None) -> Sequence[tuple[UUID, UUID]]:
        async with transaction(self._engine) as connection:
            return await notifications.list_overdue(
                connection, after=after, margin_seconds=OVERDUE_AFTER_SECONDS, limit=BATCH
            )


async def _resume(tenant_id: UUID, notification_id: UUID) -> None:
    await activity.client().start_workflow(
        "AlertWorkflow",
        AlertRun(tenant_id=tenant_id, notification_id=notification_id),
        id=alert_workflow_id(notification_id),
        task_queue=activity.info().task_queue,
        task_timeout=TASK_TIMEOUT,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        start_signal="look",
        static_summary="resumed by the watch: something was due",
    )
