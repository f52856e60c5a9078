"""Probes and metrics: the only routes that need no key."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import Literal, cast

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.responses import Response
from temporalio.client import Client
from temporalio.service import RPCError

from api import problems
from api.deps import Services
from db.engine import transaction
from domain.errors import Unavailable

CHECK_SECONDS = 1.5

_PROMETHEUS = {"text/plain": {"schema": {"type": "string"}}}


class Health(BaseModel):
    """The process lives."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """What we depend on, all of it answering."""

    status: Literal["ready"] = "ready"
    checks: dict[str, Literal["ok"]]


routes = APIRouter(tags=["operations"])


@routes.get("/healthz")
async def healthz() -> Health:
    """Whether the process lives; it asks nothing else."""
    return Health()


@routes.get("/readyz", response_model=Readiness, responses={503: problems.documented()[503]})
async def readyz(request: Request) -> Response:
    """Whether requests can be served; names what is down."""
    services = cast(Services, request.app.state.services)
    names = ("postgres", "temporal")
    up = await asyncio.gather(_answers(_ask_postgres(services.engine)), _answers(_ask_temporal(services.temporal)))
    down = [name for name, well in zip(names, up, strict=True) if not well]
    if down:
        errors = [problems.FieldError(field=name, code="unavailable", message="does not answer") for name in down]
        message = f"not answering: {', '.join(down)}"
        return problems.problem_response(request, 503, "not_ready", message, errors=errors)
    return Response(Readiness(checks=dict.fromkeys(names, "ok")).model_dump_json(), media_type="application/json")


@routes.get("/metrics", response_class=Response, responses={200: {"content": _PROMETHEUS}})
async def metrics(request: Request) -> Response:
    """Metrics in Prometheus' text format."""
    return Response(generate_latest(request.app.state.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _answers(asked: Awaitable[None]) -> bool:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await asked
    except (TimeoutError, Unavailable):
        return False
    return True


async def _ask_postgres(engine: AsyncEngine) -> None:
    async with transaction(engine) as connection:
        await connection.execute(text("SELECT 1"))


async def _ask_temporal(client: Client) -> None:
    try:
        well = await client.service_client.check_health(timeout=timedelta(seconds=CHECK_SECONDS))
    except (RPCError, RuntimeError) as error:  # the latter is how a lazy client says that it cannot connect
        raise Unavailable("temporal", str(error)) from error
    if not well:
        raise Unavailable("temporal", "it says that it does not serve")
