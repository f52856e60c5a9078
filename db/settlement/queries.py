"""Reading settlement commands."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.settlement import FINISHED, Command, CommandKind, CommandStatus, Outcome

_SELECT = """
    SELECT c.command_id, c.sequence, c.workflow_id, c.kind, c.account_ref, c.counterparty_ref, c.asset_symbol,
           c.amount_minor::text AS amount_minor, s.scale, c.escrow_id, c.milestones, c.description, c.transaction_id,
           c.status, c.code, c.reason, c.attempts, c.received_at, c.processing_at, c.finished_at
    FROM settlement_commands c JOIN assets s ON s.symbol = c.asset_symbol
"""


@dataclass(frozen=True, slots=True)
class CommandFilter:
    """Which commands; None asks for all. Times bound ``received_at``."""

    status: CommandStatus | None = None
    kind: CommandKind | None = None
    account_ref: str | None = None
    escrow_id: UUID | None = None
    asset_symbol: str | None = None
    received_from: datetime | None = None
    received_to: datetime | None = None


@dataclass(frozen=True, slots=True)
class RecordedCommand:
    """A command as it is recorded. ``scale`` is that of its asset; ``outcome`` is None until it is finished."""

    command: Command
    sequence: int
    workflow_id: str
    scale: int
    status: CommandStatus
    outcome: Outcome | None
    attempts: int
    received_at: datetime
    processing_at: datetime | None
    finished_at: datetime | None


async def find(connection: AsyncConnection, command_id: str) -> RecordedCommand | None:
    """The command with this id, if the transaction's tenant has it."""
    rows = await connection.execute(text(_SELECT + "WHERE c.command_id = :id"), {"id": command_id})
    row = rows.one_or_none()
    return None if row is None else _recorded(row)


async def list_(
    connection: AsyncConnection, wanted: CommandFilter, *, before: int | None, limit: int
) -> list[RecordedCommand]:
    """Up to ``limit`` commands with a sequence below ``before``, the last received first."""
    tests = {
        "kind": "c.kind = :kind",
        "account_ref": "c.account_ref = :account_ref",
        "escrow_id": "c.escrow_id = :escrow_id",
        "asset_symbol": "c.asset_symbol = :asset_symbol",
        "received_from": "c.received_at >= :received_from",
        "received_to": "c.received_at < :received_to",
    }
    parameters: dict[str, Any] = {name: getattr(wanted, name) for name in tests}
    parameters = {name: value for name, value in parameters.items() if value is not None}
    conditions = ["true", *(tests[name] for name in parameters)]
    if wanted.status is not None:
        # Written out, not bound: the indexes over the few that are not settled are found by the word itself.
        conditions.append(f"c.status = '{wanted.status.value}'")
        conditions.append("c.finished_at IS NOT NULL" if wanted.status in FINISHED else "c.finished_at IS NULL")
    if before is not None:
        conditions.append("c.sequence < :before")
        parameters["before"] = before
    query = f"{_SELECT} WHERE {' AND '.join(conditions)} ORDER BY c.sequence DESC LIMIT :limit"
    rows = await connection.execute(text(query), parameters | {"limit": limit})
    return [_recorded(row) for row in rows]


def _recorded(row: Any) -> RecordedCommand:
    status = CommandStatus(row.status)
    settled = status is CommandStatus.SETTLED
    return RecordedCommand(
        command=Command(
            command_id=row.command_id,
            kind=CommandKind(row.kind),
            account_ref=row.account_ref,
            asset_symbol=row.asset_symbol,
            amount_minor=int(row.amount_minor),
            counterparty_ref=row.counterparty_ref,
            escrow_id=row.escrow_id,
            milestones=None if row.milestones is None else tuple(row.milestones),
            description=row.description,
        ),
        sequence=row.sequence,
        workflow_id=row.workflow_id,
        scale=row.scale,
        status=status,
        outcome=Outcome(status, row.code, row.reason, row.transaction_id if settled else None)
        if status in FINISHED
        else None,
        attempts=row.attempts,
        received_at=row.received_at,
        processing_at=row.processing_at,
        finished_at=row.finished_at,
    )
