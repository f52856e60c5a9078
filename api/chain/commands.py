"""What an operator has a relayer do: each is an update of its workflow, and answers the relayer after it."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import structlog
from fastapi import Body, Depends
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from api.chain.models import RelayerCommandInput, RelayerId, RelayerView, RewindInput
from api.chain.relayers import known
from api.chain.views import limits_of, relayer_view
from api.deps import Call, poster, router
from api.idempotency import Answer, Attempt, once
from api.problems import documented
from db.chain import reports
from db.ids import new_id
from domain.identity import Scope
from domain.ids import relayer_workflow_id
from kit.clock import now
from workflows.chain.relayer_client import Ask, RelayerCommand
from workflows.escrow import OriginMessage

routes = router("/chain/relayers/{relayer_id}", "chain")
Operator = Annotated[Call, Depends(poster(Scope.CHAIN_WRITE))]
CommandBody = Annotated[RelayerCommandInput, Body(default_factory=RelayerCommandInput)]
_RESPONSES = documented(404, 409, 413, 415)


@routes.post("/pause", response_model=RelayerView, responses=_RESPONSES)
async def pause_relayer(relayer_id: RelayerId, body: CommandBody, call: Operator) -> Response:
    """Stop following; after the answer nothing new is written or published. Jobs go on. Service keys only."""
    return await _command(call, relayer_id, Ask.PAUSE, body)


@routes.post("/resume", response_model=RelayerView, responses=_RESPONSES)
async def resume_relayer(relayer_id: RelayerId, body: CommandBody, call: Operator) -> Response:
    """Go on from where the live end stands, also after the relayer halted by itself. Service keys only."""
    return await _command(call, relayer_id, Ask.RESUME, body)


@routes.post("/rewind", response_model=RelayerView, responses=_RESPONSES)
async def rewind_relayer(relayer_id: RelayerId, body: RewindInput, call: Operator) -> Response:
    """Go back to a block that is not final, and fetch anew what is above it.

    What stood there is told as `chain.event_reverted`, the newest first, and what is fetched anew as
    `chain.event_applied`. What is final is not fetched anew: a backfill verifies it. Service keys only.
    """
    return await _command(call, relayer_id, Ask.REWIND, body, to_block=body.to_block)


async def _command(
    call: Call, relayer_id: str, ask: Ask, body: RelayerCommandInput, *, to_block: int | None = None
) -> Response:
    call.require_service_key()
    structlog.contextvars.bind_contextvars(workflow_id=relayer_workflow_id(relayer_id))
    return await once(call, _Command(call, relayer_id, ask, body.actor, to_block))


class _Command:
    """One command. Its operation id is the update's id and the step's receipt, so it has one effect."""

    def __init__(self, call: Call, relayer_id: str, ask: Ask, actor: str | None, to_block: int | None) -> None:
        self._call = call
        self._relayer_id = relayer_id
        self._ask = ask
        self._actor = actor
        self._to_block = to_block
        self._command: RelayerCommand | None = None

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> None:
        """Whether it may be done now is the workflow's to judge; that there is such a relayer is seen here."""
        call = self._call
        known(await reports.find(connection, self._relayer_id))
        self._command = RelayerCommand(
            command_id=attempt.operation_id,
            ask=self._ask,
            to_block=self._to_block,
            origin=OriginMessage(user_id=self._actor, key_id=call.principal.key_id, request_id=call.request_id),
            repeated=attempt.repeated,
        )

    async def perform(self) -> None:
        """Have it carried out; raises its refusal."""
        command = self._command
        assert command is not None, "prepare comes first"
        again: UUID | None = new_id() if command.repeated else None
        tenant = self._call.principal.tenant_id
        await self._call.services.relayers.command(tenant, self._relayer_id, command, attempt_id=again)

    async def answer(self, connection: AsyncConnection) -> Answer:
        """The relayer after it."""
        standing = known(await reports.find(connection, self._relayer_id))
        limits = limits_of(self._call.services.chains, standing.followed.source.chain)
        return Answer(200, relayer_view(standing, limits, now()))
