"""Backfill jobs as workflows over a chain in memory, with the real database and the real Temporal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client, WorkflowExecutionStatus

from activities.chain.backfill_messages import BackfillCommand, BackfillRun
from activities.chain.filling import FillPace
from db.chain import coverage, jobs
from db.chain.jobs import Job, NewJob
from db.engine import Role, create_engine, tenant_transaction, transaction
from db.identity import create_tenant
from db.ids import new_id
from domain.chain import Source
from domain.chain.jobs import JobCommand, JobStatus
from domain.errors import Refusal
from domain.ids import backfill_workflow_id
from kit.clock import now
from kit.temporal import connect
from tests.chain.memory import CHAIN, MemoryChain, MemoryDesk, followed
from tests.databases import migrated_database
from tests.polling import eventually
from tools.deployment import Build, make_current
from tools.local.postgres import EmbeddedPostgres
from tools.local.temporal import TemporalDevServer
from worker import create_backfill_worker, create_worker
from workflows.chain.backfill_client import BackfillClient

PACE = FillPace(first_blocks=7, look_seconds=0.05)
QUEUE = "backfill-test"


@dataclass
class Bench:
    """A database with a tenant, and a worker whose chain is in memory."""

    url: str
    client: Client
    tenants: AsyncEngine
    engine: AsyncEngine
    chains: dict[str, MemoryDesk]
    tenant: UUID = field(default_factory=new_id)

    @property
    def jobs(self) -> BackfillClient:
        return BackfillClient(self.client, QUEUE)

    def chain(self, length: int, **how: Any) -> MemoryDesk:
        self.chains[CHAIN] = MemoryDesk(MemoryChain(length, **how))
        return self.chains[CHAIN]

    async def start(self, source: Source, first: int, last: int, *, chunk_blocks: int = 50) -> UUID:
        new = NewJob(new_id(), source.source_id, source.relayer_id, first, last, chunk_blocks)
        async with tenant_transaction(self.tenants, self.tenant) as connection:
            await jobs.insert(connection, self.tenant, new, at=now())
        run = BackfillRun(tenant_id=self.tenant, job_id=new.job_id)
        await self.jobs.start(run, name=new.name, summary="a test")
        return new.job_id

    async def say(self, job_id: UUID, said: JobCommand) -> JobStatus:
        asked = BackfillCommand(command_id=new_id(), command=said)
        return (await self.jobs.command(self.tenant, job_id, asked)).status

    async def job(self, job_id: UUID) -> Job:
        async with tenant_transaction(self.tenants, self.tenant) as connection:
            return await jobs.get(connection, self.tenant, job_id)

    async def until(self, job_id: UUID, *statuses: JobStatus) -> Job:
        async def there() -> bool:
            return (await self.job(job_id)).status in statuses

        await eventually(there)
        return await self.job(job_id)

    async def completed(self, job_id: UUID) -> Job:
        job = await self.until(job_id, JobStatus.COMPLETED, JobStatus.FAILED)
        assert job.status is JobStatus.COMPLETED, job.error
        return job

    async def sql(self, query: str, **parameters: Any) -> list[Any]:
        async with transaction(self.engine) as connection:
            done = await connection.execute(text(query), parameters)
            return list(done.all()) if done.returns_rows else []

    async def covered(self, source: Source) -> tuple[tuple[int, int], ...]:
        async with transaction(self.engine) as connection:
            return await coverage.covered(connection, source.source_id)

    async def stored(self, source: Source) -> list[int]:
        rows = await self.sql(
            "SELECT sequence FROM chain_events WHERE source_id = :id AND canonical ORDER BY block_number, log_index",
            id=source.source_id,
        )
        return [row.sequence for row in rows]

    async def told(self, *types: str) -> list[dict[str, Any]]:
        rows = await self.sql(
            "SELECT data FROM outbox WHERE tenant_id = :tenant AND type = ANY (:types) ORDER BY outbox_id",
            tenant=self.tenant,
            types=list(types),
        )
        return [row.data for row in rows]


@pytest.fixture(scope="module")
def quiet(postgres: EmbeddedPostgres) -> Iterator[str]:
    with migrated_database(postgres) as url:
        yield url


@pytest.fixture(scope="module")
async def workers(quiet: str, temporal: Client, temporal_server: TemporalDevServer) -> AsyncIterator[Bench]:
    """Two processes' worth of fillers, and one worker for the workflows."""
    tenants = create_engine(quiet, Role.APP, pool_size=5)
    engine = create_engine(quiet, Role.ENGINE, pool_size=12)
    chains: dict[str, MemoryDesk] = {}
    async with AsyncExitStack() as stack:
        stack.push_async_callback(tenants.dispose)
        stack.push_async_callback(engine.dispose)
        worker = create_worker(temporal, QUEUE, "1", tenants=tenants, engine=engine, deployment=QUEUE)
        await stack.enter_async_context(worker)
        for client in (temporal, await connect(temporal_server.address)):
            filler = create_backfill_worker(client, QUEUE, engine=engine, chains=chains, pace=PACE)
            await stack.enter_async_context(filler)
        await make_current(temporal, Build(QUEUE, "1"))
        yield Bench(quiet, temporal, tenants, engine, chains)


