"""Reconciliation: what the rows of escrows, holds, transfers and commands say, against what the ledger says.

Everything here compares figures that were read together, in one snapshot of the database. Its arithmetic is written
out again on purpose instead of calling the rules that made the rows: a witness who repeats the accused proves nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from domain.ids import SYSTEM_PREFIX
from domain.money import format_minor, share_floor

#: Every finding's code and what it means. Codes are for ever, wording may improve.
FINDINGS: Final = {
    "legs_unbalanced": "the legs of a transaction do not sum to zero in an asset",
    "legs_missing": "a transaction has another number of legs than it says",
    "available_differs": "an account's available balance is not the sum of its legs",
    "held_differs": "an account's held balance is not the sum of its legs",
    "hold_placed_differs": "what a hold took in is not the sum of its legs",
    "hold_remaining_differs": "what a hold has left is not the sum of its legs",
    "hold_orphaned": "money is on hold for neither an escrow's milestone nor a transfer",
    "milestone_settled_differs": "what a milestone released and refunded does not fit where it stands",
    "milestone_placed_differs": "a milestone's hold took in something else than its price and the buyer's fee",
    "milestone_remaining_differs": "a milestone's hold has something else left than the milestone says",
    "closed_escrow_holds": "a closed escrow still has money on hold",
    "escrow_status_differs": "an escrow's status is not the one that its milestones make",
    "escrow_paid_differs": "an escrow's transactions moved something else than its milestones say",
    "movement_untold": "a transaction of an escrow has no event or no audit record",
    "escrow_overdue": "a deadline passed and has not acted",
    "trial_balance_differs": "all accounts of an asset together do not sum to zero",
    "transfer_hold_differs": "the hold of a transfer in two phases does not fit where the transfer stands",
    "transfer_paid_differs": "a transfer in two phases paid something else than it says",
    "transfer_overdue": "a transfer's time is over and it still holds money",
    "command_transaction_missing": "a settled command has no transaction",
    "command_transaction_unexpected": "a command that is not settled has a transaction",
    "command_amount_differs": "a settled command's transaction moved something else than it asked for",
    "command_overdue": "a command has waited long for its outcome",
}

#: What the clock owes is done within this time of being due: the watch and the sweepers come every few minutes.
CLOCK_GRACE: Final = timedelta(minutes=2)
CLOCK_LIMIT: Final = timedelta(minutes=15)

PARTS_PER_MILLION: Final = 1_000_000

#: Which way a command that only moves the ledger changes its account; an escrow's are compared with the escrow.
_SIGNS: Final = {"deposit": 1, "withdrawal": -1, "transfer": -1}
_HELD = frozenset({"funded", "approved", "disputed"})
_CLOSED = frozenset({"released", "refunded", "cancelled", "expired"})
_ENDED = frozenset({"completed", "refunded", "cancelled", "expired"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference. ``code``, ``subject`` and ``part`` name it from run to run.

    ``expected`` and ``actual`` are minor units of ``asset``; without an asset they are counts, or not given at all.
    ``explanation`` says why it is no cause for alarm; None means that nobody knows.
    """

    code: str
    subject: str
    detail: str
    part: str = ""
    asset: str | None = None
    expected: int | None = None
    actual: int | None = None
    explanation: str | None = None


@dataclass(frozen=True, slots=True)
class TransactionFigures:
    """A transaction whose legs are wrong: their sums by asset, and how many there are against how many it says."""

    transaction_id: UUID
    leg_count: int
    legs: int
    sums: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class AccountFigures:
    """An account's balances and the sums of its legs, in minor units."""

    ref: str
    asset: str
    available_minor: int
    held_minor: int
    available_legs_minor: int
    held_legs_minor: int


@dataclass(frozen=True, slots=True)
class HoldFigures:
    """A hold, the sums of its legs, and whether a milestone or a transfer owns it."""

    hold_id: UUID
    asset: str
    placed_minor: int
    remaining_minor: int
    placed_legs_minor: int
    remaining_legs_minor: int
    owned: bool


@dataclass(frozen=True, slots=True)
class MilestoneFigures:
    """A milestone and its hold; the hold's figures are None where there is no hold."""

    position: int
    status: str
    amount_minor: int
    released_minor: int
    refunded_minor: int
    funded: bool
    due_at: datetime | None
    hold_placed_minor: int | None
    hold_remaining_minor: int | None


