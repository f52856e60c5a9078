"""The life of an escrow: its workflow, what operators read of it, and the messages that callers send."""

from activities.escrow.messages import (
    ApproveMessage,
    CancelMessage,
    CommandMessage,
    DisputeMessage,
    EscrowCommand,
    EscrowOutcome,
    FundMessage,
    MilestoneTermsMessage,
    OpenEscrow,
    PartyMessage,
    RefundMessage,
    ReleaseMessage,
    ResolveMessage,
    TermsMessage,
    to_command,
)
from activities.messages import OriginMessage
from workflows.escrow.waiting import Waiting, WaitMessage, agreed, summary
from workflows.escrow.workflow import EscrowWorkflow

__all__ = [
    "ApproveMessage",
    "CancelMessage",
    "CommandMessage",
    "DisputeMessage",
    "EscrowCommand",
    "EscrowOutcome",
    "EscrowWorkflow",
    "FundMessage",
    "MilestoneTermsMessage",
    "OpenEscrow",
    "OriginMessage",
    "PartyMessage",
    "RefundMessage",
    "ReleaseMessage",
    "ResolveMessage",
    "TermsMessage",
    "WaitMessage",
    "Waiting",
    "agreed",
    "summary",
    "to_command",
]
