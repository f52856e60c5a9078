"""Every schedule, declared in one place; start-up makes the server's schedules equal to these."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from temporalio.client import (
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
)

from workflows.escrow.watch import EscrowWatchWorkflow
from workflows.limits import TASK_TIMEOUT
from workflows.reconciliation import ReconciliationSweepWorkflow, Sweep
from workflows.retention import RetentionWorkflow


def schedules(task_queue: str) -> Mapping[str, Schedule]:
    """The schedules by id, for the workers of ``task_queue``."""
    return {
        "holdfast:escrow-watch": Schedule(
            action=ScheduleActionStartWorkflow(
                EscrowWatchWorkflow.run,
                id="escrow-watch",
                task_queue=task_queue,
                task_timeout=TASK_TIMEOUT,
                static_summary="bring back the workflows of overdue escrows",
            ),
            spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=timedelta(minutes=5))], time_zone_name="UTC"),
            policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=timedelta(minutes=5)),
        ),
        "holdfast:retention": Schedule(
            action=ScheduleActionStartWorkflow(
                RetentionWorkflow.run,
                id="retention",
                task_queue=task_queue,
                task_timeout=TASK_TIMEOUT,
                static_summary="delete expired idempotency keys",
            ),
            spec=ScheduleSpec(
                intervals=[ScheduleIntervalSpec(every=timedelta(hours=1), offset=timedelta(minutes=7))],
                time_zone_name="UTC",
            ),
            policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=timedelta(hours=1)),
        ),
        "holdfast:reconciliation": Schedule(
            action=ScheduleActionStartWorkflow(
                ReconciliationSweepWorkflow.run,
                Sweep(),
                id="reconciliation-sweep",
                task_queue=task_queue,
                task_timeout=TASK_TIMEOUT,
                static_summary="compare what is new in every tenant's books",
            ),
            spec=ScheduleSpec(
                intervals=[ScheduleIntervalSpec(every=timedelta(hours=1), offset=timedelta(minutes=17))],
                time_zone_name="UTC",
            ),
            policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=timedelta(minutes=30)),
        ),
        "holdfast:reconciliation-full": Schedule(
            action=ScheduleActionStartWorkflow(
                ReconciliationSweepWorkflow.run,
                Sweep(full=True),
                id="reconciliation-sweep-full",
                task_queue=task_queue,
                task_timeout=TASK_TIMEOUT,
                static_summary="compare every tenant's books from the first transaction on",
            ),
            spec=ScheduleSpec(
                intervals=[ScheduleIntervalSpec(every=timedelta(days=1), offset=timedelta(hours=2, minutes=37))],
                time_zone_name="UTC",
            ),
            policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=timedelta(hours=12)),
        ),
    }
