"""What a change of alerts' configuration leaves: its audit record and its event, in the commit that makes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from api.deps import Call
from db.audit import AuditRecord, Origin
from db.ids import new_id
from db.outbox import ALERTS_TOPIC, OutboxEvent
from db.step import Left, leave
from kit.clock import now


async def leave_change(
    call: Call,
    connection: AsyncConnection,
    subject: str,
    action: str,
    facts: Mapping[str, Any],
    *,
    beside: Sequence[OutboxEvent] = (),
) -> None:
    """Write both, with the same facts; further events go ``beside`` the one that is called after the action."""
    at = now()
    origin = Origin(call.principal.user_id, call.principal.key_id, call.request_id)
    told = OutboxEvent(new_id(), ALERTS_TOPIC, action, subject, at, dict(facts))
    record = AuditRecord(subject, action, at, origin, dict(facts))
    step = f"{subject}:{told.event_id}"
    await leave(connection, call.principal.tenant_id, [Left(step, {}, record, [told, *beside])])
