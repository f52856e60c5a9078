"""How the API has margin accounts looked at."""

from __future__ import annotations

from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy

from domain.ids import margin_check_workflow_id
from workflows.client import Caller
from workflows.limits import TASK_TIMEOUT
from workflows.margin import CheckMargin, CheckOutcome, MarginCheckWorkflow
from workflows.search import attributes


class MarginClient(Caller):
    """Has margin accounts looked at."""

    async def check(self, request: CheckMargin, *, summary: str) -> CheckOutcome:
        """Look at an account and wait for what was found. The same ``check_id`` looks once."""
        async with self._answered():
            handle = await self._client.start_workflow(
                MarginCheckWorkflow.run,
                request,
                id=margin_check_workflow_id(request.check_id),
                task_queue=self._task_queue,
                task_timeout=TASK_TIMEOUT,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                static_summary=summary,
                search_attributes=attributes(request.tenant_id, users=(request.user_id,)),
            )
            return await handle.result()
