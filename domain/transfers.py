"""Transfers in two phases: money is set apart first, and then posted to the other account, voided, or left to expire.

A pending transfer is resolved at most once. From its expiry on it can only expire, whether the clock has acted yet or
not. The rules say who gets what; the ledger moves it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, assert_never
from uuid import UUID

from domain.errors import Refusal
from domain.ids import USER_ID_RULE, is_user_id
from domain.money import MAX_MINOR, Asset

#: How long a transfer may wait to be resolved; one that names no expiry waits as long.
MAX_PENDING: Final = timedelta(days=366)

#: How many transfers a chain links at most.
MAX_CHAIN: Final = 100

CODES: Final = {
    "account_ref_invalid": f"an account is named by its user's id: {USER_ID_RULE}",
    "amount_invalid": "an amount is greater than zero",
    "amount_too_large": "an amount stays within 2**256 - 1 minor units",
    "amount_exceeds_transfer": "at most the amount of the pending transfer is posted",
    "transfer_to_itself": "a transfer goes from one account to another",
    "expiry_not_in_future": "a pending transfer expires after the moment at which it is made",
    "expiry_too_late": f"a pending transfer expires within {MAX_PENDING.days} days",
    "transfer_posted": "the transfer was posted: it is resolved once",
    "transfer_voided": "the transfer was voided: it is resolved once",
    "transfer_expired": "the transfer's expiry has passed: the money goes back",
    "transfer_not_due": "the transfer's expiry has not passed yet",
}


class TransferStatus(StrEnum):
    """Where a transfer in two phases stands."""

    PENDING = "PENDING"
    POSTED = "POSTED"
    VOIDED = "VOIDED"
    EXPIRED = "EXPIRED"


@dataclass(frozen=True, slots=True)
class PendingTransfer:
    """A transfer in two phases. Its id is also that of the hold; ``posted_minor`` is None unless it was posted."""

    transfer_id: UUID
    source: str
    target: str
    asset: Asset
    amount_minor: int
    expires_at: datetime
    created_at: datetime
    status: TransferStatus = TransferStatus.PENDING
    posted_minor: int | None = None
    resolved_at: datetime | None = None
    reference: str | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Post:
    """Give ``amount_minor``, or all of it, to the other account; the rest goes back."""

    amount_minor: int | None = None


@dataclass(frozen=True, slots=True)
class Void:
    """Give everything back."""


@dataclass(frozen=True, slots=True)
class Expire:
    """The clock's own command, from the expiry on: everything goes back."""


Resolution = Post | Void | Expire


@dataclass(frozen=True, slots=True)
class Decision:
    """The transfer as it stands resolved, and what each side gets out of the hold."""

    transfer: PendingTransfer
    to_target_minor: int
    to_source_minor: int


def check_parties(source: str, target: str, *, field: str = "") -> None:
    """Refuses accounts between which nothing can be transferred; ``field`` is a prefix of the inputs' names."""
    for name, ref in (("from", source), ("to", target)):
        if not is_user_id(ref):
            raise Refusal("account_ref_invalid", "this cannot name a user's account", field=f"{field}{name}")
    if source == target:
        raise Refusal("transfer_to_itself", "both accounts are one", field=f"{field}to")


def open_transfer(
    transfer_id: UUID,
    source: str,
    target: str,
    asset: Asset,
    amount_minor: int,
    *,
    at: datetime,
    expires_at: datetime | None = None,
    reference: str | None = None,
    description: str | None = None,
) -> PendingTransfer:
    """A new pending transfer; without an expiry it waits ``MAX_PENDING``."""
    check_parties(source, target)
    if amount_minor <= 0:
        raise Refusal("amount_invalid", "the amount must be greater than zero", field="amount")
    if amount_minor > MAX_MINOR:
        raise Refusal("amount_too_large", "the amount exceeds 2**256 - 1 minor units", field="amount")
    expires_at = at + MAX_PENDING if expires_at is None else expires_at
    if expires_at <= at:
        raise Refusal("expiry_not_in_future", "this has passed already", field="expires_at")
    if expires_at > at + MAX_PENDING:
        raise Refusal("expiry_too_late", f"this is more than {MAX_PENDING.days} days away", field="expires_at")
    return PendingTransfer(
        transfer_id,
        source,
        target,
        asset,
        amount_minor,
        expires_at,
        created_at=at,
        reference=reference,
        description=description,
    )


def resolve(transfer: PendingTransfer, resolution: Resolution, *, at: datetime) -> Decision:
    """What a resolution does at ``at``; refuses one of a transfer that is resolved already, or too late or early."""
    _check_pending(transfer)
    match resolution:
        case Post(amount_minor):
            _check_not_expired(transfer, at)
            posted_minor = _posted(transfer, amount_minor)
            return _resolved(transfer, TransferStatus.POSTED, posted_minor, at)
        case Void():
            _check_not_expired(transfer, at)
            return _resolved(transfer, TransferStatus.VOIDED, 0, at)
        case Expire():
            if at < transfer.expires_at:
                raise Refusal("transfer_not_due", f"the transfer expires at {transfer.expires_at}")
            return _resolved(transfer, TransferStatus.EXPIRED, 0, at)
        case _:
            assert_never(resolution)


def _check_pending(transfer: PendingTransfer) -> None:
    match transfer.status:
        case TransferStatus.PENDING:
            return
        case TransferStatus.POSTED:
            raise Refusal("transfer_posted", "the transfer was posted already")
        case TransferStatus.VOIDED:
            raise Refusal("transfer_voided", "the transfer was voided already")
        case TransferStatus.EXPIRED:
            raise Refusal("transfer_expired", "the transfer expired, the money went back")


def _check_not_expired(transfer: PendingTransfer, at: datetime) -> None:
    if at >= transfer.expires_at:
        raise Refusal("transfer_expired", "the transfer's expiry has passed, the money goes back")


def _posted(transfer: PendingTransfer, amount_minor: int | None) -> int:
    if amount_minor is None:
        return transfer.amount_minor
    if amount_minor <= 0:
        raise Refusal("amount_invalid", "the amount must be greater than zero; a void posts nothing", field="amount")
    if amount_minor > transfer.amount_minor:
        raise Refusal("amount_exceeds_transfer", "this is more than the transfer's amount", field="amount")
    return amount_minor


def _resolved(transfer: PendingTransfer, status: TransferStatus, posted_minor: int, at: datetime) -> Decision:
    after = replace(
        transfer,
        status=status,
        posted_minor=posted_minor if status is TransferStatus.POSTED else None,
        resolved_at=at,
    )
    return Decision(after, posted_minor, transfer.amount_minor - posted_minor)
