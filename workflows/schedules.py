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
from workflows.retention import RetentionWorkflow
from workflows.settlement.watch import SettlementWatchWorkflow
from workflows.transfers.watch import TransferWatchWorkflow


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
        "holdfast:settlement-watch": Schedule(
            action=ScheduleActionStartWorkflow(
                SettlementWatchWorkflow.run,
                id="settlement-watch",
                task_queue=task_queue,
                task_timeout=TASK_TIMEOUT,
                static_summary="wake the workflows of tenants whose commands wait",
            ),
            spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=timedelta(minutes=1))], time_zone_name="UTC"),
            policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=timedelta(minutes=1)),
        ),
        "holdfast:transfer-watch": Schedule(
            action=ScheduleActionStartWorkflow(
                TransferWatchWorkflow.run,
                id="transfer-watch",
                task_queue=task_queue,
                task_timeout=TASK_TIMEOUT,
                static_summary="bring back the workflows of overdue pending transfers",
            ),
            spec=ScheduleSpec(
                intervals=[ScheduleIntervalSpec(every=timedelta(minutes=5), offset=timedelta(minutes=2))],
                time_zone_name="UTC",
            ),
            policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=timedelta(minutes=5)),
        ),
    }
