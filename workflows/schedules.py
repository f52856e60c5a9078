"""Every schedule, declared in one place; start-up makes the server's schedules equal to these."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any

from temporalio.client import (
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
)

from workflows.alerts.watch import AlertWatchWorkflow
from workflows.book import BookAuditWorkflow, BookWatchWorkflow
from workflows.chain.backfill_watch import BackfillRetentionWorkflow, BackfillWatchWorkflow
from workflows.chain.reconciliation import BooksSweep, ChainReconciliationWorkflow
from workflows.chain.relayer import RelayerWatchWorkflow
from workflows.chain.settlement import ChainSettlementWatchWorkflow
from workflows.escrow.watch import EscrowWatchWorkflow
from workflows.limits import TASK_TIMEOUT
from workflows.prices import REFRESH_LIMIT, PricePartitionsWorkflow, PriceRefreshWorkflow, RefreshPrices
from workflows.reconciliation import ReconciliationSweepWorkflow, Sweep
from workflows.retention import RetentionWorkflow
from workflows.settlement import SettlementWatchWorkflow
from workflows.transfers.watch import TransferWatchWorkflow
from workflows.webhooks import WebhookWatchWorkflow

_MINUTE, _HOUR, _DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)


#: How often prices are refreshed unless a setting says otherwise.
PRICE_REFRESH_SECONDS = 15


def schedules(task_queue: str, *, price_refresh_seconds: int = PRICE_REFRESH_SECONDS) -> Mapping[str, Schedule]:
    """The schedules by id, for the workers of ``task_queue``."""

    start = partial(_start, task_queue)
    return {
        **_watches(start),
        **_chains(start),
        "holdfast:book-audit": _every(
            15 * _MINUTE,
            start(
                BookAuditWorkflow.run,
                name="book-audit",
                summary="recompute every margin account's level in the database",
            ),
            offset=4 * _MINUTE,
        ),
        "holdfast:retention": _every(
            _HOUR,
            start(RetentionWorkflow.run, name="retention", summary="delete expired idempotency keys"),
            offset=7 * _MINUTE,
        ),
        "holdfast:backfill-retention": _every(
            _DAY,
            start(BackfillRetentionWorkflow.run, name="backfill-retention", summary="delete old backfill jobs"),
            offset=timedelta(hours=3, minutes=19),
            catchup=_DAY // 2,
        ),
        "holdfast:reconciliation": _every(
            _HOUR,
            start(
                ReconciliationSweepWorkflow.run,
                Sweep(),
                name="reconciliation-sweep",
                summary="compare what is new in every tenant's books",
            ),
            offset=17 * _MINUTE,
            catchup=_HOUR // 2,
        ),
        "holdfast:reconciliation-full": _every(
            _DAY,
            start(
                ReconciliationSweepWorkflow.run,
                Sweep(full=True),
                name="reconciliation-sweep-full",
                summary="compare every tenant's books from the first transaction on",
            ),
            offset=timedelta(hours=2, minutes=37),
            catchup=_DAY // 2,
        ),
        **_prices(start, price_refresh_seconds),
    }


def _watches(start: Callable[..., ScheduleActionStartWorkflow]) -> Mapping[str, Schedule]:
    """Who look for what nobody works for."""
    return {
        "holdfast:escrow-watch": _every(
            5 * _MINUTE,
            start(EscrowWatchWorkflow.run, name="escrow-watch", summary="bring back the workflows of overdue escrows"),
        ),
        "holdfast:transfer-watch": _every(
            5 * _MINUTE,
            start(
                TransferWatchWorkflow.run,
                name="transfer-watch",
                summary="bring back the workflows of overdue pending transfers",
            ),
            offset=2 * _MINUTE,
        ),
        "holdfast:settlement-watch": _every(
            _MINUTE,
            start(
                SettlementWatchWorkflow.run,
                name="settlement-watch",
                summary="wake the workflows of tenants whose commands wait",
            ),
        ),
        "holdfast:webhook-watch": _every(
            _MINUTE,
            start(
                WebhookWatchWorkflow.run,
                name="webhook-watch",
                summary="wake the workflows of endpoints whose deliveries wait",
            ),
            offset=timedelta(seconds=40),
        ),
        "holdfast:alert-watch": _every(
            _MINUTE,
            start(
                AlertWatchWorkflow.run,
                name="alert-watch",
                summary="bring back the workflows of alerts that are overdue",
            ),
            offset=timedelta(seconds=50),
        ),
        "holdfast:book-watch": _every(
            _MINUTE,
            start(BookWatchWorkflow.run, name="book-watch", summary="wake the margin book when it is behind"),
            offset=timedelta(seconds=20),
        ),
    }


def _chains(start: Callable[..., ScheduleActionStartWorkflow]) -> Mapping[str, Schedule]:
    """Who look after what is followed on chains."""
    return {
        "holdfast:chain-settlement-watch": _every(
            _MINUTE,
            start(
                ChainSettlementWatchWorkflow.run,
                name="chain-settlement-watch",
                summary="wake the settlement of relayers whose final events wait",
            ),
            offset=timedelta(seconds=10),
        ),
        "holdfast:backfill-watch": _every(
            _MINUTE,
            start(
                BackfillWatchWorkflow.run,
                name="backfill-watch",
                summary="bring back the workflows of backfill jobs that show nothing",
            ),
            offset=timedelta(seconds=30),
        ),
        "holdfast:relayer-watch": _every(
            _MINUTE,
            start(
                RelayerWatchWorkflow.run,
                name="relayer-watch",
                summary="bring back relayers that hear nothing of their chain",
            ),
            offset=timedelta(seconds=30),
        ),
        "holdfast:chain-reconciliation": _every(
            _HOUR,
            start(
                ChainReconciliationWorkflow.run,
                BooksSweep(),
                name="chain-reconciliation",
                summary="compare what contracts say of their money with events and ledger",
            ),
            offset=27 * _MINUTE,
            catchup=_HOUR // 2,
        ),
    }


def _prices(start: Callable[..., ScheduleActionStartWorkflow], refresh_seconds: int) -> Mapping[str, Schedule]:
    return {
        "holdfast:price-refresh": _every(
            timedelta(seconds=refresh_seconds),
            start(
                PriceRefreshWorkflow.run,
                RefreshPrices(),
                name="price-refresh",
                summary="ask every source, and make one price of what they say",
                limit=REFRESH_LIMIT,
            ),
            # A refresh that was missed is no loss: the next one sees what it would have seen.
            catchup=timedelta(seconds=max(10, refresh_seconds)),
        ),
        "holdfast:price-partitions": _every(
            _DAY,
            start(
                PricePartitionsWorkflow.run,
                name="price-partitions",
                summary="make the partitions of price history before their months begin",
            ),
            offset=timedelta(hours=1, minutes=11),
            catchup=_DAY // 2,
        ),
    }


def _start(
    task_queue: str, run: Any, *arguments: Any, name: str, summary: str, limit: timedelta | None = None
) -> ScheduleActionStartWorkflow:
    return ScheduleActionStartWorkflow(
        run,
        *arguments,
        id=name,
        task_queue=task_queue,
        task_timeout=TASK_TIMEOUT,
        execution_timeout=limit,
        static_summary=summary,
    )


def _every(
    interval: timedelta,
    action: ScheduleActionStartWorkflow,
    *,
    offset: timedelta | None = None,
    catchup: timedelta | None = None,
) -> Schedule:
    """At multiples of ``interval`` since the epoch, in UTC; never two at once. What was missed while the server was
    away is caught up for ``catchup``, one interval unless said."""
    return Schedule(
        action=action,
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=interval, offset=offset)], time_zone_name="UTC"),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=catchup or interval),
    )
