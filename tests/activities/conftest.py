"""A tenant's steps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import ActivityEnvironment

from db.engine import Role, create_engine
from tests.activities.steps import Steps
from tests.databases import migrated_database
from tools.local.postgres import EmbeddedPostgres


@pytest.fixture
def steps(tenants_engine: AsyncEngine, tenant: UUID) -> Steps:
    """Called as a worker calls them, on the real database."""
    return Steps(tenants_engine, tenant, ActivityEnvironment())


@pytest.fixture(scope="session")
def quiet_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    """A database in which no worker is at work: in the run's, one carries out whatever it hears of."""
    with migrated_database(postgres) as url:
        yield url


@pytest.fixture(scope="session")
async def quiet_tenants(quiet_url: str) -> AsyncIterator[AsyncEngine]:
    """Its connections under row-level security."""
    engine = create_engine(quiet_url, Role.APP, pool_size=20)
    yield engine
    await engine.dispose()


@pytest.fixture(scope="session")
async def quiet_owner(quiet_url: str) -> AsyncIterator[AsyncEngine]:
    """Its connections as the owner of the tables."""
    engine = create_engine(quiet_url, Role.OWNER, pool_size=2)
    yield engine
    await engine.dispose()
