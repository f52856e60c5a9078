"""What a finished command leaves beside its row: one event each, and one audit record for the batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from activities.settlement.messages import BatchOutcome
from db import ledger
from db.audit import AuditRecord, Origin
from db.ids import new_id
from db.outbox import SETTLEMENT_TOPIC, OutboxEvent
from domain.ids import command_subject, settlement_workflow_id
from domain.money import format_minor
from domain.settlement import Command, CommandStatus, Outcome


class Scales:
    """The number of decimal places of each asset, which never changes."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    async def of(self, connection: AsyncConnection, symbols: set[str]) -> Mapping[str, int]:
        """The scales of these assets; the database is asked for those that are new here."""
        if not symbols <= self._known.keys():
            self._known = {asset.symbol: asset.scale for asset in await ledger.list_assets(connection)}
        return self._known


def summed(outcomes: Mapping[int, Outcome]) -> BatchOutcome:
    """How many of each."""
    counts = Counter(outcome.status for outcome in outcomes.values())
    return BatchOutcome(
        settled=counts[CommandStatus.SETTLED],
        rejected=counts[CommandStatus.REJECTED],
        failed=counts[CommandStatus.FAILED],
    )


def outcome_events(
    finished: Sequence[tuple[Command, Outcome]], scales: Mapping[str, int], at: datetime
) -> list[OutboxEvent]:
    """One event for each finished command, in order."""
    return [
        OutboxEvent(
            event_id=new_id(),
            topic=SETTLEMENT_TOPIC,
            type=f"command.{outcome.status.lower()}",
            subject=command_subject(command.command_id),
            occurred_at=at,
            data=_facts(command, outcome, scales),
        )
        for command, outcome in finished
    ]


def batch_audit(tenant_id: UUID, action: str, sequences: Sequence[int], at: datetime, **facts: Any) -> AuditRecord:
    """The record of a batch: which commands, by the range of their sequences, and what came of them."""
    subject = settlement_workflow_id(tenant_id)
    span = {"count": len(sequences), "first_sequence": min(sequences), "last_sequence": max(sequences)}
    return AuditRecord(subject, action, at, Origin(workflow_id=subject), span | facts)


def _facts(command: Command, outcome: Outcome, scales: Mapping[str, int]) -> dict[str, Any]:
    return {
        "command_id": command.command_id,
        "kind": command.kind,
        "status": outcome.status,
        "code": outcome.code,
        "reason": outcome.reason,
        "account_ref": command.account_ref,
        "counterparty_ref": command.counterparty_ref,
        "asset_symbol": command.asset_symbol,
        "amount": format_minor(command.amount_minor, scales[command.asset_symbol]),
        "escrow_id": None if command.escrow_id is None else str(command.escrow_id),
        "transaction_id": None if outcome.transaction_id is None else str(outcome.transaction_id),
    }
