"""Double entry: money never appears or vanishes, it moves between accounts, and holds keep part of a balance apart.

A posting is a set of legs that sum to zero per asset. What comes from or goes to the outside world does so through
``SYSTEM_EXTERNAL``, the only account that may owe. Nothing posted is ever changed: corrections are reversals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from domain.errors import Refusal
from domain.ids import SYSTEM_PREFIX, USER_ID_RULE, is_user_id
from domain.money import MAX_MINOR

SYSTEM_EXTERNAL: Final = f"{SYSTEM_PREFIX}external"
SYSTEM_FEES: Final = f"{SYSTEM_PREFIX}fees"

CODES: Final = {
    "account_ref_invalid": f"an account is named by its user's id: {USER_ID_RULE}",
    "amount_invalid": "an amount is greater than zero",
    "amount_too_large": "an amount stays within 2**256 - 1 minor units",
    "balance_too_large": "a balance stays within 2**256 - 1 minor units",
    "posting_too_short": "a posting has at least two legs",
    "posting_unbalanced": "the legs of a posting sum to zero in each asset",
    "leg_zero": "a leg moves something",
    "leg_repeated": "no pot of an account stands on two legs of a posting: nothing is moved to where it comes from",
    "hold_mismatch": "a leg names a hold exactly when it moves held money",
    "insufficient_funds": "the account has less available than the posting takes",
    "hold_exhausted": "the account has less on hold than the posting takes",
    "not_reversible": "only deposits and withdrawals are reversed; an escrow is undone by its own commands",
}


class Pot(StrEnum):
    """The two parts of a balance."""

    AVAILABLE = "available"
    HELD = "held"


class TransactionKind(StrEnum):
    """Why money moved."""

    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"
    ESCROW_FUND = "escrow_fund"
    ESCROW_RELEASE = "escrow_release"
    ESCROW_REFUND = "escrow_refund"
    ESCROW_RESOLUTION = "escrow_resolution"
    REVERSAL = "reversal"


REVERSIBLE: Final = frozenset({TransactionKind.DEPOSIT, TransactionKind.WITHDRAWAL})


@dataclass(frozen=True, slots=True)
class Leg:
    """A signed change of one pot of one account, in minor units of ``asset`` (its symbol)."""

    account: str
    asset: str
    pot: Pot
    amount_minor: int
    hold_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Posting:
    """Legs that are booked together or not at all. ``effective_at`` is when it counts, not when it is recorded."""

    transaction_id: UUID
    kind: TransactionKind
    legs: tuple[Leg, ...]
    effective_at: datetime
    reference: str | None = None
    description: str | None = None
    escrow_id: UUID | None = None
    reverses_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Balance:
    """What an account has of one asset: free to use, and set apart by holds."""

    available_minor: int = 0
    held_minor: int = 0


def check_account_ref(ref: str, *, field: str | None = None) -> str:
    """``ref`` itself, if a user's account may be called so; our own accounts are not for callers to name."""
    if not is_user_id(ref):
        raise Refusal("account_ref_invalid", "this cannot name a user's account", field=field)
    return ref


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


def merge(legs: Iterable[Leg]) -> tuple[Leg, ...]:
    """The same movement with one leg for each pot (and hold) of an account; what cancels out is left out."""
    totals: dict[Leg, int] = {}
    for leg in legs:
        key = replace(leg, amount_minor=0)
        totals[key] = totals.get(key, 0) + leg.amount_minor
    return tuple(replace(key, amount_minor=total) for key, total in totals.items() if total != 0)


def check(posting: Posting) -> None:
    """Refuses a posting that could not stand in any ledger, whatever the balances are."""
    if len(posting.legs) < 2:
        raise Refusal("posting_too_short", "a posting has at least two legs")
    sums: Counter[str] = Counter()
    seen: set[Leg] = set()
    for leg in posting.legs:
        if leg.amount_minor == 0:
            raise Refusal("leg_zero", f"the leg of {leg.account} moves nothing")
        if abs(leg.amount_minor) > MAX_MINOR:
            raise Refusal("amount_too_large", f"the leg of {leg.account} exceeds 2**256 - 1 minor units")
        if (leg.hold_id is not None) != (leg.pot is Pot.HELD):
            raise Refusal("hold_mismatch", f"the leg of {leg.account} must name a hold exactly if it moves held money")
        key = replace(leg, amount_minor=0)
        if key in seen:
            raise Refusal("leg_repeated", f"two legs move {leg.asset} of the same pot of {leg.account}")
        seen.add(key)
        sums[leg.asset] += leg.amount_minor
    for asset, total in sums.items():
        if total != 0:
            raise Refusal("posting_unbalanced", f"the legs in {asset} sum to {total}, not to zero")


def decide(balances: Mapping[tuple[str, str], Balance], posting: Posting) -> None:
    """Refuses a posting that the balances, by (account, asset), do not allow; an account that is missing has nothing.

    All legs count together: within a posting money may be spent that arrives by it.
    """
    check(posting)
    changes: Counter[tuple[str, str, Pot]] = Counter()
    for leg in posting.legs:
        changes[leg.account, leg.asset, leg.pot] += leg.amount_minor
    for (account, asset, pot), change in changes.items():
        balance = balances.get((account, asset), Balance())
        before = balance.held_minor if pot is Pot.HELD else balance.available_minor
        if abs(before + change) > MAX_MINOR:
            raise Refusal("balance_too_large", f"the balance of {account} would exceed 2**256 - 1 minor units")
        if before + change >= 0:
            continue
        if pot is Pot.HELD:
            raise Refusal("hold_exhausted", f"{account} has {before} on hold in {asset}, not {-change}")
        if not account.startswith(SYSTEM_EXTERNAL):
            raise Refusal("insufficient_funds", f"{account} has {before} available in {asset}, not {-change}")


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
