"""Taking commands: one by one, or thousands of lines of which a bad one spoils only itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from api.bodies import NDJSON, parse
from api.deps import Call
from api.idempotency import Answer, Attempt, Configuration, Rendered
from api.problems import Problem, problem_of
from api.settlement.models import CommandInput, ReceivedView, received_view
from db import settlement
from db.audit import Origin
from db.idempotency import StoredResponse
from db.settlement import Asked, Taken
from domain.errors import Refusal
from domain.identity import Principal
from domain.ids import settlement_workflow_id
from domain.money import Asset, parse_minor
from domain.settlement import Command, CommandKind, check, kind_of
from kit.clock import now

LINES_MAX = 10_000
#: After so many lines other requests get a turn: reading them is this process's own time.
_LINES_AT_ONCE = 100


class Intake(Configuration):
    """One command. ``fresh`` tells afterwards whether it left a row."""

    def __init__(self, call: Call, body: CommandInput) -> None:
        self.fresh = False
        self._call = call
        self._body = body

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> Rendered:
        """Record it, or find it recorded."""
        del attempt  # the command's own id names the effect
        assets = await self._call.services.assets.all(connection)
        asked = asked_of(self._body, assets, self._call.principal)
        command = asked.command
        taken = await _take(self._call, connection, [asked])
        standing = taken[command.command_id]
        self.fresh = standing.fresh
        body = _accepted(self._call, command, command.fingerprint(), standing, assets)
        return Answer(202, body, {"Location": f"/api/v1/commands/{command.command_id}"})


@dataclass(slots=True)
class _Line:
    """One line on its way to its answer."""

    number: int
    command_id: str | None = None
    asked: Asked | None = None
    fingerprint: bytes = b""
    problem: Problem | None = None


class BulkIntake(Configuration):
    """Many commands in one commit; ``read`` comes first, outside of any transaction."""

    def __init__(self, call: Call) -> None:
        self.fresh = False
        self._call = call
        self._lines: list[_Line] = []
        self._assets: Mapping[str, Asset] = {}

    async def read(self, body: bytes) -> None:
        """Read every line; what is wrong with one becomes its answer. Refuses more than ``LINES_MAX``."""
        async with self._call.transaction() as connection:
            self._assets = await self._call.services.assets.all(connection)
        lines = [(number, line) for number, line in enumerate(body.split(b"\n"), start=1) if line.strip()]
        if len(lines) > LINES_MAX:
            raise Refusal("too_many_lines", f"a request has {LINES_MAX} lines at most", field="body")
        if not lines:
            raise Refusal("body_invalid", "send one command a line", field="body")
        for count, (number, line) in enumerate(lines):
            if count % _LINES_AT_ONCE == 0:
                await asyncio.sleep(0)
            self._lines.append(self._read_line(number, line))

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> Rendered:
        """Record what is good and new; of two lines with one id the first is recorded."""
        del attempt  # the commands' own ids name the effects
        asked: dict[str, Asked] = {}
        for line in self._lines:
            if line.asked is not None:
                asked.setdefault(line.asked.command.command_id, line.asked)
        taken = await _take(self._call, connection, list(asked.values())) if asked else {}
        self.fresh = any(standing.fresh for standing in taken.values())
        return _Lines([answer async for answer in self._answers(taken)])

    async def _answers(self, taken: Mapping[str, Taken]) -> AsyncIterator[bytes]:
        for count, line in enumerate(self._lines):
            if count % _LINES_AT_ONCE == 0:
                await asyncio.sleep(0)
            if line.asked is not None:
                command = line.asked.command
                try:
                    standing = taken[command.command_id]
                    accepted = _accepted(self._call, command, line.fingerprint, standing, self._assets)
                    yield _line(line, 202, "command", accepted)
                    continue
                except Refusal as refusal:
                    line.problem = problem_of(self._call.request, refusal)
            assert line.problem is not None, "a line that is not good says why"
            yield _line(line, line.problem.status, "problem", line.problem)

    def _read_line(self, number: int, text: bytes) -> _Line:
        line = _Line(number)
        try:
            value = parse(text)
            if isinstance(value, dict) and isinstance(value.get("command_id"), str):
                line.command_id = value["command_id"][:200]
            line.asked = asked_of(_validated(value), self._assets, self._call.principal)
            line.fingerprint = line.asked.command.fingerprint()
        except (Refusal, RequestValidationError) as error:
            line.problem = problem_of(self._call.request, error)
        return line


class _Lines:
    """An answer of one JSON object a line."""

    def __init__(self, lines: list[bytes]) -> None:
        self._lines = lines

    def render(self) -> StoredResponse:
        """The bytes that are sent and kept."""
        return StoredResponse(202, {"Content-Type": NDJSON}, b"".join(self._lines))


def asked_of(body: CommandInput, assets: Mapping[str, Asset], principal: Principal) -> Asked:
    """The command that a body describes; refuses what could never be carried out, and what the key may not ask."""
    kind = kind_of(body.kind, body.escrow_id)
    if principal.user_id is not None:
        if body.account_ref != principal.user_id:
            raise Refusal("account_not_yours", "this key uses its own user's account only", field="account_ref")
        if kind is CommandKind.DEPOSIT:
            raise Refusal("service_key_required", "deposits are not for a key that is bound to a user", field="kind")
    asset = assets.get(body.asset_symbol)
    if asset is None:
        message = f"there is no asset {body.asset_symbol!r}; see GET /api/v1/assets"
        raise Refusal("asset_unknown", message, field="asset_symbol")
    command = Command(
        command_id=body.command_id,
        kind=kind,
        account_ref=body.account_ref,
        asset_symbol=asset.symbol,
        amount_minor=parse_minor(body.amount, asset.scale, field="amount"),
        counterparty_ref=body.counterparty_ref,
        escrow_id=body.escrow_id,
        milestones=None if body.milestones is None else tuple(body.milestones),
        description=body.description,
    )
    check(command)
    return Asked(command, body.amount)


def _validated(value: Any) -> CommandInput:
    try:
        return CommandInput.model_validate(value)
    except ValidationError as error:
        faults = [dict(fault, loc=("body", *fault["loc"])) for fault in error.errors()]
        raise RequestValidationError(faults) from None


async def _take(call: Call, connection: AsyncConnection, asked: list[Asked]) -> Mapping[str, Taken]:
    principal = call.principal
    origin = Origin(principal.user_id, principal.key_id, call.request_id)
    return await settlement.take(connection, principal.tenant_id, asked, origin, now())


def _accepted(
    call: Call, command: Command, fingerprint: bytes, standing: Taken, assets: Mapping[str, Asset]
) -> ReceivedView:
    """The answer to a command that is recorded as it was sent; it is built from what never changes."""
    if standing.fingerprint != fingerprint:
        raise Refusal("command_id_taken", "this id names a command with other content", field="command_id")
    workflow_id = settlement_workflow_id(call.principal.tenant_id)
    return received_view(command, workflow_id, assets[command.asset_symbol].scale, standing.received_at)


def _line(line: _Line, status: int, name: str, said: ReceivedView | Problem) -> bytes:
    head = json.dumps({"line": line.number, "status": status, "command_id": line.command_id})
    body = said.model_dump_json(exclude_none=isinstance(said, Problem))
    return f'{head[:-1]}, "{name}": {body}}}\n'.encode()
