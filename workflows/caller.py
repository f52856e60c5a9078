"""How a caller reaches a workflow: start, update, query; every failure is a ``Refusal`` or ``Unavailable``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast
from uuid import UUID

from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowFailureError,
    WorkflowQueryFailedError,
    WorkflowQueryRejectedError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import TypedSearchAttributes, WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.service import RPCError, RPCStatusCode

from activities.failures import refusal_of, unavailable_of
from domain.errors import Unavailable
from workflows.limits import TASK_TIMEOUT

OutcomeT = TypeVar("OutcomeT")

#: How long a caller of the API waits for an outcome before it is told to ask again.
ANSWER_LIMIT_SECONDS = 15.0
QUERY_LIMIT = timedelta(seconds=5)
CONNECT_LIMIT = timedelta(seconds=5)

#: How often a command is sent again to a run that is being renewed, and the pause between.
RENEWALS_MAX = 50
RENEWAL_SECONDS = 0.1

#: The server's "not now"; anything else that it refuses is a bug of ours.
_AWAY = {
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.DEADLINE_EXCEEDED,
    RPCStatusCode.CANCELLED,
    RPCStatusCode.RESOURCE_EXHAUSTED,
    RPCStatusCode.ABORTED,
    RPCStatusCode.INTERNAL,
    RPCStatusCode.FAILED_PRECONDITION,
    # A connection that broke in the middle of a call arrives like this.
    RPCStatusCode.UNKNOWN,
}


class Caller:
    """A lazy client, whose first call connects."""

    def __init__(self, client: Client, task_queue: str) -> None:
        self._client = client
        self._task_queue = task_queue
        self._connected = False

    @asynccontextmanager
    async def _answered(self) -> AsyncIterator[None]:
        """Bound the wait, and sort what goes wrong into the families of error."""
        async with _sorted_errors(), asyncio.timeout(ANSWER_LIMIT_SECONDS):
            if not self._connected:
                await self._connect()
            yield

    async def _connect(self) -> None:
        try:
            await self._client.service_client.check_health(timeout=CONNECT_LIMIT)
        except RuntimeError as error:
            # The core's bridge has no class of its own for a server that is not there.
            raise Unavailable("temporal", str(error)) from error
        self._connected = True

    async def _run(
        self,
        run: Any,
        request: Any,
        outcome: type[OutcomeT],
        *,
        id: str,  # noqa: A002 - what Temporal calls it
        summary: str,
        search_attributes: TypedSearchAttributes,
        limit: timedelta | None = None,
    ) -> OutcomeT:
        """Start a workflow, or find the run of the same id, and wait for what comes of it."""
        async with self._answered():
            handle = await self._client.start_workflow(
                run,
                request,
                id=id,
                task_queue=self._task_queue,
                task_timeout=TASK_TIMEOUT,
                execution_timeout=limit,
                id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
                static_summary=summary,
                search_attributes=search_attributes,
                result_type=outcome,
            )
            return cast("OutcomeT", await handle.result())

    async def _command(
        self,
        workflow_id: str,
        update: Any,
        command: Any,
        command_id: UUID,
        attempt_id: UUID | None,
        resumption: Callable[[], WithStartWorkflowOperation[Any, Any]],
        outcome: type[OutcomeT],
    ) -> OutcomeT:
        """Send an update to the run that carries a thing, or to a new one; see ``EscrowClient.command``."""

        async def sent(update_id: str) -> OutcomeT:
            return await self._update(workflow_id, update, command, update_id, resumption, outcome)

        async with self._answered():
            try:
                return await _until_taken(lambda: sent(str(command_id)))
            except WorkflowUpdateFailedError as error:
                if attempt_id is None or refusal_of(error.cause) is not None or unavailable_of(error.cause) is not None:
                    raise
            return await _until_taken(lambda: sent(f"{command_id}:{attempt_id}"))

    async def _opened(
        self, update: Any, update_id: str, start: Callable[[], WithStartWorkflowOperation[Any, Any]], outcome: Any
    ) -> Any:
        """Start a run, or find it, and wait for what its first update answers: the thing is recorded."""
        async with self._answered():
            return await _until_taken(
                lambda: self._client.execute_update_with_start_workflow(
                    update, id=update_id, start_workflow_operation=start(), result_type=outcome
                )
            )

    async def _update(
        self,
        workflow_id: str,
        update: Any,
        command: Any,
        update_id: str,
        resumption: Callable[[], WithStartWorkflowOperation[Any, Any]],
        outcome: type[OutcomeT],
    ) -> OutcomeT:
        handle = self._client.get_workflow_handle(workflow_id)
        try:
            answer = await handle.execute_update(update, command, id=update_id, result_type=outcome)
            return cast("OutcomeT", answer)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
        try:
            answer = await self._client.execute_update_with_start_workflow(
                update, command, id=update_id, start_workflow_operation=resumption(), result_type=outcome
            )
            return cast("OutcomeT", answer)
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                # The new run found that all was over and ended before it took the command; the row will tell.
                raise Unavailable("temporal", f"the run of {workflow_id} ended meanwhile") from error
            raise


async def _until_taken(send: Callable[[], Awaitable[OutcomeT]]) -> OutcomeT:
    """The answer to an update, which is sent again while nobody took it.

    A run that is being renewed takes none. A task in which the run ends while there is news is taken back by the
    server, and the updates that it carried are thrown away: what they hear is ``FAILED_PRECONDITION``.
    """
    sent = 0
    while True:
        sent += 1
        try:
            return await send()
        except WorkflowUpdateFailedError as error:
            if sent == RENEWALS_MAX or unavailable_of(error.cause) is None:
                raise
        except RPCError as error:
            if sent == RENEWALS_MAX or error.status is not RPCStatusCode.FAILED_PRECONDITION:
                raise
        await asyncio.sleep(RENEWAL_SECONDS)


@asynccontextmanager
async def _sorted_errors() -> AsyncIterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise Unavailable("temporal", "no outcome in time; it may still come") from error
    except (WorkflowUpdateFailedError, WorkflowFailureError) as error:
        refusal = refusal_of(error.cause)
        if refusal is not None:
            raise refusal from error
        raise (unavailable_of(error.cause) or error) from error
    except (WorkflowUpdateRPCTimeoutOrCancelledError, WorkflowQueryFailedError, WorkflowQueryRejectedError) as error:
        raise Unavailable("temporal", str(error) or type(error).__name__) from error
    except RPCError as error:
        if error.status in _AWAY:
            raise Unavailable("temporal", error.message) from error
        raise
