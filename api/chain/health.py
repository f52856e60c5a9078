"""Whether every relayer of the tenant is well: what a monitor asks."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.responses import Response

from api import problems
from api.chain.models import ChainHealthView, RelayerHealthView
from api.chain.views import lag_view, limits_of
from api.deps import Call, caller, router
from db.chain import reports
from domain.chain.health import troubles
from domain.identity import Scope
from kit.clock import now

routes = router("/chain/health", "chain")


@routes.get("", response_model=ChainHealthView)
async def read_chain_health(call: Annotated[Call, Depends(caller(Scope.CHAIN_READ))]) -> Response:
    """200 while every relayer is well, else 503, where `errors` names each that is not, and why. Service keys only.

    Not well is a relayer that halted, that is further behind than the chain's `lag_blocks_max`, that has had no news of
    the chain for `lag_seconds_max`, or that misses blocks that no backfill is at.
    """
    call.require_service_key()
    async with call.transaction() as connection:
        standings = await reports.list_(connection)
    at, found = now(), []
    for standing in standings:
        limits = limits_of(call.services.chains, standing.followed.source.chain)
        found += [
            problems.FieldError(field=standing.followed.source.relayer_id, code=code, message=message)
            for code, message in troubles(standing.course, limits, at)
        ]
    if found:
        names = sorted({fault.field for fault in found})
        message = f"not well: {', '.join(names[:20])}{' …' if len(names) > 20 else ''}"
        return problems.problem_response(call.request, 503, "chain_unhealthy", message, errors=found)
    view = ChainHealthView(
        relayers=[
            RelayerHealthView(
                relayer_id=each.followed.source.relayer_id,
                status=each.course.status,
                lag=lag_view(each.course, at),
            )
            for each in standings
        ]
    )
    return Response(view.model_dump_json(), media_type="application/json")
