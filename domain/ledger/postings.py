"""The postings that there are: deposits, withdrawals, transfers, reversals, and the legs that feed and empty holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import UUID, uuid5

from domain.errors import Refusal
from domain.ledger.model import (
    REVERSIBLE,
    SYSTEM_EXTERNAL,
    Leg,
    Posting,
    Pot,
    TransactionKind,
    chain_account,
    check_account_ref,
)
from domain.money import MAX_MINOR

_CREDITS: Final = UUID("0c6f2f3a-6f0e-5b0c-9a55-6c9f0f2b7f1d")


def deposit(
    account: str,
    asset: str,
    amount_minor: int,
    *,
    transaction_id: UUID,
    effective_at: datetime,
    reference: str | None = None,
    description: str | None = None,
) -> Posting:
    """Money arrives from outside."""
    legs = _transfer(SYSTEM_EXTERNAL, check_account_ref(account, field="account"), asset, amount_minor)
    return Posting(transaction_id, TransactionKind.DEPOSIT, legs, effective_at, reference, description)


def withdrawal(
    account: str,
    asset: str,
    amount_minor: int,
    *,
    transaction_id: UUID,
    effective_at: datetime,
    reference: str | None = None,
    description: str | None = None,
) -> Posting:
    """Money leaves for the outside."""
    legs = _transfer(check_account_ref(account, field="account"), SYSTEM_EXTERNAL, asset, amount_minor)
    return Posting(transaction_id, TransactionKind.WITHDRAWAL, legs, effective_at, reference, description)


def transfer(
    source: str,
    target: str,
    asset: str,
    amount_minor: int,
    *,
    transaction_id: UUID,
    effective_at: datetime,
    reference: str | None = None,
    description: str | None = None,
) -> Posting:
    """Money goes from one user's account to another's; refuses ``leg_repeated`` when both are one."""
    if source == target:
        raise Refusal("leg_repeated", f"{source} cannot transfer to itself")
    payer, payee = check_account_ref(source, field="from"), check_account_ref(target, field="to")
    legs = _transfer(payer, payee, asset, amount_minor)
    return Posting(transaction_id, TransactionKind.TRANSFER, legs, effective_at, reference, description)


def reverse(
    original: Posting,
    *,
    transaction_id: UUID,
    effective_at: datetime,
    reference: str | None = None,
    description: str | None = None,
) -> Posting:
    """The posting that undoes ``original``. That it happens only once is for the ledger's memory to hold."""
    if original.kind not in REVERSIBLE:
        raise Refusal("not_reversible", f"a transaction of kind {original.kind} is not reversed")
    legs = tuple(replace(leg, amount_minor=-leg.amount_minor) for leg in original.legs)
    return Posting(
        transaction_id,
        TransactionKind.REVERSAL,
        legs,
        effective_at,
        reference,
        description,
        reverses_id=original.transaction_id,
    )


def place_hold(account: str, asset: str, amount_minor: int, *, hold_id: UUID) -> tuple[Leg, ...]:
    """Legs that set part of what is available apart."""
    _check_amount(amount_minor)
    return (
        Leg(account, asset, Pot.AVAILABLE, -amount_minor),
        Leg(account, asset, Pot.HELD, amount_minor, hold_id),
    )


def pay_from_hold(account: str, asset: str, payees: Mapping[str, int], *, hold_id: UUID) -> tuple[Leg, ...]:
    """Legs that pay out of ``account``'s hold to the available balances of ``payees`` (account -> minor units).

    The holder itself may be among them, that gives money back. Payees with nothing to get have no leg.
    """
    paid = {payee: amount_minor for payee, amount_minor in payees.items() if amount_minor != 0}
    for amount_minor in paid.values():
        _check_amount(amount_minor)
    return (
        *merge([Leg(account, asset, Pot.HELD, -sum(paid.values()), hold_id)]),
        *(Leg(payee, asset, Pot.AVAILABLE, amount_minor) for payee, amount_minor in paid.items()),
    )


def credit_hold_id(relayer_id: str, token: str, account: str) -> UUID:
    """The hold of what a contract owes to an account in one token, until the account withdraws it."""
    return uuid5(_CREDITS, f"{relayer_id}:{token}:{account}")


def place_on_chain(relayer_id: str, account: str, asset: str, amount_minor: int, *, hold_id: UUID) -> tuple[Leg, ...]:
    """Legs of money that came into a contract and is held there for an escrow."""
    _check_amount(amount_minor)
    return (
        Leg(chain_account(relayer_id), asset, Pot.AVAILABLE, -amount_minor),
        Leg(account, asset, Pot.HELD, amount_minor, hold_id),
    )


def credit_on_chain(
    account: str, asset: str, payees: Mapping[str, tuple[UUID, int]], *, hold_id: UUID
) -> tuple[Leg, ...]:
    """Legs that turn what a contract holds for an escrow into what it owes: payee -> its hold and minor units.

    It stays on a hold: the contract pays it out, so the desk must not pay it a second time.
    """
    paid = {payee: credit for payee, credit in payees.items() if credit[1] != 0}
    for _, amount_minor in paid.values():
        _check_amount(amount_minor)
    return (
        *merge([Leg(account, asset, Pot.HELD, -sum(amount_minor for _, amount_minor in paid.values()), hold_id)]),
        *(Leg(payee, asset, Pot.HELD, amount_minor, credit_id) for payee, (credit_id, amount_minor) in paid.items()),
    )


def withdraw_from_chain(
    relayer_id: str, account: str, asset: str, amount_minor: int, *, hold_id: UUID
) -> tuple[Leg, ...]:
    """Legs of money that left a contract."""
    _check_amount(amount_minor)
    return (
        Leg(account, asset, Pot.HELD, -amount_minor, hold_id),
        Leg(chain_account(relayer_id), asset, Pot.AVAILABLE, amount_minor),
    )


def merge(legs: Iterable[Leg]) -> tuple[Leg, ...]:
    """The same movement with one leg for each pot (and hold) of an account; what cancels out is left out."""
    totals: dict[Leg, int] = {}
    for leg in legs:
        key = replace(leg, amount_minor=0)
        totals[key] = totals.get(key, 0) + leg.amount_minor
    return tuple(replace(key, amount_minor=total) for key, total in totals.items() if total != 0)


def _transfer(source: str, target: str, asset: str, amount_minor: int) -> tuple[Leg, ...]:
    _check_amount(amount_minor)
    return (
        Leg(source, asset, Pot.AVAILABLE, -amount_minor),
        Leg(target, asset, Pot.AVAILABLE, amount_minor),
    )


def _check_amount(amount_minor: int) -> None:
    if amount_minor <= 0:
        raise Refusal("amount_invalid", "the amount must be greater than zero", field="amount")
    if amount_minor > MAX_MINOR:
        raise Refusal("amount_too_large", "the amount exceeds 2**256 - 1 minor units", field="amount")
