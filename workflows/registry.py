"""What a worker runs, and how the sandbox treats our modules; the replay check uses the same."""

from __future__ import annotations

from typing import Any

from temporalio.converter import DataConverter
from temporalio.worker import Replayer
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from domain.errors import HoldfastError
from workflows.escrow.watch import EscrowWatchWorkflow
from workflows.escrow.workflow import EscrowWorkflow
from workflows.ledger import TransferWorkflow
from workflows.retention import RetentionWorkflow
from workflows.settlement.watch import SettlementWatchWorkflow
from workflows.settlement.workflow import SettlementWorkflow
from workflows.transfers.chain import TransferChainWorkflow
from workflows.transfers.watch import TransferWatchWorkflow
from workflows.transfers.workflow import PendingTransferWorkflow

WORKFLOWS: tuple[type[Any], ...] = (
    EscrowWorkflow,
    EscrowWatchWorkflow,
    TransferWorkflow,
    RetentionWorkflow,
    PendingTransferWorkflow,
    TransferChainWorkflow,
    TransferWatchWorkflow,
    SettlementWorkflow,
    SettlementWatchWorkflow,
)

#: Rules and messages are deterministic and shared: loading them again for every run costs memory and makes each class
#: exist twice. Files that define workflows are not among them.
PASSED_THROUGH = (
    "domain",
    "activities",
    "db",
    "kit",
    "workflows.search",
    "workflows.limits",
    "workflows.escrow.waiting",
    "workflows.transfers.waiting",
)

#: What fails a run instead of its task: our own errors, and messages that cannot be decoded.
FAILURE_TYPES: tuple[type[BaseException], ...] = (HoldfastError, ValueError)


def workflow_runner() -> SandboxedWorkflowRunner:
    """The sandbox that every worker and replay of ours uses."""
    return SandboxedWorkflowRunner(restrictions=SandboxRestrictions.default.with_passthrough_modules(*PASSED_THROUGH))


def replayer(data_converter: DataConverter) -> Replayer:
    """A replayer of every workflow, as a worker of this build would run it."""
    return Replayer(
        workflows=list(WORKFLOWS),
        data_converter=data_converter,
        workflow_runner=workflow_runner(),
        workflow_failure_exception_types=list(FAILURE_TYPES),
    )
