"""The daily closing prices of assets, for what past days say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from sqlalchemy import ARRAY, Text, bindparam, text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.prices.queries import scaled

#: How many days a series may have at most: five years and a bit.
MAX_DAYS: Final = 2_000
#: A close is at most this many hours older than the end of its day. History has a row only where a price changed, and
#: a feed may stand still for its heartbeat, which is a day for stablecoins.
CARRIED_HOURS: Final = 48

# A look into the index for each asset and day: reading every tick of a year would be reading millions of rows.
_CLOSES = text(
    """
    SELECT asset.symbol, day.number, close.mid, close.at < day.ends - interval '24 hours' AS carried
    FROM unnest(:assets) AS asset (symbol)
    CROSS JOIN (
        SELECT number, CAST(:ends AS timestamptz) + number * interval '24 hours' AS ends
        FROM generate_series(0, CAST(:days AS integer) - 1) AS number
    ) AS day
    CROSS JOIN LATERAL (
        SELECT mid, at FROM price_history
        WHERE asset = asset.symbol AND quality <> 'stale'
            AND at >= day.ends - CAST(:hours AS integer) * interval '1 hour' AND at < day.ends
        ORDER BY at DESC, tick DESC
        LIMIT 1
    ) AS close
    """
).bindparams(bindparam("assets", type_=ARRAY(Text)))


@dataclass(slots=True)
class Series:
    """One asset's closes (1e-18 USD per whole unit) by UTC day; ``carried``: how many are of the day before."""

    closes: dict[date, int] = field(default_factory=dict)
    carried: int = 0


async def daily_closes(
    connection: AsyncConnection, assets: Iterable[str], *, first: date, days: int
) -> dict[str, Series]:
    """The closes of ``days`` UTC days from ``first`` on, for each asset: the last price of the day that was not stale.

    A day on which the price did not change has the close of the day before, if that is not older than
    ``CARRIED_HOURS``; any other day is left out. ``days`` is at most ``MAX_DAYS``. Any role may ask.
    """
    assert 0 < days <= MAX_DAYS, "a window is bounded"
    found = {asset: Series() for asset in sorted(set(assets))}
    rows = await connection.execute(
        _CLOSES,
        {
            "assets": list(found),
            "ends": datetime.combine(first + timedelta(days=1), time(), UTC),
            "days": days,
            "hours": CARRIED_HOURS,
        },
    )
    for row in rows:
        series = found[row.symbol]
        series.closes[first + timedelta(days=row.number)] = scaled(row.mid)
        series.carried += row.carried
    return found
