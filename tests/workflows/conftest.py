"""Backfill in a database in which nobody else works: one worker for the workflows, two that fill."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest
from temporalio.client import Client

from activities.chain.filling import FillPace
from activities.chain.ports import ChainDesk
from chainwork import create_backfill_worker
from crew import create_worker
from db.engine import Role, create_engine, transaction
from db.identity import create_tenant
from kit.temporal import connect
from tests.backfilling import QUEUE, Bench
from tests.databases import migrated_database
from tools.deployment import Build, make_current
from tools.local.postgres import EmbeddedPostgres
from tools.local.temporal import TemporalDevServer

PACE = FillPace(first_blocks=7, look_seconds=0.05)


@pytest.fixture(scope="module")
def quiet(postgres: EmbeddedPostgres) -> Iterator[str]:
    with migrated_database(postgres) as url:
        yield url


@pytest.fixture(scope="module")
async def workers(quiet: str, temporal: Client, temporal_server: TemporalDevServer) -> AsyncIterator[Bench]:
    """Two processes' worth of fillers, and one worker for the workflows."""
    tenants = create_engine(quiet, Role.APP, pool_size=5)
    engine = create_engine(quiet, Role.ENGINE, pool_size=12)
    chains: dict[str, ChainDesk] = {}
    async with AsyncExitStack() as stack:
        stack.push_async_callback(tenants.dispose)
        stack.push_async_callback(engine.dispose)
        worker = create_worker(temporal, QUEUE, "1", tenants=tenants, engine=engine, deployment=QUEUE)
        await stack.enter_async_context(worker)
        for client in (temporal, await connect(temporal_server.address)):
            filler = create_backfill_worker(client, QUEUE, engine=engine, chains=chains, pace=PACE)
            await stack.enter_async_context(filler)
        await make_current(temporal, Build(QUEUE, "1"))
        yield Bench(quiet, temporal, tenants, engine, chains)


@pytest.fixture
async def bench(workers: Bench) -> Bench:
    made = Bench(workers.url, workers.client, workers.tenants, workers.engine, workers.chains)
    async with transaction(made.tenants) as connection:
        await create_tenant(connection, new_tenant=made.tenant, name=f"backfill {made.tenant}")
    return made
