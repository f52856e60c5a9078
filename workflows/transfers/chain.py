"""``TransferChainWorkflow``: linked transfers, from request to ledger."""

from __future__ import annotations

from temporalio import workflow
from temporalio.exceptions import FailureError

with workflow.unsafe.imports_passed_through():
    from activities.failures import step_failure
    from activities.transfers.chain import ChainActivities
    from activities.transfers.messages import ChainOutcome, ChainRequest, RecordChain
    from workflows.steps import run_step


@workflow.defn
class TransferChainWorkflow:
    """Books a chain; a refusal fails the run with the refusal's code and the link at fault."""

    @workflow.run
    async def run(self, request: ChainRequest) -> ChainOutcome:
        """The chain that stands for the request."""
        try:
            return await run_step(
                ChainActivities.post_chain,
                RecordChain(request=request, at=workflow.now()),
                summary=f"book {len(request.links)} linked transfers",
            )
        except FailureError as error:
            failure = step_failure(error)
        # Out here, so that the failure does not become its own cause.
        raise failure
