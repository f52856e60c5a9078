"""The watch over commands that nobody works off: their tenant's workflow is started, or woken."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity
from temporalio.common import WorkflowIDConflictPolicy

from activities.settlement.messages import SettlementRun
from db import settlement
from db.engine import transaction
from domain.ids import settlement_workflow_id

#: The relay wakes the workflow within a second or so; the margin keeps the watch from doing the same work.
WAITING_AFTER = timedelta(seconds=30)
TENANTS_MAX = 1_000
TASK_TIMEOUT = timedelta(seconds=3)


class SettlementWatchActivities:
    """``engine`` acts as the role that sees every tenant."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @activity.defn(name="settlement.resume_waiting")
    async def resume_waiting(self) -> int:
        """Wake the workflow of every tenant whose commands wait too long, or start it; returns how many there were."""
        async with transaction(self._engine) as connection:
            tenants = await settlement.list_waiting(connection, WAITING_AFTER, limit=TENANTS_MAX)
        client = activity.client()
        for tenant_id in tenants:
            await client.start_workflow(
                "SettlementWorkflow",
                SettlementRun(tenant_id=tenant_id),
                id=settlement_workflow_id(tenant_id),
                task_queue=activity.info().task_queue,
                task_timeout=TASK_TIMEOUT,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                start_signal="work",
                static_summary="woken by the watch: commands had waited too long",
            )
            activity.heartbeat(str(tenant_id))
        return len(tenants)
