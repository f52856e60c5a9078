"""Every code with which the escrow rules refuse, and what it means. Codes are for ever; wording may improve."""

from __future__ import annotations

from typing import Final

from domain.ids import USER_ID_RULE

#: Refusals of ``open_escrow``: the terms are at fault, ``Refusal.field`` says where.
OPENING: Final = {
    "user_id_invalid": USER_ID_RULE,
    "parties_not_distinct": "buyer, seller and arbiter are three different users",
    "milestone_count_invalid": "an escrow has 1 to 100 milestones",
    "amount_invalid": "an amount is greater than zero (in a resolution: not negative)",
    "amount_too_large": "all amounts and the buyer's fee on them stay within 2**256 - 1 minor units",
    "policy_roles_invalid": "the approval policy names at least one role, each once, and each filled",
    "policy_required_invalid": "the approval policy asks for at least one approval and not more than it names roles",
    "fee_invalid": "a fee is 0 to 10000 basis points",
    "deadline_not_in_future": "a deadline lies after the moment at which the escrow is opened",
    "deadlines_out_of_order": "the funding deadline is not later than the expiry",
    "inspection_period_invalid": "an inspection period is between one second and 366 days",
}

#: Refusals of ``decide`` because of who asks.
WHO: Final = {
    "not_a_party": "the user has no role in this escrow",
    "role_not_allowed": "the user's role may never give this command here",
    "no_arbiter": "the escrow has no arbiter who could resolve; the parties end a dispute by release and refund",
}

#: Refusals of ``decide`` because of what the command says.
WHAT: Final = {
    "milestone_unknown": "the escrow has no milestone at this position",
    "milestones_invalid": "the command names no milestone at all, or the same one twice",
    "single_milestone_required": "the command works on exactly one milestone, and it is not clear on which",
    "amount_mismatch": "the amount is exactly what the milestones that are to be funded cost, without the fee",
    "amount_exceeds_remaining": "the amount is more than what is left of the milestone",
    "resolution_not_exact": "both parts of a resolution together are exactly what is left of the milestone",
    "reason_invalid": "a dispute has a reason of 1 to 2000 characters that is not blank",
}

#: Refusals of ``decide`` because of how things stand, or of how late it is.
WHEN: Final = {
    "escrow_on_chain": "a contract on a chain keeps the money: the parties ask the contract, and the desk follows",
    "escrow_closed": "the escrow is completed, refunded, cancelled or expired: nothing moves it any more",
    "escrow_holds_money": "money is held, so the escrow ends by release, refund or resolution, not by cancelling",
    "escrow_expired": "the expiry has passed: what was not approved or disputed by then returns to the buyer",
    "funding_deadline_passed": "the funding deadline has passed: what was not funded by then stays unfunded",
    "milestone_closed": "the milestone is released, refunded, cancelled or expired",
    "milestone_not_funded": "no money is held for the milestone yet",
    "milestone_already_funded": "money is already held for the milestone",
    "milestone_not_approved": "the milestone is funded, but the approval policy is not satisfied yet",
    "milestone_disputed": "the milestone is disputed and waits for its resolution",
    "already_approved": "this role has already approved every milestone in question",
    "not_disputed": "only a disputed milestone is resolved",
    "inspection_running": "the seller waits until the inspection period has ended",
    "inspection_over": "the inspection period has ended: the milestone is released and can no longer be disputed",
    "nothing_due": "no deadline has been reached",
}

CODES: Final[dict[str, str]] = OPENING | WHO | WHAT | WHEN
