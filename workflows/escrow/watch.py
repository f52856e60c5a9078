"""``EscrowWatchWorkflow``: brings back the workflows of overdue escrows; runs on a schedule."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.escrow.watch import EscrowWatchActivities
    from workflows.limits import STEP_RETRY

_WATCH_TIMEOUT = timedelta(minutes=2)
_WATCH_LIMIT = timedelta(minutes=4)
_HEARTBEAT_TIMEOUT = timedelta(seconds=30)


@workflow.defn
class EscrowWatchWorkflow:
    """One look over all open escrows."""

    @workflow.run
    async def run(self) -> int:
        """How many escrows were overdue."""
        overdue = await workflow.execute_activity_method(
            EscrowWatchActivities.resume_overdue,
            start_to_close_timeout=_WATCH_TIMEOUT,
            schedule_to_close_timeout=_WATCH_LIMIT,
            heartbeat_timeout=_HEARTBEAT_TIMEOUT,
            retry_policy=STEP_RETRY,
            summary="resume escrows whose deadline passed without effect",
        )
        workflow.set_current_details(f"{overdue} overdue escrows")
        return overdue
