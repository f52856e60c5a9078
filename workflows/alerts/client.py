"""How the API says that somebody took note of an alert."""

from __future__ import annotations

from uuid import UUID

from temporalio.client import WithStartWorkflowOperation
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy

from domain.ids import alert_workflow_id
from workflows.alerts import AcknowledgeAlert, AlertOutcome, AlertRun, AlertWorkflow
from workflows.caller import Caller
from workflows.limits import TASK_TIMEOUT
from workflows.search import attributes


class AlertClient(Caller):
    """Speaks to the workflows of alerts."""

    async def acknowledge(
        self, tenant_id: UUID, notification_id: UUID, command: AcknowledgeAlert, *, attempt_id: UUID | None = None
    ) -> AlertOutcome:
        """Take note of an alert and wait until that is recorded: then nothing more is sent.

        The same ``command_id`` has one effect. An alert whose workflow is gone gets a new run; the row decides.
        """
        run = AlertRun(tenant_id=tenant_id, notification_id=notification_id)
        return await self._command(
            alert_workflow_id(notification_id),
            AlertWorkflow.acknowledge,
            command,
            command.command_id,
            attempt_id,
            lambda: WithStartWorkflowOperation(
                AlertWorkflow.run,
                run,
                id=alert_workflow_id(notification_id),
                task_queue=self._task_queue,
                task_timeout=TASK_TIMEOUT,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                static_summary="resumed to take note of it",
                search_attributes=attributes(tenant_id),
            ),
            AlertOutcome,
        )
