"""The steps of a transfer in two phases (set apart, resolve) and of a chain. Each is one commit."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio import activity

from activities.transfers.messages import (
    ApplyResolution,
    PendingSnapshot,
    PendingTerms,
    RecordPending,
    to_resolution,
)
from db import ledger, transfers
from db.audit import AuditRecord
from db.doorbell import Doorbell
from db.engine import tenant_transaction
from db.ids import new_id
from db.outbox import SETTLEMENT_TOPIC, OutboxEvent
from db.step import Step, step
from domain.errors import Refusal
from domain.ids import transfer_step_id, transfer_workflow_id
from domain.ledger import Posting, TransactionKind, pay_from_hold, place_hold
from domain.money import format_minor
from domain.transfers import Decision, PendingTransfer, TransferStatus, open_transfer, resolve


class PendingTransferActivities:
    """Steps on one transfer in two phases. ``engine`` acts as the tenants' role; ``doorbell`` wakes the relay."""

    def __init__(self, engine: AsyncEngine, doorbell: Doorbell) -> None:
        self._engine = engine
        self._doorbell = doorbell

    @activity.defn(name="transfers.open")
    async def open(self, request: RecordPending) -> PendingSnapshot:
        """Set the money of a new transfer apart and answer what is recorded; one that is recorded already is loaded.

        Refuses what ``domain.transfers.open_transfer`` and the ledger refuse, ``asset_unknown``, ``reference_taken``,
        and ``transfer_unknown`` for a resumption of what was never recorded.
        """
        opening = request.opening
        async with tenant_transaction(self._engine, opening.tenant_id) as connection:
            recorded = await transfers.find(connection, opening.transfer_id)
        if recorded is not None:
            return PendingSnapshot.of(recorded.transfer)
        if opening.terms is None:
            raise Refusal("transfer_unknown", f"there is no transfer {opening.transfer_id}")
        try:
            return await self._set_apart(request, opening.terms)
        except Refusal:
            # Whoever booked the same reference meanwhile may have taken the money, too: the reference is the reason.
            async with tenant_transaction(self._engine, opening.tenant_id) as connection:
                await _check_reference(connection, opening.terms)
            raise

    async def _set_apart(self, request: RecordPending, terms: PendingTerms) -> PendingSnapshot:
        opening = request.opening
        step_id = transfer_step_id(opening.transfer_id, "open")
        async with step(self._engine, self._doorbell, tenant_id=opening.tenant_id, step_id=step_id) as opened:
            if opened.receipt is not None:
                return PendingSnapshot.of(await _get(opened, request))
            transfer = await _transfer(opened.connection, request, terms)
            posting = _hold(transfer)
            await ledger.post(opened.connection, opening.tenant_id, [posting])
            await transfers.insert(
                opened.connection, opening.tenant_id, transfer, hold_transaction_id=posting.transaction_id
            )
            facts = _facts(transfer) | {"transaction_id": str(posting.transaction_id)}
            origin = opening.origin.to_origin(transfer_workflow_id(opening.transfer_id))
            subject, action = transfer_workflow_id(transfer.transfer_id), "transfer.pending"
            await opened.finish(
                result={"status": transfer.status},
                audit=AuditRecord(subject, action, request.at, origin, facts),
                events=[OutboxEvent(new_id(), SETTLEMENT_TOPIC, action, subject, request.at, facts)],
            )
            return PendingSnapshot.of(transfer)

    @activity.defn(name="transfers.resolve")
    async def resolve(self, request: ApplyResolution) -> PendingSnapshot:
        """Resolve a transfer as it is recorded, once, and answer where it stands.

        The rule that the workflow asked decides again here, on the locked row: what it refuses is not written.
        """
        async with step(
            self._engine,
            self._doorbell,
            tenant_id=request.tenant_id,
            step_id=transfer_step_id(request.transfer_id, request.step),
        ) as opened:
            if opened.receipt is not None:
                recorded = await transfers.find(opened.connection, request.transfer_id)
                assert recorded is not None, "a receipt has its row"
                return PendingSnapshot.of(recorded.transfer)
            before = await transfers.lock(opened.connection, request.transfer_id)
            if before is None:
                raise Refusal("transfer_unknown", f"there is no transfer {request.transfer_id}")
            decision = resolve(before, to_resolution(request.command), at=request.at)
            posting = _release(decision)
            await ledger.post(opened.connection, request.tenant_id, [posting])
            await transfers.update(opened.connection, decision.transfer, transaction_id=posting.transaction_id)
            subject = transfer_workflow_id(request.transfer_id)
            action = _ACTIONS[decision.transfer.status]
            facts = _facts(decision.transfer) | {"transaction_id": str(posting.transaction_id)}
            await opened.finish(
                result={"status": decision.transfer.status},
                audit=AuditRecord(subject, action, request.at, request.origin.to_origin(subject), facts),
                events=[OutboxEvent(new_id(), SETTLEMENT_TOPIC, action, subject, request.at, facts)],
            )
            return PendingSnapshot.of(decision.transfer)


