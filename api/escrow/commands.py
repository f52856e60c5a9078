"""The commands of an escrow: each is an update of its workflow, and answers the escrow after it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, TypeVar
from uuid import UUID

import structlog
from fastapi import Body, Depends
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from api.deps import Call, poster, router
from api.escrow import models
from api.escrow.routes import visible
from api.escrow.terms import translated, view
from api.idempotency import Answer, Attempt, once
from api.problems import documented
from db import receipts
from db.ids import new_id
from domain.errors import Refusal
from domain.escrow import CLOSED, Escrow, decide
from domain.identity import Scope, acting_user
from domain.ids import escrow_step_id, escrow_workflow_id
from domain.money import parse_minor
from kit.clock import now
from workflows.escrow import (
    ApproveMessage,
    CancelMessage,
    CommandMessage,
    DisputeMessage,
    EscrowCommand,
    FundMessage,
    OriginMessage,
    RefundMessage,
    ReleaseMessage,
    ResolveMessage,
    to_command,
)

BodyT = TypeVar("BodyT", bound=models.ActorInput)
#: Makes the workflow's message of a body; the number is the scale of the escrow's asset.
MakeMessage = Callable[[BodyT, int], CommandMessage]

routes = router("/escrows/{escrow_id}", "escrows")
Writer = Annotated[Call, Depends(poster(Scope.ESCROWS_WRITE))]
_RESPONSES = documented(404, 409, 413, 415)

#: A body that may be left out by a key that is bound to a user: it says nothing that the key does not.
ActorBody = Annotated[models.ActorInput, Body(default_factory=models.ActorInput)]
MilestonesBody = Annotated[models.MilestonesInput, Body(default_factory=models.MilestonesInput)]
PaymentBody = Annotated[models.PaymentInput, Body(default_factory=models.PaymentInput)]


@routes.post("/fund", response_model=models.EscrowView, responses=_RESPONSES)
async def fund(escrow_id: UUID, body: MilestonesBody, call: Writer) -> Response:
    """The buyer places the price, and the buyer's fee, of milestones on hold."""
    return await _command(call, escrow_id, body, lambda said, _: FundMessage(positions=_positions(said)))


@routes.post("/approvals", response_model=models.EscrowView, responses=_RESPONSES)
async def approve(escrow_id: UUID, body: MilestonesBody, call: Writer) -> Response:
    """A role says that milestones were delivered as agreed; it may come before the money."""
    return await _command(call, escrow_id, body, lambda said, _: ApproveMessage(positions=_positions(said)))


@routes.post("/release", response_model=models.EscrowView, responses=_RESPONSES)
async def release(escrow_id: UUID, body: PaymentBody, call: Writer) -> Response:
    """The seller is paid: what is left of milestones, or `amount` of a single one."""
    return await _command(
        call,
        escrow_id,
        body,
        lambda said, scale: ReleaseMessage(positions=_positions(said), amount_minor=_amount(said, scale)),
    )


@routes.post("/refund", response_model=models.EscrowView, responses=_RESPONSES)
async def refund(escrow_id: UUID, body: PaymentBody, call: Writer) -> Response:
    """The seller gives money back: what is left of milestones, or `amount` of a single one."""
    return await _command(
        call,
        escrow_id,
        body,
        lambda said, scale: RefundMessage(positions=_positions(said), amount_minor=_amount(said, scale)),
    )


@routes.post("/dispute", response_model=models.EscrowView, responses=_RESPONSES)
async def dispute(escrow_id: UUID, body: models.DisputeInput, call: Writer) -> Response:
    """Buyer or seller stops milestones, and the clocks that run for them."""
    return await _command(
        call, escrow_id, body, lambda said, _: DisputeMessage(reason=said.reason, positions=_positions(said))
    )


