"""Reading prices, and how they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Context, Decimal
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.fixed import PRICE_SCALE
from domain.prices.model import Price, Quality

#: The channel on which a refresh tells that prices changed.
PRICES_CHANNEL = "holdfast_prices"

#: The default context would round what has more than 28 digits.
_EXACT = Context(prec=100)

_ROWS = text(
    """
    SELECT asset, tick, mid, low, high, quality, confirmed, as_of, reason, sources, refreshed_at, fresh_until,
        ttl_seconds, clock_timestamp() AS read_at
    FROM prices ORDER BY asset
    """
)

_BUCKETS = text(
    """
    WITH bucket AS (
        SELECT date_bin(CAST(:width AS interval), at, timestamptz '1970-01-01 00:00:00+00') AS began_at,
            max(mid) AS high, min(mid) AS low, min(at) AS first_at, max(at) AS last_at,
            bool_and(confirmed) AS confirmed, count(*) AS ticks
        FROM price_history WHERE asset = :asset AND at >= :since AND at < :until GROUP BY 1
    )
    SELECT began_at, high, low, confirmed, ticks,
        (SELECT mid FROM price_history WHERE asset = :asset AND at = first_at ORDER BY tick LIMIT 1) AS open,
        (SELECT mid FROM price_history WHERE asset = :asset AND at = last_at ORDER BY tick DESC LIMIT 1) AS close
    FROM bucket ORDER BY began_at
    """
)

_BEFORE = text(
    "SELECT mid, confirmed FROM price_history WHERE asset = :asset AND at < :since ORDER BY at DESC, tick DESC LIMIT 1"
)


@dataclass(frozen=True, slots=True)
class PriceRow:
    """A price with what each source said (as JSON has it), and until when it is what it says."""

    price: Price
    sources: Sequence[Mapping[str, Any]]
    refreshed_at: datetime
    fresh_until: datetime | None
    ttl_seconds: int
    read_at: datetime

    def price_at(self, at: datetime) -> Price:
        """The price as it is worth at an instant: stale when nobody has looked again in time."""
        if self.fresh_until is None or at <= self.fresh_until or self.price.quality is Quality.STALE:
            return self.price
        said = f"nobody has looked since {self.refreshed_at.isoformat(timespec='seconds')}"
        return replace(self.price, quality=Quality.STALE, confirmed=False, reason=said)


@dataclass(frozen=True, slots=True)
class Bucket:
    """How a price moved within an interval; without ticks it stood still. ``confirmed``: all of it was."""

    began_at: datetime
    open: int
    high: int
    low: int
    close: int
    confirmed: bool
    ticks: int


async def current(connection: AsyncConnection) -> Mapping[str, Price]:
    """The price of each asset that ever had one, by symbol. Any role may ask."""
    return {symbol: row.price_at(row.read_at) for symbol, row in (await list_rows(connection)).items()}


async def list_rows(connection: AsyncConnection) -> Mapping[str, PriceRow]:
    """The same with what each source said, and as it was when somebody last looked."""
    return {row.asset: _row(row) for row in await connection.execute(_ROWS)}


async def buckets(
    connection: AsyncConnection, asset: str, *, since: datetime, until: datetime, width: timedelta
) -> list[Bucket]:
    """The moves of a price from ``since`` (a multiple of ``width``) until before ``until``, without a gap from the
    first price that is known."""
    before = (await connection.execute(_BEFORE, {"asset": asset, "since": since})).one_or_none()
    bounds = {"asset": asset, "since": since, "until": until, "width": width}
    moved = {
        row.began_at: Bucket(
            row.began_at,
            scaled(row.open),
            scaled(row.high),
            scaled(row.low),
            scaled(row.close),
            row.confirmed,
            row.ticks,
        )
        for row in await connection.execute(_BUCKETS, bounds)
    }
    last = None if before is None else _still(since, scaled(before.mid), confirmed=before.confirmed)
    found: list[Bucket] = []
    began_at = since
    while began_at < until:
        if began_at in moved:
            last = moved[began_at]
            found.append(last)
        elif last is not None:
            last = _still(began_at, last.close, confirmed=last.confirmed)
            found.append(last)
        began_at += width
    return found


def scaled(dollars: Decimal) -> int:
    """A column's dollars as the domain's integer."""
    return int(dollars.scaleb(PRICE_SCALE, _EXACT))


def _still(began_at: datetime, mid: int, *, confirmed: bool) -> Bucket:
    return Bucket(began_at, mid, mid, mid, mid, confirmed, 0)


def _row(row: Any) -> PriceRow:
    price = Price(
        asset=row.asset,
        mid=scaled(row.mid),
        low=scaled(row.low),
        high=scaled(row.high),
        quality=Quality(row.quality),
        confirmed=row.confirmed,
        as_of=row.as_of,
        sources=tuple(sorted({each["source"] for each in row.sources if each["left_out"] is None})),
        tick=row.tick,
        reason=row.reason,
    )
    return PriceRow(price, row.sources, row.refreshed_at, row.fresh_until, row.ttl_seconds, row.read_at)
