"""The bare workflow's worker: a process of its own, at the pace of the real one."""

from __future__ import annotations

import asyncio
import signal
import sys

import uvloop
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.worker import Worker, WorkerDeploymentConfig

from activities.failures import FailureInterceptor
from crew import PACE
from kit.temporal import connect
from tests.bench.bare import BUILD, DEPLOYMENT, TASK_QUEUE, BareActivities, BareWorkflow
from workflows.registry import FAILURE_TYPES, workflow_runner


async def run(address: str) -> None:
    """Work until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    activities = BareActivities()
    worker = Worker(
        await connect(address),
        task_queue=TASK_QUEUE,
        workflows=[BareWorkflow],
        activities=[activities.open, activities.apply],
        workflow_runner=workflow_runner(),
        workflow_failure_exception_types=list(FAILURE_TYPES),
        interceptors=[FailureInterceptor()],
        deployment_config=WorkerDeploymentConfig(
            version=WorkerDeploymentVersion(deployment_name=DEPLOYMENT, build_id=BUILD),
            use_worker_versioning=True,
            default_versioning_behavior=VersioningBehavior.PINNED,
        ),
        **PACE,
    )
    async with worker:
        await stop.wait()


if __name__ == "__main__":
    uvloop.run(run(sys.argv[1]))
