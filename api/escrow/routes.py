"""Opening escrows and reading them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated
from uuid import UUID

import structlog
from fastapi import Depends, Query
from pydantic import StringConstraints
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from api.deps import Call, caller, poster, router, shortened
from api.escrow import models
from api.escrow.terms import terms_message, terms_of, translated, view, waiting_view
from api.fields import Instant, Line, Symbol
from api.idempotency import Answer, Attempt, once
from api.pages import DEFAULT_LIMIT, CursorToken, Limit, Page, Pager
from api.problems import documented
from db import audit
from db import escrow as db_escrow
from db.chain.settling import told_of
from db.escrow import EscrowFilter
from domain.errors import Refusal
from domain.escrow import CLOSED, Escrow, Status, open_escrow
from domain.identity import Scope, acting_user
from domain.ids import escrow_workflow_id
from kit.clock import now
from workflows.escrow import OpenEscrow, OriginMessage
from workflows.escrow.waiting import agreed, summary, waiting

routes = router("/escrows", "escrows")

OnchainId = Annotated[str, StringConstraints(pattern=r"^0x[0-9a-fA-F]{64}$")]


@routes.post(
    "",
    name="open_escrow",
    status_code=201,
    response_model=models.EscrowView,
    responses=documented(409, 413, 415, existing=models.EscrowView),
)
async def open_new(body: models.NewEscrow, call: Annotated[Call, Depends(poster(Scope.ESCROWS_WRITE))]) -> Response:
    """Open an escrow. A `reference` that is taken answers its escrow if the content is the same, else 409."""
    return await once(call, _Opening(call, body))


@routes.get("")
async def list_escrows(
    call: Annotated[Call, Depends(caller(Scope.ESCROWS_READ))],
    status: Annotated[Status | None, Query()] = None,
    user: Annotated[Line | None, Query(description="A party in any role")] = None,
    address: Annotated[Line | None, Query(description="The wallet of a party in any role")] = None,
    asset: Annotated[Symbol | None, Query()] = None,
    reference: Annotated[Line | None, Query()] = None,
    onchain_id: Annotated[OnchainId | None, Query(description="The escrow's id in its contract on a chain")] = None,
    created_from: Annotated[Instant | None, Query(description="Created then or later")] = None,
    created_to: Annotated[Instant | None, Query(description="Created before")] = None,
    cursor: CursorToken = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[models.EscrowView]:
    """Escrows, newest first. A key that is bound to a user sees those in which the user is a party."""
    wanted = EscrowFilter(
        status=status,
        user_id=call.own_user(user, field="user"),
        address=address,
        asset=asset,
        reference=reference,
        onchain_id=None if onchain_id is None else onchain_id.lower(),
        created_from=created_from,
        created_to=created_to,
    )
    pager = Pager("escrows", asdict(wanted))
    before = pager.before(cursor)
    async with call.transaction() as connection:
        rows = await db_escrow.list_(connection, wanted, before=before, limit=limit + 1)
    rows, next_cursor = pager.page(rows, limit, "escrow_id")
    return Page(items=[view(escrow) for escrow in rows], next_cursor=next_cursor)


@routes.get("/{escrow_id}", responses=documented(404))
async def read_escrow(escrow_id: UUID, call: Annotated[Call, Depends(caller(Scope.ESCROWS_READ))]) -> models.EscrowView:
    """An escrow as it stands; of one that is on a chain, also what its contract told of it."""
    async with call.transaction() as connection:
        escrow = await visible(call, connection, escrow_id)
        told = None if escrow.terms.custody is None else await told_of(connection, escrow_id)
        return view(escrow, told)


@routes.get("/{escrow_id}/timeline", responses=documented(404))
async def read_timeline(
    escrow_id: UUID,
    call: Annotated[Call, Depends(caller(Scope.ESCROWS_READ))],
    cursor: CursorToken = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[models.TimelineEntry]:
    """Everything that was done to an escrow, oldest first."""
    subject = escrow_workflow_id(escrow_id)
    pager = Pager("timeline", {"subject": subject})
    after = pager.after(cursor)
    async with call.transaction() as connection:
        await visible(call, connection, escrow_id)
        rows = await audit.list_for(connection, subject, after=after, limit=limit + 1)
    rows, next_cursor = pager.page(rows, limit, "audit_id")
    items = [
        models.TimelineEntry(
            entry_id=entry.audit_id,
            action=entry.action,
            at=entry.at,
            recorded_at=entry.recorded_at,
            actor=entry.actor_user,
            key_id=entry.actor_key_id,
            request_id=entry.request_id,
            workflow_id=entry.workflow_id,
            details=entry.details,
        )
        for entry in rows
    ]
    return Page(items=items, next_cursor=next_cursor)


@routes.get("/{escrow_id}/waiting", responses=documented(404))
async def read_waiting(
    escrow_id: UUID, call: Annotated[Call, Depends(caller(Scope.ESCROWS_READ))]
) -> models.WaitingView:
    """What an escrow waits for and until when, asked of its workflow; a closed one waits for nothing."""
    async with call.transaction() as connection:
        escrow = await visible(call, connection, escrow_id)
    told = None if escrow.status in CLOSED else await call.services.escrows.waiting(escrow_id)
    # A closed escrow's workflow is gone sooner or later, and the row knows the same.
    return waiting_view(escrow_id, told or waiting(escrow))


async def visible(call: Call, connection: AsyncConnection, escrow_id: UUID) -> Escrow:
    """The escrow, if the tenant has it and the caller may see it; who may not, learns nothing of it."""
    escrow = await db_escrow.find(connection, escrow_id)
    user_id = call.principal.user_id
    if escrow is None or (user_id is not None and escrow.role_of(user_id) is None):
        raise Refusal("escrow_unknown", "there is no such escrow")
    return escrow


class _Opening:
    """Opens an escrow: terms are checked here before anything begins, then recorded by its workflow."""

    def __init__(self, call: Call, body: models.NewEscrow) -> None:
        self._call = call
        self._body = body
        self._opening: OpenEscrow | None = None
        self._summary = ""
        self._details = ""
        self._taken: Refusal | None = None

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> Answer | None:
        """Check the terms; an escrow that is there already, by its id or its reference, is the answer."""
        principal, body = self._call.principal, self._body
        asset = await self._call.services.assets.get(connection, body.asset)
        terms = terms_of(body, asset, attempt.operation_id)
        message = terms_message(terms)
        if attempt.repeated and (done := await db_escrow.find(connection, attempt.operation_id)) is not None:
            return _answer(201, done)
        if body.reference is not None:
            taken = await db_escrow.find_by_reference(connection, body.reference)
            if taken is not None:
                return _answer(200, self._same(taken[0], taken[1] == message.content_hash()))
        user_id = principal.user_id or body.actor
        if body.actor is not None:
            acting_user(principal, body.actor)
        try:
            decided = open_escrow(attempt.operation_id, terms, now())
        except Refusal as refusal:
            raise translated(refusal, body) from None
        if principal.user_id is not None and decided.escrow.role_of(principal.user_id) is None:
            raise Refusal("not_a_party", "this key opens only escrows in which its user is a party")
        self._summary = shortened(summary(decided.escrow))
        self._details = agreed(decided.escrow)
        origin = OriginMessage(user_id=user_id, key_id=principal.key_id, request_id=self._call.request_id)
        self._opening = OpenEscrow(
            tenant_id=principal.tenant_id, escrow_id=attempt.operation_id, terms=message, origin=origin
        )
        return None

    async def perform(self) -> None:
        """Start its workflow and wait until it has recorded the escrow."""
        opening = self._begun()
        structlog.contextvars.bind_contextvars(workflow_id=escrow_workflow_id(opening.escrow_id))
        try:
            await self._call.services.escrows.open(opening, summary=self._summary, details=self._details)
        except Refusal as refusal:
            if refusal.code != "reference_taken":
                raise translated(refusal, self._body) from None
            self._taken = refusal  # somebody was faster; the answer depends on what they asked for

    async def answer(self, connection: AsyncConnection) -> Answer:
        """The escrow as it was recorded, by this request or by one that was faster."""
        opening = self._begun()
        if self._taken is None:
            return _answer(201, await visible(self._call, connection, opening.escrow_id))
        if opening.terms is None or opening.terms.reference is None:
            raise self._taken
        faster = await db_escrow.find_by_reference(connection, opening.terms.reference)
        if faster is None:
            raise self._taken
        return _answer(200, self._same(faster[0], faster[1] == opening.terms.content_hash()))

    def _begun(self) -> OpenEscrow:
        assert self._opening is not None, "prepare() comes first"
        return self._opening

    def _same(self, taken: Escrow, same: bool) -> Escrow:
        if not same:
            raise Refusal("reference_taken", "this reference names an escrow with other content", field="reference")
        user_id = self._call.principal.user_id
        if user_id is not None and taken.role_of(user_id) is None:
            raise Refusal("reference_taken", "this reference names another escrow", field="reference")
        return taken


def _answer(status: int, escrow: Escrow) -> Answer:
    return Answer(status, view(escrow), {"Location": f"/api/v1/escrows/{escrow.escrow_id}"})
