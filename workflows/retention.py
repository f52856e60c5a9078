"""``RetentionWorkflow``: deletes what was kept long enough; runs on a schedule."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.retention import BATCH_ROWS, RetentionActivities
    from workflows.limits import STEP_RETRY, STEP_TIMEOUT

_STEP_LIMIT = timedelta(minutes=5)
_BATCHES_MAX = 200


@workflow.defn
class RetentionWorkflow:
    """Deletes expired idempotency keys, batch by batch; what is left after ``_BATCHES_MAX`` goes next time."""

    @workflow.run
    async def run(self) -> int:
        """How many rows were deleted."""
        total = 0
        for _ in range(_BATCHES_MAX):
            deleted = await workflow.execute_activity_method(
                RetentionActivities.delete_idempotency_keys,
                start_to_close_timeout=STEP_TIMEOUT,
                schedule_to_close_timeout=_STEP_LIMIT,
                retry_policy=STEP_RETRY,
                summary="delete one batch of expired idempotency keys",
            )
            total += deleted
            if deleted < BATCH_ROWS:
                break
        workflow.set_current_details(f"{total} expired idempotency keys deleted")
        return total
