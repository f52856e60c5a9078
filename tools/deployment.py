"""Making a build of the worker current, and moving the runs that an earlier build left behind.

A run is pinned to the build that began it. When no worker of that build is left, nobody takes its tasks and it hangs:
that is every restart after a change of code. Such a run is stranded, and is moved: as it is where the code still agrees
with its history, started again where it does not.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog
from google.protobuf.field_mask_pb2 import FieldMask
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.deployment.v1 import WorkerDeploymentVersion
from temporalio.api.enums.v1 import (
    TaskQueueType,
    WorkerStatus,
    WorkflowIdConflictPolicy,
)
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflow.v1 import VersioningOverride, WorkflowExecutionOptions
from temporalio.api.workflowservice.v1 import (
    DescribeTaskQueueRequest,
    DescribeWorkerDeploymentRequest,
    ListWorkersRequest,
    SetWorkerDeploymentCurrentVersionRequest,
    StartWorkflowExecutionRequest,
    UpdateWorkflowExecutionOptionsRequest,
)
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHistory
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Replayer

from tools.local.process import StackError

IDENTITY = "holdfast-deploy"
PAUSE_SECONDS = 0.1
# A poll is open for at most a minute: a worker that has not polled for longer is gone, whatever the server remembers.
POLL_AGE_SECONDS_MAX = 75
REPLAY_BATCH = 20
PASSES_MAX = 5
LIST_LAG_SECONDS = 1.0
REPLAY_LIMIT_SECONDS = 120.0
NOT_YET = (
    RPCStatusCode.NOT_FOUND,
    RPCStatusCode.FAILED_PRECONDITION,
    RPCStatusCode.RESOURCE_EXHAUSTED,
)

_log = structlog.get_logger(__name__)


class DeploymentError(StackError):
    """The build cannot be made current, or a run cannot be moved."""


@dataclass(frozen=True, slots=True)
class Build:
    """A version of a worker deployment."""

    deployment: str
    build_id: str

    def message(self) -> WorkerDeploymentVersion:
        """As the server's API wants it."""
        return WorkerDeploymentVersion(deployment_name=self.deployment, build_id=self.build_id)


@dataclass(frozen=True, slots=True)
class Run:
    """A run and the build whose workers it waits for."""

    workflow_id: str
    run_id: str
    build_id: str

    def message(self) -> WorkflowExecution:
        """As the server's API wants it."""
        return WorkflowExecution(workflow_id=self.workflow_id, run_id=self.run_id)


@dataclass(slots=True)
class Moved:
    """What became of the stranded runs, by workflow id."""

    replayed: list[str] = field(default_factory=list)
    restarted: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """How many runs changed their place."""
        return len(self.replayed) + len(self.restarted)


async def current_build(client: Client, deployment: str) -> str | None:
    """The build id that new runs start on, or None."""
    request = DescribeWorkerDeploymentRequest(namespace=client.namespace, deployment_name=deployment)
    try:
        answer = await client.workflow_service.describe_worker_deployment(request)
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            return None
        raise
    return answer.worker_deployment_info.routing_config.current_deployment_version.build_id or None


async def make_current(client: Client, build: Build, *, limit_seconds: float = 60.0) -> None:
    """Let new runs start on `build`, as soon as a worker of it has polled."""
    request = SetWorkerDeploymentCurrentVersionRequest(
        namespace=client.namespace,
        deployment_name=build.deployment,
        build_id=build.build_id,
        identity=IDENTITY,
    )
    try:
        async with asyncio.timeout(limit_seconds):
            while not await _try_make_current(client, request):  # noqa: ASYNC110 - the server has no event to wait for
                await asyncio.sleep(PAUSE_SECONDS)
    except TimeoutError:
        raise DeploymentError(f"no worker of build {build.build_id} polled within {limit_seconds:g} seconds") from None


async def _try_make_current(client: Client, request: SetWorkerDeploymentCurrentVersionRequest) -> bool:
    try:
        await client.workflow_service.set_worker_deployment_current_version(request)
    except RPCError as error:
        if error.status in NOT_YET:
            return False
        raise
    return await current_build(client, request.deployment_name) == request.build_id


