"""How Alembic runs here: online over an async engine, or offline as SQL text; always as the owner, with limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from alembic import context
from sqlalchemy import Connection, pool, text
from sqlalchemy.ext.asyncio import create_async_engine

import db.alerts.tables
import db.audit
import db.chain.tables
import db.consumers
import db.escrow.tables
import db.idempotency
import db.identity
import db.ledger.tables
import db.margin.auditing
import db.margin.book
import db.margin.tables
import db.outbox
import db.prices.tables
import db.receipts
import db.reconciliation.tables
import db.sealing.tables
import db.settlement.tables
import db.webhooks.tables  # noqa: F401 - importing a module registers its tables
from db.columns import METADATA
from db.engine import driver_url

#: Two migrations at once wait for one another here.
_MIGRATION_LOCK = 0x486F6C64_00000002

#: Roles belong to the whole cluster, so they are made when missing and never dropped.
ROLES = """
DO $$
DECLARE
    wanted text;
BEGIN
    FOREACH wanted IN ARRAY ARRAY['holdfast_owner', 'holdfast_app', 'holdfast_engine'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN %s', wanted,
                    CASE WHEN wanted = 'holdfast_app' THEN 'NOBYPASSRLS' ELSE 'BYPASSRLS' END);
                EXECUTE format('GRANT %I TO CURRENT_USER', wanted);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
            END;
        END IF;
    END LOOP;
END $$;
"""

SESSION = """
SET lock_timeout = '5s';
SET statement_timeout = '60s';
GRANT USAGE, CREATE ON SCHEMA public TO holdfast_owner;
GRANT USAGE ON SCHEMA public TO holdfast_app, holdfast_engine;
SET ROLE holdfast_owner;
"""


def run_offline() -> None:
    """Print the SQL instead of running it."""
    context.configure(
        url="postgresql+psycopg://",
        target_metadata=METADATA,
        literal_binds=True,
        transaction_per_migration=False,
        dialect_opts={"paramstyle": "named"},  # the driver's own style writes every % of our functions twice
    )
    with context.begin_transaction():
        context.execute(ROLES)
        context.execute(SESSION)
        context.run_migrations()


async def run_online() -> None:
    """Migrate the database that the configuration names."""
    url = driver_url(context.config.attributes["database_url"], "psycopg_async")
    engine = create_async_engine(url, poolclass=pool.NullPool)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_migrate)
    finally:
        await engine.dispose()


def _migrate(connection: Connection) -> None:
    limit = "SET statement_timeout = '60s'"  # the wait for another migration has one too
    for statement in (limit, f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})", ROLES, SESSION):
        connection.execute(text(statement))
    context.configure(
        connection=connection,
        target_metadata=METADATA,
        compare_type=True,
        compare_server_default=True,
        include_name=_is_no_partition(connection),
    )
    context.run_migrations()


def _is_no_partition(connection: Connection) -> Callable[..., bool]:
    """Partitions come and go with the months; the models know their parents."""
    found = connection.execute(text("SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r'"))
    partitions = set(found.scalars())

    def included(name: str | None, kind: str, _: Any) -> bool:
        return kind != "table" or name not in partitions

    return included


if context.is_offline_mode():
    run_offline()
else:
    asyncio.run(run_online())
