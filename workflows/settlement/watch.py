"""``SettlementWatchWorkflow``: wakes the workflows of tenants whose commands wait; runs on a schedule."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.settlement.watch import SettlementWatchActivities
    from workflows.limits import STEP_RETRY, STEP_TIMEOUT

_WATCH_LIMIT = timedelta(seconds=50)
_HEARTBEAT_TIMEOUT = timedelta(seconds=10)


@workflow.defn
class SettlementWatchWorkflow:
    """One look over the commands of all tenants."""

    @workflow.run
    async def run(self) -> int:
        """How many tenants had commands that waited too long."""
        waiting = await workflow.execute_activity_method(
            SettlementWatchActivities.resume_waiting,
            start_to_close_timeout=STEP_TIMEOUT,
            schedule_to_close_timeout=_WATCH_LIMIT,
            heartbeat_timeout=_HEARTBEAT_TIMEOUT,
            retry_policy=STEP_RETRY,
            summary="wake the workflows of tenants whose commands wait",
        )
        workflow.set_current_details(f"{waiting} tenants had commands that waited too long")
        return waiting
