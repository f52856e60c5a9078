"""Prices on a database of their own: they are everybody's, so no other test must meet these."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import ActivityEnvironment

from activities.prices.desk import PriceDesk
from activities.prices.messages import ReadingMessage, RecordPrices, RefreshOutcome, SourceSaid
from activities.prices.steps import PriceActivities
from db import migrate
from db import prices as db_prices
from db.doorbell import Doorbell
from db.engine import transaction
from db.ids import new_id
from domain.prices.model import Policy, Price, Reading
from kit.clock import now
from tests.domain.prices import dollars
from tools.local.postgres import EmbeddedPostgres


@asynccontextmanager
async def own_database(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """A migrated database for as long as the block lasts."""
    name = sql.Identifier(f"prices_{new_id().hex}")
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
    url = postgres.url_of(name._obj[0])
    migrate.upgrade(url)
    try:
        yield url
    finally:
        with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


class Told:
    """A source that says what a test tells it."""

    def __init__(self, name: str, prices: Mapping[str, str | None]) -> None:
        self.name = name
        self.prices = dict(prices)
        self.asked = 0

    @property
    def assets(self) -> Sequence[str]:
        return tuple(self.prices)

    async def read(self) -> Sequence[Reading]:
        self.asked += 1
        return [self.reading(asset, now()) for asset in self.prices]

    def reading(self, asset: str, at: datetime) -> Reading:
        price, feed = self.prices[asset], f"{self.name}:{asset}"
        if price is None:
            return Reading(self.name, asset, feed, fault="it does not answer")
        return Reading(self.name, asset, feed, dollars(price), 0, at, 300)

    async def close(self) -> None:
        """Nothing is held."""


class PriceSteps:
    """The steps of refreshes, called as a worker calls them."""

    def __init__(self, engine: AsyncEngine, *sources: Told, policy: Policy | None = None) -> None:
        self.engine = engine
        self.sources = sources
        desk = PriceDesk({source.name: source for source in sources}, default=policy or Policy(quorum=2))
        self.activities = PriceActivities(engine, Doorbell(engine), desk)
        self.at = now() - timedelta(seconds=100)

    async def refresh(
        self, *, at: datetime | None = None, refresh_id: str | None = None, silent: Sequence[str] = ()
    ) -> RefreshOutcome:
        """One refresh, 15 seconds after the one before unless said otherwise; ``silent`` sources do not answer."""
        self.at = at or self.at + timedelta(seconds=15)
        said = [
            SourceSaid(source=source.name, fault="asking it did not end in time")
            if source.name in silent
            else SourceSaid(
                source=source.name,
                readings=tuple(ReadingMessage.of(source.reading(asset, self.at)) for asset in source.assets),
            )
            for source in self.sources
        ]
        asked = RecordPrices(refresh_id=refresh_id or str(new_id()), at=self.at, said=tuple(said))
        return await ActivityEnvironment().run(self.activities.record, asked)

    async def current(self) -> Mapping[str, Price]:
        async with transaction(self.engine) as connection:
            return await db_prices.current(connection)

    async def sql(self, query: str, **parameters: Any) -> list[Any]:
        async with transaction(self.engine) as connection:
            return list((await connection.execute(text(query), parameters)).all())
