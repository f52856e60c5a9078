"""How the API and events reach relayers."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from temporalio.client import WithStartWorkflowOperation
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy

from activities.dispatch import Wake
from domain.chain.following import Ask
from domain.ids import relayer_workflow_id
from workflows.caller import Caller
from workflows.chain.relayer import RelayerCommand, RelayerRun, RelayerState, RelayerWorkflow
from workflows.limits import TASK_TIMEOUT
from workflows.search import attributes
from workflows.waking import Waker

__all__ = ["Ask", "RelayerClient", "RelayerCommand", "RelayerState", "wake_relayer"]

_UPDATES: dict[Ask, Any] = {
    Ask.PAUSE: RelayerWorkflow.pause,
    Ask.RESUME: RelayerWorkflow.resume,
    Ask.REWIND: RelayerWorkflow.rewind,
}


def wake_relayer(tenant_id: UUID, relayer_id: str) -> Wake:
    """What starts a relayer's workflow, or has it look."""
    return Wake(
        workflow=RelayerWorkflow.run,
        workflow_id=relayer_workflow_id(relayer_id),
        argument=RelayerRun(tenant_id=tenant_id, relayer_id=relayer_id),
        summary=f"follows {relayer_id}",
        search_attributes=attributes(tenant_id, status="following", reference=relayer_id),
        signal="look",
    )


class RelayerClient(Caller):
    """Starts relayers, and carries operators' commands to them."""

    async def start(self, tenant_id: UUID, relayer_id: str) -> None:
        """Have a relayer follow now; raises ``Unavailable``. Without it its registration's event does so, or the watch
        within a minute."""
        await Waker(self._client, self._task_queue).wake(wake_relayer(tenant_id, relayer_id))

    async def command(
        self, tenant_id: UUID, relayer_id: str, command: RelayerCommand, *, attempt_id: UUID | None = None
    ) -> RelayerState:
        """Have a relayer paused, resumed or rewound, and wait for it. The same ``command_id`` has one effect.

        A relayer whose workflow is gone gets a new run. ``attempt_id`` as for ``EscrowClient.command``.
        """
        # The command's id is the update's, and its receipt's.
        return await self._command(
            relayer_workflow_id(relayer_id),
            _UPDATES[command.ask],
            command,
            command.command_id,
            attempt_id,
            lambda: self._start(RelayerRun(tenant_id=tenant_id, relayer_id=relayer_id)),
            RelayerState,
        )

    def _start(self, run: RelayerRun) -> WithStartWorkflowOperation[RelayerWorkflow, RelayerState]:
        return WithStartWorkflowOperation(
            RelayerWorkflow.run,
            run,
            id=relayer_workflow_id(run.relayer_id),
            task_queue=self._task_queue,
            task_timeout=TASK_TIMEOUT,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            static_summary=f"follows {run.relayer_id}",
            search_attributes=attributes(run.tenant_id, reference=run.relayer_id),
        )
