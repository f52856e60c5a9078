from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from domain.errors import Refusal
from domain.escrow import ApprovalPolicy, MilestoneTerms, Party, Role, Status, Terms, open_escrow
from domain.money import MAX_MINOR
from tests.domain.escrows import ESCROW_ID, EXPIRES, OPENED, events_of, terms

SECOND = timedelta(seconds=1)


def test_a_new_escrow_is_created_with_nothing_funded() -> None:
    decision = open_escrow(ESCROW_ID, terms(100, 50), OPENED)
    escrow = decision.escrow
    assert (escrow.status, escrow.version, escrow.created_at) == (Status.CREATED, 1, OPENED)
    assert [(part.position, part.amount_minor, part.remaining_minor) for part in escrow.milestones] == [
        (1, 100, 0),
        (2, 50, 0),
    ]
    assert decision.movements == ()
    assert events_of(decision) == ["escrow.created"]
    assert decision.events[0].amount_minor == 150


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"seller": Party("beate")}, "parties_not_distinct", "seller.user_id"),
        ({"arbiter": Party("simon")}, "parties_not_distinct", "arbiter.user_id"),
        ({"buyer": Party("")}, "user_id_invalid", "buyer.user_id"),
        ({"seller": Party("system:fees")}, "user_id_invalid", "seller.user_id"),
        ({"milestones": ()}, "milestone_count_invalid", "milestones"),
        ({"policy": ApprovalPolicy((), 0)}, "policy_roles_invalid", "approval_policy.roles"),
        ({"policy": ApprovalPolicy((Role.BUYER, Role.BUYER), 1)}, "policy_roles_invalid", "approval_policy.roles"),
        ({"policy": ApprovalPolicy((Role.SYSTEM,), 1)}, "policy_roles_invalid", "approval_policy.roles"),
        (
            {"arbiter": None, "policy": ApprovalPolicy((Role.BUYER, Role.ARBITER), 1)},
            "policy_roles_invalid",
            "approval_policy.roles",
        ),
        ({"policy": ApprovalPolicy((Role.BUYER,), 0)}, "policy_required_invalid", "approval_policy.required"),
        ({"policy": ApprovalPolicy((Role.BUYER,), 2)}, "policy_required_invalid", "approval_policy.required"),
        ({"buyer_fee_basis_points": -1}, "fee_invalid", "fees.buyer.basis_points"),
        ({"seller_fee_basis_points": 10_001}, "fee_invalid", "fees.seller.basis_points"),
        ({"funding_deadline": OPENED}, "deadline_not_in_future", "funding_deadline"),
        ({"expires_at": OPENED - SECOND}, "deadline_not_in_future", "expires_at"),
        ({"funding_deadline": EXPIRES + SECOND}, "deadlines_out_of_order", "funding_deadline"),
        ({"inspection_period_seconds": 0}, "inspection_period_invalid", "inspection_period_seconds"),
        ({"inspection_period_seconds": 366 * 86400 + 1}, "inspection_period_invalid", "inspection_period_seconds"),
    ],
)
def test_terms_that_are_refused(changes: dict[str, Any], code: str, field: str) -> None:
    refusal = refusal_of(terms(100, **changes))
    assert (refusal.code, refusal.field) == (code, field)


@pytest.mark.parametrize(
    ("amounts", "buyer_fee", "code", "field"),
    [
        ((100, 0), 0, "amount_invalid", "milestones.1.amount"),
        ((-1,), 0, "amount_invalid", "milestones.0.amount"),
        ((MAX_MINOR + 1,), 0, "amount_too_large", "milestones.0.amount"),
        ((MAX_MINOR, 1), 0, "amount_too_large", "milestones.1.amount"),
        ((MAX_MINOR,), 1, "amount_too_large", "milestones.0.amount"),
        ((1,) * 101, 0, "milestone_count_invalid", "milestones"),
    ],
)
def test_amounts_that_are_refused(amounts: tuple[int, ...], buyer_fee: int, code: str, field: str) -> None:
    refusal = refusal_of(terms(*amounts, buyer_fee_basis_points=buyer_fee))
    assert (refusal.code, refusal.field) == (code, field)


@pytest.mark.parametrize(
    "agreed",
    [
        terms(MAX_MINOR),
        terms(*(1,) * 100),
        terms(1, buyer_fee_basis_points=10_000, seller_fee_basis_points=10_000),
        terms(1, funding_deadline=EXPIRES),
        terms(1, funding_deadline=OPENED + SECOND, inspection_period_seconds=1),
        terms(1, funding_deadline=None, expires_at=None, inspection_period_seconds=None, arbiter=None),
        terms(1, policy=ApprovalPolicy((Role.SELLER, Role.ARBITER, Role.BUYER), 3)),
    ],
)
def test_terms_at_the_limit_are_fine(agreed: Terms) -> None:
    assert open_escrow(ESCROW_ID, agreed, OPENED).escrow.terms == agreed


def test_milestones_that_would_share_a_hold_are_a_bug() -> None:
    twin = MilestoneTerms(UUID(int=7), "twin", 1)
    with pytest.raises(ValueError, match="share an id"):
        open_escrow(ESCROW_ID, replace(terms(), milestones=(twin, twin)), OPENED)


def refusal_of(agreed: Terms) -> Refusal:
    with pytest.raises(Refusal) as caught:
        open_escrow(ESCROW_ID, agreed, OPENED)
    return caught.value
