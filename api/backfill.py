"""Backfill: jobs that fill in what is behind the live end of a relayer, and the progress of jobs that run elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

import structlog
from fastapi import Depends, Query
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.convertors import Convertor, register_url_convertor
from starlette.responses import Response

from api.deps import Call, caller, poster, router
from api.fields import WHOLE, Input, Instant, Line, Prose, UserId
from api.idempotency import Answer, Attempt, Configuration, once
from api.pages import DEFAULT_LIMIT, CursorToken, Limit, Page, Pager
from api.problems import documented
from db import receipts
from db.audit import AuditRecord, Origin, write
from db.chain import jobs, sources
from db.chain.jobfacts import command_step_id, ended_event, facts_of
from db.chain.jobs import Job, JobFilter, NewJob
from db.ids import new_id
from db.outbox import append
from domain.chain import jobs as rules
from domain.chain.jobs import CHUNK_BLOCKS_MAX, OVER, JobCommand, JobStatus, Progress
from domain.errors import Refusal, Unavailable
from domain.identity import Scope
from domain.ids import backfill_workflow_id
from kit.clock import now
from workflows.chain import BackfillCommand, BackfillRun, OriginMessage


class _JobId(Convertor[str]):
    """A job's id in a path; it is not one of the words that stand in its place."""

    regex = "(?!(?:start|progress|status)(?:/|$))[^/]+"

    def convert(self, value: str) -> str:
        """As it stands; whether it is an id is for the route to say."""
        return value

    def to_string(self, value: str) -> str:
        """As it stands."""
        return value


register_url_convertor("backfill_job", _JobId())

routes = router("/monitoring/backfill", "backfill")
ROUTERS = (routes,)

#: No chain has more blocks.
_BLOCKS_MAX = 10**12

Number = Annotated[int, Field(ge=0, le=_BLOCKS_MAX), WHOLE]


class StartInput(Input):
    """What to fill in."""

    relayer_id: Line = Field(description="Whose events; its contract or addresses are the filter")
    from_block: Number | None = Field(default=None, description="The first block; else the first that can hold one")
    to_block: Number | None = Field(
        default=None, description="The last block, included; else the last that the relayer knows to be final"
    )
    chunk_blocks: Annotated[int, Field(ge=1, le=CHUNK_BLOCKS_MAX), WHOLE] = Field(
        default=5_000, description="Blocks of one piece of work that one worker takes"
    )
    actor: UserId | None = Field(default=None, description="The operator, as the audit log names them")


class CommandInput(Input):
    """Who asks."""

    actor: UserId | None = Field(default=None, description="The operator, as the audit log names them")


