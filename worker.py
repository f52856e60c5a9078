"""The worker process: Temporal's work on one side, the relay of events on the other. The composition root."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from prometheus_client import make_asgi_app
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.service import RPCError
from temporalio.worker import PollerBehaviorAutoscaling, Worker, WorkerDeploymentConfig

from activities.alerts.intake import AlertConsumer
from activities.alerts.sending import Senders, SendingActivities
from activities.alerts.steps import AlertActivities
from activities.alerts.watch import AlertWatchActivities
from activities.book.audit import BookAuditActivities
from activities.book.steps import BOOK_GROUPS, BookActivities
from activities.book.watch import BookWatchActivities
from activities.chain.gauges import ChainGauges
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
from activities.prices.steps import PriceActivities, keep_partitions
from activities.publishing import Publishing, consumer_name
from activities.reconciliation.steps import ReconciliationActivities
from activities.relay import Relay
from activities.retention import RetentionActivities
from activities.sealing.sealer import Sealer, Signer
from activities.settlement.escrow import SettlementEscrowActivities
from activities.settlement.ledger import SettlementLedgerActivities
from activities.settlement.watch import SettlementWatchActivities
from activities.transfers.chain import ChainActivities
from activities.transfers.steps import PendingTransferActivities
from activities.transfers.watch import TransferWatchActivities
from activities.webhooks import fanout
from activities.webhooks.lane import Pace
from activities.webhooks.steps import WebhookActivities, WebhookWatchActivities
from chainwork import chain_steps, create_backfill_worker, create_chain_worker, settling_steps
from db.doorbell import Doorbell
from db.engine import Role, create_engine, transaction
from db.migrate import SchemaMismatch, verify_schema
from domain.errors import Unavailable
from kit.build import build_id
from kit.clock import now
from kit.logs import configure_logging
from kit.settings import EXIT_CONFIGURATION, WorkerSettings, load
from kit.signing import KeyUnusable, SigningKey, load_public
from kit.temporal import DEPLOYMENT_NAME, connect, forward_core_logs
from outside import (
    chain_tokens,
    create_chains,
    create_outward,
    create_price_desk,
    create_publisher,
    create_senders,
    local_senders,
)
from workflows.client import EscrowClient
from workflows.limits import webhook_queue
from workflows.listeners import LISTENERS, margin_check
from workflows.registry import FAILURE_TYPES, WORKFLOWS, workflow_runner
from workflows.waking import Waker
from workflows.webhooks.client import wake_endpoint

GRACE = timedelta(seconds=10)
EXIT_UNAVAILABLE = 3

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
#: Connections for turns: each is needed for moments.
WEBHOOK_CONNECTIONS = 8
#: Connections for what follows and fills in chains.
CHAIN_CONNECTIONS = 12

_log = logging.getLogger("worker")


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
    pending, chain = PendingTransferActivities(tenants, doorbell), ChainActivities(tenants, doorbell)
    ledger_lane, settlement_watch = SettlementLedgerActivities(tenants, doorbell), SettlementWatchActivities(engine)
    escrow_lane = SettlementEscrowActivities(tenants, doorbell, EscrowClient(client, task_queue))
    reconciliation = ReconciliationActivities(tenants, engine, doorbell)
    pricing = PriceActivities(engine, Doorbell(engine), prices or PriceDesk())
    activities: list[Any] = [
        *_book(engine, book_groups),
        escrow.open,
        escrow.apply,
        ledger.transfer,
        retention.delete_idempotency_keys,
        watch.resume_overdue,
        pending.open,
        pending.resolve,
        chain.post_chain,
        TransferWatchActivities(engine).resume_overdue,
        ledger_lane.settle,
        escrow_lane.take_up,
        escrow_lane.deliver,
        escrow_lane.record,
        settlement_watch.resume_waiting,
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
        *settling_steps(tenants, engine, doorbell, EscrowClient(client, task_queue), tokens or {}),
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


async def run(settings: WorkerSettings) -> None:
    """Work until SIGTERM or SIGINT, then finish what is under way."""
    build = settings.holdfast_build_id or build_id()
    signer, prices, outward = _signer(settings), create_price_desk(settings), create_outward(settings)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    tenants = create_engine(settings.database_url, Role.APP, pool_size=settings.database_pool_size)
    engine = create_engine(settings.database_url, Role.ENGINE, pool_size=8 + settings.book_groups)
    sending = create_engine(settings.database_url, Role.ENGINE, pool_size=WEBHOOK_CONNECTIONS)
    chains = create_engine(settings.database_url, Role.ENGINE, pool_size=CHAIN_CONNECTIONS)
    desks, tokens = create_chains(settings, chains), chain_tokens(settings)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(tenants.dispose)
        stack.push_async_callback(engine.dispose)
        stack.push_async_callback(sending.dispose)
        stack.push_async_callback(chains.dispose)
        for desk in desks.values():
            stack.push_async_callback(desk.close)
        stack.push_async_callback(outward.close)
        stack.push_async_callback(prices.close)
        senders = create_senders(settings, engine, outward)
        stack.push_async_callback(senders.close)
        try:
            client = await _reach(settings, tenants)
            async with transaction(engine) as connection:
                # A schedule makes them ahead; a database that is new has none yet.
                await keep_partitions(connection, now().date())
        except (Unavailable, SchemaMismatch) as error:
            print(f"worker: {error}", file=sys.stderr, flush=True)
            raise SystemExit(EXIT_UNAVAILABLE) from None
        worker = create_worker(
            client,
            settings.temporal_task_queue,
            build,
            tenants=tenants,
            engine=engine,
            prices=prices,
            book_groups=settings.book_groups,
            senders=senders,
            base_url=settings.public_url,
            tokens=tokens,
        )
        webhooks = create_webhook_worker(client, settings.temporal_task_queue, engine=sending, outward=outward)
        following = create_chain_worker(
            client, settings.temporal_task_queue, engine=chains, chains=desks, tokens=tokens
        )
        filling = create_backfill_worker(client, settings.temporal_task_queue, engine=chains, chains=desks)
        feed = create_relay(
            client,
            settings.temporal_task_queue,
            settings.database_url,
            engine=engine,
            publisher=create_publisher(settings),
        )
        relay = asyncio.create_task(feed.run(), name="relay")
        tasks = [relay, asyncio.create_task(_until(worker, stop), name="worker")]
        for beside, name in ((webhooks, "webhooks"), (following, "chains"), (filling, "backfill")):
            tasks.append(asyncio.create_task(_until(beside, stop), name=name))
        tasks.append(asyncio.create_task(Sealer(engine, signer).run(), name="sealer"))
        tasks.append(asyncio.create_task(ChainGauges(engine).run(), name="chain gauges"))
        if settings.worker_health_port:
            tasks.append(asyncio.create_task(_serve_health(settings, worker, relay), name="health"))
        _log.info("worker started", extra={"build_id": build, "task_queue": settings.temporal_task_queue})
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        await asyncio.gather(*tasks[1:5], return_exceptions=True)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()


def _signer(settings: WorkerSettings) -> Signer:
    """With what checkpoints are signed; there is no worker that seals and does not sign."""
    try:
        key = SigningKey.load(settings.seal_key_file)
        older = tuple(load_public(Path(file)) for file in settings.seal_old_public_keys.split(":") if file)
        settings.checkpoint_dir.mkdir(parents=True, exist_ok=True)
    except KeyUnusable as error:
        print(f"configuration: SEAL_KEY_FILE, SEAL_OLD_PUBLIC_KEYS: {error}", file=sys.stderr, flush=True)
    except OSError as error:
        print(f"configuration: CHECKPOINT_DIR {error}", file=sys.stderr, flush=True)
    else:
        return Signer(key, settings.checkpoint_dir, settings.seal_origin, settings.checkpoint_seconds, older)
    raise SystemExit(EXIT_CONFIGURATION)


async def _until(worker: Worker, stop: asyncio.Event) -> None:
    async with worker:
        await stop.wait()


async def _serve_health(settings: WorkerSettings, worker: Worker, relay: asyncio.Task[None]) -> None:
    """``/healthz`` is 200 while both halves of the process run; ``/metrics`` is Prometheus text."""

    async def healthz(_: Request) -> JSONResponse:
        down = [name for name, up in (("worker", worker.is_running), ("relay", not relay.done())) if not up]
        return JSONResponse({"status": "down" if down else "ok", "down": down}, status_code=503 if down else 200)

    app = Starlette(routes=[Route("/healthz", healthz), Mount("/metrics", make_asgi_app())])
    server = _HealthServer(
        uvicorn.Config(
            app,
            host=settings.worker_health_host,
            port=settings.worker_health_port,
            log_config=None,
            access_log=False,
            lifespan="off",
        )
    )
    await server.serve()


class _HealthServer(uvicorn.Server):
    """A server that leaves the process's signals to the worker."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


async def _reach(settings: WorkerSettings, tenants: AsyncEngine) -> Client:
    """A connected client, after the database answered too; raises ``Unavailable`` or ``SchemaMismatch``."""
    async with transaction(tenants) as connection:
        await verify_schema(connection)
    try:
        client = await connect(settings.temporal_address, settings.temporal_namespace)
    except RuntimeError as error:
        raise Unavailable(f"TEMPORAL_ADDRESS {settings.temporal_address}", str(error)) from error
    try:
        await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=client.namespace))
    except RPCError as error:
        raise Unavailable(f"TEMPORAL_NAMESPACE {client.namespace}", error.message) from error
    return client


def main() -> None:
    """Run the worker; exits with 2 for a setting at fault and 3 when a server cannot be used at start-up."""
    settings = load(WorkerSettings)
    configure_logging("worker", level=settings.log_level, fmt=settings.log_format)
    forward_core_logs()
    uvloop.run(run(settings))


if __name__ == "__main__":
    main()
