"""Prices. They are the platform's: every tenant reads the same ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import structlog
from fastapi import Depends, Path, Query
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from api.deps import Call, caller, poster, router
from api.fields import Instant, Symbol
from api.idempotency import Answer, Attempt, once
from api.prices.models import (
    AssetSourceView,
    Interval,
    PriceHistory,
    Prices,
    PriceView,
    RefreshView,
    bucket_view,
    price_view,
)
from api.problems import documented
from db import prices as db_prices
from domain.errors import Refusal
from domain.identity import Scope
from domain.ids import price_refresh_workflow_id
from kit.clock import now
from workflows.escrow import OriginMessage
from workflows.prices import RefreshOutcome, RefreshPrices, SourceVerdict

#: How many buckets one answer holds, and how many it has where nobody says since when.
BUCKETS_MAX = 1_000
BUCKETS_DEFAULT = 100
#: A year of a price that changes with every refresh is two million rows, which are read within seconds.
RANGE_MAX = timedelta(days=366)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

routes = router("/prices", "prices")
ROUTERS = (routes,)

AssetSymbol = Annotated[Symbol, Path(examples=["ETH"])]


@routes.get("")
async def list_prices(call: Annotated[Call, Depends(caller(Scope.PRICES_READ))]) -> Prices:
    """What every asset is worth, how sure that is, and what each source said."""
    found, at = await call.services.price_book.all(), now()
    return Prices(items=[price_view(row, at) for row in found.values()])


@routes.post("/refresh", response_model=RefreshView, responses=documented(409, 413, 415))
async def refresh_prices(call: Annotated[Call, Depends(poster(Scope.PRICES_WRITE))]) -> Response:
    """Ask every source now instead of at the next turn. A source asked a moment ago answers as it did then. Service
    keys only."""
    call.require_service_key()
    return await once(call, _Refresh(call))


@routes.get("/{asset}", responses=documented(404))
async def read_price(asset: AssetSymbol, call: Annotated[Call, Depends(caller(Scope.PRICES_READ))]) -> PriceView:
    """One asset's price."""
    found = await call.services.price_book.find(asset)
    if found is None:
        async with call.transaction() as connection:
            await _check_asset(call, connection, asset)
        raise Refusal("price_unknown", "this asset has no price yet")
    return price_view(found, now())


@routes.get("/{asset}/history", responses=documented(404))
async def read_price_history(
    asset: AssetSymbol,
    call: Annotated[Call, Depends(caller(Scope.PRICES_READ))],
    since: Annotated[
        Instant | None,
        Query(
            alias="from", description=f"The first bucket holds it; {BUCKETS_DEFAULT} intervals before `to` if left out"
        ),
    ] = None,
    until: Annotated[
        Instant | None, Query(alias="to", description="The last bucket ends by it; now if left out")
    ] = None,
    interval: Annotated[Interval, Query()] = Interval.HOUR,
) -> PriceHistory:
    """Open, high, low and close of an asset's price, in at most 1,000 intervals and 366 days."""
    begin, end = _range(since, until, interval.width)
    async with call.transaction() as connection:
        await _check_asset(call, connection, asset)
        found = await db_prices.buckets(connection, asset, since=begin, until=end, width=interval.width)
    return PriceHistory(asset=asset, interval=interval, items=[bucket_view(each) for each in found])


class _Refresh:
    """A refresh on demand; its operation id names the workflow, so that a repeat joins it."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._attempt: Attempt | None = None
        self._outcome: RefreshOutcome | None = None

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> Answer | None:  # noqa: ARG002
        """Nothing stands against it."""
        self._attempt = attempt
        return None

    async def perform(self) -> None:
        """Run the workflow to its end."""
        call = self._call
        assert self._attempt is not None, "prepare() comes first"
        refresh_id = self._attempt.operation_id
        structlog.contextvars.bind_contextvars(workflow_id=price_refresh_workflow_id(refresh_id))
        asked = RefreshPrices(origin=OriginMessage(key_id=call.principal.key_id, request_id=call.request_id))
        summary = f"prices refreshed, asked for by key {call.principal.key_id}"
        self._outcome = await call.services.prices.refresh(refresh_id, asked, summary=summary)
        call.services.price_book.forget()

    async def answer(self, connection: AsyncConnection) -> Answer:
        """The prices as they are now, and what each source said."""
        outcome = self._outcome
        assert outcome is not None, "perform() comes first"
        rows, at = await db_prices.list_rows(connection), now()
        view = RefreshView(
            tick=outcome.tick,
            changed=list(outcome.changed),
            superseded=outcome.superseded,
            sources=[_said(each) for each in outcome.verdicts],
            prices=[price_view(row, at) for row in rows.values()],
        )
        return Answer(200, view)


async def _check_asset(call: Call, connection: AsyncConnection, asset: str) -> None:
    if asset not in await call.services.assets.all(connection):
        raise Refusal("asset_not_found", "there is no such asset")


def _range(since: datetime | None, until: datetime | None, width: timedelta) -> tuple[datetime, datetime]:
    """The first bucket's beginning and the last one's end, both multiples of the width; none lies in the future."""
    end = min(until or now(), now())
    begin = end - BUCKETS_DEFAULT * width if since is None else since
    if until is not None and since is not None and since >= until:
        raise Refusal("range_invalid", "a range of time begins before it ends", field="from")
    first = _EPOCH + (begin - _EPOCH) // width * width
    last = _EPOCH - (_EPOCH - end) // width * width
    if (last - first) // width > BUCKETS_MAX or last - first > RANGE_MAX:
        raise Refusal("range_too_long", "the range has more than 1,000 intervals, or more than 366 days", field="from")
    return first, last


def _said(verdict: SourceVerdict) -> AssetSourceView:
    return AssetSourceView(
        asset=verdict.asset,
        source=verdict.source,
        price=verdict.price,
        observed_at=verdict.observed_at,
        left_out=verdict.left_out,
    )
