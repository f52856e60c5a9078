"""The money of one milestone: what funding places on hold, and how the hold is paid out.

At every moment, for every milestone::

    placed == paid to the seller + paid to the buyer + paid as fees + remaining + the buyer's fee reserve

Fees are cumulative: releasing in parts costs exactly what releasing at once would, however the parts are cut.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from domain.escrow.model import Milestone, MilestoneStatus, Movement, Terms
from domain.money import share_floor


def place(terms: Terms, milestone: Milestone) -> Movement:
    """The price and the buyer's fee on it leave the buyer's balance for the milestone's hold."""
    fee_minor = share_floor(milestone.amount_minor, terms.buyer_fee_basis_points)
    return Movement(milestone.position, milestone.milestone_id, placed_minor=milestone.amount_minor + fee_minor)


def pay_out(
    terms: Terms, milestone: Milestone, at: datetime, *, release_minor: int = 0, refund_minor: int = 0
) -> tuple[Milestone, Movement]:
    """Release and refund parts of what remains; the milestone closes when nothing does.

    The seller's fee comes out of the release, the buyer's out of the reserve. What a refund makes unnecessary of that
    reserve returns to the buyer with it.
    """
    after = replace(
        milestone,
        released_minor=milestone.released_minor + release_minor,
        refunded_minor=milestone.refunded_minor + refund_minor,
    )
    seller_fee_minor = _fee_of_step(milestone, after, terms.seller_fee_basis_points)
    buyer_fee_minor = _fee_of_step(milestone, after, terms.buyer_fee_basis_points)
    reserve_minor = milestone.reserve_minor(terms.buyer_fee_basis_points)
    needed_minor = after.reserve_minor(terms.buyer_fee_basis_points)
    movement = Movement(
        milestone.position,
        milestone.milestone_id,
        to_seller_minor=release_minor - seller_fee_minor,
        to_buyer_minor=refund_minor + reserve_minor - buyer_fee_minor - needed_minor,
        fee_minor=seller_fee_minor + buyer_fee_minor,
    )
    if after.remaining_minor == 0:
        after = close(after, MilestoneStatus.RELEASED if after.released_minor else MilestoneStatus.REFUNDED, at)
    return after, movement


def close(milestone: Milestone, status: MilestoneStatus, at: datetime) -> Milestone:
    """The milestone at its end: no clock runs for it any more."""
    return replace(milestone, status=status, closed_at=at, auto_release_at=None)


def _fee_of_step(before: Milestone, after: Milestone, basis_points: int) -> int:
    """The fee on everything released so far, less the fee on what was released before."""
    return share_floor(after.released_minor, basis_points) - share_floor(before.released_minor, basis_points)