@routes.post("/resolution", response_model=models.EscrowView, responses=_RESPONSES)
async def resolve(escrow_id: UUID, body: models.ResolutionInput, call: Writer) -> Response:
    """The arbiter splits what is left of one disputed milestone; both parts together are exactly that."""
    return await _command(
        call,
        escrow_id,
        body,
        lambda said, scale: ResolveMessage(
            to_seller_minor=parse_minor(said.to_seller, scale, field="to_seller"),
            to_buyer_minor=parse_minor(said.to_buyer, scale, field="to_buyer"),
            position=said.milestone,
        ),
    )


@routes.post("/cancel", response_model=models.EscrowView, responses=_RESPONSES)
async def cancel(escrow_id: UUID, body: ActorBody, call: Writer) -> Response:
    """Buyer or seller ends an escrow that holds no money."""
    return await _command(call, escrow_id, body, lambda _, __: CancelMessage())


async def _command(call: Call, escrow_id: UUID, body: BodyT, make: MakeMessage[BodyT]) -> Response:
    structlog.contextvars.bind_contextvars(workflow_id=escrow_workflow_id(escrow_id))
    return await once(call, _Command(call, escrow_id, body, make))


class _Command:
    """One command. Its operation id is the update's id and the step's receipt, so it has one effect."""

    def __init__(self, call: Call, escrow_id: UUID, body: BodyT, make: MakeMessage[BodyT]) -> None:
        self._call = call
        self._escrow_id = escrow_id
        self._body = body
        self._message: Callable[[int], CommandMessage] = partial(make, body)
        self._command: EscrowCommand | None = None
        self._done = False

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> Answer | None:
        """Check who asks and what was said; whether it may be done now is the workflow's to judge."""
        call = self._call
        # The receipt first: an escrow that was read before it could be older than what it tells.
        self._done = attempt.repeated and await _was_done(connection, self._escrow_id, attempt.operation_id)
        escrow = await visible(call, connection, self._escrow_id)
        if self._done:
            return None
        user_id = acting_user(call.principal, self._body.actor)
        message = self._message(escrow.terms.asset.scale)
        _check_open(escrow, message, user_id)
        self._command = EscrowCommand(
            command_id=attempt.operation_id,
            command=message,
            origin=OriginMessage(user_id=user_id, key_id=call.principal.key_id, request_id=call.request_id),
            repeated=attempt.repeated,
        )
        return None

    async def perform(self) -> None:
        """Have the workflow judge it and carry it out; one that was done before is brought to its notice."""
        if self._done:
            await self._call.services.escrows.reload(self._escrow_id)
            return
        command = self._command
        assert command is not None, "prepare() comes first"
        attempt_id = new_id() if command.repeated else None
        try:
            await self._call.services.escrows.command(
                self._call.principal.tenant_id, self._escrow_id, command, attempt_id=attempt_id
            )
        except Refusal as refusal:
            raise translated(refusal, self._body) from None

    async def answer(self, connection: AsyncConnection) -> Answer:
        """The escrow after the command."""
        return Answer(200, view(await visible(self._call, connection, self._escrow_id)))


def _check_open(escrow: Escrow, message: CommandMessage, user_id: str) -> None:
    """Refuse a command on a closed escrow: closed is final, so the row says it as surely as a workflow would."""
    if escrow.status not in CLOSED:
        return
    decide(escrow, to_command(message), user_id=user_id, at=now())
    raise RuntimeError(f"the rules let {message.kind} move a closed escrow")


async def _was_done(connection: AsyncConnection, escrow_id: UUID, operation_id: UUID) -> bool:
    """Whether a command left its receipt; asked when an earlier request for it died, since its run may be over."""
    return await receipts.find(connection, escrow_step_id(escrow_id, operation_id)) is not None


def _positions(body: models.MilestonesInput) -> tuple[int, ...] | None:
    return None if body.milestones is None else tuple(body.milestones)


def _amount(body: models.PaymentInput, scale: int) -> int | None:
    return None if body.amount is None else parse_minor(body.amount, scale, field="amount")
