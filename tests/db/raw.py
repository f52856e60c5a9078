"""Raw SQL for tests that ask the database itself, past the code that would never ask so."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db.engine import constraint_of
from db.ids import new_id

NOT_ALLOWED = "42501"
CHECK_VIOLATION = "23514"
FOREIGN_KEY_VIOLATION = "23503"
UNIQUE_VIOLATION = "23505"
UNBALANCED = "HF001"
INCOMPLETE = "HF002"
APPEND_ONLY = "HF003"


@dataclass(slots=True)
class Refused:
    """What the database said when it refused."""

    sqlstate: str = ""
    constraint: str | None = None
    message: str = ""


@contextmanager
def refused() -> Iterator[Refused]:
    """Expect the database to refuse; the reason is there when the block has ended."""
    found = Refused()
    with pytest.raises(DBAPIError) as caught:
        yield found
    found.sqlstate = str(getattr(caught.value.orig, "sqlstate", ""))
    found.constraint = constraint_of(caught.value)
    found.message = str(caught.value.orig)


@asynccontextmanager
async def acting(engine: AsyncEngine, tenant: UUID | None = None) -> AsyncIterator[AsyncConnection]:
    """A transaction whose errors arrive as the driver raised them."""
    async with engine.begin() as connection:
        if tenant is not None:
            await set_tenant(connection, tenant)
        yield connection


async def set_tenant(connection: AsyncConnection, tenant: UUID) -> None:
    """Change the transaction's tenant."""
    await connection.execute(text("SELECT set_config('app.tenant', :tenant, true)"), {"tenant": str(tenant)})


async def sql(connection: AsyncConnection, query: str, **parameters: Any) -> list[Any]:
    """Rows of a query, none for a statement that returns none."""
    done = await connection.execute(text(query), parameters)
    return list(done.all()) if done.returns_rows else []


async def insert_transaction(
    connection: AsyncConnection, tenant: UUID, legs: str, *, legs_said: int = 2, transaction_id: UUID | None = None
) -> UUID:
    """Write a header and legs in one statement, unasked; ``legs`` is a VALUES list of
    ``(leg_no, account_id, asset, pot, amount, hold)``."""
    made = transaction_id or new_id()
    await sql(
        connection,
        f"""
        WITH header AS (
            INSERT INTO ledger_transactions (tenant_id, transaction_id, kind, leg_count, effective_at)
            VALUES (:tenant, :transaction, 'deposit', :legs_said, now())
        )
        {LEGS} VALUES {legs}) AS l (no, account, asset, pot, amount, hold)
        """,
        tenant=tenant,
        transaction=made,
        legs_said=legs_said,
    )
    return made


LEGS = """INSERT INTO ledger_legs (tenant_id, transaction_id, leg_no, account_id, asset, pot, amount_minor, hold_id)
        SELECT CAST(:tenant AS uuid), CAST(:transaction AS uuid), no, account, asset, pot, amount, CAST(hold AS uuid)
        FROM ("""


def tables(database_url: str) -> set[str]:
    """Every table of ours."""
    return _names(database_url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")


def functions(database_url: str) -> set[str]:
    """Every function of ours."""
    return _names(database_url, "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace")


def _names(database_url: str, query: str) -> set[str]:
    with psycopg.connect(database_url) as connection:
        return {row[0] for row in connection.execute(query)}


def random_query(chance: random.Random, tables: list[str], theirs: UUID) -> str:
    """A query that forgot every filter, or tries to get around it; its first column is made of tenant ids."""
    one, two, three = (chance.choice(tables) for _ in range(3))
    join = chance.choice(["CROSS JOIN", "LEFT JOIN", "FULL JOIN", "JOIN"])
    on = "" if join == "CROSS JOIN" else "ON " + chance.choice(["true", "a.tenant_id = b.tenant_id"])
    on = "ON a.tenant_id = b.tenant_id" if join == "FULL JOIN" else on
    pair = f"SELECT unnest(ARRAY[a.tenant_id, b.tenant_id]) FROM {one} a {join} {two} b {on}"
    return chance.choice(
        [
            f"SELECT tenant_id FROM {one}",
            f"SELECT tenant_id FROM {one} WHERE tenant_id = '{theirs}'",
            f"SELECT tenant_id FROM {one} WHERE tenant_id = '{theirs}' OR true",
            f"SELECT tenant_id FROM {one} WHERE tenant_id <> current_tenant() OR random() >= 0",
            f"SELECT unnest(array_agg(DISTINCT tenant_id)) FROM {one}",
            f"SELECT (to_jsonb(a) ->> 'tenant_id')::uuid FROM {one} a",
            f"SELECT DISTINCT first_value(tenant_id) OVER (ORDER BY random()) FROM {one}",
            f"(SELECT tenant_id FROM {one}) UNION (SELECT tenant_id FROM {two}) UNION SELECT tenant_id FROM {three}",
            f"(SELECT tenant_id FROM {one}) EXCEPT (SELECT tenant_id FROM {two} WHERE false)",
            f"WITH x AS MATERIALIZED (SELECT * FROM {one}) SELECT tenant_id FROM x, LATERAL (SELECT 1 FROM {two}) AS y",
            f"SELECT (SELECT b.tenant_id FROM {two} b ORDER BY random() LIMIT 1) FROM {one}",
            f"SELECT tenant_id FROM {one} WHERE EXISTS (SELECT FROM {two} b WHERE b.tenant_id = '{theirs}')",
            f"SELECT tenant_id FROM {one} TABLESAMPLE BERNOULLI (100)",
            f"SELECT a.tenant_id FROM {one} a JOIN {two} b USING (tenant_id) JOIN {three} c USING (tenant_id)",
            pair,
            pair,
        ]
    )
