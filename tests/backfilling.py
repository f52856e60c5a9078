"""Backfill as tests use it: a database with a tenant, jobs, and what is stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client

from activities.chain.backfill_messages import BackfillCommand, BackfillRun
from activities.chain.ports import ChainDesk
from db.chain import coverage, jobs
from db.chain.jobs import Job, NewJob
from db.engine import tenant_transaction, transaction
from db.ids import new_id
from domain.chain import Source
from domain.chain.jobs import JobCommand, JobStatus
from kit.clock import now
from tests.chain.memory import CHAIN, MemoryChain, MemoryDesk
from tests.polling import eventually
from workflows.chain.backfill_client import BackfillClient

QUEUE = "backfill-test"


@dataclass
class Bench:
    """A database with a tenant, and a worker whose chain is in memory."""

    url: str
    client: Client
    tenants: AsyncEngine
    engine: AsyncEngine
    chains: dict[str, ChainDesk]
    queue: str = QUEUE
    tenant: UUID = field(default_factory=new_id)

    @property
    def jobs(self) -> BackfillClient:
        return BackfillClient(self.client, self.queue)

    def chain(self, length: int, **how: Any) -> MemoryDesk:
        desk = MemoryDesk(MemoryChain(length, **how))
        self.chains[CHAIN] = desk
        return desk

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

    async def run(self, workflow: Any) -> int:
        """Run a workflow of the schedules now."""
        name = f"now-{new_id()}"
        done = await self.client.execute_workflow(workflow, id=name, task_queue=self.queue, result_type=int)
        return int(done)

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
