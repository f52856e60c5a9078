"""What commands do, one story each; which are allowed at all is in the table."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from domain.errors import Refusal
from domain.escrow import (
    ApprovalPolicy,
    Approve,
    Cancel,
    Command,
    Deadline,
    DeadlineKind,
    Dispute,
    Escrow,
    Fund,
    MilestoneStatus,
    PassDeadline,
    Refund,
    Release,
    Resolve,
    Role,
    Status,
    Wait,
    WaitsFor,
    deadlines,
    decide,
    next_deadline,
    waiting_for,
)
from tests.domain.escrows import (
    ARBITER,
    BUYER,
    EXPIRES,
    FUNDING_DEADLINE,
    INSPECTION,
    SELLER,
    SOON,
    SYSTEM,
    after,
    events_of,
    in_state,
    opened,
    terms,
)

LATER = SOON + timedelta(hours=1)


def refusal_of(escrow: Escrow, user_id: str | None, command: Command, at: datetime = SOON) -> Refusal:
    with pytest.raises(Refusal) as caught:
        decide(escrow, command, user_id=user_id, at=at)
    return caught.value


class TestFunding:
    def test_places_the_amount_and_the_buyers_fee(self) -> None:
        escrow = opened(terms(1_000, 333, buyer_fee_basis_points=150))
        decision = decide(escrow, Fund(), user_id=BUYER, at=SOON)
        assert [movement.placed_minor for movement in decision.movements] == [1_015, 337]
        assert [movement.hold_id for movement in decision.movements] == [m.milestone_id for m in escrow.milestones]
        assert events_of(decision) == ["escrow.funded 1 1000", "escrow.funded 2 333"]
        assert (decision.escrow.version, decision.escrow.updated_at) == (2, SOON)
        assert all(milestone.funded_at == SOON for milestone in decision.escrow.milestones)

    def test_one_milestone_after_the_other(self) -> None:
        escrow = after(opened(terms(1, 2, 3)), (BUYER, Fund((2,))))
        assert escrow.status is Status.CREATED
        assert refusal_of(escrow, BUYER, Fund((1, 2))).code == "milestone_already_funded"
        escrow = after(escrow, (BUYER, Fund()))
        assert escrow.status is Status.FUNDED

    def test_the_deadline_counts_and_not_the_timer(self) -> None:
        escrow = opened()
        assert refusal_of(escrow, BUYER, Fund(), FUNDING_DEADLINE).code == "funding_deadline_passed"
        assert refusal_of(escrow, BUYER, Approve(), FUNDING_DEADLINE).code == "funding_deadline_passed"
        assert refusal_of(escrow, BUYER, Fund(), EXPIRES).code == "escrow_expired"
        assert decide(escrow, Fund(), user_id=BUYER, at=FUNDING_DEADLINE - timedelta(microseconds=1))


class TestApproving:
    def test_before_the_money_is_remembered(self) -> None:
        decision = decide(opened(), Approve(), user_id=BUYER, at=SOON)
        assert events_of(decision) == ["escrow.approval_recorded 1 100"]
        assert decision.escrow.milestones[0].status is MilestoneStatus.PENDING
        decision = decide(decision.escrow, Fund(), user_id=BUYER, at=LATER)
        assert events_of(decision) == ["escrow.funded 1 100", "escrow.approved 1 100"]
        milestone = decision.escrow.milestones[0]
        assert (milestone.approved_at, milestone.auto_release_at) == (LATER, LATER + INSPECTION)

    def test_takes_as_many_roles_as_the_policy_says(self) -> None:
        policy = ApprovalPolicy((Role.BUYER, Role.SELLER, Role.ARBITER), 2)
        escrow = after(opened(terms(100, policy=policy)), (BUYER, Fund()), (SELLER, Approve()))
        assert escrow.status is Status.FUNDED
        assert refusal_of(escrow, SELLER, Approve((1,))).code == "already_approved"
        escrow = after(escrow, (ARBITER, Approve()), at=LATER)
        assert (escrow.status, escrow.milestones[0].approved_at) == (Status.APPROVED, LATER)
        escrow = after(escrow, (BUYER, Approve()), at=LATER + timedelta(days=1))
        assert escrow.milestones[0].approved_at == LATER, "a further yes does not restart the inspection"
        assert [approval.role for approval in escrow.milestones[0].approvals] == [
            Role.SELLER,
            Role.ARBITER,
            Role.BUYER,
        ]

    def test_again_counts_for_the_milestones_that_are_new(self) -> None:
        escrow = after(opened(terms(1, 2)), (BUYER, Fund()), (BUYER, Approve((1,))))
        decision = decide(escrow, Approve((1, 2)), user_id=BUYER, at=LATER)
        assert events_of(decision) == ["escrow.approval_recorded 2 2", "escrow.approved 2 2"]
        assert len(decision.escrow.milestones[0].approvals) == 1

    def test_skips_disputed_milestones_unless_they_are_named(self) -> None:
        escrow = after(opened(terms(1, 2)), (BUYER, Fund()), (SELLER, Dispute("why", (1,))))
        assert refusal_of(escrow, BUYER, Approve((1, 2))).code == "milestone_disputed"
        escrow = after(escrow, (BUYER, Approve()))
        assert [m.status for m in escrow.milestones] == [MilestoneStatus.DISPUTED, MilestoneStatus.APPROVED]
        assert escrow.status is Status.DISPUTED


class TestReleasing:
    def test_pays_the_seller_less_the_fees(self) -> None:
        agreed = terms(1_000, buyer_fee_basis_points=100, seller_fee_basis_points=250)
        decision = decide(in_state("approved", agreed), Release(), user_id=BUYER, at=SOON)
        (movement,) = decision.movements
        assert (movement.to_seller_minor, movement.fee_minor, movement.to_buyer_minor) == (975, 35, 0)
        assert events_of(decision) == ["escrow.released 1 1000", "escrow.completed"]
        assert decision.escrow.closed_at == SOON

    def test_in_parts(self) -> None:
        escrow = in_state("approved")
        escrow = after(escrow, (BUYER, Release(amount_minor=30)))
        assert (escrow.status, escrow.milestones[0].remaining_minor) == (Status.APPROVED, 70)
        assert refusal_of(escrow, BUYER, Release(amount_minor=71)).code == "amount_exceeds_remaining"
        assert refusal_of(escrow, BUYER, Release(amount_minor=0)).code == "amount_invalid"
        escrow = after(escrow, (SELLER, Refund()))
        assert (escrow.status, escrow.milestones[0].status) == (Status.COMPLETED, MilestoneStatus.RELEASED)
        assert escrow.milestones[0].refunded_minor == 70

    def test_a_part_needs_one_milestone(self) -> None:
        escrow = in_state("approved", terms(100, 100))
        for command in (Release(amount_minor=5), Release((1, 2), 5)):
            assert refusal_of(escrow, BUYER, command).code == "single_milestone_required"
        escrow = after(escrow, (BUYER, Release((1,))))
        assert after(escrow, (BUYER, Release(amount_minor=5))).milestones[1].released_minor == 5

    def test_everything_that_can_be_released_now(self) -> None:
        escrow = after(opened(terms(1, 2, 3)), (BUYER, Fund((1, 2))), (BUYER, Approve((2, 3))))
        decision = decide(escrow, Release(), user_id=BUYER, at=SOON)
        assert events_of(decision) == ["escrow.released 2 2"]
        assert refusal_of(decision.escrow, BUYER, Release()).code == "milestone_not_approved"
        assert refusal_of(decision.escrow, BUYER, Release((2,))).code == "milestone_closed"

    def test_the_seller_waits_for_the_inspection(self) -> None:
        escrow = in_state("approved")
        ends_at = SOON + INSPECTION
        assert refusal_of(escrow, SELLER, Release(), ends_at - timedelta(microseconds=1)).code == "inspection_running"
        assert after(escrow, (SELLER, Release()), at=ends_at).status is Status.COMPLETED


class TestRefunding:
    def test_returns_the_fee_reserve_with_the_money(self) -> None:
        escrow = in_state("funded", terms(1_000, buyer_fee_basis_points=100))
        decision = decide(escrow, Refund(amount_minor=400), user_id=SELLER, at=SOON)
        assert [movement.to_buyer_minor for movement in decision.movements] == [404]
        decision = decide(decision.escrow, Refund(), user_id=SELLER, at=SOON)
        assert [movement.to_buyer_minor for movement in decision.movements] == [606]
        assert events_of(decision) == ["escrow.refunded 1 600", "escrow.refunded"]
        assert decision.escrow.status is Status.REFUNDED


class TestDisputing:
    def test_stops_the_clocks(self) -> None:
        escrow = in_state("disputed")
        assert escrow.milestones[0].auto_release_at is None
        assert deadlines(escrow) == ()

    @pytest.mark.parametrize("reason", ["", " \n", "x" * 2001])
    def test_needs_a_reason(self, reason: str) -> None:
        refusal = refusal_of(in_state("funded"), BUYER, Dispute(reason))
        assert (refusal.code, refusal.field) == ("reason_invalid", "reason")

    def test_without_arbiter_the_parties_end_it(self) -> None:
        escrow = in_state("disputed", terms(100, arbiter=None))
        escrow = after(escrow, (SELLER, Refund(amount_minor=40)))
        assert escrow.status is Status.DISPUTED
        escrow = after(escrow, (BUYER, Release()))
        assert (escrow.status, escrow.milestones[0].released_minor) == (Status.COMPLETED, 60)

    def test_what_the_clock_owes_cannot_be_disputed_away(self) -> None:
        assert refusal_of(in_state("funded"), SELLER, Dispute("mine"), EXPIRES).code == "escrow_expired"
        assert refusal_of(in_state("approved"), BUYER, Dispute("no"), SOON + INSPECTION).code == "inspection_over"
        assert decide(
            in_state("approved", terms(inspection_period_seconds=None)), Dispute("no"), user_id=BUYER, at=EXPIRES
        )


class TestResolving:
    def test_splits_exactly_and_charges_only_what_is_released(self) -> None:
        agreed = terms(1_000, buyer_fee_basis_points=100, seller_fee_basis_points=1_000)
        decision = decide(in_state("disputed", agreed), Resolve(600, 400), user_id=ARBITER, at=SOON)
        (movement,) = decision.movements
        assert (movement.to_seller_minor, movement.fee_minor, movement.to_buyer_minor) == (540, 66, 404)
        assert events_of(decision) == [
            "escrow.resolved 1 1000",
            "escrow.released 1 600",
            "escrow.refunded 1 400",
            "escrow.completed",
        ]

    def test_wholly_for_the_buyer(self) -> None:
        decision = decide(in_state("disputed"), Resolve(0, 100), user_id=ARBITER, at=SOON)
        assert (decision.escrow.status, decision.movements[0].to_buyer_minor) == (Status.REFUNDED, 100)

    @pytest.mark.parametrize(
        ("command", "code"),
        [
            (Resolve(60, 39), "resolution_not_exact"),
            (Resolve(60, 41), "resolution_not_exact"),
            (Resolve(101, -1), "amount_invalid"),
            (Resolve(-1, 101), "amount_invalid"),
            (Resolve(60, 40, position=2), "milestone_unknown"),
        ],
    )
    def test_refuses_another_sum(self, command: Resolve, code: str) -> None:
        assert refusal_of(in_state("disputed"), ARBITER, command).code == code

    def test_one_dispute_at_a_time(self) -> None:
        escrow = in_state("disputed", terms(100, 100))
        assert refusal_of(escrow, ARBITER, Resolve(60, 40)).code == "single_milestone_required"
        escrow = after(escrow, (ARBITER, Resolve(60, 40, 2)))
        assert escrow.status is Status.DISPUTED
        assert after(escrow, (ARBITER, Resolve(60, 40))).status is Status.COMPLETED


class TestCancelling:
    def test_closes_what_was_never_funded(self) -> None:
        decision = decide(opened(terms(1, 2)), Cancel(), user_id=SELLER, at=SOON)
        assert events_of(decision) == ["escrow.cancelled 1 1", "escrow.cancelled 2 2", "escrow.cancelled"]

    def test_leaves_what_was_released_as_it_is(self) -> None:
        escrow = after(opened(terms(1, 2)), (BUYER, Fund((1,))), (BUYER, Approve((1,))), (BUYER, Release()))
        assert escrow.status is Status.CREATED
        decision = decide(escrow, Cancel(), user_id=BUYER, at=SOON)
        assert events_of(decision) == ["escrow.cancelled 2 2", "escrow.completed"]


class TestTheClock:
    def test_does_all_that_is_due_in_one_decision(self) -> None:
        agreed = terms(10, 20, 30, 40, funding_deadline=None)
        escrow = after(opened(agreed), (BUYER, Fund((2, 3, 4))), (BUYER, Approve((3,))), (BUYER, Dispute("bad", (4,))))
        decision = decide(escrow, PassDeadline(), user_id=SYSTEM, at=EXPIRES)
        assert events_of(decision) == [
            "escrow.expired 1 10",
            "escrow.refunded 2 20",
            "escrow.expired 2 20",
            "escrow.released 3 30",
        ]
        assert {event.role for event in decision.events} == {Role.SYSTEM}
        assert [(m.position, m.to_buyer_minor, m.to_seller_minor) for m in decision.movements] == [
            (2, 20, 0),
            (3, 0, 30),
        ]
        assert decision.escrow.status is Status.DISPUTED

    def test_expiry_returns_the_fee_reserve(self) -> None:
        escrow = in_state("funded", terms(1_000, buyer_fee_basis_points=100))
        decision = decide(escrow, PassDeadline(), user_id=SYSTEM, at=EXPIRES)
        assert [movement.to_buyer_minor for movement in decision.movements] == [1_010]
        assert events_of(decision) == ["escrow.refunded 1 1000", "escrow.expired 1 1000", "escrow.expired"]
        assert decision.escrow.milestones[0].refunded_minor == 1_000

    def test_an_approved_milestone_never_expires(self) -> None:
        escrow = in_state("approved", terms(100, inspection_period_seconds=None))
        assert next_deadline(escrow) is None
        assert refusal_of(escrow, SYSTEM, PassDeadline(), EXPIRES).code == "nothing_due"

    def test_deadlines_are_listed_soonest_first(self) -> None:
        escrow = after(opened(terms(1, 2, 3)), (BUYER, Fund((2, 3))), (BUYER, Approve((3,))))
        assert deadlines(escrow) == (
            Deadline(DeadlineKind.INSPECTION, SOON + INSPECTION, 3),
            Deadline(DeadlineKind.FUNDING, FUNDING_DEADLINE),
            Deadline(DeadlineKind.EXPIRY, EXPIRES),
        )
        assert deadlines(opened()) == (Deadline(DeadlineKind.FUNDING, FUNDING_DEADLINE),)


def test_waiting_says_who_may_do_what_until_when() -> None:
    policy = ApprovalPolicy((Role.BUYER, Role.ARBITER), 2)
    escrow = after(
        opened(terms(1, 1, 1, 1, 1, policy=policy)),
        (BUYER, Fund((3, 4, 5))),
        (BUYER, Approve((3, 4))),
        (ARBITER, Approve((4,))),
        (BUYER, Dispute("bad", (5,))),
    )
    assert waiting_for(escrow) == (
        Wait(WaitsFor.FUNDING, (Role.BUYER,), ("fund",), (1, 2), FUNDING_DEADLINE),
        Wait(WaitsFor.APPROVAL, (Role.ARBITER,), ("approve",), (3,), EXPIRES),
        Wait(WaitsFor.INSPECTION, (Role.BUYER,), ("release", "dispute"), (4,), SOON + INSPECTION),
        Wait(WaitsFor.RESOLUTION, (Role.ARBITER,), ("resolve",), (5,)),
    )
    plain = terms(arbiter=None, inspection_period_seconds=None)
    parties = (Role.BUYER, Role.SELLER)
    assert waiting_for(in_state("approved", plain)) == (Wait(WaitsFor.RELEASE, parties, ("release",), (1,)),)
    assert waiting_for(in_state("disputed", plain)) == (
        Wait(WaitsFor.RESOLUTION, parties, ("release", "refund"), (1,)),
    )
    assert waiting_for(in_state("released")) == ()


@pytest.mark.parametrize(
    ("positions", "code", "field"),
    [
        ((), "milestones_invalid", "positions"),
        ((1, 1), "milestones_invalid", "positions"),
        ((1, 3), "milestone_unknown", "positions.1"),
        ((0,), "milestone_unknown", "positions.0"),
        ((-1,), "milestone_unknown", "positions.0"),
    ],
)
def test_positions_that_name_nothing(positions: tuple[int, ...], code: str, field: str) -> None:
    refusal = refusal_of(opened(terms(1, 2)), BUYER, Fund(positions))
    assert (refusal.code, refusal.field) == (code, field)