class ToldStatus(StrEnum):
    """What a job that runs elsewhere says of itself."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ProgressInput(Input):
    """How far a job is that runs elsewhere. What it said before does not shrink."""

    job_id: UUID = Field(description="The caller's own id of the job; the first report records it")
    name: Line
    from_block: Number
    to_block: Number
    covered_blocks: Number
    events_written: Annotated[int, Field(ge=0, le=10**15), WHOLE] = 0
    status: ToldStatus = ToldStatus.RUNNING
    error: Prose | None = Field(default=None, description="Why it failed")


class JobView(BaseModel):
    """One job."""

    job_id: UUID
    name: str = Field(description="The relayer's id, or what a job elsewhere calls itself")
    elsewhere: bool = Field(description="It runs elsewhere and reports its progress")
    from_block: int
    to_block: int
    chunk_blocks: int | None
    status: JobStatus
    error: str | None = Field(description="Why it failed; begins with a stable code where a rule said no")
    total_blocks: int
    covered_blocks: int
    known_blocks: int = Field(description="Of these, covered before it began: they cost nothing again")
    share_covered: str = Field(description="covered / total, rounded down: 1.0000 only if all is", examples=["0.9990"])
    events_written: int
    blocks_per_second: float | None
    events_per_second: float | None
    eta_at: datetime | None = Field(description="When it ends at this pace")
    verification: Mapping[str, Any] | None = Field(
        description="Coverage by difference, numbers without a gap, the contract's counter: as found at the end"
    )
    attempt: int
    started_at: datetime | None
    finished_at: datetime | None
    updated_at: datetime
    recorded_at: datetime


@routes.post("/start", status_code=202, response_model=JobView, responses=documented(404, 409, 413, 415))
async def start_backfill(body: StartInput, call: Annotated[Call, Depends(poster(Scope.CHAIN_WRITE))]) -> Response:
    """Begin a job over a range of blocks; it is recorded when this answers, and works on by itself. Service keys only.

    What is covered already, or what another job is at, is not fetched again: a range that is wholly covered completes
    without a request to the chain. A range that ends above what is final waits until it is.
    """
    call.require_service_key()
    return await once(call, _Start(call, body))


@routes.post("/progress", response_model=JobView, responses=documented(409, 413, 415))
async def report_backfill(body: ProgressInput, call: Annotated[Call, Depends(poster(Scope.CHAIN_WRITE))]) -> Response:
    """Record how far a job is that runs elsewhere, so that it is seen beside ours. Service keys only."""
    call.require_service_key()
    return await once(call, _Report(call, body))


@routes.get("/status")
async def list_backfills(
    call: Annotated[Call, Depends(caller(Scope.CHAIN_READ))],
    status: Annotated[JobStatus | None, Query()] = None,
    name: Annotated[Line | None, Query(description="The relayer's id, or what a job elsewhere calls itself")] = None,
    recorded_from: Annotated[Instant | None, Query(description="Recorded then or later")] = None,
    recorded_to: Annotated[Instant | None, Query(description="Recorded before then")] = None,
    cursor: CursorToken = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[JobView]:
    """Jobs, the newest first. Service keys only."""
    call.require_service_key()
    wanted = JobFilter(status, name, recorded_from, recorded_to)
    pager = Pager("backfill", asdict(wanted))
    async with call.transaction() as connection:
        rows = await jobs.list_(connection, wanted, before=pager.before(cursor), limit=limit + 1)
    rows, next_cursor = pager.page(rows, limit, "job_id")
    return Page(items=[_view(row) for row in rows], next_cursor=next_cursor)


@routes.get("/{job_id:backfill_job}", responses=documented(404))
async def read_backfill(job_id: UUID, call: Annotated[Call, Depends(caller(Scope.CHAIN_READ))]) -> JobView:
    """One job. Service keys only."""
    call.require_service_key()
    async with call.transaction() as connection:
        return _view(await _get(call, connection, job_id))


@routes.post("/{job_id:backfill_job}/pause", response_model=JobView, responses=documented(404, 409, 413, 415))
async def pause_backfill(
    job_id: UUID, body: CommandInput, call: Annotated[Call, Depends(poster(Scope.CHAIN_WRITE))]
) -> Response:
    """Stop a job for a while: after the answer it writes nothing. What is filled stays. Service keys only."""
    return await _command(call, job_id, JobCommand.PAUSE, body)


@routes.post("/{job_id:backfill_job}/resume", response_model=JobView, responses=documented(404, 409, 413, 415))
async def resume_backfill(
    job_id: UUID, body: CommandInput, call: Annotated[Call, Depends(poster(Scope.CHAIN_WRITE))]
) -> Response:
    """Let a paused job go on, with what is not covered by then. Service keys only."""
    return await _command(call, job_id, JobCommand.RESUME, body)


@routes.post("/{job_id:backfill_job}/cancel", response_model=JobView, responses=documented(404, 409, 413, 415))
async def cancel_backfill(
    job_id: UUID, body: CommandInput, call: Annotated[Call, Depends(poster(Scope.CHAIN_WRITE))]
) -> Response:
    """End a job: after the answer it writes nothing. What is filled stays. Service keys only."""
    return await _command(call, job_id, JobCommand.CANCEL, body)


@routes.post("/{job_id:backfill_job}/retry", response_model=JobView, responses=documented(404, 409, 413, 415))
async def retry_backfill(
    job_id: UUID, body: CommandInput, call: Annotated[Call, Depends(poster(Scope.CHAIN_WRITE))]
) -> Response:
    """Take a job up again that failed or was cancelled, with what is not covered yet. Service keys only."""
    return await _command(call, job_id, JobCommand.RETRY, body)


async def _command(call: Call, job_id: UUID, said: JobCommand, body: CommandInput) -> Response:
    call.require_service_key()
    return await once(call, _Telling(call, job_id, said, body))


class _Start:
    """A new job; its operation id is the job's, so that a repeat begins none. It is recorded before its workflow is
    started: while Temporal is away, the watch starts it later."""

    def __init__(self, call: Call, body: StartInput) -> None:
        self._call = call
        self._body = body
        self._job_id: UUID | None = None

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> Answer | None:
        """Record the job."""
        call, body, tenant = self._call, self._body, self._call.principal.tenant_id
        self._job_id = attempt.operation_id
        if attempt.repeated and await jobs.find(connection, tenant, attempt.operation_id) is not None:
            return None
        followed = await sources.find(connection, body.relayer_id)
        if followed is None:
            raise Refusal("relayer_unknown", "there is no such relayer", field="relayer_id")
        source = followed.source
        first = source.start_block if body.from_block is None else body.from_block
        last = await jobs.finalized_number(connection, source.source_id) if body.to_block is None else body.to_block
        if body.to_block is None and last < first:
            raise Refusal("block_not_reached", f"no block from {first} on is known to be final", field="to_block")
        rules.check_range(first, last, start_block=source.start_block)
        new = NewJob(attempt.operation_id, source.source_id, source.relayer_id, first, last, body.chunk_blocks)
        await jobs.insert(connection, tenant, new, at=now())
        job = await _get(call, connection, new.job_id)
        await write(connection, tenant, _record(call, job, "backfill.started", body.actor))
        return None

    async def perform(self) -> None:
        """Start the workflow."""
        call, job_id = self._call, self._checked()
        structlog.contextvars.bind_contextvars(workflow_id=backfill_workflow_id(job_id))
        run = BackfillRun(tenant_id=call.principal.tenant_id, job_id=job_id)
        summary = f"backfill, asked for by key {call.principal.key_id}"
        with suppress(Unavailable):
            await call.services.backfills.start(run, name=self._body.relayer_id, summary=summary)

    async def answer(self, connection: AsyncConnection) -> Answer:
        """202 and the job as it is recorded."""
        job = await _get(self._call, connection, self._checked())
        return Answer(202, _view(job), {"Location": f"/api/v1/monitoring/backfill/{job.job_id}"})

    def _checked(self) -> UUID:
        assert self._job_id is not None, "prepare() comes first"
        return self._job_id


class _Telling:
    """A command to a job; its workflow judges it."""

    def __init__(self, call: Call, job_id: UUID, said: JobCommand, body: CommandInput) -> None:
        self._call = call
        self._job_id = job_id
        self._said = said
        self._body = body
        self._command: BackfillCommand | None = None

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> Answer | None:
        """Check that there is such a job here. A job that is over says so by its row."""
        call = self._call
        origin = OriginMessage(user_id=self._body.actor, key_id=call.principal.key_id, request_id=call.request_id)
        command = BackfillCommand(
            command_id=attempt.operation_id, command=self._said, origin=origin, repeated=attempt.repeated
        )
        # The receipt first: a job that was read before it could be older than what it tells.
        step_id = command_step_id(self._job_id, attempt.operation_id)
        done = attempt.repeated and await receipts.find(connection, step_id) is not None
        job = await _get(call, connection, self._job_id)
        if done:
            return Answer(200, _view(job))
        if job.source_id is None:
            raise Refusal("job_external", "the job runs elsewhere and is told there")
        if job.status in OVER:
            rules.command(job.status, self._said)
        self._command = command
        return None

    async def perform(self) -> None:
        """Have the workflow judge it and carry it out."""
        assert self._command is not None, "prepare() comes first"
        attempt_id = new_id() if self._command.repeated else None
        tenant_id = self._call.principal.tenant_id
        await self._call.services.backfills.command(tenant_id, self._job_id, self._command, attempt_id=attempt_id)

    async def answer(self, connection: AsyncConnection) -> Answer:
        """The job as it stands."""
        return Answer(200, _view(await _get(self._call, connection, self._job_id)))


class _Report(Configuration):
    """Progress of a job that runs elsewhere."""

    def __init__(self, call: Call, body: ProgressInput) -> None:
        self._call = call
        self._body = body

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> Answer:
        """Everything happens here."""
        del attempt  # the job's own id names the effect
        call, body, at = self._call, self._body, now()
        tenant = call.principal.tenant_id
        status = JobStatus(body.status)
        told = Progress(body.from_block, body.to_block, body.covered_blocks, body.events_written, status)
        before = await jobs.find(connection, tenant, body.job_id, lock=True)
        if before is not None and before.source_id is not None:
            raise Refusal("job_not_external", "the job runs here and knows its progress by itself", field="job_id")
        rules.check_progress(told, None if before is None else _progress_of(before))
        if before is None:
            chunk = min(body.to_block - body.from_block + 1, CHUNK_BLOCKS_MAX)
            new = NewJob(body.job_id, None, body.name, body.from_block, body.to_block, chunk, JobStatus.RUNNING)
            await jobs.insert(connection, tenant, new, at=at)
        standing = await jobs.get(connection, tenant, body.job_id, lock=True)
        if standing.status in OVER:
            return Answer(200, _view(standing))
        await jobs.report(connection, standing, told, error=body.error, at=at)
        job = await _get(call, connection, body.job_id)
        if before is None:
            await write(connection, tenant, _record(call, job, "backfill.reported", None))
        if (ended := ended_event(job, at)) is not None:
            await append(connection, tenant, [ended])
            await write(connection, tenant, _record(call, job, ended.type, None))
            call.services.doorbell.ring()
        return Answer(200, _view(job))


def _progress_of(job: Job) -> Progress:
    return Progress(job.from_block, job.to_block, job.covered_blocks, job.events_written, job.status)


def _record(call: Call, job: Job, action: str, actor: str | None) -> AuditRecord:
    origin = Origin(user_id=actor, key_id=call.principal.key_id, request_id=call.request_id)
    return AuditRecord(backfill_workflow_id(job.job_id), action, now(), origin, facts_of(job))


async def _get(call: Call, connection: AsyncConnection, job_id: UUID) -> Job:
    found = await jobs.find(connection, call.principal.tenant_id, job_id)
    if found is None:
        raise Refusal("job_unknown", "there is no such backfill job")
    return found


def _view(job: Job) -> JobView:
    elsewhere = job.source_id is None
    share = 10_000 * job.covered_blocks // job.total_blocks
    return JobView(
        job_id=job.job_id,
        name=job.name,
        elsewhere=elsewhere,
        from_block=job.from_block,
        to_block=job.to_block,
        chunk_blocks=None if elsewhere else job.chunk_blocks,
        status=job.status,
        error=job.error,
        total_blocks=job.total_blocks,
        covered_blocks=job.covered_blocks,
        known_blocks=job.known_blocks,
        share_covered=f"{share // 10_000}.{share % 10_000:04d}",
        events_written=job.events_written,
        blocks_per_second=job.blocks_per_second,
        events_per_second=job.events_per_second,
        eta_at=job.eta_at,
        verification=job.verification,
        attempt=job.attempt,
        started_at=job.started_at,
        finished_at=job.finished_at,
        updated_at=job.updated_at,
        recorded_at=job.recorded_at,
    )
