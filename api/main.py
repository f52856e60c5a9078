"""The API process: its parts, its routes, and its OpenAPI description."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi_swagger import patch_fastapi
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client

from api import (
    alerts,
    backfill,
    chain,
    controls,
    escrow,
    events,
    health,
    identity,
    ledger,
    margin,
    prices,
    problems,
    reconciliation,
    settlement,
    webhooks,
)
from api.auth import Keys
from api.deps import AssetBook, Services
from api.middleware import HttpMetrics, RequestMiddleware
from api.pricebook import PriceBook
from api.receiptdoor import ReceiptDoor, ReceiptMetrics
from api.streams import StreamMetrics, Streams
from db.doorbell import Doorbell
from db.engine import Role, close, create_engine
from db.prices import PRICES_CHANNEL
from domain.errors import Unavailable
from domain.webhooks.addresses import Reach
from kit.chains import ChainsConfig, read_chains
from kit.settings import ApiSettings
from kit.temporal import connect
from workflows.alerts.client import AlertClient
from workflows.chain.backfill_client import BackfillClient
from workflows.chain.relayer_client import RelayerClient
from workflows.client import EscrowClient, PriceClient, ReconciliationClient, TransferClient
from workflows.margin.client import MarginClient
from workflows.webhooks.client import WebhookClient

VERSION = "0.1.0"
DESCRIPTION = """
Escrows that live as long as they need to, on a ledger that balances.

