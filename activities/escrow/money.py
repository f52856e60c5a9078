"""The money that a decision moves: at the desk, or mirrored from the contract on a chain that keeps it."""

from __future__ import annotations

from collections.abc import Iterable

from activities.escrow.messages import ApplyCommand
from db import controls, ledger
from db.chain.credits import Credit, put
from db.ids import new_id
from db.step import Step
from domain.escrow import Custody, Decision, Movement, Terms
from domain.ledger import (
    Freezes,
    Leg,
    Posting,
    TransactionKind,
    check_frozen,
    credit_hold_id,
    credit_on_chain,
    merge,
    pay_from_hold,
    place_hold,
    place_on_chain,
)

#: What a contract's doing is called where the desk's own has the first name.
_ON_CHAIN = {
    TransactionKind.ESCROW_FUND: TransactionKind.CHAIN_FUND,
    TransactionKind.ESCROW_RELEASE: TransactionKind.CHAIN_RELEASE,
    TransactionKind.ESCROW_REFUND: TransactionKind.CHAIN_REFUND,
    TransactionKind.ESCROW_RESOLUTION: TransactionKind.CHAIN_RESOLUTION,
}


async def post(opened: Step, request: ApplyCommand, decision: Decision) -> dict[str, str]:
    """Book what the decision moves: one transaction per kind, whatever number of milestones; their ids by kind."""
    terms = decision.escrow.terms
    by_kind: dict[TransactionKind, list[Leg]] = {}
    for movement in decision.movements:
        kind = _posting_kind(request, movement)
        if terms.custody is None:
            by_kind.setdefault(kind, []).extend(_legs(terms, movement))
        else:
            by_kind.setdefault(_ON_CHAIN[kind], []).extend(_mirrored(terms, terms.custody, movement))
    postings = [
        Posting(
            transaction_id=new_id(),
            kind=kind,
            legs=merge(legs),
            effective_at=request.at,
            description=f"{request.command.kind} of escrow {terms.reference or request.escrow_id}",
            escrow_id=request.escrow_id,
        )
        for kind, legs in by_kind.items()
    ]
    if postings:
        await ledger.post(opened.connection, request.tenant_id, postings)
        if terms.custody is not None:
            await put(opened.connection, request.tenant_id, _credits(terms, terms.custody, decision.movements))
    elif request.followed is None:
        await check_not_frozen(opened)
    return {posting.kind: str(posting.transaction_id) for posting in postings}


async def check_not_frozen(opened: Step) -> None:
    """Refuse what moves no money, too, while the tenant is frozen; where money moves, the ledger asks by itself."""
    check_frozen(Freezes(tenant=await controls.is_tenant_frozen(opened.connection, opened.tenant_id)), {})


def _legs(terms: Terms, movement: Movement) -> Iterable[Leg]:
    asset, holder = terms.asset.symbol, terms.buyer.user_id
    if movement.placed_minor:
        return place_hold(holder, asset, movement.placed_minor, hold_id=movement.hold_id)
    payees = {
        terms.seller.user_id: movement.to_seller_minor,
        holder: movement.to_buyer_minor,
        terms.fee_account: movement.fee_minor,
    }
    return pay_from_hold(holder, asset, payees, hold_id=movement.hold_id)


def _mirrored(terms: Terms, custody: Custody, movement: Movement) -> Iterable[Leg]:
    asset, holder = terms.asset.symbol, terms.buyer.user_id
    if movement.placed_minor:
        return place_on_chain(custody.relayer_id, holder, asset, movement.placed_minor, hold_id=movement.hold_id)
    payees = {
        payee: (credit_hold_id(custody.relayer_id, custody.token, payee), amount_minor)
        for payee, amount_minor in _paid(terms, movement).items()
    }
    return credit_on_chain(holder, asset, payees, hold_id=movement.hold_id)


def _credits(terms: Terms, custody: Custody, movements: Iterable[Movement]) -> list[Credit]:
    """Whose holds the payments went to."""
    payees = {payee for movement in movements for payee, amount_minor in _paid(terms, movement).items() if amount_minor}
    return [
        Credit(credit_hold_id(custody.relayer_id, custody.token, payee), custody.relayer_id, custody.token, payee)
        for payee in sorted(payees)
    ]


def _paid(terms: Terms, movement: Movement) -> dict[str, int]:
    return {terms.seller.user_id: movement.to_seller_minor, terms.buyer.user_id: movement.to_buyer_minor}


def _posting_kind(request: ApplyCommand, movement: Movement) -> TransactionKind:
    match request.command.kind:
        case "fund":
            return TransactionKind.ESCROW_FUND
        case "resolve":
            return TransactionKind.ESCROW_RESOLUTION
        case _ if movement.to_seller_minor or movement.fee_minor:
            return TransactionKind.ESCROW_RELEASE
        case _:
            return TransactionKind.ESCROW_REFUND
