"""The commands by which parties agree or disagree: fund, approve, dispute, cancel."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from domain.errors import Refusal
from domain.escrow.commands import Approve, Dispute, Fund
from domain.escrow.deadlines import falls_due
from domain.escrow.draft import Draft
from domain.escrow.flows import close, place
from domain.escrow.model import MILESTONE_HELD, Approval, Milestone, MilestoneStatus
from domain.escrow.model import Dispute as DisputeRecord

MAX_REASON_CHARACTERS = 2000


def fund(draft: Draft, command: Fund) -> None:
    """Put money on hold; a milestone that was approved ahead of its money is approved right away."""

    def why_not(milestone: Milestone) -> Refusal | None:
        if milestone.status is not MilestoneStatus.PENDING:
            return Refusal("milestone_already_funded", f"milestone {milestone.position} is {milestone.status}")
        return _too_late(draft, milestone)

    chosen = draft.choose(command.positions, why_not)
    price_minor = sum(milestone.amount_minor for milestone in chosen)
    if command.amount_minor not in (None, price_minor):
        message = f"the milestones cost {price_minor} minor units, not {command.amount_minor}"
        raise Refusal("amount_mismatch", message, field="amount")
    for milestone in chosen:
        draft.movements.append(place(draft.terms, milestone))
        draft.tell("escrow.funded", milestone, milestone.amount_minor)
        _put_agreed(draft, replace(milestone, status=MilestoneStatus.FUNDED, funded_at=draft.at))


def approve(draft: Draft, command: Approve) -> None:
    """Record this role's yes, where it has not been given yet."""

    def why_not(milestone: Milestone) -> Refusal | None:
        if milestone.status is MilestoneStatus.DISPUTED:
            return Refusal("milestone_disputed", f"milestone {milestone.position} is disputed")
        return _too_late(draft, milestone)

    chosen = draft.choose(command.positions, why_not)
    fresh = [milestone for milestone in chosen if all(given.role != draft.role for given in milestone.approvals)]
    if not fresh:
        raise Refusal("already_approved", f"the {draft.role} has approved this already")
    approval = Approval(draft.role, draft.user_id, draft.at)
    for milestone in fresh:
        draft.tell("escrow.approval_recorded", milestone, milestone.amount_minor)
        _put_agreed(draft, replace(milestone, approvals=(*milestone.approvals, approval)))


def dispute(draft: Draft, command: Dispute) -> None:
    """Stop milestones, and the clocks that run for them.

    What the clock already owes to a party cannot be disputed away, even if the timer is late.
    """
    if not command.reason.strip() or len(command.reason) > MAX_REASON_CHARACTERS:
        message = f"give a reason of 1 to {MAX_REASON_CHARACTERS} characters"
        raise Refusal("reason_invalid", message, field="reason")

    def why_not(milestone: Milestone) -> Refusal | None:
        if milestone.status is MilestoneStatus.PENDING:
            return Refusal("milestone_not_funded", f"milestone {milestone.position} holds no money to dispute about")
        if milestone.status is MilestoneStatus.DISPUTED:
            return Refusal("milestone_disputed", f"milestone {milestone.position} is disputed already")
        due = falls_due(draft.terms, milestone)
        if due is None or draft.at < due.at:
            return None
        code = "escrow_expired" if milestone.status is MilestoneStatus.FUNDED else "inspection_over"
        return Refusal(code, f"milestone {milestone.position} could be disputed until {due.at.isoformat()}")

    record = DisputeRecord(draft.role, draft.user_id, command.reason, draft.at)
    for milestone in draft.choose(command.positions, why_not):
        draft.put(replace(milestone, status=MilestoneStatus.DISPUTED, dispute=record, auto_release_at=None))
        draft.tell("escrow.disputed", milestone, milestone.remaining_minor, command.reason)


def cancel(draft: Draft) -> None:
    """End an escrow that holds no money; what was paid out before stays as it is."""
    if any(milestone.status in MILESTONE_HELD for milestone in draft.escrow.milestones):
        raise Refusal("escrow_holds_money", "release or refund what is held first")
    for milestone in draft.escrow.milestones:
        if milestone.status is MilestoneStatus.PENDING:
            draft.put(close(milestone, MilestoneStatus.CANCELLED, draft.at))
            draft.tell("escrow.cancelled", milestone, milestone.amount_minor)


def _too_late(draft: Draft, milestone: Milestone) -> Refusal | None:
    """The deadline counts, not the timer: a yes that comes late is refused even if the timer has not fired yet."""
    expires_at, funding_deadline = draft.terms.expires_at, draft.terms.funding_deadline
    if expires_at is not None and draft.at >= expires_at:
        return Refusal("escrow_expired", f"the escrow expired at {expires_at.isoformat()}")
    pending = milestone.status is MilestoneStatus.PENDING
    if pending and funding_deadline is not None and draft.at >= funding_deadline:
        return Refusal("funding_deadline_passed", f"milestone {milestone.position} was not funded in time")
    return None


def _put_agreed(draft: Draft, milestone: Milestone) -> None:
    """Note a milestone that got money or an approval: with both, it is approved and its inspection period begins."""
    satisfied = len(milestone.approvals) >= draft.terms.policy.required
    if milestone.status is MilestoneStatus.FUNDED and satisfied:
        period = draft.terms.inspection_period_seconds
        milestone = replace(
            milestone,
            status=MilestoneStatus.APPROVED,
            approved_at=draft.at,
            auto_release_at=draft.at + timedelta(seconds=period) if period is not None else None,
        )
        draft.tell("escrow.approved", milestone, milestone.remaining_minor)
    draft.put(milestone)
