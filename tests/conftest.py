"""One real PostgreSQL and one real Temporal server for each process of tests, one worker in it, a tenant per test.

Tests stand apart by tenant: row-level security is what separates customers, and so it separates tests. ``make test``
deals the files out to several processes, which share nothing; without ``-n`` there is one.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from uuid import UUID

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client
from temporalio.worker import Worker

from activities.chain.filling import FillPace
from activities.vendors.outward import OutwardClient
from chainwork import create_backfill_worker, create_chain_worker
from crew import create_relay, create_webhook_worker, create_worker
from db import migrate
from db.engine import Role, create_engine, transaction
from db.identity import create_tenant
from db.ids import new_id
from domain.webhooks.addresses import Reach
from domain.webhooks.catalogue import CATALOGUE
from kit.temporal import DEPLOYMENT_NAME, connect
from tests.chain.model import CHAINS
from tests.chain.tokens import TOKENS
from tests.desk import TASK_QUEUE, Desk
from tools.deployment import Build, make_current
from tools.local.postgres import EmbeddedPostgres
from tools.local.registration import register_search_attributes
from tools.local.temporal import TemporalDevServer
from workflows.search import SEARCH_ATTRIBUTES

TEST_BUILD = "test"

#: Files of tests that take longest, in that order.
LONGEST = (
    "tests/e2e/test_alerts.py",
    "tests/model/test_machine.py",
    "tests/api/test_contract.py",
    "tests/e2e/test_stack_life.py",
    "tests/soak/test_soak.py",
    "tests/e2e/test_stack.py",
    "tests/workflows/test_webhook_deaths.py",
    "tests/workflows/test_escrow_faults.py",
    "tests/tools/test_broker.py",
    "tests/workflows/test_replay.py",
    "tests/house/test_compose.py",
    "tests/e2e/test_seals.py",
    "tests/chain/test_proof_deaths.py",
    "tests/workflows/test_transfers.py",
)
_EXIT_STATUS = pytest.StashKey[int]()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server with an empty database that only its superuser has touched."""
    with EmbeddedPostgres(tmp_path_factory.mktemp("postgres") / "data") as server:
        yield server


@pytest.fixture(scope="session")
def database_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The migrated database. At the end every type of event that any test left is in the catalogue."""
    migrate.upgrade(postgres.url)
    yield postgres.url
    with psycopg.connect(postgres.url) as connection:
        told = {row[0] for row in connection.execute("SELECT DISTINCT type FROM outbox")}
    strange = {type_ for type_ in told - CATALOGUE.keys() if not type_.startswith("test.")}
    assert not strange, f"in no catalogue (domain/webhooks/kinds.py): {strange}"


@pytest.fixture(scope="session")
def temporal_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TemporalDevServer]:
    """A Temporal server over a file, as ``make up`` runs it."""
    folder = tmp_path_factory.mktemp("temporal")
    with TemporalDevServer(folder / "temporal.db", folder / "temporal.log") as server:
        yield server


@pytest.fixture(scope="session")
async def tenants_engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """Connections of the role that lives under row-level security."""
    engine = create_engine(database_url, Role.APP, pool_size=40)
    yield engine
    await engine.dispose()


@pytest.fixture(scope="session")
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """Connections of the role that sees every tenant."""
    engine = create_engine(database_url, Role.ENGINE, pool_size=8)
    yield engine
    await engine.dispose()


@pytest.fixture(scope="session")
async def owner_engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    """Connections of the role that owns the tables: for setting the stage, never for what is tested."""
    engine = create_engine(database_url, Role.OWNER, pool_size=4)
    yield engine
    await engine.dispose()


@pytest.fixture(scope="session")
async def temporal(temporal_server: TemporalDevServer) -> Client:
    """A client of a server that knows our search attributes."""
    client = await connect(temporal_server.address)
    await register_search_attributes(client, SEARCH_ATTRIBUTES)
    return client


@pytest.fixture(scope="session")
async def worker(
    temporal: Client, tenants_engine: AsyncEngine, engine: AsyncEngine, database_url: str
) -> AsyncIterator[Worker]:
    """A versioned worker whose build is current, with the relay beside it."""
    build = Build(DEPLOYMENT_NAME, TEST_BUILD)
    running = create_worker(
        temporal, TASK_QUEUE, TEST_BUILD, tenants=tenants_engine, engine=engine, tokens={"local": TOKENS}
    )
    outward = OutwardClient(allow=Reach.parse("127.0.0.0/8"))
    webhooks = create_webhook_worker(temporal, TASK_QUEUE, engine=engine, outward=outward)
    chains = create_chain_worker(
        temporal, TASK_QUEUE, engine=engine, chains=CHAINS, tokens={"local": TOKENS}, turn_seconds=2.0
    )
    pace = FillPace(first_blocks=20, look_seconds=0.05)
    filling = create_backfill_worker(temporal, TASK_QUEUE, engine=engine, chains=CHAINS, pace=pace)
    relay = asyncio.create_task(create_relay(temporal, TASK_QUEUE, database_url, engine=engine).run())
    async with running, webhooks, chains, filling:
        await make_current(temporal, build)
        yield running
    relay.cancel()
    await asyncio.gather(relay, return_exceptions=True)
    await outward.close()


@pytest.fixture
async def tenant(tenants_engine: AsyncEngine) -> UUID:
    """A tenant of its own for the test."""
    made = new_id()
    async with transaction(tenants_engine) as connection:
        assert await create_tenant(connection, new_tenant=made, name=f"test-{made}")
    return made


@pytest.fixture
def desk(temporal: Client, worker: Worker, tenants_engine: AsyncEngine, tenant: UUID) -> Desk:
    """The tenant's desk: escrows and money, through real workflows."""
    return Desk(tenant, temporal, tenants_engine)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, so that no process is left with it when the others are done."""
    weights = {name: weight for weight, name in enumerate(LONGEST)}
    items.sort(key=lambda item: weights.get(item.nodeid.partition("::")[0], len(weights)))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Remember how the run ended, for ``pytest_unconfigure``."""
    session.config.stash[_EXIT_STATUS] = int(exitstatus)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave without the interpreter's own exit: a process that opened a Temporal client can crash there."""
    status = config.stash.get(_EXIT_STATUS, None)
    if status is not None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