_ACTIONS = {
    TransferStatus.POSTED: "transfer.posted",
    TransferStatus.VOIDED: "transfer.voided",
    TransferStatus.EXPIRED: "transfer.expired",
}


async def _get(opened: Step, request: RecordPending) -> PendingTransfer:
    found = await transfers.find(opened.connection, request.opening.transfer_id)
    if found is None:
        raise RuntimeError(f"transfer {request.opening.transfer_id} has a receipt but no row")
    return found.transfer


async def _transfer(connection: AsyncConnection, request: RecordPending, terms: PendingTerms) -> PendingTransfer:
    asset = await ledger.get_asset(connection, terms.asset)
    expires_at = terms.expires_at
    if terms.timeout_seconds is not None:
        expires_at = request.at + timedelta(seconds=terms.timeout_seconds)
    return open_transfer(
        request.opening.transfer_id,
        terms.source,
        terms.target,
        asset,
        terms.amount_minor,
        at=request.at,
        expires_at=expires_at,
        reference=terms.reference,
        description=terms.description,
    )


async def _check_reference(connection: AsyncConnection, terms: PendingTerms) -> None:
    if terms.reference is None:
        return
    taken = await transfers.find_by_reference(connection, terms.reference)
    if taken is not None:
        raise Refusal("reference_taken", f"the reference names transfer {taken.transfer_id}", field="reference")


def _hold(transfer: PendingTransfer) -> Posting:
    """The posting that sets a transfer's money apart; it has the transfer's id."""
    return Posting(
        transaction_id=transfer.transfer_id,
        kind=TransactionKind.TRANSFER_HOLD,
        legs=place_hold(transfer.source, transfer.asset.symbol, transfer.amount_minor, hold_id=transfer.transfer_id),
        effective_at=transfer.created_at,
        reference=transfer.reference,
        description=transfer.description,
    )


def _release(decision: Decision) -> Posting:
    """The posting that empties the hold."""
    transfer = decision.transfer
    assert transfer.resolved_at is not None, "it is resolved"
    payees = {transfer.target: decision.to_target_minor, transfer.source: decision.to_source_minor}
    posted = transfer.status is TransferStatus.POSTED
    return Posting(
        transaction_id=new_id(),
        kind=TransactionKind.TRANSFER_POST if posted else TransactionKind.TRANSFER_VOID,
        legs=pay_from_hold(transfer.source, transfer.asset.symbol, payees, hold_id=transfer.transfer_id),
        effective_at=transfer.resolved_at,
        description=transfer.description,
    )


def _facts(transfer: PendingTransfer) -> dict[str, Any]:
    scale = transfer.asset.scale
    return {
        "transfer_id": str(transfer.transfer_id),
        "from": transfer.source,
        "to": transfer.target,
        "asset": transfer.asset.symbol,
        "amount": format_minor(transfer.amount_minor, scale),
        "status": transfer.status,
        "posted": None if transfer.posted_minor is None else format_minor(transfer.posted_minor, scale),
        "reference": transfer.reference,
        "expires_at": transfer.expires_at.isoformat(),
    }
