"""Transfers in two phases and chains: their workflows, and the messages that callers send."""

from activities.messages import OriginMessage
from activities.transfers.messages import (
    ChainLink,
    ChainOutcome,
    ChainRequest,
    OpenPendingTransfer,
    PendingOutcome,
    PendingTerms,
    PostMessage,
    ResolutionMessage,
    TransferCommand,
    VoidMessage,
    to_resolution,
)
from workflows.transfers.chain import TransferChainWorkflow
from workflows.transfers.workflow import PendingTransferWorkflow

__all__ = [
    "ChainLink",
    "ChainOutcome",
    "ChainRequest",
    "OpenPendingTransfer",
    "OriginMessage",
    "PendingOutcome",
    "PendingTerms",
    "PendingTransferWorkflow",
    "PostMessage",
    "ResolutionMessage",
    "TransferChainWorkflow",
    "TransferCommand",
    "VoidMessage",
    "to_resolution",
]
