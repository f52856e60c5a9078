"""Databases and connections that only the database's own tests need."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import psycopg
import pytest
from psycopg import sql

from db import migrate
from db.engine import Role, create_engine, transaction
from db.identity import create_tenant
from db.ids import new_id
from tests.db.feeds import Feeds
from tools.local.postgres import EmbeddedPostgres


@pytest.fixture
def empty_database(postgres: EmbeddedPostgres) -> Iterator[Callable[[], str]]:
    """Makes empty databases on the run's server; they go with the test."""
    made: list[str] = []

    def make() -> str:
        name = f"scratch_{new_id().hex}"
        with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        made.append(name)
        return postgres.url_of(name)

    yield make
    with psycopg.connect(postgres.url_of("postgres"), autocommit=True) as connection:
        for name in made:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def empty_url(empty_database: Callable[[], str]) -> str:
    """An empty database of the test's own."""
    return empty_database()


@pytest.fixture
def migrated_url(empty_database: Callable[[], str]) -> str:
    url = empty_database()
    migrate.upgrade(url)
    return url


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
