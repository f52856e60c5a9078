"""Prices as tests set them: the rows that the oracle would write, at once and for every tenant."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import transaction
from db.ids import new_id
from kit.clock import now

_TICK = text("INSERT INTO price_ticks (refresh_id, refreshed_at) VALUES (:id, :at) RETURNING tick")
_PRICE = text(
    """
    INSERT INTO prices (asset, tick, mid, low, high, quality, confirmed, as_of, sources, reason, refreshed_at,
        ttl_seconds)
    VALUES (:asset, :tick, :mid, :low, :high, :quality, :confirmed, :as_of, '[]', :reason, :at, 5)
    ON CONFLICT (asset) DO UPDATE SET tick = excluded.tick, mid = excluded.mid, low = excluded.low,
        high = excluded.high, quality = excluded.quality, confirmed = excluded.confirmed, as_of = excluded.as_of,
        reason = excluded.reason, refreshed_at = excluded.refreshed_at
    """
)


async def set_prices(
    engine: AsyncEngine,
    *,
    confirmed: bool = True,
    quality: str = "good",
    as_of: datetime | None = None,
    band: str = "0",
    **dollars: str | int,
) -> int:
    """Let assets cost what is given, in one tick, and answer it. ``engine`` sees every tenant; ``band`` is how far low
    and high lie from mid, as a share. No event is written: this is for who reads prices, not for who follows them."""
    at = now()
    async with transaction(engine) as connection:
        tick = int(await connection.scalar(_TICK, {"id": str(new_id()), "at": at}) or 0)
        for asset, price in dollars.items():
            mid = Decimal(price)
            await connection.execute(
                _PRICE,
                {
                    "asset": asset,
                    "tick": tick,
                    "mid": mid,
                    "low": mid * (1 - Decimal(band)),
                    "high": mid * (1 + Decimal(band)),
                    "quality": quality,
                    "confirmed": confirmed,
                    "as_of": as_of or at,
                    "reason": None if confirmed else "a test",
                    "at": at,
                },
            )
    return tick


async def forget_prices(engine: AsyncEngine, *assets: str) -> None:
    """Let assets have no price."""
    async with transaction(engine) as connection:
        await connection.execute(text("DELETE FROM prices WHERE asset = ANY(:assets)"), {"assets": list(assets)})
