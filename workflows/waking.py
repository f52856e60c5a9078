"""How events reach workflows: a start that happens once, or a signal to a workflow that is started where needed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio.client import Client
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from activities.dispatch import Wake
from domain.errors import Unavailable
from workflows.limits import TASK_TIMEOUT

#: One attempt of one wake; the dispatcher tries again.
WAKE_LIMIT = timedelta(seconds=5)


class Waker:
    """Starts and signals the workflows of ``task_queue``."""

    def __init__(self, client: Client, task_queue: str) -> None:
        self._client = client
        self._task_queue = task_queue

    async def wake(self, wake: Wake) -> None:
        """Deliver a wake. A start whose id was used before is done already, whatever became of that run; a signal
        starts its workflow unless it runs. Raises ``Unavailable`` while Temporal does not answer."""
        signalled: dict[str, Any] = {}
        reuse, conflict = WorkflowIDReusePolicy.REJECT_DUPLICATE, WorkflowIDConflictPolicy.FAIL
        if wake.signal is not None:
            arguments = [] if wake.signal_argument is None else [wake.signal_argument]
            signalled = {"start_signal": wake.signal, "start_signal_args": arguments}
            reuse, conflict = WorkflowIDReusePolicy.ALLOW_DUPLICATE, WorkflowIDConflictPolicy.USE_EXISTING
        run: Any = wake.workflow
        try:
            await self._client.start_workflow(
                run,
                wake.argument,
                id=wake.workflow_id,
                task_queue=self._task_queue,
                task_timeout=TASK_TIMEOUT,
                id_reuse_policy=reuse,
                id_conflict_policy=conflict,
                static_summary=wake.summary,
                search_attributes=wake.search_attributes,
                rpc_timeout=WAKE_LIMIT,
                **signalled,
            )
        except WorkflowAlreadyStartedError:
            return
        except RPCError as error:
            if error.status is RPCStatusCode.INVALID_ARGUMENT:
                raise  # the server will never take this one; whatever else it says may pass
            raise Unavailable("temporal", error.message) from error
