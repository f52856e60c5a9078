"""The step of a deposit, a withdrawal, a transfer or a reversal: one posting, one commit."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio import activity

from activities.ledger.messages import RecordTransfer, TransferKind, TransferOutcome, TransferRequest
from db import ledger
from db.audit import AuditRecord
from db.doorbell import Doorbell
from db.engine import tenant_transaction
from db.ids import new_id
from db.ledger.group import Entry, PostingGroup
from db.outbox import SETTLEMENT_TOPIC, OutboxEvent
from db.step import Left
from domain import ledger as rules
from domain.errors import Refusal
from domain.ids import transfer_workflow_id
from domain.money import format_minor
from domain.transfers import check_parties

_PAST = {
    TransferKind.DEPOSIT: "deposited",
    TransferKind.WITHDRAWAL: "withdrawn",
    TransferKind.REVERSAL: "reversed",
    TransferKind.TRANSFER: "transferred",
}


class LedgerActivities:
    """Steps on the ledger that no escrow asks for."""

    def __init__(self, engine: AsyncEngine, doorbell: Doorbell) -> None:
        self._engine = engine
        self._group = PostingGroup(engine, doorbell)

    @activity.defn(name="ledger.transfer")
    async def transfer(self, request: RecordTransfer) -> TransferOutcome:
        """Book the request once and answer its transaction.

        A reference that already names a transaction of the same content answers that one; refuses ``reference_taken``
        for other content, ``insufficient_funds``, ``asset_unknown``, ``transaction_unknown``, ``already_reversed``,
        ``effective_in_future`` and ``effective_in_past``.
        """
        wanted = request.request
        async with tenant_transaction(self._engine, wanted.tenant_id) as connection:
            posting = await _posting(connection, wanted, request.at)
            standing = await _standing(connection, posting, wanted)
            facts = await _facts(connection, posting)
        if standing is not None:
            return standing
        try:
            await self._book(request, posting, facts)
        except Refusal:
            # Somebody may have booked the same reference, or taken the same transaction back, since we looked: then
            # that is the answer, whatever refused us.
            async with tenant_transaction(self._engine, wanted.tenant_id) as connection:
                posting = await _posting(connection, wanted, request.at)
                standing = await _standing(connection, posting, wanted)
            if standing is None:
                raise
            return standing
        return TransferOutcome(transaction_id=wanted.transfer_id)

    async def _book(self, request: RecordTransfer, posting: rules.Posting, facts: Mapping[str, Any]) -> None:
        wanted = request.request
        workflow_id = transfer_workflow_id(wanted.transfer_id)
        subject = f"account:{_party(posting)}"
        action = f"ledger.{_PAST[wanted.kind]}"
        left = Left(
            step_id=workflow_id,
            result={"transaction_id": str(posting.transaction_id)},
            audit=AuditRecord(subject, action, request.at, wanted.origin.to_origin(workflow_id), facts),
            events=[OutboxEvent(new_id(), SETTLEMENT_TOPIC, action, subject, posting.effective_at, facts)],
        )
        await self._group.post(wanted.tenant_id, Entry([posting], left))


async def _posting(connection: AsyncConnection, wanted: TransferRequest, at: datetime) -> rules.Posting:
    effective_at = wanted.effective_at or at
    if effective_at > at:
        raise Refusal("effective_in_future", "a transfer counts from now or from the past", field="effective_at")
    if wanted.effective_at is not None and wanted.kind is not TransferKind.DEPOSIT:
        # Money that left earlier than it did could make a balance in between negative.
        raise Refusal("effective_in_past", "only a deposit may count from the past", field="effective_at")
    common: dict[str, Any] = {
        "transaction_id": wanted.transfer_id,
        "effective_at": effective_at,
        "reference": wanted.reference,
        "description": wanted.description,
    }
    if wanted.kind is TransferKind.REVERSAL:
        original = None
        if wanted.reverses_id is not None:
            original = await ledger.find_transaction(connection, wanted.reverses_id)
        if original is None:
            raise Refusal("transaction_unknown", f"there is no transaction {wanted.reverses_id}")
        reversal = await ledger.find_reversal(connection, original.posting.transaction_id)
        if reversal is not None and reversal.posting.transaction_id != wanted.transfer_id:
            raise Refusal("already_reversed", f"transaction {reversal.posting.transaction_id} reversed it before")
        return rules.reverse(original.posting, **common)
    asset = await ledger.get_asset(connection, wanted.asset or "")
    if wanted.kind is TransferKind.TRANSFER:
        source, target = wanted.account or "", wanted.counterparty or ""
        check_parties(source, target)
        return rules.transfer(source, target, asset.symbol, wanted.amount_minor, **common)
    book = rules.deposit if wanted.kind is TransferKind.DEPOSIT else rules.withdrawal
    return book(wanted.account or "", asset.symbol, wanted.amount_minor, **common)


async def _standing(
    connection: AsyncConnection, posting: rules.Posting, wanted: TransferRequest
) -> TransferOutcome | None:
    """What already stands for this request, by its id or by its reference."""
    if await ledger.find_transaction(connection, posting.transaction_id) is not None:
        return TransferOutcome(transaction_id=posting.transaction_id)
    if posting.reference is None:
        return None
    taken = await ledger.find_by_reference(connection, posting.kind, posting.reference)
    if taken is None:
        return None
    then = taken.posting
    # An instant that nobody asked for is no content: it is when the workflow took the request up.
    same_instant = wanted.effective_at is None or wanted.effective_at == then.effective_at
    same = (then.legs, then.reverses_id, then.description) == (posting.legs, posting.reverses_id, posting.description)
    if not (same and same_instant):
        raise Refusal(
            "reference_taken", f"the reference names transaction {taken.posting.transaction_id}", field="reference"
        )
    return TransferOutcome(transaction_id=taken.posting.transaction_id)


def _party(posting: rules.Posting) -> str:
    """The account on the inside of a movement from or to the outside; of a transfer the one that pays."""
    return next(leg.account for leg in posting.legs if leg.account != rules.SYSTEM_EXTERNAL)


async def _facts(connection: AsyncConnection, posting: rules.Posting) -> dict[str, Any]:
    leg = next(leg for leg in posting.legs if leg.account != rules.SYSTEM_EXTERNAL)
    asset = await ledger.get_asset(connection, leg.asset)
    facts = {
        "transaction_id": str(posting.transaction_id),
        "account": leg.account,
        "asset": leg.asset,
        "amount": format_minor(leg.amount_minor, asset.scale),
        "reference": posting.reference,
        "reverses_id": None if posting.reverses_id is None else str(posting.reverses_id),
    }
    if posting.kind is rules.TransactionKind.TRANSFER:
        facts["counterparty"] = next(other.account for other in posting.legs if other.account != leg.account)
    return facts
