"""Settlement commands over HTTP."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Path, Query
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.responses import Response

from api.bodies import NDJSON
from api.deps import Call, LinesDoor, caller, poster, router
from api.fields import Instant, Line, Symbol
from api.idempotency import once
from api.pages import DEFAULT_LIMIT, CursorToken, Limit, Page, Pager
from api.problems import documented
from api.settlement.intake import LINES_MAX, BulkIntake, Intake
from api.settlement.models import CommandId, CommandInput, CommandView, ReceivedView, command_view
from db import settlement
from db.settlement import CommandFilter
from domain.errors import Refusal
from domain.identity import Scope
from domain.settlement import CommandKind, CommandStatus


class _CommandName(StringConvertor):
    """A command's id in a path: not the name of the route beside it, which has other methods."""

    regex = "(?!ingest$)[^/]+"


register_url_convertor("command", _CommandName())

#: Before the other, at the same URL: it lets pass what is no list of lines.
line_routes = router("/commands", "commands", door=LinesDoor)
routes = router("/commands", "commands")

Writer = Annotated[Call, Depends(poster(Scope.COMMANDS_WRITE))]

_LINES = {
    "schema": {
        "type": "string",
        "description": f"One command a line, {LINES_MAX} lines and 8 MiB at most. Empty lines are passed over",
    }
}
_LINES_ANSWER: dict[str, Any] = {
    "schema": {"type": "string", "description": "One `LineAnswer` a line, in the order of the request"}
}


@line_routes.post("/ingest", include_in_schema=False)
async def ingest_lines(call: Writer) -> Response:
    """Take many commands in one commit; each line has its own answer."""
    intake = BulkIntake(call)
    await intake.read(await call.request.body())
    answer = await once(call, intake)
    if intake.fresh:
        call.services.doorbell.ring()
    return answer


@routes.post(
    "/ingest",
    status_code=202,
    response_model=ReceivedView,
    responses=documented(409, 413, 415),
    openapi_extra={
        "requestBody": {"content": {NDJSON: _LINES}},
        "responses": {"202": {"content": {NDJSON: _LINES_ANSWER}}},
    },
)
async def ingest(body: CommandInput, call: Writer) -> Response:
    """Take a command, or many as lines of JSON; 202 says that it is durable. The same command is answered alike again.

    A key that is bound to a user commands its own user's account, and never deposits. Lines have an answer each, in
    which `status` is what the line would be answered with alone: a bad one spoils only itself.
    """
    intake = Intake(call, body)
    answer = await once(call, intake)
    if intake.fresh:
        call.services.doorbell.ring()
    return answer


@routes.get("")
async def list_commands(
    call: Annotated[Call, Depends(caller(Scope.COMMANDS_READ))],
    status: Annotated[CommandStatus | None, Query()] = None,
    kind: Annotated[CommandKind | None, Query()] = None,
    account_ref: Annotated[Line | None, Query(description="Whose money moves, or the party that acts")] = None,
    escrow_id: Annotated[UUID | None, Query()] = None,
    asset_symbol: Annotated[Symbol | None, Query()] = None,
    received_from: Annotated[Instant | None, Query(description="Received then or later")] = None,
    received_to: Annotated[Instant | None, Query(description="Received before")] = None,
    cursor: CursorToken = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[CommandView]:
    """Commands, the last received first. A key that is bound to a user sees those of its own account."""
    wanted = CommandFilter(
        status=status,
        kind=kind,
        account_ref=call.own_user(account_ref, field="account_ref"),
        escrow_id=escrow_id,
        asset_symbol=asset_symbol,
        received_from=received_from,
        received_to=received_to,
    )
    pager = Pager("commands", asdict(wanted))
    before = pager.after(cursor) or None
    async with call.transaction() as connection:
        rows = await settlement.list_(connection, wanted, before=before, limit=limit + 1)
    rows, next_cursor = pager.page(rows, limit, "sequence")
    return Page(items=[command_view(row) for row in rows], next_cursor=next_cursor)


@routes.get("/{command_id:command}", responses=documented(404))
async def read_command(
    command_id: Annotated[CommandId, Path()], call: Annotated[Call, Depends(caller(Scope.COMMANDS_READ))]
) -> CommandView:
    """A command and where it stands."""
    async with call.transaction() as connection:
        found = await settlement.find(connection, command_id)
    if found is None or call.principal.user_id not in (None, found.command.account_ref):
        raise Refusal("command_unknown", "there is no such command")
    return command_view(found)
