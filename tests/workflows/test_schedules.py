"""What runs by the clock: each at its pace, never two at once, and caught up after an outage."""

from __future__ import annotations

from datetime import timedelta

from temporalio.client import ScheduleActionStartWorkflow, ScheduleOverlapPolicy

from tests.desk import TASK_QUEUE
from workflows.chain.reconciliation import BooksSweep
from workflows.prices import RefreshPrices
from workflows.reconciliation import Sweep
from workflows.schedules import schedules

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


def test_every_schedule_has_its_workflow_and_its_pace() -> None:
    found = {}
    for name, schedule in schedules(TASK_QUEUE).items():
        action, [interval] = schedule.action, schedule.spec.intervals
        assert isinstance(action, ScheduleActionStartWorkflow)
        found[name.removeprefix("holdfast:")] = (action.workflow, *action.args, interval.every)
    assert found == {
        "escrow-watch": ("EscrowWatchWorkflow", 5 * MINUTE),
        "transfer-watch": ("TransferWatchWorkflow", 5 * MINUTE),
        "settlement-watch": ("SettlementWatchWorkflow", MINUTE),
        "alert-watch": ("AlertWatchWorkflow", MINUTE),
        "webhook-watch": ("WebhookWatchWorkflow", MINUTE),
        "backfill-watch": ("BackfillWatchWorkflow", MINUTE),
        "backfill-retention": ("BackfillRetentionWorkflow", DAY),
        "chain-settlement-watch": ("ChainSettlementWatchWorkflow", MINUTE),
        "chain-reconciliation": ("ChainReconciliationWorkflow", BooksSweep(), HOUR),
        "relayer-watch": ("RelayerWatchWorkflow", MINUTE),
        "book-watch": ("BookWatchWorkflow", MINUTE),
        "book-audit": ("BookAuditWorkflow", 15 * MINUTE),
        "price-refresh": ("PriceRefreshWorkflow", RefreshPrices(), MINUTE / 4),
        "price-partitions": ("PricePartitionsWorkflow", DAY),
        "retention": ("RetentionWorkflow", HOUR),
        "reconciliation": ("ReconciliationSweepWorkflow", Sweep(), HOUR),
        "reconciliation-full": ("ReconciliationSweepWorkflow", Sweep(full=True), DAY),
    }


def test_no_schedule_runs_twice_at_once_or_forgets_an_outage() -> None:
    for schedule in schedules(TASK_QUEUE).values():
        assert schedule.policy.overlap is ScheduleOverlapPolicy.SKIP
        [interval] = schedule.spec.intervals
        assert schedule.policy.catchup_window is not None
        assert schedule.policy.catchup_window >= min(interval.every, HOUR / 2)
        assert schedule.spec.time_zone_name == "UTC"
