"""Builds replace one another; what was running goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.worker import Replayer, Worker, WorkerDeploymentConfig

from db.ids import new_id
from tests.tools.stories import Retold, Rewritten, Story
from tools.deployment import Build, DeploymentError, builds_with_workers, current_build, make_current, move_stranded


@pytest.fixture
def name() -> str:
    """A deployment and a queue of the test's own."""
    return f"d-{new_id().hex[-8:]}"


@asynccontextmanager
async def serving(client: Client, name: str, build_id: str, workflow: type) -> AsyncIterator[Build]:
    """A worker of one build, made current."""
    version = WorkerDeploymentVersion(deployment_name=name, build_id=build_id)
    config = WorkerDeploymentConfig(
        version=version, use_worker_versioning=True, default_versioning_behavior=VersioningBehavior.PINNED
    )
    async with Worker(client, task_queue=name, workflows=[workflow], deployment_config=config):
        build = Build(name, build_id)
        await make_current(client, build)
        yield build


async def begin(client: Client, name: str, workflow: Any = Story) -> WorkflowHandle[Any, Any]:
    """A run that has completed a task on the build that serves."""
    handle = await client.start_workflow(
        workflow.run, "tale", id=f"story-{new_id()}", task_queue=name, static_summary="a tale", memo={"kept": True}
    )
    async with asyncio.timeout(20):
        # Only a completed task binds a run to its build; and the query is answered from the list, which lags.
        query = f"WorkflowId = '{handle.id}' AND TemporalWorkerDeployment = '{name}'"
        while (await client.count_workflows(query)).count == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return handle


async def test_a_build_nobody_serves_cannot_become_current(temporal_client: Client, name: str) -> None:
    with pytest.raises(DeploymentError, match="no worker of build b1 polled"):
        await make_current(temporal_client, Build(name, "b1"), limit_seconds=0.5)
    assert await current_build(temporal_client, name) is None


async def test_a_run_whose_history_still_fits_is_moved(temporal_client: Client, name: str) -> None:
    async with serving(temporal_client, name, "b1", Story):
        handle = await begin(temporal_client, name)
    async with serving(temporal_client, name, "b2", Retold) as build:
        assert await current_build(temporal_client, name) == "b2"
        moved = await move_stranded(temporal_client, build, Replayer(workflows=[Retold]), task_queue=name)
        assert (moved.replayed, moved.restarted, moved.stuck) == ([handle.id], [], [])

        again = await move_stranded(temporal_client, build, Replayer(workflows=[Retold]), task_queue=name)
        assert again.replayed == []

        await handle.signal("finish")
        assert await asyncio.wait_for(handle.result(), 20) == "tale retold"


async def test_a_run_whose_history_no_longer_fits_is_started_again(temporal_client: Client, name: str) -> None:
    async with serving(temporal_client, name, "b1", Story):
        old = await begin(temporal_client, name)
    async with serving(temporal_client, name, "b2", Rewritten) as build:
        moved = await move_stranded(temporal_client, build, Replayer(workflows=[Rewritten]), task_queue=name)
        assert (moved.replayed, moved.restarted, moved.stuck) == ([], [old.id], [])

        new = temporal_client.get_workflow_handle(old.id)
        description = await new.describe()
        assert description.run_id != old.result_run_id
        assert await description.static_summary() == "a tale"
        assert await description.memo() == {"kept": True}
        await new.signal("finish")
        assert await asyncio.wait_for(new.result(), 20) == "tale rewritten"


async def test_a_run_whose_build_is_still_served_stays(temporal_client: Client, name: str) -> None:
    async with serving(temporal_client, name, "b1", Story):
        handle = await begin(temporal_client, name)
        async with serving(temporal_client, name, "b2", Retold) as build:
            assert await builds_with_workers(temporal_client, name, name) == {"b1", "b2"}
            moved = await move_stranded(temporal_client, build, Replayer(workflows=[Retold]), task_queue=name)
            assert moved.replayed == []
            await handle.signal("finish")
            assert await asyncio.wait_for(handle.result(), 20) == "tale as first told"


async def test_a_run_is_moved_again_before_it_did_anything(temporal_client: Client, name: str) -> None:
    """Two restarts in a row: the first move is still waiting for its task when the next build comes."""
    async with serving(temporal_client, name, "b1", Story):
        handle = await begin(temporal_client, name)
    for build_id in ("b2", "b3"):
        async with serving(temporal_client, name, build_id, Retold) as build:
            moved = await move_stranded(temporal_client, build, Replayer(workflows=[Retold]), task_queue=name)
            assert moved.replayed == [handle.id]
            if build_id == "b3":
                await handle.signal("finish")
                assert await asyncio.wait_for(handle.result(), 20) == "tale retold"
