"""One step, one commit: row, ledger, audit, events and receipt together, and the same answer for every attempt."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db.audit import AuditRecord
from db.doorbell import Doorbell
from db.engine import transaction
from db.outbox import OutboxEvent

_BEGIN = text("SELECT step_begin(:tenant, :step)")

_CLOSE = text(
    """
    WITH audit AS (
        INSERT INTO audit_log
            (tenant_id, subject, action, actor_user, actor_key_id, request_id, workflow_id, at, details)
        VALUES (:tenant, :subject, :action, :actor_user, :actor_key_id, :request_id, :workflow_id, :at,
                CAST(:details AS jsonb))
    ), events AS (
        INSERT INTO outbox (tenant_id, event_id, topic, type, subject, occurred_at, data)
        SELECT :tenant, event_id, topic, type, subject, occurred_at, data
        FROM jsonb_to_recordset(CAST(:events AS jsonb)) AS e
            (n int, event_id uuid, topic text, type text, subject text, occurred_at timestamptz, data jsonb)
        ORDER BY n
    )
    INSERT INTO receipts (tenant_id, step_id, result) VALUES (:tenant, :step, CAST(:result AS jsonb))
    """
)


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
        self.left = False

    def leave(self) -> None:
        """There was nothing to do: the step leaves nothing behind, not even a receipt, and may be asked again."""
        self.left = True

    async def finish(self, *, result: Mapping[str, Any], audit: AuditRecord, events: Sequence[OutboxEvent]) -> None:
        """Write what the step leaves beside its rows: audit record, events, receipt. Once, as its last act."""
        origin = audit.origin
        await self.connection.execute(
            _CLOSE,
            {
                "tenant": self.tenant_id,
                "step": self.step_id,
                "result": json.dumps(result),
                "subject": audit.subject,
                "action": audit.action,
                "actor_user": origin.user_id,
                "actor_key_id": origin.key_id,
                "request_id": origin.request_id,
                "workflow_id": origin.workflow_id,
                "at": audit.at,
                "details": json.dumps(audit.details),
                "events": json.dumps([_event_row(n, event) for n, event in enumerate(events)]),
            },
        )
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
        if receipt is None and not (opened.finished or opened.left):
            raise StepNotFinished(step_id)
    if opened.finished:
        doorbell.ring()


def _event_row(n: int, event: OutboxEvent) -> dict[str, Any]:
    return {
        "n": n,
        "event_id": str(event.event_id),
        "topic": event.topic,
        "type": event.type,
        "subject": event.subject,
        "occurred_at": event.occurred_at.isoformat(),
        "data": event.data,
    }
