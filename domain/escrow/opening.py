"""Which terms an escrow may begin with."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from domain.errors import Refusal
from domain.escrow.model import Decision, Escrow, Event, Milestone, Party, Role, Status, Terms
from domain.ids import is_user_id
from domain.money import BASIS_POINTS, MAX_MINOR, share_floor

MAX_MILESTONES = 100
MAX_INSPECTION_PERIOD_SECONDS = 366 * 24 * 3600


def open_escrow(escrow_id: UUID, terms: Terms, at: datetime) -> Decision:
    """A new escrow with these terms, nothing funded yet; refuses terms that could not be kept (``codes.OPENING``)."""
    _check_parties(terms)
    _check_policy(terms)
    _check_fees(terms)
    _check_amounts(terms)
    _check_times(terms, at)
    if terms.custody is not None and (
        len(terms.milestones) != 1 or terms.buyer_fee_basis_points or terms.seller_fee_basis_points
    ):
        raise ValueError("an escrow on a chain has one milestone and no fees")
    milestones = tuple(
        Milestone(agreed.milestone_id, position, agreed.title, agreed.amount_minor)
        for position, agreed in enumerate(terms.milestones, start=1)
    )
    escrow = Escrow(escrow_id, terms, Status.CREATED, milestones, created_at=at, updated_at=at)
    total_minor = sum(milestone.amount_minor for milestone in milestones)
    return Decision(escrow, (), (Event("escrow.created", amount_minor=total_minor),))


def _check_parties(terms: Terms) -> None:
    parties: list[tuple[str, Party]] = [("buyer", terms.buyer), ("seller", terms.seller)]
    if terms.arbiter is not None:
        parties.append(("arbiter", terms.arbiter))
    seen: dict[str, str] = {}
    for name, party in parties:
        field = f"{name}.user_id"
        if not is_user_id(party.user_id):
            raise Refusal("user_id_invalid", f"the {name}'s user id is not a valid one", field=field)
        if party.user_id in seen:
            raise Refusal("parties_not_distinct", f"the {name} is also the {seen[party.user_id]}", field=field)
        seen[party.user_id] = name


def _check_policy(terms: Terms) -> None:
    roles, required = terms.policy.roles, terms.policy.required
    filled = {Role.BUYER, Role.SELLER} if terms.arbiter is None else {Role.BUYER, Role.SELLER, Role.ARBITER}
    field = "approval_policy.roles"
    if not roles or len(set(roles)) != len(roles):
        raise Refusal("policy_roles_invalid", "name at least one approving role, and each once", field=field)
    if unfilled := set(roles) - filled:
        raise Refusal("policy_roles_invalid", f"nobody is the {min(unfilled)} of this escrow", field=field)
    if not 1 <= required <= len(roles):
        message = f"{required} approvals of {len(roles)} roles cannot be asked for"
        raise Refusal("policy_required_invalid", message, field="approval_policy.required")


def _check_fees(terms: Terms) -> None:
    fees = {Role.BUYER: terms.buyer_fee_basis_points, Role.SELLER: terms.seller_fee_basis_points}
    for payer, basis_points in fees.items():
        if not 0 <= basis_points <= BASIS_POINTS:
            message = f"the {payer}'s fee of {basis_points} basis points is not between 0 and {BASIS_POINTS}"
            raise Refusal("fee_invalid", message, field=f"fees.{payer}.basis_points")


def _check_amounts(terms: Terms) -> None:
    if not 1 <= len(terms.milestones) <= MAX_MILESTONES:
        message = f"{len(terms.milestones)} milestones are not between 1 and {MAX_MILESTONES}"
        raise Refusal("milestone_count_invalid", message, field="milestones")
    if len({agreed.milestone_id for agreed in terms.milestones}) != len(terms.milestones):
        raise ValueError("two milestones share an id: their money would share a hold")
    placed_minor = 0
    for index, agreed in enumerate(terms.milestones):
        field = f"milestones.{index}.amount"
        if agreed.amount_minor <= 0:
            raise Refusal("amount_invalid", f"milestone {index + 1} has no amount above zero", field=field)
        placed_minor += agreed.amount_minor + share_floor(agreed.amount_minor, terms.buyer_fee_basis_points)
        if placed_minor > MAX_MINOR:
            raise Refusal("amount_too_large", "the amounts and the buyer's fee exceed 2**256 - 1", field=field)


def _check_times(terms: Terms, at: datetime) -> None:
    for field, deadline in (("funding_deadline", terms.funding_deadline), ("expires_at", terms.expires_at)):
        if deadline is not None and deadline <= at:
            raise Refusal("deadline_not_in_future", f"{field} {deadline.isoformat()} has passed", field=field)
    if (
        terms.funding_deadline is not None
        and terms.expires_at is not None
        and terms.funding_deadline > terms.expires_at
    ):
        message = "the funding deadline is later than the expiry"
        raise Refusal("deadlines_out_of_order", message, field="funding_deadline")
    period = terms.inspection_period_seconds
    if period is not None and not 1 <= period <= MAX_INSPECTION_PERIOD_SECONDS:
        message = f"an inspection period of {period} seconds is not between 1 second and 366 days"
        raise Refusal("inspection_period_invalid", message, field="inspection_period_seconds")
