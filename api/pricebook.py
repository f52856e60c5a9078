"""The prices as this process last read them: each for as long as its asset's policy allows, none past a newer tick."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from sqlalchemy.ext.asyncio import AsyncEngine

from db import prices as db_prices
from db.engine import transaction
from db.prices import PriceRow

#: Between two looks for an asset that has no price.
MISSING_SECONDS = 1.0


class PriceBook:
    """Read from Postgres by one query for all, however many ask at once; ``forget`` is called when prices changed."""

    def __init__(self, engine: AsyncEngine, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._rows: Mapping[str, PriceRow] = {}
        self._read_at: float | None = None
        self._changes = 0
        self._reading = asyncio.Lock()

    def forget(self) -> None:
        """Prices changed: whoever asks from now on is told what Postgres says."""
        self._changes += 1
        self._read_at = None

    async def all(self) -> Mapping[str, PriceRow]:
        """Every price by symbol."""
        if not self._holds(self._rows):
            await self._read(lambda: self._holds(self._rows))
        return self._rows

    async def find(self, asset: str) -> PriceRow | None:
        """One asset's; None when it never had one."""
        if not self._holds([asset]):
            await self._read(lambda: self._holds([asset]))
        return self._rows.get(asset)

    def _holds(self, assets: Mapping[str, PriceRow] | list[str]) -> bool:
        if self._read_at is None:
            return False
        age = self._clock() - self._read_at
        return all(
            age < (self._rows[each].ttl_seconds if each in self._rows else MISSING_SECONDS) for each in assets
        ) and (bool(self._rows) or age < MISSING_SECONDS)

    async def _read(self, enough: Callable[[], bool]) -> None:
        async with self._reading:
            if enough():
                return
            changes, began = self._changes, self._clock()
            async with transaction(self._engine) as connection:
                rows = await db_prices.list_rows(connection)
            self._rows = rows
            # What changed while it was read may be in it, or not.
            self._read_at = began if changes == self._changes else None
