"""The commands that pay money out: release, refund, resolve, and the clock itself."""

from __future__ import annotations

from domain.errors import Refusal
from domain.escrow.commands import Refund, Release, Resolve
from domain.escrow.deadlines import falls_due
from domain.escrow.draft import Draft, WhyNot
from domain.escrow.flows import close, pay_out
from domain.escrow.model import Milestone, MilestoneStatus, Role


def release(draft: Draft, command: Release) -> None:
    """Pay the seller: by the buyer once approved or to concede a dispute, by the seller after the inspection."""
    why_not = _why_not_release_by_buyer if draft.role is Role.BUYER else _why_not_release_by_seller(draft)
    for milestone, amount_minor in _portions(draft, command, why_not):
        _pay(draft, milestone, release_minor=amount_minor)


def refund(draft: Draft, command: Refund) -> None:
    """Pay the buyer back: the seller gives up money that is held, disputed or not."""
    for milestone, amount_minor in _portions(draft, command, _why_not_refund):
        _pay(draft, milestone, refund_minor=amount_minor)


def resolve(draft: Draft, command: Resolve) -> None:
    """Split what is left of a disputed milestone, exactly and finally."""
    positions = None if command.position is None else (command.position,)
    milestone = draft.choose_one(positions, _why_not_resolve)
    for field, part_minor in (("to_seller", command.to_seller_minor), ("to_buyer", command.to_buyer_minor)):
        if part_minor < 0:
            raise Refusal("amount_invalid", "a part of a resolution is not negative", field=field)
    remaining_minor = milestone.remaining_minor
    if command.to_seller_minor + command.to_buyer_minor != remaining_minor:
        message = f"both parts together must be {remaining_minor} minor units, what is left of the milestone"
        raise Refusal("resolution_not_exact", message)
    draft.tell("escrow.resolved", milestone, remaining_minor)
    _pay(draft, milestone, release_minor=command.to_seller_minor, refund_minor=command.to_buyer_minor)


def pass_deadline(draft: Draft) -> None:
    """Do everything that has fallen due, in one decision."""
    for milestone in draft.escrow.milestones:
        due = falls_due(draft.terms, milestone)
        if due is None or draft.at < due.at:
            continue
        match milestone.status:
            case MilestoneStatus.APPROVED:
                _pay(draft, milestone, release_minor=milestone.remaining_minor)
            case MilestoneStatus.FUNDED:
                _expire(draft, _pay(draft, milestone, refund_minor=milestone.remaining_minor))
            case _:
                _expire(draft, milestone)
    if not draft.milestones:
        raise Refusal("nothing_due", f"no deadline has been reached at {draft.at.isoformat()}")


def _expire(draft: Draft, milestone: Milestone) -> None:
    draft.put(close(milestone, MilestoneStatus.EXPIRED, draft.at))
    draft.tell("escrow.expired", milestone, milestone.amount_minor)


def _portions(draft: Draft, command: Release | Refund, why_not: WhyNot) -> list[tuple[Milestone, int]]:
    """How much to pay of which milestone: an amount of a single one, or all that is left of each."""
    positions, amount_minor = command.positions, command.amount_minor
    if amount_minor is not None and amount_minor <= 0:
        raise Refusal("amount_invalid", "the amount must be greater than zero", field="amount")
    if amount_minor is None or command.spread:
        whole = [(milestone, milestone.remaining_minor) for milestone in draft.choose(positions, why_not)]
        if amount_minor in (None, sum(remaining_minor for _, remaining_minor in whole)):
            return whole
    assert amount_minor is not None
    milestone = draft.choose_one(positions, why_not)
    if amount_minor > milestone.remaining_minor:
        message = f"only {milestone.remaining_minor} minor units are left of milestone {milestone.position}"
        raise Refusal("amount_exceeds_remaining", message, field="amount")
    return [(milestone, amount_minor)]


def _pay(draft: Draft, milestone: Milestone, *, release_minor: int = 0, refund_minor: int = 0) -> Milestone:
    """Note the payment, its movement and its events; returns the milestone after it."""
    after, movement = pay_out(draft.terms, milestone, draft.at, release_minor=release_minor, refund_minor=refund_minor)
    draft.put(after)
    draft.movements.append(movement)
    if release_minor:
        draft.tell("escrow.released", milestone, release_minor)
    if refund_minor:
        draft.tell("escrow.refunded", milestone, refund_minor)
    return after


def _why_not_release_by_buyer(milestone: Milestone) -> Refusal | None:
    if milestone.status in {MilestoneStatus.APPROVED, MilestoneStatus.DISPUTED}:
        return None
    return _not_releasable(milestone)


def _why_not_release_by_seller(draft: Draft) -> WhyNot:
    def why_not(milestone: Milestone) -> Refusal | None:
        if milestone.status is not MilestoneStatus.APPROVED:
            return _not_releasable(milestone)
        ends_at = milestone.auto_release_at
        if ends_at is not None and draft.at < ends_at:
            message = f"milestone {milestone.position} is inspected until {ends_at.isoformat()}"
            return Refusal("inspection_running", message)
        return None

    return why_not


def _not_releasable(milestone: Milestone) -> Refusal:
    match milestone.status:
        case MilestoneStatus.PENDING:
            return _not_funded(milestone)
        case MilestoneStatus.DISPUTED:
            return Refusal("milestone_disputed", f"milestone {milestone.position} waits for its resolution")
        case _:
            return Refusal("milestone_not_approved", f"milestone {milestone.position} lacks approvals")


def _why_not_refund(milestone: Milestone) -> Refusal | None:
    return _not_funded(milestone) if milestone.status is MilestoneStatus.PENDING else None


def _why_not_resolve(milestone: Milestone) -> Refusal | None:
    if milestone.status is MilestoneStatus.DISPUTED:
        return None
    return Refusal("not_disputed", f"milestone {milestone.position} is {milestone.status}, not disputed")


def _not_funded(milestone: Milestone) -> Refusal:
    return Refusal("milestone_not_funded", f"no money is held for milestone {milestone.position}")