@dataclass(frozen=True, slots=True)
class EscrowFigures:
    """An escrow, its milestones, and what its transactions moved: (account, asset, pot) -> minor units.

    ``untold`` are its transactions without an event or an audit record; ``frozen`` says that a freeze stops it.
    ``relayer_id`` is who follows the contract that keeps its money, where one does.
    """

    escrow_id: UUID
    status: str
    asset: str
    buyer: str
    seller: str
    fee_account: str
    buyer_fee_basis_points: int
    seller_fee_basis_points: int
    milestones: tuple[MilestoneFigures, ...]
    moved: Mapping[tuple[str, str, str], int]
    untold: tuple[tuple[UUID, str], ...] = ()
    frozen: bool = False
    relayer_id: str | None = None


@dataclass(frozen=True, slots=True)
class TransferFigures:
    """A transfer in two phases, its hold, and what its resolution paid to the other account."""

    transfer_id: UUID
    status: str
    asset: str
    amount_minor: int
    posted_minor: int
    credited_minor: int
    hold_placed_minor: int
    hold_remaining_minor: int
    expires_at: datetime | None
    frozen: bool = False


@dataclass(frozen=True, slots=True)
class CommandFigures:
    """A settlement command, and its transaction: whether there is one, and what its account got available by it."""

    command_id: str
    status: str
    kind: str
    asset: str
    amount_minor: int
    received_at: datetime
    posted: bool
    account_minor: int


def compare_transaction(figures: TransactionFigures) -> Iterator[Finding]:
    """Legs sum to zero in each asset, and are as many as the transaction says."""
    subject = f"transaction:{figures.transaction_id}"
    if figures.legs != figures.leg_count:
        yield Finding(
            "legs_missing",
            subject,
            f"it says {figures.leg_count} legs and has {figures.legs}",
            expected=figures.leg_count,
            actual=figures.legs,
        )
    for asset, total in sorted(figures.sums.items()):
        if total != 0:
            yield Finding("legs_unbalanced", subject, f"its legs in {asset} do not cancel", asset, asset, 0, total)


def compare_account(figures: AccountFigures) -> Iterator[Finding]:
    """Balances are what the legs add up to."""
    for pot, balance_minor, legs_minor in (
        ("available", figures.available_minor, figures.available_legs_minor),
        ("held", figures.held_minor, figures.held_legs_minor),
    ):
        if balance_minor != legs_minor:
            yield Finding(
                f"{pot}_differs",
                f"account:{figures.ref}",
                f"the balance in {figures.asset} is not what its legs add up to",
                figures.asset,
                figures.asset,
                legs_minor,
                balance_minor,
            )


def compare_hold(figures: HoldFigures) -> Iterator[Finding]:
    """A hold is what its legs add up to, and somebody's."""
    subject, asset = f"hold:{figures.hold_id}", figures.asset
    for what, row_minor, legs_minor in (
        ("placed", figures.placed_minor, figures.placed_legs_minor),
        ("remaining", figures.remaining_minor, figures.remaining_legs_minor),
    ):
        if row_minor != legs_minor:
            detail = f"its {what} amount is not what its legs add up to"
            yield Finding(f"hold_{what}_differs", subject, detail, "", asset, legs_minor, row_minor)
    if figures.remaining_minor and not figures.owned:
        detail = "neither a milestone nor a transfer of this id exists"
        yield Finding("hold_orphaned", subject, detail, "", asset, 0, figures.remaining_minor)


def compare_trial_balance(sums: Mapping[str, int]) -> Iterator[Finding]:
    """All accounts of an asset together are zero."""
    for asset, total in sorted(sums.items()):
        if total != 0:
            detail = "the sum of all its accounts, the outside world among them, is not zero"
            yield Finding("trial_balance_differs", f"asset:{asset}", detail, "", asset, 0, total)


