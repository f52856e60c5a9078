"""The rules of an escrow: ``open_escrow`` begins one, ``decide`` is the only thing that moves it.

Both are pure: who asks and when are arguments, and the answer is the next state, the money that moves and what to tell.
"""

from domain.escrow.codes import CODES
from domain.escrow.commands import Approve, Cancel, Command, Dispute, Fund, PassDeadline, Refund, Release, Resolve
from domain.escrow.deadlines import Deadline, DeadlineKind, deadlines, next_deadline
from domain.escrow.decide import decide
from domain.escrow.model import (
    CLOSED,
    MILESTONE_CLOSED,
    MILESTONE_HELD,
    Approval,
    ApprovalPolicy,
    Custody,
    Decision,
    Escrow,
    Event,
    Milestone,
    MilestoneStatus,
    MilestoneTerms,
    Movement,
    Party,
    Role,
    Status,
    Terms,
)
from domain.escrow.model import Dispute as DisputeRecord
from domain.escrow.opening import open_escrow
from domain.escrow.waiting import Wait, WaitsFor, waiting_for

__all__ = [
    "CLOSED",
    "CODES",
    "MILESTONE_CLOSED",
    "MILESTONE_HELD",
    "Approval",
    "ApprovalPolicy",
    "Approve",
    "Cancel",
    "Command",
    "Custody",
    "Deadline",
    "DeadlineKind",
    "Decision",
    "Dispute",
    "DisputeRecord",
    "Escrow",
    "Event",
    "Fund",
    "Milestone",
    "MilestoneStatus",
    "MilestoneTerms",
    "Movement",
    "Party",
    "PassDeadline",
    "Refund",
    "Release",
    "Resolve",
    "Role",
    "Status",
    "Terms",
    "Wait",
    "WaitsFor",
    "deadlines",
    "decide",
    "next_deadline",
    "open_escrow",
    "waiting_for",
]
