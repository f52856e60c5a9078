"""Reading prices."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Context, Decimal

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.fixed import PRICE_SCALE
from domain.prices.model import Price, Quality

#: The default context would round what has more than 28 digits.
_EXACT = Context(prec=100)

_CURRENT = text(
    """
    SELECT asset, tick, mid, low, high, quality, confirmed, as_of, reason,
        ARRAY(SELECT each->>'source' FROM jsonb_array_elements(sources) AS each WHERE each->>'left_out' IS NULL) AS used
    FROM prices
    """
)


async def current(connection: AsyncConnection) -> Mapping[str, Price]:
    """The price of each asset that ever had one, by symbol. Any role may ask."""
    rows = await connection.execute(_CURRENT)
    return {
        row.asset: Price(
            asset=row.asset,
            mid=scaled(row.mid),
            low=scaled(row.low),
            high=scaled(row.high),
            quality=Quality(row.quality),
            confirmed=row.confirmed,
            as_of=row.as_of,
            sources=tuple(row.used),
            tick=row.tick,
            reason=row.reason,
        )
        for row in rows
    }


def scaled(dollars: Decimal) -> int:
    """A column's dollars as the domain's integer."""
    return int(dollars.scaleb(PRICE_SCALE, _EXACT))
