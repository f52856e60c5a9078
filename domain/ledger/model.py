"""What the books are made of: legs, postings, balances, and what an operator may set about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from domain.errors import Refusal
from domain.ids import SYSTEM_PREFIX, USER_ID_RULE, is_user_id

SYSTEM_EXTERNAL: Final = f"{SYSTEM_PREFIX}external"
SYSTEM_FEES: Final = f"{SYSTEM_PREFIX}fees"
#: What contracts on chains keep came in from outside through accounts that begin like this, one for each contract.
CHAIN_PREFIX: Final = f"{SYSTEM_PREFIX}chain:"

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
    "account_frozen": "an operator froze the account: nothing moves into it or out of it until the freeze is lifted",
    "asset_frozen": "an operator froze the asset: none of it moves until the freeze is lifted",
    "tenant_frozen": "an operator froze the tenant: nothing of it moves until the freeze is lifted",
    "limit_min_available": "the account's limit keeps more available than the posting would leave",
    "limit_max_balance": "the account's limit allows less than the posting would bring it to",
    "limit_max_debit": "the account's limit on a single debit is lower than what the posting takes",
}


class Pot(StrEnum):
    """The two parts of a balance."""

    AVAILABLE = "available"
    HELD = "held"


class TransactionKind(StrEnum):
    """Why money moved."""

    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"
    TRANSFER = "transfer"
    TRANSFER_HOLD = "transfer_hold"
    TRANSFER_POST = "transfer_post"
    TRANSFER_VOID = "transfer_void"
    ESCROW_FUND = "escrow_fund"
    ESCROW_RELEASE = "escrow_release"
    ESCROW_REFUND = "escrow_refund"
    ESCROW_RESOLUTION = "escrow_resolution"
    REVERSAL = "reversal"
    CHAIN_FUND = "chain_fund"
    CHAIN_RELEASE = "chain_release"
    CHAIN_REFUND = "chain_refund"
    CHAIN_RESOLUTION = "chain_resolution"
    CHAIN_WITHDRAWAL = "chain_withdrawal"


REVERSIBLE: Final = frozenset({TransactionKind.DEPOSIT, TransactionKind.WITHDRAWAL})

#: What an account's limits apply to: what begins something. What ends something that is under way (a release, a void, a
#: reversal) is never stopped by a limit, or the money would be stuck.
LIMITED: Final = frozenset(
    {
        TransactionKind.DEPOSIT,
        TransactionKind.WITHDRAWAL,
        TransactionKind.TRANSFER,
        TransactionKind.TRANSFER_HOLD,
        TransactionKind.ESCROW_FUND,
    }
)


#: What a contract on a chain did. It has happened, so neither freeze nor limit undoes it; all of it is on holds, so
#: nothing of it can be spent here.
MIRRORED: Final = frozenset(
    {
        TransactionKind.CHAIN_FUND,
        TransactionKind.CHAIN_RELEASE,
        TransactionKind.CHAIN_REFUND,
        TransactionKind.CHAIN_RESOLUTION,
        TransactionKind.CHAIN_WITHDRAWAL,
    }
)
#: What these set apart a contract owes to an account, whichever escrows it comes from.
CREDITING: Final = MIRRORED - {TransactionKind.CHAIN_FUND, TransactionKind.CHAIN_WITHDRAWAL}


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


@dataclass(frozen=True, slots=True)
class Limits:
    """What an operator allows an account, in minor units of its asset; None is no limit.

    ``min_available_minor`` stays available after a debit, ``max_balance_minor`` bounds what is available and held
    together after a credit, ``max_debit_minor`` what a single posting takes from what is available.
    """

    min_available_minor: int | None = None
    max_balance_minor: int | None = None
    max_debit_minor: int | None = None


@dataclass(frozen=True, slots=True)
class Freezes:
    """What an operator stopped: accounts by ref, assets by symbol, or all of the tenant."""

    tenant: bool = False
    accounts: frozenset[str] = frozenset()
    assets: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Controls:
    """What operators set that a posting meets: freezes, and limits by (account, asset)."""

    freezes: Freezes = Freezes()
    limits: Mapping[tuple[str, str], Limits] = field(default_factory=dict)


NO_CONTROLS: Final = Controls()


def chain_account(relayer_id: str) -> str:
    """The account that stands for the outside of one contract: what it owes, the contract keeps."""
    return f"{CHAIN_PREFIX}{relayer_id}"


def may_owe(account: str) -> bool:
    """Whether an account stands for the outside world: only such a one may be below zero."""
    return account == SYSTEM_EXTERNAL or account.startswith(CHAIN_PREFIX)


def check_account_ref(ref: str, *, field: str | None = None) -> str:
    """``ref`` itself, if a user's account may be called so; our own accounts are not for callers to name."""
    if not is_user_id(ref):
        raise Refusal("account_ref_invalid", "this cannot name a user's account", field=field)
    return ref
