"""What moves money at once: deposits, withdrawals, transfers and reversals, each booked by its own workflow."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from api.deps import Call, shortened
from api.idempotency import Answer, Attempt
from api.ledger import models
from api.ledger.transfer_models import NewTransfer
from db import ledger as db_ledger
from db.ledger import LedgerTransaction
from domain.errors import Refusal
from domain.identity import acting_user
from domain.ids import transfer_workflow_id
from domain.ledger import TransactionKind, check_account_ref
from domain.money import Asset, format_minor, parse_minor
from domain.transfers import check_parties
from kit.clock import now
from workflows.escrow import OriginMessage
from workflows.ledger import TransferKind, TransferRequest


class _Booking:
    """What all of them share once the request is checked: a workflow books it, and the transaction is the answer."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._request: TransferRequest | None = None
        self._summary = ""
        self._transaction_id: UUID | None = None
        self._taken: Refusal | None = None

    async def perform(self) -> None:
        """Have the workflow book it, or find what its reference already names."""
        request = self._checked()
        workflow_id = transfer_workflow_id(request.transfer_id)
        structlog.contextvars.bind_contextvars(workflow_id=workflow_id)
        try:
            outcome = await self._call.services.transfers.transfer(request, summary=shortened(self._summary))
        except Refusal as refusal:
            if refusal.code != "reference_taken":
                raise
            self._taken = refusal  # somebody was faster; the answer depends on what they booked
        else:
            self._transaction_id = outcome.transaction_id

    async def answer(self, connection: AsyncConnection) -> Answer:
        """201 for a new transaction, 200 for the one that carried the reference already."""
        request = self._checked()
        found = None
        if self._transaction_id is not None:
            found = await get_transaction(self._call, connection, self._transaction_id)
        elif request.reference is not None:
            kind = TransactionKind(request.kind)
            found = await db_ledger.find_by_reference(connection, kind, request.reference)
        if found is None or (self._taken is not None and not _says(found, request)):
            raise self._taken or AssertionError("a booking has an outcome")
        transaction_id = found.posting.transaction_id
        body = models.transaction_view(found, await self._call.services.assets.all(connection))
        status = 201 if transaction_id == request.transfer_id else 200
        return Answer(status, body, {"Location": f"/api/v1/ledger/transactions/{transaction_id}"})

    def _checked(self) -> TransferRequest:
        assert self._request is not None, "prepare() comes first"
        return self._request


class Transfer(_Booking):
    """A deposit or a withdrawal: checked here, booked by its workflow."""

    def __init__(self, call: Call, kind: TransferKind, account: str, body: models.TransferInput) -> None:
        super().__init__(call)
        self._kind = kind
        self._account = account
        self._body = body

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> Answer | None:
        """Check account, asset, amount and time."""
        call, body = self._call, self._body
        check_account_ref(self._account, field="ref")
        asset, amount_minor = await checked_amount(call, connection, body.asset, body.amount)
        self._summary = f"{format_minor(amount_minor, asset.scale)} {asset.symbol} · {self._kind} · {self._account}"
        self._request = TransferRequest(
            tenant_id=call.principal.tenant_id,
            transfer_id=attempt.operation_id,
            kind=self._kind,
            account=self._account,
            asset=asset.symbol,
            amount_minor=amount_minor,
            reference=body.reference,
            description=body.description,
            effective_at=_past(body.effective_at),
            origin=origin_of(call, acting_for(call, body.actor, self._account)),
        )
        return None


class AccountTransfer(_Booking):
    """Money that goes from one user's account to another's, at once."""

    def __init__(self, call: Call, body: NewTransfer) -> None:
        super().__init__(call)
        self._body = body

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> Answer | None:
        """Check accounts, asset and amount."""
        call, body = self._call, self._body
        check_parties(body.source, body.target)
        asset, amount_minor = await checked_amount(call, connection, body.asset, body.amount)
        self._summary = f"{format_minor(amount_minor, asset.scale)} {asset.symbol} · {body.source} → {body.target}"
        self._request = TransferRequest(
            tenant_id=call.principal.tenant_id,
            transfer_id=attempt.operation_id,
            kind=TransferKind.TRANSFER,
            account=body.source,
            counterparty=body.target,
            asset=asset.symbol,
            amount_minor=amount_minor,
            reference=body.reference,
            description=body.description,
            origin=origin_of(call, acting_for(call, body.actor, body.source)),
        )
        return None


class Reversal(_Booking):
    """The undoing of a deposit or a withdrawal."""

    def __init__(self, call: Call, reverses_id: UUID, body: models.ReversalInput) -> None:
        super().__init__(call)
        self._reverses_id = reverses_id
        self._body = body

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> Answer | None:
        """Check that there is something to reverse."""
        call, body = self._call, self._body
        original = await get_transaction(call, connection, self._reverses_id)
        self._summary = f"reversal of a {original.posting.kind}: {body.reason}"
        self._request = TransferRequest(
            tenant_id=call.principal.tenant_id,
            transfer_id=attempt.operation_id,
            kind=TransferKind.REVERSAL,
            reverses_id=self._reverses_id,
            description=body.reason,
            effective_at=_past(body.effective_at),
            origin=origin_of(call, body.actor),
        )
        return None


async def get_transaction(call: Call, connection: AsyncConnection, transaction_id: UUID) -> LedgerTransaction:
    """The transaction, if the tenant has it and the caller may see it."""
    found = await db_ledger.find_transaction(connection, transaction_id)
    user_id = call.principal.user_id
    if found is None or (user_id is not None and all(leg.account != user_id for leg in found.posting.legs)):
        raise Refusal("transaction_unknown", "there is no such transaction")
    return found


def _says(found: LedgerTransaction, request: TransferRequest) -> bool:
    """Whether a transaction is what a deposit, a withdrawal or a transfer asks for."""
    posting = found.posting
    if posting.description != request.description or request.effective_at not in (None, posting.effective_at):
        return False
    change = request.amount_minor if request.kind is TransferKind.DEPOSIT else -request.amount_minor
    wanted = {(request.account, request.asset, change)}
    if request.counterparty is not None:
        wanted.add((request.counterparty, request.asset, -change))
    return wanted <= {(leg.account, leg.asset, leg.amount_minor) for leg in found.posting.legs}


def _past(effective_at: datetime | None) -> datetime | None:
    if effective_at is not None and effective_at > now():
        raise Refusal("effective_in_future", "a transfer counts from now or from the past", field="effective_at")
    return effective_at


async def checked_amount(
    call: Call, connection: AsyncConnection, symbol: str, amount: str, *, field: str = ""
) -> tuple[Asset, int]:
    """The asset, and the amount in its minor units, more than zero; ``field`` is a prefix of the inputs' names."""
    try:
        asset = await call.services.assets.get(connection, symbol)
    except Refusal as refusal:
        raise Refusal(refusal.code, refusal.message, field=f"{field}asset") from None
    amount_minor = parse_minor(amount, asset.scale, field=f"{field}amount")
    if amount_minor == 0:
        raise Refusal("amount_invalid", "the amount must be greater than zero", field=f"{field}amount")
    return asset, amount_minor


def acting_for(call: Call, named: str | None, account: str) -> str:
    """The user that money moves for: with a service key the account's own, unless the request names another."""
    return acting_user(call.principal, account if named is None and call.principal.user_id is None else named)


def origin_of(call: Call, user_id: str | None) -> OriginMessage:
    """Who asks, as workflows are told."""
    return OriginMessage(user_id=user_id, key_id=call.principal.key_id, request_id=call.request_id)
