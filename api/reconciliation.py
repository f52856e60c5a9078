"""Reconciliation: runs that compare escrows, holds, transfers and balances with the ledger, and what they found."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

import structlog
from fastapi import Body, Depends
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from api.deps import Call, caller, poster, router
from api.fields import Input
from api.idempotency import Answer, Attempt, once
from api.pages import DEFAULT_LIMIT, CursorToken, Limit, Page, Pager
from api.problems import documented
from db.reconciliation import runs
from domain.errors import Refusal
from domain.identity import Scope
from domain.ids import reconciliation_workflow_id
from domain.money import Asset, format_minor
from domain.reconciliation import share_text
from workflows.escrow import OriginMessage
from workflows.reconciliation import ReconcileTenant

routes = router("/ledger/reconciliations", "ledger")
ROUTERS = (routes,)


class Extent(StrEnum):
    """How much of the books a run reads."""

    FULL = "full"
    RECENT = "recent"


class RunStatus(StrEnum):
    """Where a run stands."""

    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"


class ReconciliationInput(Input):
    """What to compare."""

    extent: Extent = Field(
        default=Extent.FULL,
        description="`full`: every transaction from the first on. `recent`: transactions since the run before, escrows"
        " that are open or were closed within a day; commands likewise; all accounts, holds and transfers in any case",
    )


class AreaView(BaseModel):
    """One kind of subject."""

    checked: int
    matched: int = Field(description="That agree")
    explained: int = Field(description="That differ for a reason that is known and passes")
    unexplained: int = Field(description="That differ")


class RunView(AreaView):
    """One run over a tenant's books. Until it is finished its figures are zero."""

    run_id: UUID
    extent: Extent
    status: RunStatus
    started_at: datetime
    finished_at: datetime | None
    through_sequence: int | None = Field(description="The last transaction that was added up")
    share_explained: str | None = Field(
        description="(matched + explained) / checked, rounded down: 1.000000 only if all is", examples=["0.999998"]
    )
    areas: dict[str, AreaView]
    failure: str | None = Field(description="Why it could not compare")


class FindingView(BaseModel):
    """One difference, from the run that saw it first to the one that saw it last."""

    finding_id: UUID
    area: str
    code: str = Field(description="Stable and machine-readable", examples=["available_differs"])
    subject: str = Field(examples=["account:alice"])
    part: str = Field(description="Which part of the subject; empty for the whole")
    asset: str | None = Field(description="What the amounts are counted in; null where they are counts")
    expected: str | None = Field(description="What the ledger's legs, or the rules, make of it")
    actual: str | None = Field(description="What the row says")
    detail: str
    explained: bool
    explanation: str | None
    first_run_id: UUID
    last_run_id: UUID
    first_seen_at: datetime
    last_seen_at: datetime
    resolved_at: datetime | None = Field(description="When a run no longer found it; null while it stands")


class RunWithFindings(RunView):
    """A run, and a page of the findings that stood when it was made, newest first."""

    findings: Page[FindingView]


@routes.post("", status_code=202, response_model=RunView, responses=documented(409, 413, 415))
async def reconcile(
    body: Annotated[ReconciliationInput, Body(default_factory=ReconciliationInput)],
    call: Annotated[Call, Depends(poster(Scope.LEDGER_WRITE))],
) -> Response:
    """Begin a run; it is recorded when this answers, and works on by itself. Service keys only."""
    call.require_service_key()
    return await once(call, _Reconciliation(call, body))


