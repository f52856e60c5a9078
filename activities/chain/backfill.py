"""Steps of backfill jobs that change where they stand: commands of operators, and their ends."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from activities.chain.backfill_messages import (
    ApplyBackfillCommand,
    BackfillRun,
    BackfillState,
    EndBackfill,
)
from db.audit import AuditRecord, Origin
from db.chain import jobs
from db.chain.jobfacts import command_step_id, ended_event, facts_of
from db.chain.jobs import Job
from db.doorbell import Doorbell
from db.engine import tenant_transaction
from db.step import Step, step
from domain.chain import jobs as rules
from domain.chain.jobs import OVER, JobCommand, JobStatus
from domain.errors import Refusal
from domain.ids import backfill_workflow_id

#: Of an error, so much is kept.
_ERROR_CHARACTERS = 500

_DONE: Mapping[JobCommand, str] = {
    JobCommand.PAUSE: "backfill.paused",
    JobCommand.RESUME: "backfill.resumed",
    JobCommand.CANCEL: "backfill.cancelled",
    JobCommand.RETRY: "backfill.retried",
}


class BackfillActivities:
    """``tenants`` acts under row-level security; ``doorbell`` wakes the relay."""

    def __init__(self, tenants: AsyncEngine, doorbell: Doorbell) -> None:
        self._tenants = tenants
        self._doorbell = doorbell

    @activity.defn(name="backfill.load")
    async def load(self, run: BackfillRun) -> BackfillState:
        """A job as it is recorded; refuses an id that names none, or one that runs elsewhere."""
        async with tenant_transaction(self._tenants, run.tenant_id) as connection:
            found = await jobs.find(connection, run.tenant_id, run.job_id)
        if found is None:
            raise Refusal("job_unknown", "there is no such backfill job")
        if found.source_id is None:
            raise Refusal("job_external", "the job runs elsewhere")
        return state_of(found)

    @activity.defn(name="backfill.command")
    async def command(self, asked: ApplyBackfillCommand) -> BackfillState:
        """Carry a command out, once; the rules decide on the row."""
        run, said = asked.run, asked.command
        async with step(
            self._tenants, self._doorbell, tenant_id=run.tenant_id, step_id=command_step_id(run.job_id, said.command_id)
        ) as opened:
            job = await jobs.get(opened.connection, run.tenant_id, run.job_id, lock=True)
            if opened.receipt is not None:
                return state_of(job)
            after = rules.command(job.status, said.command)
            retried = said.command is JobCommand.RETRY
            await jobs.set_status(
                opened.connection,
                job,
                after,
                at=asked.at,
                finished_at=asked.at if after in OVER else None,
                attempt=job.attempt + 1 if retried else None,
            )
            changed = await jobs.get(opened.connection, run.tenant_id, run.job_id)
            await _leave(opened, changed, _DONE[said.command], asked.at, said.origin.to_origin(_subject(run)))
        return state_of(changed)

    @activity.defn(name="backfill.end")
    async def end(self, asked: EndBackfill) -> BackfillState:
        """Record how an attempt ended, unless an operator was quicker; the answer is where the job stands."""
        run = asked.run
        step_id = f"{_subject(run)}:end:{asked.attempt}"
        async with step(self._tenants, self._doorbell, tenant_id=run.tenant_id, step_id=step_id) as opened:
            job = await jobs.get(opened.connection, run.tenant_id, run.job_id, lock=True)
            if opened.receipt is not None or job.attempt != asked.attempt or job.status not in rules.WORKING:
                opened.skip()
                return state_of(job)
            after = JobStatus.COMPLETED if asked.error is None else JobStatus.FAILED
            error = None if asked.error is None else asked.error[:_ERROR_CHARACTERS]
            await jobs.set_status(opened.connection, job, after, at=asked.at, error=error, finished_at=asked.at)
            changed = await jobs.get(opened.connection, run.tenant_id, run.job_id)
            await _leave(opened, changed, f"backfill.{after}", asked.at, Origin(workflow_id=_subject(run)))
        return state_of(changed)


def state_of(job: Job) -> BackfillState:
    """The message of a row."""
    return BackfillState(
        status=job.status,
        attempt=job.attempt,
        name=job.name,
        from_block=job.from_block,
        to_block=job.to_block,
        total_blocks=job.total_blocks,
        covered_blocks=job.covered_blocks,
        events_written=job.events_written,
        blocks_per_second=job.blocks_per_second,
        events_per_second=job.events_per_second,
        eta_at=job.eta_at,
        error=job.error,
    )


async def _leave(opened: Step, job: Job, action: str, at: datetime, origin: Origin) -> None:
    ended = ended_event(job, at)
    await opened.finish(
        result={"status": job.status},
        audit=AuditRecord(backfill_workflow_id(job.job_id), action, at, origin, facts_of(job)),
        events=[] if ended is None else [ended],
    )


def _subject(run: BackfillRun) -> str:
    return backfill_workflow_id(run.job_id)
