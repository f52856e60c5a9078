"""What routes are given: the door with its key, the caller, and the services behind."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Annotated, Any, cast

import structlog
from fastapi import APIRouter, Header, Request, Security
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader, HTTPBearer
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope as Scope_
from temporalio.client import Client

from api.auth import Keys
from api.bodies import JsonRequest, check_content_type, is_ndjson
from api.pricebook import PriceBook
from api.problems import documented
from api.receiptdoor import ReceiptDoor
from api.streams import Streams
from db import ledger as db_ledger
from db.doorbell import Doorbell
from db.engine import tenant_transaction
from domain.errors import Refusal
from domain.identity import Principal, Scope, require_scope
from domain.money import Asset
from domain.webhooks.addresses import Reach
from kit.chains import ChainsConfig
from workflows.alerts.client import AlertClient
from workflows.chain.backfill_client import BackfillClient
from workflows.chain.relayer_client import RelayerClient
from workflows.client import EscrowClient, PriceClient, ReconciliationClient, TransferClient
from workflows.margin.client import MarginClient
from workflows.webhooks.client import WebhookClient

_ASSETS_SECONDS = 5.0
_SUMMARY_CHARACTERS = 60
_BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})

_api_key = APIKeyHeader(name="X-API-Key", scheme_name="apiKey", auto_error=False)
_bearer = HTTPBearer(scheme_name="bearer", auto_error=False, description="The API key as a bearer token")

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x20-\x7E]+$",
        description="Names this request: sent again with the same key and body, it is answered again, not done again",
    ),
]


@dataclass(frozen=True, slots=True)
class Services:
    """What the API works with, opened at start-up."""

    engine: AsyncEngine
    temporal: Client
    keys: Keys
    assets: AssetBook
    escrows: EscrowClient
    transfers: TransferClient
    streams: Streams
    doorbell: Doorbell
    reconciliations: ReconciliationClient
    prices: PriceClient
    price_book: PriceBook
    margin: MarginClient
    alerts: AlertClient
    receipts: ReceiptDoor
    webhooks: WebhookClient
    backfills: BackfillClient
    reach: Reach
    chains: ChainsConfig
    relayers: RelayerClient


class AssetBook:
    """The assets by symbol. They hardly ever change and never change their scale, so they are read once in a while."""

    def __init__(self) -> None:
        self._assets: Mapping[str, Asset] = {}
        self._read_at = -_ASSETS_SECONDS

    async def all(self, connection: AsyncConnection) -> Mapping[str, Asset]:
        """Every asset, at most a few seconds old."""
        if time.monotonic() - self._read_at >= _ASSETS_SECONDS:
            self._assets = {asset.symbol: asset for asset in await db_ledger.list_assets(connection)}
            self._read_at = time.monotonic()
        return self._assets

    async def get(self, connection: AsyncConnection, symbol: str) -> Asset:
        """The asset that a request names in its field ``asset``."""
        asset = self._assets.get(symbol) or (await self.all(connection)).get(symbol)
        if asset is None:
            raise Refusal("asset_unknown", f"there is no asset {symbol!r}; see GET /api/v1/assets", field="asset")
        return asset


@dataclass(frozen=True, slots=True)
class Call:
    """One request: who makes it, and what it may use."""

    request: Request
    principal: Principal
    services: Services
    idempotency_key: str | None = None

    @property
    def request_id(self) -> str:
        """The id that stands in the answer, the logs and the audit."""
        return str(self.request.state.request_id)

    def transaction(self) -> AbstractAsyncContextManager[AsyncConnection]:
        """A transaction that sees the rows of the caller's tenant."""
        return tenant_transaction(self.services.engine, self.principal.tenant_id)

    def require_service_key(self) -> None:
        """Refuse a key that is bound to a user."""
        if self.principal.user_id is not None:
            raise Refusal("service_key_required", "this is not for a key that is bound to a user")

    def own_user(self, named: str | None, *, field: str) -> str | None:
        """The user to whom a list is narrowed: the one that was asked for, for a bound key only itself."""
        bound = self.principal.user_id
        if bound is not None and named not in (None, bound):
            raise Refusal("actor_not_allowed", "this key sees its own user only", field=field)
        return bound or named


class Door(APIRoute):
    """A route that nobody enters without a key; then the body is read, strictly. In this order: who is not known
    learns nothing about what is wrong with a body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The framework's handler behind the door."""
        handle = super().get_route_handler()

        async def enter(plain: Request) -> Response:
            request = JsonRequest(plain.scope, plain.receive)
            services = cast(Services, request.app.state.services)
            principal = await services.keys.principal(request.headers)
            request.state.principal = principal
            structlog.contextvars.bind_contextvars(tenant_id=str(principal.tenant_id), key_id=str(principal.key_id))
            self._check_query(request)
            if request.method in _BODY_METHODS and await request.body():
                await self.check_body(request)
            return await handle(request)

        return enter

    async def check_body(self, request: JsonRequest) -> None:
        """Refuse a body that no route behind this door could read."""
        check_content_type(request)
        await request.json()

    def _check_query(self, request: Request) -> None:
        """A filter that nobody knows would be a wrong answer, not a harmless extra."""
        known = _query_names(self.dependant)
        given = [name for name, _ in request.query_params.multi_items()]
        for name in given:
            if name not in known:
                raise Refusal("unknown_parameter", f"there is no parameter {name[:40]!r} here", field=name[:200])
            if given.count(name) > 1:
                raise Refusal("parameter_repeated", f"{name} is given more than once", field=name)


class LinesDoor(Door):
    """A door for bodies that call themselves one JSON value a line; its routes read them line by line.

    Others pass it by: a route for plain JSON may stand behind it at the same URL.
    """

    def matches(self, scope: Scope_) -> tuple[Match, Scope_]:
        """As any route, for requests with such a body."""
        if scope["type"] == "http" and not is_ndjson(Headers(scope=scope)):
            return Match.NONE, {}
        return super().matches(scope)

    async def check_body(self, request: JsonRequest) -> None:
        """A bad line spoils only itself."""


def _query_names(dependant: Dependant) -> set[str]:
    """The query parameters of a route and of everything that it depends on."""
    own = {parameter.alias for parameter in dependant.query_params}
    return own.union(*(_query_names(needed) for needed in dependant.dependencies))


def router(prefix: str, tag: str, *, door: type[Door] = Door) -> APIRouter:
    """A router whose every route is behind the door and says so."""
    return APIRouter(
        prefix=f"/api/v1{prefix}",
        tags=[tag],
        route_class=door,
        dependencies=[Security(_api_key), Security(_bearer)],
        responses=documented(),
    )


def caller(scope: Scope) -> Callable[..., Awaitable[Call]]:
    """The dependency of a route that needs ``scope``."""

    async def call(request: Request) -> Call:
        principal = cast(Principal, request.state.principal)
        require_scope(principal, scope)
        return Call(request, principal, cast(Services, request.app.state.services))

    return call


def poster(scope: Scope) -> Callable[..., Awaitable[Call]]:
    """The dependency of a POST route that needs ``scope``; it takes an idempotency key."""

    async def call(request: Request, idempotency_key: IdempotencyKey = None) -> Call:
        principal = cast(Principal, request.state.principal)
        require_scope(principal, scope)
        return Call(request, principal, cast(Services, request.app.state.services), idempotency_key)

    return call


def shortened(text: str) -> str:
    """``text`` as the summary of a workflow: Temporal takes 400 bytes, in which a character may need six."""
    return text if len(text) <= _SUMMARY_CHARACTERS else f"{text[: _SUMMARY_CHARACTERS - 1]}…"
