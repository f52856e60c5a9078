"""That notice was given, and when: every row of an alert's log, with the way of its hash to a signed checkpoint."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Depends
from pydantic import BaseModel, Field

from api.alerts.alerts import visible
from api.alerts.models import AttemptView, attempt_views
from api.deps import Call, caller, router
from api.ledger.seals import CheckpointView, ProofView, checkpoint_view, proof_view
from api.pages import DEFAULT_LIMIT, CursorToken, Limit, Page, Pager
from api.problems import documented
from db.alerts import attempts
from db.sealing import proofs
from domain.identity import Scope

STREAM = "alerts"

routes = router("/alerts", "alerts")
checkpoint_routes = router("/alerts/checkpoints", "alerts")


class SealedAttemptView(AttemptView):
    """A row of the log with its proof; null until a checkpoint covers it, which is within about a minute."""

    proof: ProofView | None


class AlertProofView(BaseModel):
    """What can be shown of an alert to somebody who trusts the checkpoints alone."""

    notification_id: UUID
    complete: bool = Field(description="Whether every row is under a checkpoint")
    raised_at: datetime
    attempts: list[SealedAttemptView]


@checkpoint_routes.get("")
async def list_alert_checkpoints(
    call: Annotated[Call, Depends(caller(Scope.ALERTS_READ))],
    cursor: CursorToken = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[CheckpointView]:
    """The signed checkpoints over the log of attempts, the newest first."""
    pager = Pager("alert checkpoints", {})
    before = pager.after(cursor) or None
    async with call.transaction() as connection:
        rows = await proofs.newest_checkpoints(connection, STREAM, before=before, limit=limit + 1)
    rows, next_cursor = pager.page(rows, limit, "tree_size")
    return Page(items=[checkpoint_view(row) for row in rows], next_cursor=next_cursor)


@routes.get("/{notification_id}/proof", responses=documented(404))
async def read_alert_proof(
    notification_id: UUID, call: Annotated[Call, Depends(caller(Scope.ALERTS_READ))]
) -> AlertProofView:
    """What was sent when, what the vendor said, and the proof that it was written then and not changed since."""
    async with call.transaction() as connection:
        found = await visible(call, connection, notification_id)
        log = await attempts.list_of(connection, call.principal.tenant_id, notification_id)
        rows: list[SealedAttemptView] = []
        views = attempt_views(found, log, call.principal.user_id)
        for written, view in zip(log, views, strict=True):
            proof = await proofs.inclusion(connection, STREAM, written.sequence, written.entry.entry_id)
            shown = None if proof is None else proof_view(proof)
            rows.append(SealedAttemptView(**view.model_dump(), proof=shown))
    return AlertProofView(
        notification_id=notification_id,
        complete=bool(rows) and all(row.proof is not None for row in rows),
        raised_at=found.alert.raised_at,
        attempts=rows,
    )
