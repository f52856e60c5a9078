"""What holds after any sequence of commands, allowed or refused."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import astuple, replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.errors import Refusal
from domain.escrow import (
    CODES,
    MILESTONE_CLOSED,
    ApprovalPolicy,
    Approve,
    Cancel,
    Command,
    Decision,
    Dispute,
    Escrow,
    Fund,
    MilestoneStatus,
    Movement,
    PassDeadline,
    Refund,
    Release,
    Resolve,
    Role,
    Status,
    Terms,
    deadlines,
    decide,
    waiting_for,
)
from domain.ledger import SYSTEM_FEES, Leg, Posting, TransactionKind, check, merge, pay_from_hold, place_hold
from domain.money import MAX_MINOR, share_floor
from tests.domain.escrows import (
    BUYER,
    ESCROW_ID,
    EXPIRES,
    FUNDING_DEADLINE,
    OPENED,
    SELLER,
    SYSTEM,
    USERS,
    after,
    in_state,
    opened,
    terms,
)

basis_points = st.sampled_from([0, 1, 33, 250, 3_333, 9_999, 10_000])
amounts = st.integers(1, 40) | st.integers(1, MAX_MINOR // 16)


@st.composite
def agreements(draw: st.DrawFn) -> Terms:
    """Any valid terms with up to four milestones."""
    agreed = terms(
        *draw(st.lists(amounts, min_size=1, max_size=4)),
        buyer_fee_basis_points=draw(basis_points),
        seller_fee_basis_points=draw(basis_points),
        funding_deadline=draw(st.sampled_from([None, FUNDING_DEADLINE])),
        expires_at=draw(st.sampled_from([None, EXPIRES])),
        inspection_period_seconds=draw(st.sampled_from([None, 3600, 86_400 * 40])),
    )
    roles = draw(st.lists(st.sampled_from([Role.BUYER, Role.SELLER, Role.ARBITER]), min_size=1, unique=True))
    agreed = replace(agreed, policy=ApprovalPolicy(tuple(roles), draw(st.integers(1, len(roles)))))
    if Role.ARBITER not in roles and draw(st.booleans()):
        agreed = replace(agreed, arbiter=None)
    return agreed


@st.composite
def commands(draw: st.DrawFn, escrow: Escrow) -> tuple[Command, str | None]:
    """A command and who gives it; mostly plausible, so that sequences get somewhere."""
    kind = draw(
        st.sampled_from(
            [Fund, Fund, Approve, Approve, Release, Release, Refund, Dispute, Resolve, Cancel, PassDeadline]
        )
    )
    last = len(escrow.milestones)
    positions = draw(st.none() | st.lists(st.integers(1, last), min_size=1, unique=True).map(tuple))
    position = draw(st.integers(1, last))
    remaining = escrow.milestones[position - 1].remaining_minor
    anyone = st.sampled_from(list(USERS.values()))
    if kind in (Release, Refund):
        payer = BUYER if kind is Release else SELLER
        amount = draw(st.none() | st.integers(1, max(1, remaining)))
        named = positions if amount is None else (position,)
        return kind(named, amount), draw(st.just(payer) | anyone)
    if kind is Resolve:
        to_seller = draw(st.integers(0, remaining))
        return Resolve(to_seller, remaining - to_seller, position), draw(st.just("anna") | anyone)
    if kind is Dispute:
        return Dispute("why", positions), draw(anyone)
    if kind is Cancel:
        return Cancel(), draw(anyone)
    if kind is PassDeadline:
        return PassDeadline(), SYSTEM
    return kind(positions), draw(st.just(BUYER) | anyone)


class Books:
    """What every milestone's hold took in and gave out, kept apart from the rules."""

    def __init__(self) -> None:
        self.placed: dict[int, int] = defaultdict(int)
        self.to_seller: dict[int, int] = defaultdict(int)
        self.to_buyer: dict[int, int] = defaultdict(int)
        self.fees: dict[int, int] = defaultdict(int)

    def book(self, movement: Movement) -> None:
        moved = (movement.placed_minor, movement.to_seller_minor, movement.to_buyer_minor, movement.fee_minor)
        assert all(amount >= 0 for amount in moved)
        assert any(moved), "a movement moves something"
        assert movement.placed_minor == 0 or sum(moved) == movement.placed_minor, "takes in or gives out, never both"
        self.placed[movement.position] += movement.placed_minor
        self.to_seller[movement.position] += movement.to_seller_minor
        self.to_buyer[movement.position] += movement.to_buyer_minor
        self.fees[movement.position] += movement.fee_minor

    def compare(self, escrow: Escrow) -> None:
        agreed = escrow.terms
        for part in escrow.milestones:
            at = part.position
            reserve = part.reserve_minor(agreed.buyer_fee_basis_points)
            paid = self.to_seller[at] + self.to_buyer[at] + self.fees[at]
            assert min(part.remaining_minor, part.released_minor, part.refunded_minor, reserve) >= 0
            assert self.placed[at] == paid + part.remaining_minor + reserve
            if self.placed[at]:
                assert self.placed[at] == part.amount_minor + share_floor(
                    part.amount_minor, agreed.buyer_fee_basis_points
                )
                assert part.amount_minor == part.released_minor + part.refunded_minor + part.remaining_minor
            seller_fee = share_floor(part.released_minor, agreed.seller_fee_basis_points)
            buyer_fee = share_floor(part.released_minor, agreed.buyer_fee_basis_points)
            assert self.to_seller[at] == part.released_minor - seller_fee
            assert self.fees[at] == seller_fee + buyer_fee
            if part.status in MILESTONE_CLOSED:
                assert self.placed[at] == paid, "a closed milestone holds nothing"


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_sequence_keeps_the_books(data: st.DataObject) -> None:
    escrow = opened(data.draw(agreements(), "terms"))
    books = Books()
    at = OPENED
    for _ in range(data.draw(st.integers(1, 18))):
        at += data.draw(st.sampled_from([timedelta(0), timedelta(minutes=30), timedelta(days=2), timedelta(days=9)]))
        command, user_id = data.draw(commands(escrow), "command")
        before = escrow
        try:
            decision = decide(escrow, command, user_id=user_id, at=at)
        except Refusal as refusal:
            assert refusal.code in CODES
            continue
        escrow = decision.escrow
        for movement in decision.movements:
            books.book(movement)
            check_in_ledger(movement)
        books.compare(escrow)
        check_step(before, decision)
        check_clock(escrow)


