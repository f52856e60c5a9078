"""Backfill jobs on a schedule: who brings lost ones back, and who deletes old ones."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.chain.backfill_watch import DELETED_AT_ONCE, BackfillWatchActivities
    from workflows.limits import STEP_RETRY, STEP_TIMEOUT

_WATCH_LIMIT = timedelta(seconds=50)
_STEP_LIMIT = timedelta(minutes=5)
_HEARTBEAT_TIMEOUT = timedelta(seconds=10)
_BATCHES_MAX = 200


@workflow.defn
class BackfillWatchWorkflow:
    """One look over the backfill jobs of all tenants."""

    @workflow.run
    async def run(self) -> int:
        """How many jobs showed nothing."""
        idle = await workflow.execute_activity_method(
            BackfillWatchActivities.resume_idle,
            start_to_close_timeout=STEP_TIMEOUT,
            schedule_to_close_timeout=_WATCH_LIMIT,
            heartbeat_timeout=_HEARTBEAT_TIMEOUT,
            retry_policy=STEP_RETRY,
            summary="start the workflows of jobs that show nothing",
        )
        workflow.set_current_details(f"{idle} jobs showed nothing")
        return idle


@workflow.defn
class BackfillRetentionWorkflow:
    """Deletes backfill jobs that ended long ago, batch by batch."""

    @workflow.run
    async def run(self) -> int:
        """How many jobs were deleted."""
        total = 0
        for _ in range(_BATCHES_MAX):
            deleted = await workflow.execute_activity_method(
                BackfillWatchActivities.delete_old,
                start_to_close_timeout=STEP_TIMEOUT,
                schedule_to_close_timeout=_STEP_LIMIT,
                retry_policy=STEP_RETRY,
                summary="delete one batch of old jobs",
            )
            total += deleted
            if deleted < DELETED_AT_ONCE:
                break
        workflow.set_current_details(f"{total} old jobs deleted")
        return total
