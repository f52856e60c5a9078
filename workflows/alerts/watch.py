"""``AlertWatchWorkflow``: brings back the workflows of alerts that are overdue; runs on a schedule."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.alerts.watch import AlertWatchActivities
    from workflows.limits import STEP_RETRY, STEP_TIMEOUT

_WATCH_LIMIT = timedelta(seconds=50)
_HEARTBEAT_TIMEOUT = timedelta(seconds=10)


@workflow.defn
class AlertWatchWorkflow:
    """One look over the alerts of all tenants."""

    @workflow.run
    async def run(self) -> int:
        """How many alerts were overdue."""
        overdue = await workflow.execute_activity_method(
            AlertWatchActivities.resume_overdue,
            start_to_close_timeout=STEP_TIMEOUT,
            schedule_to_close_timeout=_WATCH_LIMIT,
            heartbeat_timeout=_HEARTBEAT_TIMEOUT,
            retry_policy=STEP_RETRY,
            summary="bring back the workflows of alerts that are overdue",
        )
        workflow.set_current_details(f"{overdue} alerts were overdue")
        return overdue
