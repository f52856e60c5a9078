"""A rolling deployment: the new build takes what is new, the old one finishes what is pinned to it, and drains."""

from __future__ import annotations

from functools import partial
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.api.enums.v1 import VersionDrainageStatus
from temporalio.api.workflowservice.v1 import DescribeWorkerDeploymentVersionRequest
from temporalio.client import Client

from crew import create_worker
from db.ids import new_id
from domain.escrow import Status
from tests.desk import BUYER, Desk, terms
from tests.polling import eventually
from tools.deployment import Build, make_current, move_stranded
from workflows.escrow import ApproveMessage, CancelMessage, FundMessage, ReleaseMessage
from workflows.registry import replayer


async def build_of(desk: Desk, escrow_id: UUID) -> str:
    found = await desk.handle(escrow_id).describe()
    return str(found.raw_description.workflow_execution_info.versioning_info.deployment_version.build_id)


async def drainage(client: Client, build: Build) -> int:
    version = build.message()
    answer = await client.workflow_service.describe_worker_deployment_version(
        DescribeWorkerDeploymentVersionRequest(namespace=client.namespace, deployment_version=version)
    )
    return answer.worker_deployment_version_info.drainage_info.status


async def test_a_new_build_takes_new_escrows_and_the_old_one_drains(
    desk: Desk, temporal: Client, tenants_engine: AsyncEngine, engine: AsyncEngine
) -> None:
    name = f"rolling-{new_id()}"
    start = partial(create_worker, temporal, name, tenants=tenants_engine, engine=engine, deployment=name)
    old, new = Build(name, "old"), Build(name, "new")
    rolling = Desk(desk.tenant, temporal, tenants_engine, name)
    await desk.deposit(BUYER, 1_000_000)
    async with start(old.build_id):
        await make_current(temporal, old)
        first = await rolling.open(terms(1_000_000))
        await rolling.command(first, BUYER, FundMessage())
        async with start(new.build_id):
            await make_current(temporal, new)
            second = await rolling.open(terms(1_000_000))
            assert await build_of(rolling, second) == "new"
            await rolling.command(first, BUYER, ApproveMessage())
            assert await build_of(rolling, first) == "old", "a pinned escrow stays on its build"
            assert await drainage(temporal, old) == VersionDrainageStatus.VERSION_DRAINAGE_STATUS_DRAINING

            await rolling.command(first, BUYER, ReleaseMessage())
            assert (await rolling.handle(first).result()).status is Status.COMPLETED
            assert await build_of(rolling, first) == "old"

            async def drained() -> bool:
                return await drainage(temporal, old) == VersionDrainageStatus.VERSION_DRAINAGE_STATUS_DRAINED

            await eventually(drained, limit_seconds=60)


async def test_an_operator_moves_escrows_off_an_old_build(
    desk: Desk, temporal: Client, tenants_engine: AsyncEngine, engine: AsyncEngine
) -> None:
    name = f"moved-{new_id()}"
    start = partial(create_worker, temporal, name, tenants=tenants_engine, engine=engine, deployment=name)
    rolling = Desk(desk.tenant, temporal, tenants_engine, name)
    async with start("old"):
        await make_current(temporal, Build(name, "old"))
        escrow_id = await rolling.open(terms(1_000_000))
        async with start("new"):
            await make_current(temporal, Build(name, "new"))
            await rolling.handle(escrow_id).signal("move")

            async def moved() -> bool:
                return await build_of(rolling, escrow_id) == "new"

            await eventually(moved)
            assert (await rolling.command(escrow_id, BUYER, CancelMessage())).status is Status.CANCELLED


async def test_escrows_of_a_build_without_workers_are_moved_and_go_on(
    desk: Desk, temporal: Client, tenants_engine: AsyncEngine, engine: AsyncEngine
) -> None:
    name = f"stranded-{new_id()}"
    start = partial(create_worker, temporal, name, tenants=tenants_engine, engine=engine, deployment=name)
    rolling = Desk(desk.tenant, temporal, tenants_engine, name)
    async with start("old"):
        await make_current(temporal, Build(name, "old"))
        escrow_id = await rolling.open(terms(1_000_000))
    new = Build(name, "new")
    async with start("new"):
        await make_current(temporal, new)
        moved = await move_stranded(temporal, new, replayer(temporal.data_converter), task_queue=name)
        assert moved.replayed == [f"escrow:{escrow_id}"]
        assert (await rolling.command(escrow_id, BUYER, CancelMessage())).status is Status.CANCELLED