@pytest.fixture
async def bench(workers: Bench) -> Bench:
    made = Bench(workers.url, workers.client, workers.tenants, workers.engine, workers.chains)
    async with transaction(made.tenants) as connection:
        await create_tenant(connection, new_tenant=made.tenant, name=f"backfill {made.tenant}")
    return made


async def test_a_range_is_filled_and_looked_at_again(bench: Bench) -> None:
    desk = bench.chain(1_000)
    source = await followed(bench.tenants, bench.tenant)
    job_id = await bench.start(source, 0, 999, chunk_blocks=100)
    job = await bench.completed(job_id)
    assert (job.covered_blocks, job.known_blocks, job.events_written) == (1_000, 0, 3_000)
    assert job.verification is not None
    assert job.verification["agrees"]
    assert job.verification["counter"]["value"] == 3_000
    assert job.verification["sequence"] == {
        "contiguous": True,
        "events": 3_000,
        "first": 1,
        "last": 3_000,
        "before": 0,
    }
    assert await bench.stored(source) == list(range(1, 3_001))
    assert await bench.covered(source) == ((0, 999),)
    pieces = await bench.told("chain.backfilled")
    assert [piece["from_block"] for piece in pieces] == sorted(piece["from_block"] for piece in pieces), "in order"
    assert sum(piece["events"] for piece in pieces) == 3_000
    assert pieces[0]["first_sequence"] == 1
    assert sum(last - first + 1 for first, last in desk.fetched) == 1_000, "no block was fetched twice"
    [ended] = await bench.told("backfill.completed")
    assert (ended["events_written"], ended["error"]) == (3_000, None)
    handle = bench.client.get_workflow_handle(backfill_workflow_id(job_id))
    assert (await handle.describe()).status is WorkflowExecutionStatus.COMPLETED


async def test_what_is_covered_costs_nothing_again(bench: Bench) -> None:
    desk = bench.chain(400)
    source = await followed(bench.tenants, bench.tenant)
    await bench.completed(await bench.start(source, 100, 199))
    asked, desk.fetched = desk.requests, []
    job = await bench.completed(await bench.start(source, 110, 190))
    assert (job.covered_blocks, job.known_blocks, job.events_written) == (81, 81, 0)
    assert desk.requests == asked, "a range that is covered asks nobody"
    assert (job.verification or {})["counter"] == {"asked": False}
    job = await bench.completed(await bench.start(source, 50, 250))
    assert (min(desk.fetched)[0], max(desk.fetched)[1]) == (50, 250)
    assert sum(last - first + 1 for first, last in desk.fetched) == 101
    assert (job.covered_blocks, job.known_blocks, job.events_written) == (201, 100, 303)
    assert await bench.stored(source) == list(range(151, 754))


