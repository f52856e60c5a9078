"""Working settlement commands off: whose turn it is, taking up, and the outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.settlement import Command, CommandKind, Outcome, in_turn

#: A lane is read this many rows at a time, and this many times before it is enough for one batch: who is held up by the
#: other lane does not keep the others from their turn, unless a crowd of ``PAGE_ROWS * PAGES_MAX`` is held up.
PAGE_ROWS = 2_000
PAGES_MAX = 10

_LEDGER_LANE = text(
    "SELECT sequence, command_id, kind, account_ref, counterparty_ref, asset_symbol, amount_minor, description,"
    " transaction_id, waits FROM settlement_ledger_lane(:tenant, :behind, :rows)"
)
_ESCROW_LANE = text("SELECT sequence, escrow_id, waits FROM settlement_escrow_lane(:tenant, :behind, :rows)")


@dataclass(frozen=True, slots=True)
class LedgerTurn:
    """A command that moves the ledger alone, and the transaction that it becomes."""

    sequence: int
    command: Command
    transaction_id: UUID
    waits: bool

    @property
    def keys(self) -> tuple[object, ...]:
        """Its accounts."""
        command = self.command
        if command.counterparty_ref is None:
            return (command.account_ref,)
        return (command.account_ref, command.counterparty_ref)


@dataclass(frozen=True, slots=True)
class _EscrowTurn:
    """A command on an escrow, as far as its turn depends on it."""

    sequence: int
    escrow_id: UUID
    waits: bool

    @property
    def keys(self) -> tuple[object, ...]:
        """Its escrow."""
        return (self.escrow_id,)


@dataclass(frozen=True, slots=True)
class EscrowTurn:
    """A command on an escrow that was taken up ``attempts`` times, and who asked."""

    sequence: int
    command: Command
    attempts: int
    actor_key_id: UUID | None
    request_id: str | None


async def ledger_turns(connection: AsyncConnection, tenant: UUID, *, limit: int) -> list[LedgerTurn]:
    """Up to ``limit`` commands of the ledger's lane whose turn it is, in order.

    The lane is this transaction's alone until it ends.
    """
    held: set[object] = set()
    turns: list[LedgerTurn] = []
    behind = 0
    for _ in range(PAGES_MAX):
        rows = await _page(connection, _LEDGER_LANE, tenant, behind, limit)
        page = [LedgerTurn(row.sequence, _ledger_command(row), row.transaction_id, bool(row.waits)) for row in rows]
        turns += in_turn(page, held)
        if len(turns) >= limit or len(page) < _page_rows(limit):
            break
        behind = page[-1].sequence
    return turns[:limit]


async def escrow_turns(connection: AsyncConnection, tenant: UUID, *, limit: int) -> list[int]:
    """Sequences of up to ``limit`` unfinished commands of the escrows' lane whose turn it is, in order.

    Those that were taken up before and have no outcome are among them.
    """
    held: set[object] = set()
    turns: list[int] = []
    behind = 0
    for _ in range(PAGES_MAX):
        rows = await _page(connection, _ESCROW_LANE, tenant, behind, limit)
        page = [_EscrowTurn(row.sequence, row.escrow_id, bool(row.waits)) for row in rows]
        turns += [turn.sequence for turn in in_turn(page, held)]
        if len(turns) >= limit or len(page) < _page_rows(limit):
            break
        behind = page[-1].sequence
    return turns[:limit]


def _page_rows(limit: int) -> int:
    """A batch of few reads few at first, and more only where many are held up."""
    return min(PAGE_ROWS, 2 * limit)


async def _page(connection: AsyncConnection, query: Any, tenant: UUID, behind: int, limit: int) -> Sequence[Any]:
    given = {"tenant": tenant, "behind": behind, "rows": _page_rows(limit)}
    return (await connection.execute(query, given)).all()


def _ledger_command(row: Any) -> Command:
    return Command(
        command_id=row.command_id,
        kind=CommandKind(row.kind),
        account_ref=row.account_ref,
        asset_symbol=row.asset_symbol,
        amount_minor=int(row.amount_minor),
        counterparty_ref=row.counterparty_ref,
        description=row.description,
    )


async def take_up(connection: AsyncConnection, tenant: UUID, sequences: Sequence[int]) -> None:
    """Mark commands as being worked on, once more."""
    await connection.execute(
        text("SELECT settlement_take_up(:tenant, :sequences)"), {"tenant": tenant, "sequences": list(sequences)}
    )


async def taken_up(connection: AsyncConnection, tenant: UUID, sequences: Sequence[int]) -> list[EscrowTurn]:
    """The commands on escrows among ``sequences`` that are being worked on, in order."""
    rows = await connection.execute(
        text(
            "SELECT sequence, command_id, kind, account_ref, asset_symbol, amount_minor::text AS amount_minor,"
            " escrow_id, milestones, attempts, actor_key_id, request_id FROM settlement_commands"
            " WHERE tenant_id = :tenant AND sequence = ANY (:sequences) AND status = 'PROCESSING'"
            " AND escrow_id IS NOT NULL ORDER BY sequence"
        ),
        {"tenant": tenant, "sequences": list(sequences)},
    )
    return [
        EscrowTurn(
            sequence=row.sequence,
            command=Command(
                command_id=row.command_id,
                kind=CommandKind(row.kind),
                account_ref=row.account_ref,
                asset_symbol=row.asset_symbol,
                amount_minor=int(row.amount_minor),
                escrow_id=row.escrow_id,
                milestones=None if row.milestones is None else tuple(row.milestones),
            ),
            attempts=row.attempts,
            actor_key_id=row.actor_key_id,
            request_id=row.request_id,
        )
        for row in rows
    ]


async def finish(connection: AsyncConnection, tenant: UUID, outcomes: Mapping[int, Outcome]) -> set[int]:
    """Write outcomes by sequence; answers whose they became. A command that has one already keeps it."""
    rows = await connection.execute(
        text("SELECT settlement_finish(:tenant, :sequences, :statuses, :codes, :reasons, :transactions)"),
        {
            "tenant": tenant,
            "sequences": list(outcomes),
            "statuses": [outcome.status.value for outcome in outcomes.values()],
            "codes": [outcome.code for outcome in outcomes.values()],
            "reasons": [outcome.reason for outcome in outcomes.values()],
            "transactions": [outcome.transaction_id for outcome in outcomes.values()],
        },
    )
    return {int(sequence) for sequence in rows.scalars()}


async def list_waiting(connection: AsyncConnection, margin: timedelta, *, limit: int) -> list[UUID]:
    """Tenants, of all, with an unfinished command that was received longer ago than ``margin``."""
    rows = await connection.execute(
        text(
            """
            SELECT t.tenant_id FROM tenants t
            WHERE EXISTS (
                SELECT FROM settlement_commands c
                WHERE c.tenant_id = t.tenant_id AND c.finished_at IS NULL AND c.escrow_id IS NULL
                  AND c.received_at < clock_timestamp() - CAST(:margin AS interval)
            ) OR EXISTS (
                SELECT FROM settlement_commands c
                WHERE c.tenant_id = t.tenant_id AND c.finished_at IS NULL AND c.escrow_id IS NOT NULL
                  AND c.received_at < clock_timestamp() - CAST(:margin AS interval)
            )
            ORDER BY t.tenant_id LIMIT :limit
            """
        ),
        {"margin": margin, "limit": limit},
    )
    return list(rows.scalars())
