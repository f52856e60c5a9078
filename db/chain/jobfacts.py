"""What events, audit and receipts say of a backfill job."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from db.chain.jobs import Job
from db.ids import new_id
from db.outbox import SETTLEMENT_TOPIC, OutboxEvent
from domain.chain.jobs import OVER
from domain.ids import backfill_workflow_id


def facts_of(job: Job) -> dict[str, Any]:
    """What is told of a job."""
    return {
        "job_id": str(job.job_id),
        "name": job.name,
        "from_block": job.from_block,
        "to_block": job.to_block,
        "covered_blocks": job.covered_blocks,
        "events_written": job.events_written,
        "error": job.error,
    }


def ended_event(job: Job, at: datetime) -> OutboxEvent | None:
    """The event of a job's end; None while it goes on."""
    if job.status not in OVER:
        return None
    subject = backfill_workflow_id(job.job_id)
    return OutboxEvent(new_id(), SETTLEMENT_TOPIC, f"backfill.{job.status}", subject, at, facts_of(job))


def command_step_id(job_id: UUID, command_id: UUID) -> str:
    """The id under which a command leaves its receipt."""
    return f"{backfill_workflow_id(job_id)}:{command_id}"