async def test_jobs_that_overlap_share_the_work(bench: Bench) -> None:
    desk = bench.chain(600)
    desk.seconds = 0.02
    source = await followed(bench.tenants, bench.tenant)
    started = [
        await bench.start(source, 0, 399),
        await bench.start(source, 200, 599),
        await bench.start(source, 0, 599),
    ]
    done = [await bench.completed(job_id) for job_id in started]
    assert [job.covered_blocks for job in done] == [400, 400, 600]
    assert sum(job.events_written for job in done) == 1_800
    assert sum(last - first + 1 for first, last in desk.fetched) == 600, "each block once"
    assert await bench.stored(source) == list(range(1, 1_801))


async def test_an_operator_pauses_resumes_cancels_and_retries(bench: Bench) -> None:
    desk = bench.chain(500)
    desk.open.clear()
    desk.held_from = 120
    source = await followed(bench.tenants, bench.tenant)
    job_id = await bench.start(source, 0, 499, chunk_blocks=100)

    async def begun() -> bool:
        return (await bench.job(job_id)).covered_blocks >= 100

    await eventually(begun)
    with pytest.raises(Refusal, match="job_not_paused"):
        await bench.say(job_id, JobCommand.RESUME)
    assert await bench.say(job_id, JobCommand.PAUSE) is JobStatus.PAUSED
    desk.open.set()
    paused = await bench.job(job_id)
    assert (paused.status, paused.eta_at) == (JobStatus.PAUSED, None)
    await asyncio.sleep(0.3)
    assert (await bench.job(job_id)).covered_blocks == paused.covered_blocks, "nothing is written meanwhile"
    desk.open.clear()
    assert await bench.say(job_id, JobCommand.RESUME) is JobStatus.RUNNING
    assert await bench.say(job_id, JobCommand.CANCEL) is JobStatus.CANCELLED
    desk.open.set()
    handle = bench.client.get_workflow_handle(backfill_workflow_id(job_id))
    await handle.result()
    for said in (JobCommand.PAUSE, JobCommand.CANCEL):
        with pytest.raises(Refusal, match="job_over"):
            await bench.say(job_id, said)
    assert await bench.say(job_id, JobCommand.RETRY) is JobStatus.PENDING
    job = await bench.completed(job_id)
    assert (job.attempt, job.covered_blocks) == (2, 500)
    assert await bench.stored(source) == list(range(1, 1_501))
    actions = await bench.sql(
        "SELECT action FROM audit_log WHERE tenant_id = :t AND subject = :s ORDER BY audit_id",
        t=bench.tenant,
        s=backfill_workflow_id(job_id),
    )
    assert [row.action.partition(".")[2] for row in actions] == [
        "paused",
        "resumed",
        "cancelled",
        "retried",
        "completed",
    ]


async def test_a_chain_that_is_away_is_waited_for(bench: Bench) -> None:
    bench.chain(100).away = 3
    source = await followed(bench.tenants, bench.tenant)
    await bench.completed(await bench.start(source, 0, 99))


async def test_a_block_that_is_not_there_fails_the_job_and_one_that_is_not_final_is_waited_for(bench: Bench) -> None:
    desk = bench.chain(100)
    source = await followed(bench.tenants, bench.tenant)
    failed = await bench.until(await bench.start(source, 0, 100), JobStatus.FAILED)
    assert (failed.error or "").startswith("block_not_reached")
    assert [event["error"] for event in await bench.told("backfill.failed")] == [failed.error]
    desk.finalized = 40
    job_id = await bench.start(source, 0, 99)
    await asyncio.sleep(0.3)
    assert (await bench.job(job_id)).covered_blocks == 0
    desk.finalized = 99
    await bench.completed(job_id)


async def test_an_event_that_was_left_out_at_a_boundary_is_found_when_pieces_join(bench: Bench) -> None:
    """A node that keeps no old state cannot say which number comes before a chunk: only the chunk before it can."""
    desk = bench.chain(300)
    desk.keeps_state, desk.loses_at = False, 100
    source = await followed(bench.tenants, bench.tenant)
    await bench.completed(await bench.start(source, 0, 299, chunk_blocks=100))
    assert desk.loses_at is None, "it was left out once"
    assert await bench.stored(source) == list(range(1, 901))
