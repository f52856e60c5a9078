"""One step, one commit: row, ledger, audit, events and receipt together, and the same answer for every attempt."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db.audit import AuditRecord
from db.doorbell import Doorbell
from db.engine import transaction
from db.outbox import OutboxEvent, row_of

_BEGIN = text("SELECT step_begin(:tenant, :step)")

_LEAVE = text(
    """
    WITH audit AS (
        INSERT INTO audit_log
            (tenant_id, subject, action, actor_user, actor_key_id, request_id, workflow_id, at, details)
        SELECT :tenant, subject, action, actor_user, actor_key_id, request_id, workflow_id, at, details
        FROM jsonb_to_recordset(CAST(:audit AS jsonb)) AS a
            (n int, subject text, action text, actor_user text, actor_key_id uuid, request_id text, workflow_id text,
             at timestamptz, details jsonb)
        ORDER BY n
    ), events AS (
        INSERT INTO outbox (tenant_id, event_id, topic, type, subject, occurred_at, data)
        SELECT :tenant, event_id, topic, type, subject, occurred_at, data
        FROM jsonb_to_recordset(CAST(:events AS jsonb)) AS e
            (n int, event_id uuid, topic text, type text, subject text, occurred_at timestamptz, data jsonb)
        ORDER BY n
    )
    INSERT INTO receipts (tenant_id, step_id, result)
    SELECT :tenant, step_id, result
    FROM jsonb_to_recordset(CAST(:receipts AS jsonb)) AS r (step_id text, result jsonb)
    """
)

_RECEIPTS = text(
    "SELECT r.step_id, r.result FROM receipts r WHERE r.tenant_id = :tenant AND r.step_id = ANY(CAST(:steps AS text[]))"
)


@dataclass(frozen=True, slots=True)
class Left:
    """What a step leaves beside its rows: its receipt, one audit record, its events."""

    step_id: str
    result: Mapping[str, Any]
    audit: AuditRecord
    events: Sequence[OutboxEvent]


async def leave(connection: AsyncConnection, tenant_id: UUID, steps: Sequence[Left]) -> None:
    """Write what steps leave, all in one statement, in the transaction that did them."""
    events = [event for left in steps for event in left.events]
    receipts = [{"step_id": left.step_id, "result": left.result} for left in steps]
    await connection.execute(
        _LEAVE,
        {
            "tenant": tenant_id,
            "audit": json.dumps([_audit_row(n, left.audit) for n, left in enumerate(steps)]),
            "events": json.dumps([row_of(n, event) for n, event in enumerate(events)]),
            "receipts": json.dumps(receipts),
        },
    )


async def receipts_of(connection: AsyncConnection, tenant_id: UUID, step_ids: Sequence[str]) -> dict[str, Any]:
    """The stored results of those of the steps that were done."""
    rows = await connection.execute(_RECEIPTS, {"tenant": tenant_id, "steps": list(step_ids)})
    return {row.step_id: row.result for row in rows}


class StepNotFinished(RuntimeError):
    """A step's body ended without saying what happened; nothing was written. A bug."""


class Step:
    """An open step. ``receipt`` is the stored result of an earlier attempt; then there is nothing left to do."""

    def __init__(self, connection: AsyncConnection, tenant_id: UUID, step_id: str, receipt: Any | None) -> None:
        self.connection = connection
        self.tenant_id = tenant_id
        self.step_id = step_id
        self.receipt = receipt
        self.finished = False
        self.skipped = False

    def skip(self) -> None:
        """There was nothing to do: the step leaves nothing behind, not even a receipt, and may be asked again."""
        self.skipped = True

    async def finish(self, *, result: Mapping[str, Any], audit: AuditRecord, events: Sequence[OutboxEvent]) -> None:
        """Write what the step leaves beside its rows: audit record, events, receipt. Once, as its last act."""
        await leave(self.connection, self.tenant_id, [Left(self.step_id, result, audit, events)])
        self.finished = True


@asynccontextmanager
async def step(engine: AsyncEngine, doorbell: Doorbell, *, tenant_id: UUID, step_id: str) -> AsyncIterator[Step]:
    """Open the step ``step_id`` of a tenant, commit it at the end, and wake the relay after the commit.

    Attempts of the same step wait for one another (an advisory lock), so a second one always meets the first one's
    receipt. An error in the body rolls everything back.
    """
    async with transaction(engine) as connection:
        receipt = await connection.scalar(_BEGIN, {"tenant": tenant_id, "step": step_id})
        opened = Step(connection, tenant_id, step_id, receipt)
        yield opened
        if receipt is None and not (opened.finished or opened.skipped):
            raise StepNotFinished(step_id)
    if opened.finished:
        doorbell.ring()


def _audit_row(n: int, audit: AuditRecord) -> dict[str, Any]:
    origin = audit.origin
    return {
        "n": n,
        "subject": audit.subject,
        "action": audit.action,
        "actor_user": origin.user_id,
        "actor_key_id": None if origin.key_id is None else str(origin.key_id),
        "request_id": origin.request_id,
        "workflow_id": origin.workflow_id,
        "at": audit.at.isoformat(),
        "details": audit.details,
    }
