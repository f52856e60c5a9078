"""Accounts, their balances, and the transactions that move them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Path, Query
from starlette.responses import Response

from api.deps import Call, caller, poster, router
from api.fields import Instant, Line, Symbol
from api.idempotency import once
from api.ledger.models import (
    Assets,
    AssetView,
    Balances,
    ReversalInput,
    TransactionView,
    TransferInput,
    TrialBalanceList,
    balance_view,
    transaction_view,
    trial_balance_view,
)
from api.ledger.transfers import Reversal, Transfer, get_transaction
from api.pages import DEFAULT_LIMIT, CursorToken, Limit, Page, Pager
from api.problems import documented
from db import ledger as db_ledger
from db.ledger import TransactionFilter
from domain.errors import Refusal
from domain.identity import Scope
from domain.ledger import Balance, TransactionKind
from workflows.ledger import TransferKind

account_routes = router("/accounts", "ledger")
book_routes = router("/ledger", "ledger")
transaction_routes = router("/ledger/transactions", "ledger")
asset_routes = router("/assets", "ledger")

AccountRef = Annotated[Line, Path(description="A user's id, or system:fees or system:external", examples=["alice"])]


@account_routes.get("/{ref:path}/balances")
async def read_balances(
    ref: AccountRef,
    call: Annotated[Call, Depends(caller(Scope.LEDGER_READ))],
    asset: Annotated[
        Symbol | None, Query(description="Only this asset; answered also when there was never any")
    ] = None,
    at: Annotated[Instant | None, Query(description="The balance that was effective at this instant")] = None,
    recorded_at: Annotated[Instant | None, Query(description="What the books said at this instant")] = None,
) -> Balances:
    """What an account has of each asset that it ever had; both instants may be given."""
    account = own_account(call, ref)
    async with call.transaction() as connection:
        wanted = None if asset is None else await call.services.assets.get(connection, asset)
        found = await db_ledger.balances(connection, account, asset=asset, at=at, recorded_at=recorded_at)
    items = [balance_view(entry.asset, entry.balance) for entry in found]
    if wanted is not None and not items:
        items = [balance_view(wanted, Balance())]
    return Balances(account=account, at=at, recorded_at=recorded_at, items=items)


@account_routes.post(
    "/{ref:path}/deposits",
    status_code=201,
    response_model=TransactionView,
    responses=documented(409, 413, 415, existing=TransactionView),
)
async def deposit(
    ref: AccountRef, body: TransferInput, call: Annotated[Call, Depends(poster(Scope.LEDGER_WRITE))]
) -> Response:
    """Book money that arrived from outside. Service keys only."""
    call.require_service_key()
    return await once(call, Transfer(call, TransferKind.DEPOSIT, ref, body))


@account_routes.post(
    "/{ref:path}/withdrawals",
    status_code=201,
    response_model=TransactionView,
    responses=documented(409, 413, 415, existing=TransactionView),
)
async def withdraw(
    ref: AccountRef, body: TransferInput, call: Annotated[Call, Depends(poster(Scope.LEDGER_WRITE))]
) -> Response:
    """Book money that leaves for the outside; a key that is bound to a user takes from its own account only."""
    own_account(call, ref)
    return await once(call, Transfer(call, TransferKind.WITHDRAWAL, ref, body))


@transaction_routes.get("")
async def list_transactions(
    call: Annotated[Call, Depends(caller(Scope.LEDGER_READ))],
    account: Annotated[Line | None, Query(description="With a leg on this account")] = None,
    asset: Annotated[Symbol | None, Query()] = None,
    kind: Annotated[TransactionKind | None, Query()] = None,
    escrow_id: Annotated[UUID | None, Query()] = None,
    reference: Annotated[Line | None, Query()] = None,
    effective_from: Annotated[Instant | None, Query(description="Effective then or later")] = None,
    effective_to: Annotated[Instant | None, Query(description="Effective before")] = None,
    cursor: CursorToken = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[TransactionView]:
    """Transactions, the last recorded first. A key that is bound to a user sees those of its own account."""
    wanted = TransactionFilter(
        account=call.own_user(account, field="account"),
        asset=asset,
        kind=kind,
        escrow_id=escrow_id,
        reference=reference,
        effective_from=effective_from,
        effective_to=effective_to,
    )
    pager = Pager("transactions", asdict(wanted))
    before = pager.after(cursor) or None
    async with call.transaction() as connection:
        rows = await db_ledger.list_transactions(connection, wanted, before=before, limit=limit + 1)
        assets = await call.services.assets.all(connection)
    rows, next_cursor = pager.page(rows, limit, "sequence")
    return Page(items=[transaction_view(row, assets) for row in rows], next_cursor=next_cursor)


@book_routes.get("/trial-balance")
async def read_trial_balance(call: Annotated[Call, Depends(caller(Scope.LEDGER_READ))]) -> TrialBalanceList:
    """All accounts together, per asset. Service keys only."""
    call.require_service_key()
    async with call.transaction() as connection:
        return trial_balance_view(await db_ledger.trial_balances(connection))


@transaction_routes.get("/{transaction_id}", responses=documented(404))
async def read_transaction(
    transaction_id: UUID, call: Annotated[Call, Depends(caller(Scope.LEDGER_READ))]
) -> TransactionView:
    """One transaction with its legs."""
    async with call.transaction() as connection:
        return transaction_view(
            await get_transaction(call, connection, transaction_id), await call.services.assets.all(connection)
        )


@transaction_routes.post(
    "/{transaction_id}/reversal",
    status_code=201,
    response_model=TransactionView,
    responses=documented(404, 409, 413, 415),
)
async def reverse(
    transaction_id: UUID, body: ReversalInput, call: Annotated[Call, Depends(poster(Scope.LEDGER_WRITE))]
) -> Response:
    """Take a deposit or a withdrawal back by its opposite, once. Service keys only."""
    call.require_service_key()
    return await once(call, Reversal(call, transaction_id, body))


@asset_routes.get("")
async def list_assets(call: Annotated[Call, Depends(caller(Scope.LEDGER_READ))]) -> Assets:
    """Every asset, by symbol."""
    async with call.transaction() as connection:
        assets = await call.services.assets.all(connection)
    return Assets(items=[AssetView(**asdict(asset)) for asset in assets.values()])


@asset_routes.get("/{symbol}", responses=documented(404))
async def read_asset(
    symbol: Annotated[Symbol, Path()], call: Annotated[Call, Depends(caller(Scope.LEDGER_READ))]
) -> AssetView:
    """One asset."""
    async with call.transaction() as connection:
        asset = (await call.services.assets.all(connection)).get(symbol)
    if asset is None:
        raise Refusal("asset_not_found", "there is no such asset")
    return AssetView(**asdict(asset))


def own_account(call: Call, ref: str) -> str:
    """``ref``, unless the key is bound to a user and this is not the user's account."""
    if call.principal.user_id not in (None, ref):
        raise Refusal("account_not_yours", "this key uses its own user's account only")
    return ref
