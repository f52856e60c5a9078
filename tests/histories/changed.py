"""A careless change of a workflow, to see that replaying recorded histories notices it."""

from __future__ import annotations

from temporalio import workflow

from workflows.escrow.workflow import EscrowWorkflow

with workflow.unsafe.imports_passed_through():
    from activities.escrow.messages import EscrowOutcome, OpenEscrow


@workflow.defn(name="EscrowWorkflow")
class CarelessEscrowWorkflow(EscrowWorkflow):
    """Sleeps before it does what it always did."""

    @workflow.init
    def __init__(self, opening: OpenEscrow) -> None:
        super().__init__(opening)

    @workflow.run
    async def run(self, opening: OpenEscrow) -> EscrowOutcome:
        await workflow.sleep(1)
        return await super().run(opening)