def check_step(before: Escrow, decision: Decision) -> None:
    """One decision's place in the story: it counts, it tells, and what was closed stays as it was."""
    escrow = decision.escrow
    assert before.closed_at is None
    assert escrow.version == before.version + 1
    assert escrow.terms == before.terms
    assert escrow != before
    assert decision.events
    assert escrow.status is expected_status(escrow)
    assert (escrow.closed_at is not None) == all(part.status in MILESTONE_CLOSED for part in escrow.milestones)
    for old, new in zip(before.milestones, escrow.milestones, strict=True):
        if old.status in MILESTONE_CLOSED:
            assert new == old
        assert new.approvals[: len(old.approvals)] == old.approvals
        assert (new.auto_release_at is None) or new.status is MilestoneStatus.APPROVED
        assert len({approval.role for approval in new.approvals}) == len(new.approvals)
        assert {approval.role for approval in new.approvals} <= set(escrow.terms.policy.roles)
    if escrow.closed_at is not None:
        with pytest.raises(Refusal) as caught:
            decide(escrow, Fund(), user_id=BUYER, at=escrow.updated_at)
        assert caught.value.code == "escrow_closed"


def check_clock(escrow: Escrow) -> None:
    """Deadlines do what they promise, at their instant and not before; and somebody can move every open milestone."""
    waits = [position for wait in waiting_for(escrow) for position in wait.positions]
    assert sorted(waits) == [part.position for part in escrow.milestones if part.status not in MILESTONE_CLOSED]
    due = deadlines(escrow)
    assert list(due) == sorted(due, key=lambda deadline: deadline.at)
    if not due:
        return
    first = due[0]
    with pytest.raises(Refusal) as caught:
        decide(escrow, PassDeadline(), user_id=SYSTEM, at=first.at - timedelta(microseconds=1))
    assert caught.value.code == "nothing_due"
    for deadline in due:
        passed = decide(escrow, PassDeadline(), user_id=SYSTEM, at=deadline.at).escrow
        assert all(left.at > deadline.at for left in deadlines(passed))


def check_in_ledger(movement: Movement) -> None:
    """A movement is a posting that any ledger takes."""
    legs: tuple[Leg, ...]
    if movement.placed_minor:
        legs = place_hold("beate", "USDC", movement.placed_minor, hold_id=movement.hold_id)
    else:
        payees = {
            "simon": movement.to_seller_minor,
            "beate": movement.to_buyer_minor,
            SYSTEM_FEES: movement.fee_minor,
        }
        legs = pay_from_hold("beate", "USDC", payees, hold_id=movement.hold_id)
    check(Posting(ESCROW_ID, TransactionKind.ESCROW_RELEASE, merge(legs), OPENED))


def expected_status(escrow: Escrow) -> Status:
    """The rule as it was agreed on, in its own words."""
    statuses = [part.status for part in escrow.milestones]
    still_open = [status for status in statuses if status not in MILESTONE_CLOSED]
    if any(status is MilestoneStatus.DISPUTED for status in statuses):
        return Status.DISPUTED
    if not still_open:
        if sum(part.released_minor for part in escrow.milestones) > 0:
            return Status.COMPLETED
        for mark in (MilestoneStatus.EXPIRED, MilestoneStatus.REFUNDED):
            if mark in statuses:
                return Status(mark.value)
        return Status.CANCELLED
    if all(status is MilestoneStatus.APPROVED for status in still_open):
        return Status.APPROVED
    if all(status in (MilestoneStatus.APPROVED, MilestoneStatus.FUNDED) for status in still_open):
        return Status.FUNDED
    return Status.CREATED


@given(amounts, basis_points, basis_points, st.data())
def test_releasing_in_parts_costs_what_releasing_at_once_does(
    amount: int, buyer_fee: int, seller_fee: int, data: st.DataObject
) -> None:
    agreed = terms(amount, buyer_fee_basis_points=buyer_fee, seller_fee_basis_points=seller_fee)
    whole = decide(in_state("approved", agreed), Release(), user_id=BUYER, at=OPENED).movements[0]
    escrow = in_state("approved", agreed)
    parts: list[Movement] = []
    while escrow.closed_at is None:
        left = escrow.milestones[0].remaining_minor
        amount_minor = data.draw(st.integers(1, left)) if len(parts) < 10 else left
        decision = decide(escrow, Release(amount_minor=amount_minor), user_id=BUYER, at=OPENED)
        parts.append(decision.movements[0])
        escrow = decision.escrow
    for name in ("to_seller_minor", "to_buyer_minor", "fee_minor"):
        assert sum(getattr(part, name) for part in parts) == getattr(whole, name)


def test_decisions_are_pure() -> None:
    escrow = in_state("approved", terms(100, 50))
    snapshot = astuple(escrow)
    first = decide(escrow, Release(), user_id=BUYER, at=OPENED)
    assert decide(escrow, Release(), user_id=BUYER, at=OPENED) == first
    assert astuple(escrow) == snapshot
    assert after(escrow, (SELLER, Refund((1,)))).version == escrow.version + 1
