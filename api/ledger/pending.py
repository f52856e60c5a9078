"""Transfers in two phases and chains: checked here, carried out by their workflows."""

from __future__ import annotations

from datetime import timedelta
from typing import TypeVar
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from api.deps import Call, shortened
from api.idempotency import Answer, Attempt
from api.ledger.models import transaction_view
from api.ledger.transfer_models import ChainView, NewChain, NewTransfer, PostInput, VoidInput, pending_view
from api.ledger.transfers import acting_for, checked_amount, origin_of
from db import ledger as db_ledger
from db import receipts
from db import transfers as db_transfers
from db.ids import new_id
from db.transfers import TransferRecord
from domain.errors import Refusal
from domain.ids import chain_transaction_id, chain_workflow_id, transfer_step_id, transfer_workflow_id
from domain.money import parse_minor
from domain.transfers import MAX_PENDING, PendingTransfer, TransferStatus, check_parties, open_transfer, resolve
from kit.clock import now
from workflows.transfers import (
    ChainLink,
    ChainRequest,
    OpenPendingTransfer,
    PendingTerms,
    PostMessage,
    ResolutionMessage,
    TransferCommand,
    VoidMessage,
    to_resolution,
)
from workflows.transfers.waiting import summary

PreparedT = TypeVar("PreparedT")


class Opening:
    """Sets money apart for a transfer that is resolved later."""

    def __init__(self, call: Call, body: NewTransfer) -> None:
        self._call = call
        self._body = body
        self._opening: OpenPendingTransfer | None = None
        self._summary = ""
        self._taken: Refusal | None = None

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> Answer | None:
        """Check the terms; a transfer that is there already, by its id or its reference, is the answer."""
        call, body = self._call, self._body
        check_parties(body.source, body.target)
        asset, amount_minor = await checked_amount(call, connection, body.asset, body.amount)
        if body.expires_at is not None and body.timeout_seconds is not None:
            raise Refusal("expiry_ambiguous", "send either expires_at or timeout_seconds", field="timeout_seconds")
        terms = PendingTerms(
            source=body.source,
            target=body.target,
            asset=asset.symbol,
            amount_minor=amount_minor,
            expires_at=body.expires_at,
            timeout_seconds=body.timeout_seconds,
            reference=body.reference,
            description=body.description,
        )
        if attempt.repeated and (done := await db_transfers.find(connection, attempt.operation_id)) is not None:
            return _opened(201, done)
        if body.reference is not None:
            taken = await db_transfers.find_by_reference(connection, body.reference)
            if taken is not None:
                return _opened(200, _same(taken, terms))
        transfer = open_transfer(
            attempt.operation_id,
            body.source,
            body.target,
            asset,
            amount_minor,
            at=now(),
            expires_at=body.expires_at,
            reference=body.reference,
        )
        self._summary = shortened(f"pending: {summary(transfer)}")
        self._opening = OpenPendingTransfer(
            tenant_id=call.principal.tenant_id,
            transfer_id=attempt.operation_id,
            terms=terms,
            origin=origin_of(call, acting_for(call, body.actor, body.source)),
        )
        return None

    async def perform(self) -> None:
        """Start its workflow and wait until the money is set apart."""
        opening = _prepared(self._opening)
        structlog.contextvars.bind_contextvars(workflow_id=transfer_workflow_id(opening.transfer_id))
        try:
            await self._call.services.transfers.open(opening, summary=self._summary)
        except Refusal as refusal:
            if refusal.code != "reference_taken":
                raise
            self._taken = refusal  # somebody was faster; the answer depends on what they asked for

    async def answer(self, connection: AsyncConnection) -> Answer:
        """The transfer as it was recorded, by this request or by one that was faster."""
        opening = _prepared(self._opening)
        if self._taken is None:
            return _opened(201, await visible(self._call, connection, opening.transfer_id))
        terms = _prepared(opening.terms)
        faster = None if terms.reference is None else await db_transfers.find_by_reference(connection, terms.reference)
        if faster is None:
            raise self._taken
        return _opened(200, _same(faster, terms))


