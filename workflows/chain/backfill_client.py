"""How the API starts backfill jobs and tells them what to do."""

from __future__ import annotations

from uuid import UUID

from temporalio.client import WithStartWorkflowOperation
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy

from activities.chain.backfill_messages import BackfillCommand, BackfillRun, BackfillState
from activities.dispatch import Wake
from domain.ids import backfill_workflow_id
from workflows.caller import Caller
from workflows.chain.backfill import BackfillWorkflow
from workflows.limits import TASK_TIMEOUT
from workflows.search import attributes
from workflows.waking import Waker


class BackfillClient(Caller):
    """Starts the workflows of jobs that are recorded, and carries commands to them."""

    async def start(self, run: BackfillRun, *, name: str, summary: str) -> None:
        """Start a job's workflow unless it was started; raises ``Unavailable``, then the watch does it later."""
        wake = Wake(
            workflow=BackfillWorkflow.run,
            workflow_id=backfill_workflow_id(run.job_id),
            argument=run,
            summary=summary,
            search_attributes=attributes(run.tenant_id, status="pending", reference=name),
        )
        await Waker(self._client, self._task_queue).wake(wake)

    async def command(
        self, tenant_id: UUID, job_id: UUID, asked: BackfillCommand, *, attempt_id: UUID | None = None
    ) -> BackfillState:
        """Have a command judged and carried out, as ``EscrowClient.command`` has it: by the job's run, or by a new one
        where there is none."""
        return await self._command(
            backfill_workflow_id(job_id),
            getattr(BackfillWorkflow, asked.command),
            asked,
            asked.command_id,
            attempt_id,
            lambda: WithStartWorkflowOperation(
                BackfillWorkflow.run,
                BackfillRun(tenant_id=tenant_id, job_id=job_id),
                id=backfill_workflow_id(job_id),
                task_queue=self._task_queue,
                task_timeout=TASK_TIMEOUT,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                static_summary="resumed from the database",
                search_attributes=attributes(tenant_id),
            ),
            BackfillState,
        )
