"""The shapes that settlement commands have on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, AliasChoices, BaseModel, Field, StringConstraints

from api.fields import WHOLE, Amount, DecimalText, Input, Prose, Symbol, UserId
from api.problems import Problem
from db.settlement import RecordedCommand
from domain.money import format_minor
from domain.settlement import Command, CommandKind, CommandStatus


def _no_route(command_id: str) -> str:
    """``GET /commands/ingest`` is no command."""
    if command_id == "ingest":
        raise ValueError("is the name of a route")
    return command_id


CommandId = Annotated[
    str,
    StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_][A-Za-z0-9._:@=+~-]*$"),
    AfterValidator(_no_route),
    Field(description="The client's own name of the command; unique", examples=["payout-2026-11-0042"]),
]
Position = Annotated[int, Field(ge=1, le=100), WHOLE]


class CommandInput(Input):
    """A settlement command. Without a `kind` it funds the escrow that it names, or else deposits."""

    command_id: CommandId
    kind: CommandKind | None = None
    account_ref: UserId = Field(
        description="Whose money moves; for an escrow the party that acts, for a transfer the account that pays"
    )
    counterparty_ref: UserId | None = Field(default=None, description="For a transfer: the account that is paid")
    asset_symbol: Symbol
    amount: Amount = Field(
        validation_alias=AliasChoices("amount", "amount_numeric"),
        description="In units of the asset; may also be called `amount_numeric`. Funding takes it as the price of the "
        "milestones without the fee; a release or a refund takes it of one milestone, or of all when it is all that is "
        "left of them",
    )
    escrow_id: UUID | None = None
    milestones: list[Position] | None = Field(
        default=None, min_length=1, max_length=100, description="Positions in the escrow; all that fit unless named"
    )
    description: Prose | None = Field(default=None, description="For the ledger; not on an escrow")


class ReceivedView(BaseModel):
    """A command that is durable and will be carried out. The same command is always answered like this."""

    command_id: str
    workflow_id: str
    status: Literal["RECEIVED"] = "RECEIVED"
    kind: CommandKind
    account_ref: str
    counterparty_ref: str | None
    asset_symbol: str
    amount: DecimalText
    escrow_id: UUID | None
    milestones: list[int] | None
    description: str | None
    received_at: datetime


class LineAnswer(BaseModel):
    """What became of one line: a `command` that is durable, or a `problem`."""

    line: int = Field(description="Counted from 1 in the request")
    status: int = Field(description="What the line would be answered with alone", examples=[202])
    command_id: str | None
    command: ReceivedView | None = None
    problem: Problem | None = None


class CommandView(BaseModel):
    """A command and where it stands."""

    command_id: str
    sequence: int = Field(description="The order of receiving")
    workflow_id: str
    status: CommandStatus
    code: str | None = Field(description="Why it was rejected or failed; stable")
    reason: str | None
    kind: CommandKind
    account_ref: str
    counterparty_ref: str | None
    asset_symbol: str
    amount: DecimalText
    escrow_id: UUID | None
    milestones: list[int] | None
    description: str | None
    transaction_id: UUID | None = Field(description="What it became in the ledger, once it is settled")
    attempts: int
    received_at: datetime
    processing_at: datetime | None
    finished_at: datetime | None


def received_view(command: Command, workflow_id: str, scale: int, received_at: datetime) -> ReceivedView:
    """The answer to a command that was taken."""
    return ReceivedView(
        command_id=command.command_id,
        workflow_id=workflow_id,
        kind=command.kind,
        account_ref=command.account_ref,
        counterparty_ref=command.counterparty_ref,
        asset_symbol=command.asset_symbol,
        amount=format_minor(command.amount_minor, scale),
        escrow_id=command.escrow_id,
        milestones=None if command.milestones is None else list(command.milestones),
        description=command.description,
        received_at=received_at,
    )


def command_view(found: RecordedCommand) -> CommandView:
    """A command as it is answered."""
    command, outcome = found.command, found.outcome
    return CommandView(
        command_id=command.command_id,
        sequence=found.sequence,
        workflow_id=found.workflow_id,
        status=found.status,
        code=None if outcome is None else outcome.code,
        reason=None if outcome is None else outcome.reason,
        kind=command.kind,
        account_ref=command.account_ref,
        counterparty_ref=command.counterparty_ref,
        asset_symbol=command.asset_symbol,
        amount=format_minor(command.amount_minor, found.scale),
        escrow_id=command.escrow_id,
        milestones=None if command.milestones is None else list(command.milestones),
        description=command.description,
        transaction_id=None if outcome is None else outcome.transaction_id,
        attempts=found.attempts,
        received_at=found.received_at,
        processing_at=found.processing_at,
        finished_at=found.finished_at,
    )