def compare_escrow(figures: EscrowFigures, at: datetime) -> Iterator[Finding]:
    """Milestones against their holds, the status against the milestones, and the money against what was agreed."""
    subject = f"escrow:{figures.escrow_id}"
    for milestone in figures.milestones:
        yield from _compare_milestone(figures, milestone, subject)
    wanted = _status_of(figures.milestones)
    if figures.status != wanted:
        yield Finding("escrow_status_differs", subject, f"it is {figures.status}, its milestones make it {wanted}")
    yield from _compare_moved(figures, subject)
    for transaction_id, what in figures.untold:
        detail = f"no {what} names its transaction {transaction_id}"
        yield Finding("movement_untold", subject, detail, f"{what} of {transaction_id}")
    due = [milestone.due_at for milestone in figures.milestones if milestone.due_at is not None]
    yield from _overdue("escrow_overdue", subject, min(due, default=None), at, frozen=figures.frozen)


def compare_transfer(figures: TransferFigures, at: datetime) -> Iterator[Finding]:
    """A pending transfer holds its amount; one that ended holds nothing and paid what it says."""
    subject, asset = f"transfer:{figures.transfer_id}", figures.asset
    pending = figures.status == "PENDING"
    for part, wanted_minor, found_minor in (
        ("placed", figures.amount_minor, figures.hold_placed_minor),
        ("remaining", figures.amount_minor if pending else 0, figures.hold_remaining_minor),
    ):
        if wanted_minor != found_minor:
            detail = f"it is {figures.status}; its hold does not fit"
            yield Finding("transfer_hold_differs", subject, detail, part, asset, wanted_minor, found_minor)
    if figures.posted_minor != figures.credited_minor:
        detail = f"it is {figures.status}; the other account got something else"
        yield Finding("transfer_paid_differs", subject, detail, "", asset, figures.posted_minor, figures.credited_minor)
    due_at = figures.expires_at if pending else None
    yield from _overdue("transfer_overdue", subject, due_at, at, frozen=figures.frozen)


def compare_command(figures: CommandFigures, at: datetime) -> Iterator[Finding]:
    """A command has its transaction when it is settled and never else; one without an outcome is not old."""
    subject, settled = f"command:{figures.command_id}", figures.status == "SETTLED"
    if settled and not figures.posted:
        yield Finding(
            "command_transaction_missing", subject, "it is SETTLED without a transaction", expected=1, actual=0
        )
    if figures.posted and not settled:
        detail = f"it is {figures.status} and has a transaction"
        yield Finding("command_transaction_unexpected", subject, detail, expected=0, actual=1)
    sign = _SIGNS.get(figures.kind, 0)
    if settled and figures.posted and sign and figures.account_minor != sign * figures.amount_minor:
        detail = "its transaction changed its account by something else"
        wanted_minor = sign * figures.amount_minor
        yield Finding("command_amount_differs", subject, detail, "", figures.asset, wanted_minor, figures.account_minor)
    waits = figures.status in {"RECEIVED", "PROCESSING"}
    yield from _overdue("command_overdue", subject, figures.received_at if waits else None, at, frozen=False)


def share_explained_ppm(checked: int, unexplained: int) -> int:
    """The share of subjects that agree or are explained, in parts per million, rounded down: all or less than all."""
    return PARTS_PER_MILLION if checked == 0 else (checked - unexplained) * PARTS_PER_MILLION // checked


def share_text(ppm: int) -> str:
    """A share of parts per million as decimal text."""
    return format_minor(ppm, 6)


def _compare_milestone(escrow: EscrowFigures, milestone: MilestoneFigures, subject: str) -> Iterator[Finding]:
    part, asset = f"milestone {milestone.position}", escrow.asset
    settled_minor = milestone.released_minor + milestone.refunded_minor
    settled_wanted = milestone.amount_minor if milestone.funded and milestone.status in _CLOSED else 0
    if milestone.status not in _HELD and settled_minor != settled_wanted:
        detail = f"it is {milestone.status}; what it released and refunded does not fit"
        yield Finding("milestone_settled_differs", subject, detail, part, asset, settled_wanted, settled_minor)
    placed_wanted, placed = _placed(escrow, milestone), milestone.hold_placed_minor or 0
    if placed_wanted != placed:
        detail = "its hold took in something else than the price and the buyer's fee"
        yield Finding("milestone_placed_differs", subject, detail, part, asset, placed_wanted, placed)
    remaining_wanted, remaining = _remaining(escrow, milestone), milestone.hold_remaining_minor or 0
    if remaining_wanted != remaining:
        code = "closed_escrow_holds" if escrow.status in _ENDED else "milestone_remaining_differs"
        detail = f"it is {milestone.status}; its hold has something else left"
        yield Finding(code, subject, detail, part, asset, remaining_wanted, remaining)


