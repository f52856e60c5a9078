"""Who works: the workers with their workflows and activities, and the relay with its consumers.

A part of the composition root, beside ``worker.py``; ``chainwork.py`` has the part of chains.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.worker import PollerBehaviorAutoscaling, Worker, WorkerDeploymentConfig

from activities.alerts.intake import AlertConsumer
from activities.alerts.sending import Senders, SendingActivities
from activities.alerts.steps import AlertActivities
from activities.alerts.watch import AlertWatchActivities
from activities.book.audit import BookAuditActivities
from activities.book.steps import BOOK_GROUPS, BookActivities
from activities.book.watch import BookWatchActivities
from activities.chain.settling import Tokens
from activities.consuming import Consumer
from activities.dispatch import CONSUMER, Dispatcher
from activities.escrow.steps import EscrowActivities
from activities.escrow.watch import EscrowWatchActivities
from activities.failures import FailureInterceptor
from activities.ledger.steps import LedgerActivities
from activities.margin import published, sync
from activities.margin.steps import MarginActivities
from activities.ports import Outward, Publisher
from activities.prices.desk import PriceDesk
from activities.prices.steps import PriceActivities
from activities.publishing import Publishing, consumer_name
from activities.reconciliation.steps import ReconciliationActivities
from activities.relay import Relay
from activities.retention import RetentionActivities
from activities.settlement.escrow import SettlementEscrowActivities
from activities.settlement.ledger import SettlementLedgerActivities
from activities.settlement.watch import SettlementWatchActivities
from activities.transfers.chain import ChainActivities
from activities.transfers.steps import PendingTransferActivities
from activities.transfers.watch import TransferWatchActivities
from activities.webhooks import fanout
from activities.webhooks.lane import Pace
from activities.webhooks.steps import WebhookActivities, WebhookWatchActivities
from chainwork import chain_steps, settling_steps
from db.doorbell import Doorbell
from kit.temporal import DEPLOYMENT_NAME
from outside import (
    local_senders,
)
from workflows.client import EscrowClient
from workflows.limits import webhook_queue
from workflows.listeners import LISTENERS, margin_check
from workflows.registry import FAILURE_TYPES, WORKFLOWS, workflow_runner
from workflows.waking import Waker
from workflows.webhooks.client import wake_endpoint

#: What is under way when a process is told to stop has so long to end.
GRACE = timedelta(seconds=10)

#: How much a worker does at once, and how it asks for work; the benches' bare worker goes at the same pace.
PACE: dict[str, Any] = {
    "max_concurrent_workflow_tasks": 40,
    "max_concurrent_local_activities": 40,
    "max_concurrent_activities": 20,
    "workflow_task_poller_behavior": PollerBehaviorAutoscaling(initial=10, maximum=40),
    "sticky_queue_schedule_to_start_timeout": timedelta(seconds=1),
    "graceful_shutdown_timeout": GRACE,
}

#: Endpoints whose turns a process takes at a time; one that hangs holds one of them.
WEBHOOK_TURNS_MAX = 500


def create_worker(
    client: Client,
    task_queue: str,
    build: str,
    *,
    tenants: AsyncEngine,
    engine: AsyncEngine,
    deployment: str = DEPLOYMENT_NAME,
    prices: PriceDesk | None = None,
    book_groups: int = BOOK_GROUPS,
    senders: Senders | None = None,
    base_url: str | None = None,
    tokens: Tokens | None = None,
) -> Worker:
    """A worker of build ``build``. ``tenants`` acts under row-level security, ``engine`` sees every tenant.

    ``prices`` says whom refreshes ask; without it nobody. ``senders`` say who brings alerts to people; without them the
    local mailbox keeps what people would get. ``base_url`` is where people reach us, for links in messages. ``tokens``
    say what the tokens of chains are here; what is in another is not kept.
    """
    doorbell = Doorbell(tenants)
    escrow, ledger = EscrowActivities(tenants, doorbell), LedgerActivities(tenants, doorbell)
    retention, watch = RetentionActivities(engine), EscrowWatchActivities(engine)
    reconciliation = ReconciliationActivities(tenants, engine, doorbell)
    pricing = PriceActivities(engine, Doorbell(engine), prices or PriceDesk())
    escrows = EscrowClient(client, task_queue)
    activities: list[Any] = [
        *_book(engine, book_groups),
        escrow.open,
        escrow.apply,
        ledger.transfer,
        retention.delete_idempotency_keys,
        watch.resume_overdue,
        *_transfers(tenants, engine, doorbell),
        *_commands(tenants, engine, doorbell, escrows),
        reconciliation.tenants,
        reconciliation.begin,
        reconciliation.compare,
        reconciliation.finish,
        reconciliation.clear,
        pricing.sources,
        pricing.ask,
        pricing.record,
        pricing.keep_partitions,
        MarginActivities(tenants, doorbell).check,
        *_alerting(tenants, engine, doorbell, senders or local_senders(engine), base_url),
        WebhookWatchActivities(engine).resume_waiting,
        *chain_steps(tenants, engine, doorbell),
        *settling_steps(tenants, engine, doorbell, escrows, tokens or {}),
    ]
    return Worker(
        client,
        task_queue=task_queue,
        workflows=list(WORKFLOWS),
        activities=activities,
        workflow_runner=workflow_runner(),
        workflow_failure_exception_types=list(FAILURE_TYPES),
        interceptors=[FailureInterceptor()],
        deployment_config=WorkerDeploymentConfig(
            version=WorkerDeploymentVersion(deployment_name=deployment, build_id=build),
            use_worker_versioning=True,
            default_versioning_behavior=VersioningBehavior.PINNED,
        ),
        **PACE,
    )


def _book(engine: AsyncEngine, groups: int) -> list[Any]:
    """The steps of the margin book; ``engine`` sees every tenant."""
    book = BookActivities(engine, Doorbell(engine), groups=groups)
    watch, audit = BookWatchActivities(engine), BookAuditActivities(engine, Doorbell(engine))
    return [book.plan, book.revalue, watch.wake_behind, audit.audit]


def _transfers(tenants: AsyncEngine, engine: AsyncEngine, doorbell: Doorbell) -> list[Any]:
    """The steps of transfers in two phases, and of linked ones."""
    pending, chain = PendingTransferActivities(tenants, doorbell), ChainActivities(tenants, doorbell)
    return [pending.open, pending.resolve, chain.post_chain, TransferWatchActivities(engine).resume_overdue]


def _commands(tenants: AsyncEngine, engine: AsyncEngine, doorbell: Doorbell, escrows: EscrowClient) -> list[Any]:
    """The steps of settlement commands, in both of their lanes."""
    ledger = SettlementLedgerActivities(tenants, doorbell)
    escrow = SettlementEscrowActivities(tenants, doorbell, escrows)
    watch = SettlementWatchActivities(engine)
    return [ledger.settle, escrow.take_up, escrow.deliver, escrow.record, watch.resume_waiting]


def _alerting(
    tenants: AsyncEngine, engine: AsyncEngine, doorbell: Doorbell, senders: Senders, base_url: str | None
) -> list[Any]:
    """The steps of alerts."""
    alerts = AlertActivities(tenants, doorbell, vendors=senders.names(), base_url=base_url)
    sending = SendingActivities(tenants, senders)
    return [
        alerts.advance,
        alerts.acknowledge,
        sending.send,
        sending.find,
        AlertWatchActivities(engine).resume_overdue,
    ]


def create_webhook_worker(
    client: Client,
    task_queue: str,
    *,
    engine: AsyncEngine,
    outward: Outward,
    pace: Pace | None = None,
) -> Worker:
    """Who takes endpoints' turns, beside the worker of ``task_queue``; ``engine`` sees every tenant.

    It has no workflows and no version of its own: any build takes any endpoint's turn.
    """
    webhooks = WebhookActivities(engine, Doorbell(engine), outward, pace)
    return Worker(
        client,
        task_queue=webhook_queue(task_queue),
        activities=[webhooks.take_turn],
        interceptors=[FailureInterceptor()],
        max_concurrent_activities=WEBHOOK_TURNS_MAX,
        graceful_shutdown_timeout=timedelta(0),
    )


def create_relay(
    client: Client, task_queue: str, database_url: str, *, engine: AsyncEngine, publisher: Publisher | None = None
) -> Relay:
    """The relay with the consumers beside it; ``engine`` sees every tenant. Without a publisher, none publishes."""
    waker = Waker(client, task_queue)
    margin = sync.MarginSync(engine, waker, margin_check)
    consumers = [
        Consumer(engine, database_url, CONSUMER, Dispatcher(LISTENERS, waker)),
        sync.MarginSyncConsumer(engine, database_url, sync.CONSUMER, margin),
        AlertConsumer(engine, database_url),
        fanout.FanoutConsumer(engine, database_url, fanout.CONSUMER, fanout.Fanout(engine, waker, wake_endpoint)),
    ]
    if publisher is None:
        consumers.append(Consumer(engine, database_url, published.CONSUMER, published.InTheFeed()))
    else:
        consumers.append(Consumer(engine, database_url, consumer_name(publisher), Publishing(publisher)))
    return Relay(engine, database_url, consumers=consumers)