Send an API key with every request, as `X-API-Key` or as `Authorization: Bearer`. Amounts are decimal strings, errors
are RFC 9457 problems with a stable `code`, lists are read by cursor, and every POST takes an `Idempotency-Key`.
"""
TAGS = [
    {"name": "escrows", "description": "Agreements, and the commands by which they move."},
    {"name": "ledger", "description": "Accounts, balances at any instant, and transactions that are never changed."},
    {"name": "controls", "description": "What an operator stops or bounds: freezes, and the limits of accounts."},
    {
        "name": "commands",
        "description": "Settlement commands: taken at once, one by one or by the thousand, and carried out in order. "
        "Each outcome is an event `command.settled`, `command.rejected` or `command.failed` with subject "
        "`command:<command_id>`; each request that left commands is one `commands.received`.",
    },
    {"name": "prices", "description": "What assets are worth, from several sources, and how sure that is."},
    {"name": "margin", "description": "Health of margin accounts, what their users are told, and what would be."},
    {
        "name": "alerts",
        "description": "What users were told, on which ways, and what came of it; who can be told, and how. Receipts "
        "of vendors need no key: they are signed.",
    },
    {
        "name": "webhooks",
        "description": "Endpoints that get events, signed as Standard Webhooks has it, and what came of it.",
    },
    {
        "name": "chain",
        "description": "What is followed on chains, how far, what was seen, and whether all is well.",
    },
    {
        "name": "backfill",
        "description": "Jobs that fill in what is behind the live end of a relayer: how far they are, and what an"
        " operator tells them.",
    },
    {"name": "events", "description": "The durable feed of what happened."},
    {"name": "identity", "description": "Tenants and API keys."},
    {"name": "operations", "description": "Probes and metrics; they need no key."},
]


#: Whose routes are served, in the order of the description.
CONTEXTS = (
    escrow,
    controls,
    ledger,
    reconciliation,
    settlement,
    prices,
    margin,
    alerts,
    webhooks,
    chain,
    backfill,
)


def create_app(settings: ApiSettings) -> FastAPI:
    """The application, which serves while Postgres or Temporal is down. Raises ``ValueError`` for OUTWARD_ALLOW and
    ``ChainsUnusable`` for CHAINS_FILE."""
    reach = Reach.parse(settings.outward_allow)
    chains = ChainsConfig() if settings.chains_file is None else read_chains(settings.chains_file)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    stream_metrics = StreamMetrics(registry)
    receipts = _receipts(settings, ReceiptMetrics(registry))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine = create_engine(settings.database_url, Role.APP, pool_size=settings.database_pool_size)
        temporal = await connect(settings.temporal_address, settings.temporal_namespace, lazy=True)
        price_book = PriceBook(engine)
        streams = Streams(engine, settings, stream_metrics, hear={PRICES_CHANNEL: price_book.forget})
        queue = settings.temporal_task_queue
        services = _services(engine, temporal, queue, price_book, streams, receipts, reach, chains)
        app.state.services, keys = services, services.keys
        beside = [asyncio.create_task(keys.run()), asyncio.create_task(streams.run())]
        try:
            yield
        finally:
            streams.close()
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            with suppress(Unavailable):
                await keys.flush()
            await services.doorbell.close()
            await close(engine)

    app = FastAPI(
        title="Holdfast",
        version=VERSION,
        description=DESCRIPTION,
        openapi_tags=TAGS,
        lifespan=lifespan,
        redirect_slashes=False,
        strict_content_type=False,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
        separate_input_output_schemas=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.registry = registry
    # The page comes from this process: no browser of an operator fetches scripts from elsewhere.
    patch_fastapi(app)
    problems.install(app)
    routers = [router for context in CONTEXTS for router in context.ROUTERS]
    for router in (health.routes, *routers, events.routes, *identity.ROUTERS):
        app.include_router(router)
    app.add_middleware(RequestMiddleware, metrics=HttpMetrics(registry))
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # the framework's documented way
    return app


def _services(
    engine: AsyncEngine,
    temporal: Client,
    queue: str,
    price_book: PriceBook,
    streams: Streams,
    receipts: ReceiptDoor,
    reach: Reach,
    chains: ChainsConfig,
) -> Services:
    """What routes work with; ``queue`` is where workflows are taken up."""
    return Services(
        engine=engine,
        temporal=temporal,
        keys=Keys(engine),
        assets=AssetBook(),
        escrows=EscrowClient(temporal, queue),
        transfers=TransferClient(temporal, queue),
        streams=streams,
        doorbell=Doorbell(engine),
        reconciliations=ReconciliationClient(temporal, queue),
        prices=PriceClient(temporal, queue),
        price_book=price_book,
        margin=MarginClient(temporal, queue),
        alerts=AlertClient(temporal, queue),
        receipts=receipts,
        webhooks=WebhookClient(temporal, queue),
        backfills=BackfillClient(temporal, queue),
        reach=reach,
        chains=chains,
        relayers=RelayerClient(temporal, queue),
    )


def _receipts(settings: ApiSettings, metrics: ReceiptMetrics) -> ReceiptDoor:
    """What vendors' receipts are checked with."""
    twilio = settings.sms_twilio_auth_token
    token = None if twilio is None else twilio.get_secret_value()
    return ReceiptDoor(settings.public_url, settings.mail_sendgrid_receipt_key, token, metrics)


def description() -> dict[str, Any]:
    """The OpenAPI description of this code; no server is asked."""
    return create_app(ApiSettings(database_url="postgresql://nowhere", temporal_address="nowhere:0")).openapi()


def _openapi(app: FastAPI) -> dict[str, Any]:
    """The description, with the schema of problems that the routes refer to."""
    if app.openapi_schema is None:
        described = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            tags=app.openapi_tags,
        )
        for model in (problems.Problem, settlement.LineAnswer):
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            described["components"]["schemas"] |= schema.pop("$defs", {}) | {model.__name__: schema}
        for path in described["paths"].values():
            for operation in path.values():
                operation["responses"] = dict(sorted(operation["responses"].items()))
                for parameter in operation.get("parameters", []):
                    parameter["schema"] = _without_null(parameter["schema"])
        app.openapi_schema = described
    return app.openapi_schema


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter that may be left out is left out, not sent as null: there is no null in a URL."""
    choices: list[dict[str, Any]] = [choice for choice in schema.get("anyOf", []) if choice != {"type": "null"}]
    if len(choices) != 1:
        return schema
    return choices[0] | {name: value for name, value in schema.items() if name != "anyOf"}
