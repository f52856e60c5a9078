"""What a worker runs, and how the sandbox treats our modules; the replay check uses the same."""

from __future__ import annotations

from typing import Any

from temporalio.bridge.proto.workflow_activation import WorkflowActivation
from temporalio.bridge.proto.workflow_completion import WorkflowActivationCompletion
from temporalio.converter import DataConverter, StorageDriverStoreContext
from temporalio.worker import Replayer, WorkflowInstance, WorkflowInstanceDetails
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions
from temporalio.workflow import Info

from domain.errors import HoldfastError
from workflows.alerts.watch import AlertWatchWorkflow
from workflows.alerts.workflow import AlertWorkflow
from workflows.book import BookAuditWorkflow, BookWatchWorkflow, BookWorkflow
from workflows.chain.backfill import BackfillWorkflow
from workflows.chain.backfill_watch import BackfillRetentionWorkflow, BackfillWatchWorkflow
from workflows.chain.reconciliation import ChainReconciliationWorkflow
from workflows.chain.relayer import RelayerWatchWorkflow, RelayerWorkflow
from workflows.chain.settlement import ChainSettlementWatchWorkflow, ChainSettlementWorkflow
from workflows.escrow.watch import EscrowWatchWorkflow
from workflows.escrow.workflow import EscrowWorkflow
from workflows.ledger import TransferWorkflow
from workflows.margin.workflow import MarginCheckWorkflow
from workflows.prices import PricePartitionsWorkflow, PriceRefreshWorkflow
from workflows.reconciliation import ReconciliationSweepWorkflow, ReconciliationWorkflow
from workflows.retention import RetentionWorkflow
from workflows.settlement.watch import SettlementWatchWorkflow
from workflows.settlement.workflow import SettlementWorkflow
from workflows.transfers.chain import TransferChainWorkflow
from workflows.transfers.watch import TransferWatchWorkflow
from workflows.transfers.workflow import PendingTransferWorkflow
from workflows.webhooks.workflow import WebhookWatchWorkflow, WebhookWorkflow

WORKFLOWS: tuple[type[Any], ...] = (
    AlertWorkflow,
    AlertWatchWorkflow,
    BookWorkflow,
    BookWatchWorkflow,
    BookAuditWorkflow,
    EscrowWorkflow,
    EscrowWatchWorkflow,
    TransferWorkflow,
    RetentionWorkflow,
    PendingTransferWorkflow,
    TransferChainWorkflow,
    TransferWatchWorkflow,
    SettlementWorkflow,
    SettlementWatchWorkflow,
    ReconciliationWorkflow,
    ReconciliationSweepWorkflow,
    PriceRefreshWorkflow,
    PricePartitionsWorkflow,
    MarginCheckWorkflow,
    WebhookWorkflow,
    WebhookWatchWorkflow,
    BackfillWorkflow,
    BackfillWatchWorkflow,
    BackfillRetentionWorkflow,
    RelayerWorkflow,
    RelayerWatchWorkflow,
    ChainSettlementWorkflow,
    ChainSettlementWatchWorkflow,
    ChainReconciliationWorkflow,
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


class _Sandbox(SandboxedWorkflowRunner):
    """The SDK's sandbox, which is not entered again for every payload to ask what it belongs to."""

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        """A run in the sandbox."""
        return _ContextFree(super().create_instance(det))


class _ContextFree(WorkflowInstance):
    """A run whose payloads are encoded alike, whatever they belong to: our converter looks at no context, and nothing
    is stored outside histories. Everything else is the run's own."""

    def __init__(self, run: WorkflowInstance) -> None:
        self._run = run

    def activate(self, act: WorkflowActivation) -> WorkflowActivationCompletion:
        """Let the run go on."""
        return self._run.activate(act)

    def get_serialization_context(self, command_info: Any) -> None:
        """None: in whatever context."""

    def get_external_store_context(self, command_info: Any) -> StorageDriverStoreContext:  # noqa: ARG002 - the SDK's
        """No target: there is no store."""
        return StorageDriverStoreContext(target=None)

    def get_info(self) -> Info:
        """The run's."""
        return self._run.get_info()

    def get_thread_id(self) -> int | None:
        """The run's, by which the SDK interrupts one that does not give way."""
        return self._run.get_thread_id()


def workflow_runner() -> SandboxedWorkflowRunner:
    """The sandbox that every worker and replay of ours uses."""
    return _Sandbox(restrictions=SandboxRestrictions.default.with_passthrough_modules(*PASSED_THROUGH))


def replayer(data_converter: DataConverter) -> Replayer:
    """A replayer of every workflow, as a worker of this build would run it."""
    return Replayer(
        workflows=list(WORKFLOWS),
        data_converter=data_converter,
        workflow_runner=workflow_runner(),
        workflow_failure_exception_types=list(FAILURE_TYPES),
    )
