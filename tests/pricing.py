"""Prices on a database of their own: they are everybody's, so no other test must meet these."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client
from temporalio.testing import ActivityEnvironment

from activities.prices.desk import PriceDesk
from activities.prices.messages import ReadingMessage, RecordPrices, RefreshOutcome, SourceSaid
from activities.prices.steps import PriceActivities
from api.main import create_app
from crew import create_worker
from db import prices as db_prices
from db.doorbell import Doorbell
from db.engine import Role, create_engine, transaction
from db.identity import create_tenant
from db.ids import new_id
from db.outbox import number_committed
from domain.prices.model import Policy, Price, Reading
from kit.clock import now
from kit.settings import ApiSettings
from tests.api.caller import Caller
from tests.databases import migrated_database
from tests.domain.prices import dollars
from tools.deployment import Build, make_current
from tools.local.postgres import EmbeddedPostgres


@asynccontextmanager
async def own_database(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """A migrated database for as long as the block lasts."""
    scratch = migrated_database(postgres)
    # In a thread: migrations run a loop of their own.
    url = await asyncio.to_thread(scratch.__enter__)
    try:
        yield url
    finally:
        await asyncio.to_thread(scratch.__exit__, None, None, None)


@dataclass(frozen=True, slots=True)
class PriceHouse:
    """API, worker, relay and database, with sources that a test controls."""

    service: Caller
    sources: Mapping[str, Told]
    client: Client
    queue: str
    engine: AsyncEngine
    app: FastAPI

    async def set(self, **prices: str | None) -> None:
        """Have every source say these prices from now on."""
        for source in self.sources.values():
            source.prices.update(prices)

    async def number(self) -> None:
        """Give events their place in the feed; there is no relay here."""
        async with transaction(self.engine) as connection:
            await number_committed(connection, limit=1_000)


@asynccontextmanager
async def price_house(
    postgres: EmbeddedPostgres, client: Client, address: str, *names: str, policy: Policy | None = None
) -> AsyncIterator[PriceHouse]:
    """A house with sources of these names, which say nothing yet."""
    queue, deployment = f"prices-{new_id()}", f"prices-{new_id()}"
    sources = {name: Told(name, {}) for name in names}
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(own_database(postgres))
        tenants, engine = create_engine(url, Role.APP, pool_size=8), create_engine(url, Role.ENGINE, pool_size=4)
        stack.push_async_callback(tenants.dispose)
        stack.push_async_callback(engine.dispose)
        desk = PriceDesk(dict(sources), default=policy or Policy(quorum=2, persistence_seconds=0, ttl_seconds=60))
        worker = create_worker(client, queue, "1", tenants=tenants, engine=engine, deployment=deployment, prices=desk)
        await stack.enter_async_context(worker)
        await make_current(client, Build(deployment, "1"))
        app = create_app(ApiSettings(database_url=url, temporal_address=address, temporal_task_queue=queue))
        await stack.enter_async_context(app.router.lifespan_context(app))
        tenant = new_id()
        async with transaction(tenants) as connection:
            assert await create_tenant(connection, new_tenant=tenant, name="a trader")
        service = await Caller(app, tenant, tenants, None).key_for()
        yield PriceHouse(service, sources, client, queue, engine, app)


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