async def builds_with_workers(client: Client, deployment: str, task_queue: str) -> frozenset[str]:
    """The builds whose workers poll the queue.

    One whose workers left in good order is gone at once, one whose workers were killed after `POLL_AGE_SECONDS_MAX`.
    """
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=task_queue),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
    )
    answer = await client.workflow_service.describe_task_queue(request)
    oldest = datetime.now(UTC) - timedelta(seconds=POLL_AGE_SECONDS_MAX)
    polled = {
        poller.deployment_options.build_id
        for poller in answer.pollers
        if poller.deployment_options.deployment_name == deployment
        and poller.last_access_time.ToDatetime(tzinfo=UTC) >= oldest
    }
    return frozenset(polled - await _builds_that_left(client, deployment))


async def _builds_that_left(client: Client, deployment: str) -> set[str]:
    """The builds of which every worker that the server remembers has said good-bye."""
    answer = await client.workflow_service.list_workers(ListWorkersRequest(namespace=client.namespace, page_size=1000))
    left: set[str] = set()
    present: set[str] = set()
    for worker in answer.workers_info:
        version = worker.worker_heartbeat.deployment_version
        if version.deployment_name == deployment:
            leaving = worker.worker_heartbeat.status == WorkerStatus.WORKER_STATUS_SHUTTING_DOWN
            (left if leaving else present).add(version.build_id)
    return left - present


async def move_stranded(
    client: Client,
    build: Build,
    replayer: Replayer,
    *,
    task_queue: str,
    served: Collection[str] | None = None,
) -> Moved:
    """Move every running run of the deployment whose build is neither `build` nor among `served` to `build`.

    `served` are the builds that still have workers; by default the server is asked. The server's list lags behind its
    runs: it is read again until a pass finds nothing to move.
    """
    moved = Moved()
    for _ in range(PASSES_MAX):
        before = moved.count
        asked = await builds_with_workers(client, build.deployment, task_queue) if served is None else served
        await _move_pass(client, build, replayer, task_queue, asked, moved)
        if moved.count == before:
            break
        await asyncio.sleep(LIST_LAG_SECONDS)
    return moved


async def _move_pass(
    client: Client, build: Build, replayer: Replayer, task_queue: str, served: Collection[str], moved: Moved
) -> None:
    batch: list[Run] = []
    async for run in _pinned_elsewhere(client, build, task_queue):
        if run.build_id not in served:
            batch.append(run)
        if len(batch) >= REPLAY_BATCH:
            await _move(client, build, replayer, batch, moved)
            batch = []
    await _move(client, build, replayer, batch, moved)


async def _pinned_elsewhere(client: Client, build: Build, task_queue: str) -> AsyncIterator[Run]:
    query = (
        f"ExecutionStatus = 'Running' AND TaskQueue = '{task_queue}'"
        f" AND TemporalWorkerDeployment = '{build.deployment}'"
        f" AND TemporalWorkflowVersioningBehavior = 'Pinned'"
        f" AND TemporalWorkerDeploymentVersion != '{build.deployment}:{build.build_id}'"
    )
    async for listed in client.list_workflows(query):
        # The list lags and knows nothing of overrides; the run itself does.
        try:
            found = await client.get_workflow_handle(listed.id, run_id=listed.run_id).describe()
        except RPCError as error:
            if error.status == RPCStatusCode.NOT_FOUND:
                continue
            raise
        versioning = found.raw_description.workflow_execution_info.versioning_info
        override = versioning.versioning_override
        bound_to = (
            override.one_time.target_deployment_version.build_id
            or override.pinned.version.build_id
            or versioning.deployment_version.build_id
        )
        if found.status == WorkflowExecutionStatus.RUNNING and bound_to != build.build_id:
            yield Run(found.id, found.run_id, bound_to)


