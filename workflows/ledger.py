"""``TransferWorkflow``: one deposit, withdrawal or reversal, from request to ledger."""

from __future__ import annotations

from temporalio import workflow
from temporalio.exceptions import FailureError

with workflow.unsafe.imports_passed_through():
    from activities.failures import step_failure
    from activities.ledger.messages import RecordTransfer, TransferKind, TransferOutcome, TransferRequest
    from activities.ledger.steps import LedgerActivities
    from workflows.steps import run_step

__all__ = ["TransferKind", "TransferOutcome", "TransferRequest", "TransferWorkflow"]


@workflow.defn
class TransferWorkflow:
    """Books one transfer; a refusal fails the run with the refusal's code."""

    @workflow.run
    async def run(self, request: TransferRequest) -> TransferOutcome:
        """The transaction that stands for the request."""
        try:
            return await run_step(
                LedgerActivities.transfer,
                RecordTransfer(request=request, at=workflow.now()),
                summary=f"book the {request.kind}",
            )
        except FailureError as error:
            failure = step_failure(error)
        # Out here, so that the failure does not become its own cause.
        raise failure
