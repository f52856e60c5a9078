"""The worker process: Temporal's work on one side, the relay of events on the other. The composition root."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

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
from temporalio.service import RPCError
from temporalio.worker import Worker

from activities.chain.gauges import ChainGauges
from activities.prices.steps import keep_partitions
from activities.sealing.sealer import Sealer, Signer
from chainwork import create_backfill_worker, create_chain_worker
from crew import create_relay, create_webhook_worker, create_worker
from db.engine import Role, create_engine, transaction
from db.migrate import SchemaMismatch, verify_schema
from domain.errors import Unavailable
from kit.build import build_id
from kit.clock import now
from kit.logs import configure_logging
from kit.settings import EXIT_CONFIGURATION, WorkerSettings, load
from kit.signing import KeyUnusable, SigningKey, load_public
from kit.temporal import connect, forward_core_logs
from outside import (
    chain_tokens,
    create_chains,
    create_outward,
    create_price_desk,
    create_publisher,
    create_senders,
)

EXIT_UNAVAILABLE = 3

#: Connections for turns: each is needed for moments.
WEBHOOK_CONNECTIONS = 8
#: Connections for what follows and fills in chains.
CHAIN_CONNECTIONS = 12

_log = logging.getLogger("worker")


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
        beside = {"webhooks": webhooks, "chains": following, "backfill": filling}
        tasks += [asyncio.create_task(_until(each, stop), name=name) for name, each in beside.items()]
        tasks.append(asyncio.create_task(Sealer(engine, signer).run(), name="sealer"))
        tasks.append(asyncio.create_task(ChainGauges(engine).run(), name="chain gauges"))
        if settings.worker_health_port:
            tasks.append(asyncio.create_task(_serve_health(settings, worker, relay), name="health"))
        _log.info("worker started", extra={"build_id": build, "task_queue": settings.temporal_task_queue})
        await _until_one_ends(tasks, stop, gently=1 + len(beside))


async def _until_one_ends(tasks: list[asyncio.Task[None]], stop: asyncio.Event, *, gently: int) -> None:
    """Wait for the first of them to end, then end the others; those behind the first, ``gently`` many, finish what is
    under way. Raises what the first one met."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    await asyncio.gather(*tasks[1 : 1 + gently], return_exceptions=True)
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
