"""Databases and connections that only the database's own tests need."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from db.engine import Role, create_engine, transaction
from db.identity import create_tenant
from db.ids import new_id
from tests.databases import empty_database, migrated_database
from tests.db.feeds import Feeds
from tools.local.postgres import EmbeddedPostgres


@pytest.fixture
def empty_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    """An empty database of the test's own."""
    with empty_database(postgres) as url:
        yield url


@pytest.fixture
def migrated_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    """A migrated database of the test's own."""
    with migrated_database(postgres) as url:
        yield url


@pytest.fixture
async def feeds(migrated_url: str) -> AsyncIterator[Feeds]:
    app = create_engine(migrated_url, Role.APP, pool_size=30)
    engine = create_engine(migrated_url, Role.ENGINE, pool_size=4)
    tenant = new_id()
    async with transaction(app) as connection:
        await create_tenant(connection, new_tenant=tenant, name="one")
    made = Feeds(migrated_url, app, engine, tenant)
    yield made
    await made.doorbell.close()
    await app.dispose()
    await engine.dispose()
