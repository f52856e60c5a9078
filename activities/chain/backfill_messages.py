"""Messages of backfill jobs."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from activities.messages import Message, OriginMessage
from domain.chain.jobs import JobCommand, JobStatus


class BackfillRun(Message):
    """Start of a ``BackfillWorkflow``: a job that is recorded. ``recent_commands`` were carried out by runs before."""

    tenant_id: UUID
    job_id: UUID
    recent_commands: tuple[UUID, ...] = ()

    def log_context(self) -> dict[str, str]:
        """Tenant and job."""
        return {"tenant_id": str(self.tenant_id), "job_id": str(self.job_id)}


class BackfillCommand(Message):
    """What an operator tells a job. ``repeated``: an earlier try may have taken effect."""

    command_id: UUID
    command: JobCommand
    origin: OriginMessage = OriginMessage()
    repeated: bool = False


class ApplyBackfillCommand(Message):
    """Input of the step that carries a command out; ``at`` is the workflow's clock."""

    run: BackfillRun
    command: BackfillCommand
    at: datetime

    def log_context(self) -> dict[str, str]:
        """Tenant, job and request."""
        return self.run.log_context() | self.command.origin.log_context()


class EndBackfill(Message):
    """Input of the step that records how an attempt at a job ended: with an error, or completed."""

    run: BackfillRun
    attempt: int
    at: datetime
    error: str | None = None

    def log_context(self) -> dict[str, str]:
        """Tenant and job."""
        return self.run.log_context()


class BackfillState(Message):
    """A job as its row has it."""

    status: JobStatus
    attempt: int
    name: str
    from_block: int
    to_block: int
    total_blocks: int
    covered_blocks: int
    events_written: int
    blocks_per_second: float | None = None
    events_per_second: float | None = None
    eta_at: datetime | None = None
    error: str | None = None


class PlanBackfill(Message):
    """Input of the step that decides what is fetched; ``at`` is the workflow's clock."""

    run: BackfillRun
    at: datetime

    def log_context(self) -> dict[str, str]:
        """Tenant and job."""
        return self.run.log_context()


class BackfillPlan(Message):
    """What a job fetches now: chunks 0 to ``chunks - 1``. ``others`` blocks are left to jobs that are at them.

    ``not_final``: the range ends above what is final, and waits. ``stopped``: the job is paused or over.
    ``expected_events`` are those of the whole range, where the chain says how many they are.
    """

    chunks: int = 0
    others: int = 0
    missing: int = 0
    not_final: bool = False
    stopped: bool = False
    expected_events: int | None = None


class FillChunk(Message):
    """Input of the step that fills one chunk."""

    run: BackfillRun
    chunk_no: int
    expected_events: int | None = None

    def log_context(self) -> dict[str, str]:
        """Tenant, job and chunk."""
        return self.run.log_context() | {"chunk_no": str(self.chunk_no)}


class ChunkFilled(Message):
    """What became of a chunk. ``done``: it is filled. ``stopped``: the job is paused, over, or laid out anew; neither:
    its turn did not come, and it is asked for again."""

    done: bool
    stopped: bool = False
    covered_blocks: int = 0
    events_written: int = 0
    blocks_per_second: float | None = None
    events_per_second: float | None = None
    eta_at: datetime | None = None


class BackfillVerified(Message):
    """What the look at the end found. ``missing`` blocks are not covered; ``error`` says what does not agree."""

    missing: int = 0
    stopped: bool = False
    error: str | None = None
