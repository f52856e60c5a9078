"""Stories of backfill jobs; see ``record``."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from temporalio.client import WorkflowHandle

from db.chain import jobs
from db.chain.jobs import NewJob
from db.engine import tenant_transaction
from db.ids import new_id
from domain.chain.jobs import JobCommand, JobStatus
from domain.ids import backfill_workflow_id
from kit.clock import now
from tests.chain.memory import MemoryChain, MemoryDesk, followed
from tests.chain.model import CHAINS
from tests.desk import TASK_QUEUE, Desk
from tests.polling import eventually
from workflows.chain import BackfillCommand, BackfillRun
from workflows.chain.backfill_client import BackfillClient
from workflows.chain.backfill_watch import BackfillRetentionWorkflow, BackfillWatchWorkflow

Run = WorkflowHandle[Any, Any]


async def backfill(desk: Desk) -> list[Run]:
    """Fills, is paused and resumed, fails for a while, and is complete."""
    chain = MemoryDesk(MemoryChain(60))
    chain.open.clear()
    chain.held_from = 40
    CHAINS["filled"] = chain
    source = await followed(desk.engine, desk.tenant, chain="filled")
    client, job_id = BackfillClient(desk.client, TASK_QUEUE), new_id()
    new = NewJob(job_id, source.source_id, source.relayer_id, 0, 59, 20)
    async with tenant_transaction(desk.engine, desk.tenant) as connection:
        await jobs.insert(connection, desk.tenant, new, at=now())
    run = BackfillRun(tenant_id=desk.tenant, job_id=job_id)
    await client.start(run, name="filled", summary="a story")
    await eventually(lambda: _covers(desk, job_id, 40))
    for said in (JobCommand.PAUSE, JobCommand.RESUME):
        await client.command(desk.tenant, job_id, BackfillCommand(command_id=new_id(), command=said))
    chain.open.set()
    handle: Run = desk.client.get_workflow_handle(backfill_workflow_id(job_id))
    await handle.result()
    del CHAINS["filled"]
    return [handle]


async def backfill_retried(desk: Desk) -> list[Run]:
    """Ends above the chain's head, and fails; retried when the chain is there, by another run."""
    chain = MemoryDesk(MemoryChain(10))
    CHAINS["short"] = chain
    source = await followed(desk.engine, desk.tenant, chain="short")
    client, job_id = BackfillClient(desk.client, TASK_QUEUE), new_id()
    new = NewJob(job_id, source.source_id, source.relayer_id, 0, 14, 20)
    async with tenant_transaction(desk.engine, desk.tenant) as connection:
        await jobs.insert(connection, desk.tenant, new, at=now())
    await client.start(BackfillRun(tenant_id=desk.tenant, job_id=job_id), name="short", summary="a story")
    first: Run = desk.client.get_workflow_handle(backfill_workflow_id(job_id))
    await first.result()
    first = desk.client.get_workflow_handle(first.id, run_id=(await first.describe()).run_id)
    chain.chain.length = 20
    await client.command(desk.tenant, job_id, BackfillCommand(command_id=new_id(), command=JobCommand.RETRY))
    second: Run = desk.client.get_workflow_handle(first.id)
    await second.result()
    second = desk.client.get_workflow_handle(first.id, run_id=(await second.describe()).run_id)
    del CHAINS["short"]
    return [first, second]


async def backfill_watch(desk: Desk) -> list[Run]:
    run = await desk.client.start_workflow(
        BackfillWatchWorkflow.run, id=f"backfill-watch:{new_id()}", task_queue=TASK_QUEUE
    )
    await run.result()
    return [run]


async def backfill_retention(desk: Desk) -> list[Run]:
    run = await desk.client.start_workflow(
        BackfillRetentionWorkflow.run, id=f"backfill-retention:{new_id()}", task_queue=TASK_QUEUE
    )
    await run.result()
    return [run]


async def _covers(desk: Desk, job_id: UUID, blocks: int) -> bool:
    async with tenant_transaction(desk.engine, desk.tenant) as connection:
        job = await jobs.get(connection, desk.tenant, job_id)
    return job.covered_blocks >= blocks and job.status is JobStatus.RUNNING


BACKFILLS = (backfill, backfill_retried, backfill_watch, backfill_retention)
