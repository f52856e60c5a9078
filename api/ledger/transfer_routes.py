"""Transfers between accounts: at once, in two phases, and linked."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated
from uuid import UUID

import structlog
from fastapi import Body, Depends, Query
from starlette.responses import Response

from api.deps import Call, caller, poster, router
from api.fields import Line, Symbol
from api.idempotency import once
from api.ledger.models import TransactionView
from api.ledger.pending import Chain, Opening, Resolving, visible
from api.ledger.routes import own_account
from api.ledger.transfer_models import (
    ChainView,
    NewChain,
    NewTransfer,
    PendingTransferView,
    PostInput,
    VoidInput,
    pending_view,
)
from api.ledger.transfers import AccountTransfer
from api.pages import DEFAULT_LIMIT, CursorToken, Limit, Page, Pager
from api.problems import documented
from db import transfers as db_transfers
from db.transfers import TransferFilter
from domain.errors import Refusal
from domain.identity import Scope
from domain.ids import transfer_workflow_id
from domain.transfers import TransferStatus

transfer_routes = router("/ledger/transfers", "ledger")

Writer = Annotated[Call, Depends(poster(Scope.LEDGER_WRITE))]
PostBody = Annotated[PostInput, Body(default_factory=PostInput)]
VoidBody = Annotated[VoidInput, Body(default_factory=VoidInput)]
#: At once it is a transaction, pending it is a transfer in two phases.
MADE = TransactionView | PendingTransferView


@transfer_routes.post(
    "", status_code=201, response_model=MADE, responses=documented(409, 413, 415, existing=MADE), name="transfer"
)
async def make_transfer(body: NewTransfer, call: Writer) -> Response:
    """Move money between accounts: at once, or `pending`, in two phases. A bound key pays from its own account."""
    own_account(call, body.source)
    if body.pending:
        return await once(call, Opening(call, body))
    for field in ("expires_at", "timeout_seconds"):
        if getattr(body, field) is not None:
            raise Refusal("expiry_needs_pending", "only a pending transfer expires", field=field)
    return await once(call, AccountTransfer(call, body))


@transfer_routes.post(
    "/chain", status_code=201, response_model=ChainView, responses=documented(409, 413, 415, existing=ChainView)
)
async def transfer_chain(body: NewChain, call: Writer) -> Response:
    """Transfers that succeed or fail together; a refusal names the one at fault, as `transfers.3.amount`."""
    return await once(call, Chain(call, body))


@transfer_routes.get("")
async def list_transfers(
    call: Annotated[Call, Depends(caller(Scope.LEDGER_READ))],
    status: Annotated[TransferStatus | None, Query()] = None,
    account: Annotated[Line | None, Query(description="On either side")] = None,
    asset: Annotated[Symbol | None, Query()] = None,
    reference: Annotated[Line | None, Query()] = None,
    cursor: CursorToken = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[PendingTransferView]:
    """Transfers in two phases, newest first; those at once are transactions. A bound key sees its own account's."""
    wanted = TransferFilter(
        status=status, account=call.own_user(account, field="account"), asset=asset, reference=reference
    )
    pager = Pager("transfers", asdict(wanted))
    before = pager.before(cursor)
    async with call.transaction() as connection:
        rows = await db_transfers.list_(connection, wanted, before=before, limit=limit + 1)
    rows, next_cursor = pager.page(rows, limit, "transfer_id")
    return Page(items=[pending_view(row) for row in rows], next_cursor=next_cursor)


#: Only what is a UUID: there is nothing to read at the path of chains.
@transfer_routes.get("/{transfer_id:uuid}", responses=documented(404))
async def read_transfer(
    transfer_id: UUID, call: Annotated[Call, Depends(caller(Scope.LEDGER_READ))]
) -> PendingTransferView:
    """A transfer in two phases as it stands."""
    async with call.transaction() as connection:
        return pending_view(await visible(call, connection, transfer_id))


@transfer_routes.post(
    "/{transfer_id}/post", response_model=PendingTransferView, responses=documented(404, 409, 413, 415)
)
async def post_transfer(transfer_id: UUID, body: PostBody, call: Writer) -> Response:
    """Give the money of a pending transfer, or `amount` of it, to the other account; the rest goes back."""
    structlog.contextvars.bind_contextvars(workflow_id=transfer_workflow_id(transfer_id))
    return await once(call, Resolving(call, transfer_id, body))


@transfer_routes.post(
    "/{transfer_id}/void", response_model=PendingTransferView, responses=documented(404, 409, 413, 415)
)
async def void_transfer(transfer_id: UUID, body: VoidBody, call: Writer) -> Response:
    """Give the money of a pending transfer back."""
    structlog.contextvars.bind_contextvars(workflow_id=transfer_workflow_id(transfer_id))
    return await once(call, Resolving(call, transfer_id, body))