@routes.get("")
async def list_reconciliations(
    call: Annotated[Call, Depends(caller(Scope.LEDGER_READ))],
    cursor: CursorToken = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[RunView]:
    """Runs, the newest first. Service keys only."""
    call.require_service_key()
    pager = Pager("reconciliations", {})
    async with call.transaction() as connection:
        rows = await runs.list_runs(connection, before=pager.before(cursor), limit=limit + 1)
    rows, next_cursor = pager.page(rows, limit, "run_id")
    return Page(items=[RunView(**_run(row)) for row in rows], next_cursor=next_cursor)


@routes.get("/{run_id}", responses=documented(404))
async def read_reconciliation(
    run_id: UUID,
    call: Annotated[Call, Depends(caller(Scope.LEDGER_READ))],
    cursor: CursorToken = None,
    limit: Limit = DEFAULT_LIMIT,
) -> RunWithFindings:
    """One run with what it found; the cursor pages through the findings. Service keys only."""
    call.require_service_key()
    pager = Pager("reconciliation findings", {"run_id": run_id})
    async with call.transaction() as connection:
        run = await _get(connection, run_id)
        rows = await runs.list_findings(connection, run_id, before=pager.before(cursor), limit=limit + 1)
        assets = await call.services.assets.all(connection)
    rows, next_cursor = pager.page(rows, limit, "finding_id")
    findings = Page(items=[_finding(row, assets) for row in rows], next_cursor=next_cursor)
    return RunWithFindings(**_run(run), findings=findings)


class _Reconciliation:
    """A run on demand; its operation id is the run's, so that a repeat begins none."""

    def __init__(self, call: Call, body: ReconciliationInput) -> None:
        self._call = call
        self._body = body
        self._request: ReconcileTenant | None = None

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> Answer | None:
        """A run that an earlier try began is the answer."""
        call = self._call
        if attempt.repeated and (begun := await runs.find_run(connection, attempt.operation_id)) is not None:
            return _answer(begun)
        self._request = ReconcileTenant(
            tenant_id=call.principal.tenant_id,
            run_id=attempt.operation_id,
            full=self._body.extent is Extent.FULL,
            origin=OriginMessage(key_id=call.principal.key_id, request_id=call.request_id),
        )
        return None

    async def perform(self) -> None:
        """Start the workflow; it records the run."""
        request = self._checked()
        workflow_id = reconciliation_workflow_id(request.tenant_id, request.run_id)
        structlog.contextvars.bind_contextvars(workflow_id=workflow_id)
        summary = f"{self._body.extent} reconciliation, asked for by key {self._call.principal.key_id}"
        await self._call.services.reconciliations.start(request, summary=summary)

    async def answer(self, connection: AsyncConnection) -> Answer:
        """202 and the run as it is recorded."""
        return _answer(await _get(connection, self._checked().run_id))

    def _checked(self) -> ReconcileTenant:
        assert self._request is not None, "prepare() comes first"
        return self._request


async def _get(connection: AsyncConnection, run_id: UUID) -> runs.Run:
    found = await runs.find_run(connection, run_id)
    if found is None:
        raise Refusal("reconciliation_unknown", "there is no such reconciliation")
    return found


def _answer(run: runs.Run) -> Answer:
    return Answer(202, RunView(**_run(run)), {"Location": f"/api/v1/ledger/reconciliations/{run.run_id}"})


def _run(run: runs.Run) -> dict[str, Any]:
    share = run.share_explained_ppm
    return {
        "run_id": run.run_id,
        "extent": Extent.FULL if run.is_full else Extent.RECENT,
        "status": run.status,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "through_sequence": run.through_sequence,
        **_figures(run.checked, run.explained, run.unexplained),
        "share_explained": None if share is None else share_text(share),
        "areas": {area: _figures(**each) for area, each in run.areas.items()},
        "failure": run.failure,
    }


def _figures(checked: int, explained: int, unexplained: int) -> dict[str, int]:
    return {
        "checked": checked,
        "matched": checked - explained - unexplained,
        "explained": explained,
        "unexplained": unexplained,
    }


def _finding(row: runs.StandingFinding, assets: Mapping[str, Asset]) -> FindingView:
    finding = row.finding
    asset = assets.get(finding.asset or "")

    def amount(figure: int | None) -> str | None:
        return None if figure is None else format_minor(figure, 0 if asset is None else asset.scale)

    return FindingView(
        finding_id=row.finding_id,
        area=row.area,
        code=finding.code,
        subject=finding.subject,
        part=finding.part,
        asset=finding.asset,
        expected=amount(finding.expected),
        actual=amount(finding.actual),
        detail=finding.detail,
        explained=finding.explanation is not None,
        explanation=finding.explanation,
        first_run_id=row.first_run_id,
        last_run_id=row.last_run_id,
        first_seen_at=row.first_seen_at,
        last_seen_at=row.last_seen_at,
        resolved_at=row.resolved_at,
    )
