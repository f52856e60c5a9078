"""``TransferWatchWorkflow``: brings back the workflows of overdue pending transfers; runs on a schedule."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.transfers.watch import TransferWatchActivities
    from workflows.limits import STEP_RETRY

_WATCH_TIMEOUT = timedelta(minutes=2)
_WATCH_LIMIT = timedelta(minutes=4)
_HEARTBEAT_TIMEOUT = timedelta(seconds=30)


@workflow.defn
class TransferWatchWorkflow:
    """One look over all pending transfers."""

    @workflow.run
    async def run(self) -> int:
        """How many transfers were overdue."""
        overdue = await workflow.execute_activity_method(
            TransferWatchActivities.resume_overdue,
            start_to_close_timeout=_WATCH_TIMEOUT,
            schedule_to_close_timeout=_WATCH_LIMIT,
            heartbeat_timeout=_HEARTBEAT_TIMEOUT,
            retry_policy=STEP_RETRY,
            summary="resume pending transfers whose expiry passed without effect",
        )
        workflow.set_current_details(f"{overdue} overdue pending transfers")
        return overdue