class Resolving:
    """A post or a void. Its operation id is the update's id and the step's receipt, so it has one effect."""

    def __init__(self, call: Call, transfer_id: UUID, body: PostInput | VoidInput) -> None:
        self._call = call
        self._transfer_id = transfer_id
        self._body = body
        self._command: TransferCommand | None = None

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> Answer | None:
        """Check who asks and what was said; whether it may be done now is the workflow's to judge."""
        call = self._call
        # The receipt first: a transfer that was read before it could be older than what it tells.
        step_id = transfer_step_id(self._transfer_id, attempt.operation_id)
        done = attempt.repeated and await receipts.find(connection, step_id) is not None
        record = await visible(call, connection, self._transfer_id)
        transfer = record.transfer
        if call.principal.user_id not in (None, transfer.source):
            raise Refusal("account_not_yours", "a transfer is resolved by who pays it")
        if done:
            return Answer(200, pending_view(record))
        message = self._message(transfer)
        _check_pending(transfer, message)
        self._command = TransferCommand(
            command_id=attempt.operation_id,
            command=message,
            origin=origin_of(call, acting_for(call, self._body.actor, transfer.source)),
            repeated=attempt.repeated,
        )
        return None

    async def perform(self) -> None:
        """Have the workflow judge it and carry it out."""
        command = _prepared(self._command)
        attempt_id = new_id() if command.repeated else None
        tenant_id = self._call.principal.tenant_id
        await self._call.services.transfers.resolve(tenant_id, self._transfer_id, command, attempt_id=attempt_id)

    async def answer(self, connection: AsyncConnection) -> Answer:
        """The transfer as it stands resolved."""
        return Answer(200, pending_view(await visible(self._call, connection, self._transfer_id)))

    def _message(self, transfer: PendingTransfer) -> ResolutionMessage:
        if isinstance(self._body, VoidInput):
            return VoidMessage()
        if self._body.amount is None:
            return PostMessage()
        return PostMessage(amount_minor=parse_minor(self._body.amount, transfer.asset.scale, field="amount"))


class Chain:
    """Transfers that are booked together or not at all."""

    def __init__(self, call: Call, body: NewChain) -> None:
        self._call = call
        self._body = body
        self._request: ChainRequest | None = None
        self._chain_id: UUID | None = None

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> Answer | None:
        """Check accounts, assets and amounts of every link."""
        call, body = self._call, self._body
        links = []
        for index, link in enumerate(body.transfers):
            field = f"transfers.{index}."
            if call.principal.user_id not in (None, link.source):
                raise Refusal("account_not_yours", "this key uses its own user's account only", field=f"{field}from")
            check_parties(link.source, link.target, field=field)
            asset, amount_minor = await checked_amount(call, connection, link.asset, link.amount, field=field)
            links.append(
                ChainLink(
                    source=link.source,
                    target=link.target,
                    asset=asset.symbol,
                    amount_minor=amount_minor,
                    description=link.description,
                )
            )
        self._request = ChainRequest(
            tenant_id=call.principal.tenant_id,
            chain_id=attempt.operation_id,
            links=tuple(links),
            reference=body.reference,
            origin=origin_of(call, acting_for(call, body.actor, links[0].source)),
        )
        return None

    async def perform(self) -> None:
        """Have the workflow book it, or find what its reference already names."""
        request = _prepared(self._request)
        structlog.contextvars.bind_contextvars(workflow_id=chain_workflow_id(request.chain_id))
        told = f"{len(request.links)} linked transfers"
        self._chain_id = (await self._call.services.transfers.chain(request, summary=told)).chain_id

    async def answer(self, connection: AsyncConnection) -> Answer:
        """201 for a new chain, 200 for the one that carried the reference already."""
        request, chain_id = _prepared(self._request), _prepared(self._chain_id)
        ids = [chain_transaction_id(chain_id, index) for index in range(len(request.links))]
        found = await db_ledger.find_transactions(connection, ids)
        assets = await self._call.services.assets.all(connection)
        body = ChainView(chain_id=chain_id, transactions=[transaction_view(each, assets) for each in found])
        return Answer(201 if chain_id == request.chain_id else 200, body)


async def visible(call: Call, connection: AsyncConnection, transfer_id: UUID) -> TransferRecord:
    """The transfer, if the tenant has it and the caller is on either side; who is not, learns nothing of it."""
    found = await db_transfers.find(connection, transfer_id)
    user_id = call.principal.user_id
    if found is None or (user_id is not None and user_id not in (found.transfer.source, found.transfer.target)):
        raise Refusal("transfer_unknown", "there is no such transfer in two phases")
    return found


def _opened(status: int, record: TransferRecord) -> Answer:
    return Answer(status, pending_view(record), {"Location": f"/api/v1/ledger/transfers/{record.transfer_id}"})


def _same(taken: TransferRecord, terms: PendingTerms) -> TransferRecord:
    """The transfer that a reference names, if it is what is asked for."""
    then = taken.transfer
    said = (then.source, then.target, then.asset.symbol, then.amount_minor, then.description)
    asked = (terms.source, terms.target, terms.asset, terms.amount_minor, terms.description)
    if terms.expires_at is not None:
        same_expiry = then.expires_at == terms.expires_at
    else:
        timeout = MAX_PENDING if terms.timeout_seconds is None else timedelta(seconds=terms.timeout_seconds)
        same_expiry = then.expires_at == then.created_at + timeout
    if said != asked or not same_expiry:
        raise Refusal("reference_taken", "this reference names a transfer with other content", field="reference")
    return taken


def _check_pending(transfer: PendingTransfer, message: ResolutionMessage) -> None:
    """Refuse to resolve what is resolved: that is final, so the row says it as surely as a workflow would."""
    if transfer.status is TransferStatus.PENDING:
        return
    resolve(transfer, to_resolution(message), at=now())
    raise RuntimeError(f"the rules let {message.kind} resolve a resolved transfer")


def _prepared(value: PreparedT | None) -> PreparedT:
    assert value is not None, "prepare() comes first"
    return value