async def _move(client: Client, build: Build, replayer: Replayer, runs: list[Run], moved: Moved) -> None:
    by_run = {run.run_id: run for run in runs}

    async def histories() -> AsyncIterator[WorkflowHistory]:
        for run in runs:
            yield await client.get_workflow_handle(run.workflow_id, run_id=run.run_id).fetch_history()

    try:
        async with (
            asyncio.timeout(REPLAY_LIMIT_SECONDS),
            replayer.workflow_replay_iterator(histories()) as results,
        ):
            async for result in results:
                run = by_run[result.history.run_id]
                await _move_one(client, build, run, result.history, result.replay_failure, moved)
    except TimeoutError:
        raise DeploymentError(f"{len(runs)} histories were not replayed in {REPLAY_LIMIT_SECONDS:g} seconds") from None


async def _move_one(
    client: Client,
    build: Build,
    run: Run,
    history: WorkflowHistory,
    failure: Exception | None,
    moved: Moved,
) -> None:
    log = _log.bind(workflow_id=run.workflow_id, from_build=run.build_id, to_build=build.build_id)
    try:
        if failure is None:
            await _route_to(client, build, run)
            moved.replayed.append(run.workflow_id)
            log.info("stranded run moved")
        elif history.events[0].workflow_execution_started_event_attributes.HasField("parent_workflow_execution"):
            # A new run would be a stranger to its parent; somebody has to look at this one.
            moved.stuck.append(run.workflow_id)
            log.error(
                "stranded child run does not replay and is left alone",
                reason=str(failure),
            )
        else:
            await _start_again(client, build, run, history)
            moved.restarted.append(run.workflow_id)
            log.warning(
                "stranded run does not replay and was started again",
                reason=str(failure),
            )
    except RPCError as error:
        if error.status != RPCStatusCode.NOT_FOUND:
            raise
        log.info("stranded run ended meanwhile")


async def _route_to(client: Client, build: Build, run: Run) -> None:
    """Send the run's next task to `build`; from then on the run is pinned to it by itself."""
    target = VersioningOverride.OneTimeOverride(target_deployment_version=build.message())
    try:
        await _override(client, run, VersioningOverride(one_time=target))
    except RPCError as error:
        # Servers before 1.32 know only the override that stays.
        if error.status not in (
            RPCStatusCode.INVALID_ARGUMENT,
            RPCStatusCode.UNIMPLEMENTED,
        ):
            raise
        await _override(client, run, _pinned(build))


def _pinned(build: Build) -> VersioningOverride:
    return VersioningOverride(
        pinned=VersioningOverride.PinnedOverride(
            behavior=VersioningOverride.PinnedOverrideBehavior.PINNED_OVERRIDE_BEHAVIOR_PINNED,
            version=build.message(),
        )
    )


async def _override(client: Client, run: Run, override: VersioningOverride) -> None:
    await client.workflow_service.update_workflow_execution_options(
        UpdateWorkflowExecutionOptionsRequest(
            namespace=client.namespace,
            workflow_execution=run.message(),
            workflow_execution_options=WorkflowExecutionOptions(versioning_override=override),
            update_mask=FieldMask(paths=["versioning_override"]),
            identity=IDENTITY,
        )
    )


async def _start_again(client: Client, build: Build, run: Run, history: WorkflowHistory) -> None:
    """Replace the run by a new one of the same id, type and input; it reads its truth from Postgres first."""
    started = history.events[0].workflow_execution_started_event_attributes
    request = StartWorkflowExecutionRequest(
        namespace=client.namespace,
        workflow_id=run.workflow_id,
        workflow_type=started.workflow_type,
        task_queue=TaskQueue(name=started.task_queue.name),
        input=started.input,
        workflow_execution_timeout=started.workflow_execution_timeout,
        workflow_run_timeout=started.workflow_run_timeout,
        workflow_task_timeout=started.workflow_task_timeout,
        identity=IDENTITY,
        request_id=f"{run.run_id}:{build.build_id}",
        workflow_id_conflict_policy=WorkflowIdConflictPolicy.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING,
        memo=started.memo,
        search_attributes=started.search_attributes,
        header=started.header,
        user_metadata=history.events[0].user_metadata,
        priority=started.priority,
    )
    if started.HasField("retry_policy"):
        request.retry_policy.CopyFrom(started.retry_policy)
    await client.workflow_service.start_workflow_execution(request)
