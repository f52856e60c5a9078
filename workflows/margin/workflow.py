"""``MarginCheckWorkflow``: one look at a margin account, from request to snapshot."""

from __future__ import annotations

from temporalio import workflow
from temporalio.exceptions import FailureError

with workflow.unsafe.imports_passed_through():
    from activities.failures import step_failure
    from activities.margin.messages import CheckMargin, CheckOutcome, RecordCheck
    from activities.margin.steps import MarginActivities
    from workflows.steps import run_step


@workflow.defn
class MarginCheckWorkflow:
    """Looks at an account once; a refusal fails the run with the refusal's code."""

    @workflow.run
    async def run(self, request: CheckMargin) -> CheckOutcome:
        """What was found."""
        try:
            outcome = await run_step(
                MarginActivities.check,
                RecordCheck(request=request, at=workflow.now()),
                summary="value the account and tell its user",
            )
        except FailureError as error:
            failure = step_failure(error)
        else:
            workflow.set_current_details(_told(outcome))
            return outcome
        # Out here, so that the failure does not become its own cause.
        raise failure


def _told(outcome: CheckOutcome) -> str:
    """What an operator reads in the Temporal UI."""
    if outcome.status is None:
        return "there was nothing to value"
    health = "no debt" if outcome.health_score is None else f"health {outcome.health_score}"
    return f"{outcome.status}, {health}" + (f", told as {outcome.event_type}" if outcome.event_type else "")