def _compare_moved(escrow: EscrowFigures, subject: str) -> Iterator[Finding]:
    """Who was paid what, over all transactions of the escrow: each account's net change, and what is still held."""
    wanted: Counter[tuple[str, str, str]] = Counter()
    for milestone in escrow.milestones:
        if escrow.relayer_id is not None:
            _add_mirrored(wanted, escrow, milestone)
            continue
        remaining_minor = _remaining(escrow, milestone)
        seller_fee_minor = share_floor(milestone.released_minor, escrow.seller_fee_basis_points)
        fees_minor = seller_fee_minor + share_floor(milestone.released_minor, escrow.buyer_fee_basis_points)
        seller_minor = milestone.released_minor - seller_fee_minor
        wanted[escrow.seller, escrow.asset, "available"] += seller_minor
        wanted[escrow.fee_account, escrow.asset, "available"] += fees_minor
        wanted[escrow.buyer, escrow.asset, "available"] -= remaining_minor + seller_minor + fees_minor
        wanted[escrow.buyer, escrow.asset, "held"] += remaining_minor
    for key in sorted({*wanted, *escrow.moved}):
        account, asset, pot = key
        if wanted[key] != escrow.moved.get(key, 0):
            detail = f"its transactions changed what {account} has {pot} by another amount than its milestones say"
            yield Finding(
                "escrow_paid_differs", subject, detail, f"{account} {pot}", asset, wanted[key], escrow.moved.get(key, 0)
            )


def _add_mirrored(wanted: Counter[tuple[str, str, str]], escrow: EscrowFigures, milestone: MilestoneFigures) -> None:
    """What a contract keeps came in from outside, and what it owes stays on holds until it is withdrawn there."""
    if milestone.funded:
        wanted[f"{SYSTEM_PREFIX}chain:{escrow.relayer_id}", escrow.asset, "available"] -= milestone.amount_minor
        wanted[escrow.buyer, escrow.asset, "held"] += milestone.amount_minor - milestone.released_minor
        wanted[escrow.seller, escrow.asset, "held"] += milestone.released_minor


def _placed(escrow: EscrowFigures, milestone: MilestoneFigures) -> int:
    if not milestone.funded:
        return 0
    return milestone.amount_minor + share_floor(milestone.amount_minor, escrow.buyer_fee_basis_points)


def _remaining(escrow: EscrowFigures, milestone: MilestoneFigures) -> int:
    """The price that is left, and the buyer's fee for releasing all of it, cumulative like the fee itself."""
    if milestone.status not in _HELD:
        return 0
    fee_minor = share_floor(milestone.amount_minor - milestone.refunded_minor, escrow.buyer_fee_basis_points)
    paid_minor = share_floor(milestone.released_minor, escrow.buyer_fee_basis_points)
    return milestone.amount_minor - milestone.released_minor - milestone.refunded_minor + fee_minor - paid_minor


def _status_of(milestones: Iterable[MilestoneFigures]) -> str:
    statuses, released = set(), 0
    for milestone in milestones:
        statuses.add(milestone.status)
        released += milestone.released_minor
    for milestone_status, status in (("disputed", "disputed"), ("pending", "created"), ("funded", "funded")):
        if milestone_status in statuses:
            return status
    if "approved" in statuses:
        return "approved"
    if released:
        return "completed"
    return next((status for status in ("expired", "refunded") if status in statuses), "cancelled")


def _overdue(code: str, subject: str, due_at: datetime | None, at: datetime, *, frozen: bool) -> Iterator[Finding]:
    if due_at is None or at - due_at <= CLOCK_GRACE:
        return
    explanation = None
    if frozen:
        explanation = "a freeze stands on one of its accounts, its asset or the tenant: it waits until that is lifted"
    elif at - due_at <= CLOCK_LIMIT:
        explanation = f"the clock may be {CLOCK_LIMIT} late: what was lost is brought back every few minutes"
    yield Finding(code, subject, f"it has been due since {due_at.isoformat()}", explanation=explanation)
