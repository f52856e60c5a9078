"""Tenants are kept apart by Postgres itself: whatever the app's role asks, it sees and writes its own tenant's rows."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

import asyncpg
import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import Role
from db.ids import new_id
from domain.ids import PLATFORM_TENANT
from tests.db.populated import populate, publish
from tests.db.raw import NOT_ALLOWED, acting, random_query, refused, set_tenant, sql
from tests.db.tenancy import DEFINER_FUNCTIONS, DELETABLE, NEVER_WRITTEN, PLATFORM_TABLES, UNCHANGING
from tests.prices import set_prices
from tools.local.postgres import EmbeddedPostgres

QUERIES = 1_000
#: What a tenant sees beside its own.
OURS_TO_SEE = {"outbox": {PLATFORM_TENANT}}


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Two tenants with rows in every table."""

    ours: UUID
    theirs: UUID


@pytest.fixture(scope="module")
async def neighbours(tenants_engine: AsyncEngine, engine: AsyncEngine) -> Neighbours:
    await set_prices(engine, ETH=2_000, USDC=1)
    made = Neighbours(await populate(tenants_engine), await populate(tenants_engine))
    await publish(engine, made.ours, made.theirs)
    return made


@pytest.fixture(scope="module")
def columns(database_url: str) -> dict[str, list[str]]:
    """The columns of every table of ours, in order."""
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
            " AND table_name NOT IN (SELECT relname FROM pg_class WHERE relispartition)"
            " ORDER BY table_name, ordinal_position"
        ).fetchall()
    found: dict[str, list[str]] = {}
    for table, column in rows:
        found.setdefault(table, []).append(column)
    return found


@pytest.fixture(scope="module")
def tenant_tables(columns: dict[str, list[str]]) -> list[str]:
    """Every table with a tenant's rows, so that a new one is covered without being named here."""
    return [table for table, names in columns.items() if "tenant_id" in names]


def rights(database_url: str, kind: str) -> dict[str, list[str]]:
    """The columns that the app's role may write, by table."""
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "SELECT table_name, column_name FROM information_schema.column_privileges"
            " WHERE grantee = %s AND privilege_type = %s AND table_schema = 'public'",
            [Role.APP.value, kind],
        ).fetchall()
    found: dict[str, list[str]] = {}
    for table, column in rows:
        found.setdefault(table, []).append(column)
    return found


def test_every_table_is_a_tenants_or_named_here(columns: dict[str, list[str]], tenant_tables: list[str]) -> None:
    assert set(columns) - set(tenant_tables) == PLATFORM_TABLES


def test_every_tenants_table_is_under_a_forced_policy(database_url: str, tenant_tables: list[str]) -> None:
    with psycopg.connect(database_url) as connection:
        found = connection.execute(
            "SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity, p.permissive, p.roles, p.cmd, p.qual,"
            " p.with_check FROM pg_class c LEFT JOIN pg_policies p ON p.tablename = c.relname"
            " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition"
            # These two are the platform's; tests/db/test_platform.py has them.
            " AND coalesce(p.policyname, '') NOT LIKE 'platform%'"
        ).fetchall()
    rule = "(tenant_id = current_tenant())"
    policies = {row[0]: row[1:] for row in found if row[0] in tenant_tables}
    assert len(found) == len({row[0] for row in found}), "a table has a second policy, which would widen the first"
    assert policies == dict.fromkeys(tenant_tables, (True, True, "PERMISSIVE", ["public"], "ALL", rule, rule))


def test_nothing_walks_around_the_policies(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        views = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('v', 'm', 'f')"
        ).fetchall()
        roles = connection.execute(
            "SELECT rolname, rolbypassrls, rolsuper, rolcanlogin, rolcreaterole FROM pg_roles"
            " WHERE rolname LIKE 'holdfast%%' ORDER BY rolname"
        ).fetchall()
        members = connection.execute(
            "SELECT m.member::regrole::text FROM pg_auth_members m WHERE m.member::regrole::text LIKE 'holdfast%'"
        ).fetchall()
        owned = connection.execute("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'").fetchall()
    assert views == [], "a view reads with its owner's rights"
    assert roles == [
        ("holdfast_app", False, False, False, False),
        ("holdfast_engine", True, False, False, False),
        ("holdfast_owner", True, False, False, False),
    ]
    assert members == [], "a role of ours is a member of another"
    assert owned == [(Role.OWNER.value,)]


def test_functions_with_the_owners_rights_are_these_and_look_nowhere_else(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        found = connection.execute(
            "SELECT proname, proconfig, has_function_privilege('public', oid, 'EXECUTE') FROM pg_proc"
            " WHERE pronamespace = 'public'::regnamespace AND prosecdef"
        ).fetchall()
    assert {name for name, *_ in found} == DEFINER_FUNCTIONS
    for name, config, everybody_may in found:
        assert [item for item in config if item.startswith("search_path=")] == ["search_path=public, pg_temp"], name
        assert not everybody_may, name


async def test_a_forgotten_filter_leaks_nothing(
    tenants_engine: AsyncEngine, neighbours: Neighbours, tenant_tables: list[str]
) -> None:
    for table in tenant_tables:
        for tenant in (neighbours.ours, neighbours.theirs):
            async with acting(tenants_engine, tenant) as connection:
                seen = {row[0] for row in await sql(connection, f"SELECT tenant_id FROM {table}")}
            assert seen - OURS_TO_SEE.get(table, set()) == {tenant}, (
                f"{table} has no rows for this test, or shows others'"
            )


async def test_without_a_tenant_there_is_nothing(
    tenants_engine: AsyncEngine, neighbours: Neighbours, tenant_tables: list[str]
) -> None:
    for table in tenant_tables:
        async with acting(tenants_engine) as connection:
            assert await sql(connection, f"SELECT 1 FROM {table}") == [], table


async def test_a_connection_forgets_its_tenant_with_the_transaction(
    tenants_engine: AsyncEngine, neighbours: Neighbours
) -> None:
    async with tenants_engine.connect() as connection:
        async with connection.begin():
            await set_tenant(connection, neighbours.ours)
            assert await sql(connection, "SELECT 1 FROM escrows")
        async with connection.begin():
            assert await sql(connection, "SELECT 1 FROM escrows") == []


async def test_a_row_for_another_tenant_is_refused(
    tenants_engine: AsyncEngine, neighbours: Neighbours, database_url: str, columns: dict[str, list[str]]
) -> None:
    tenant_tables = [table for table, names in columns.items() if "tenant_id" in names]
    writable = rights(database_url, "INSERT")
    assert set(tenant_tables) - set(writable) == {
        "backfill_chunks",
        "chain_blocks",
        "chain_events",
        "chain_reorgs",
        "mailbox_messages",
        "margin_audit_findings",
        "tenants",
        "publications",
        "webhook_attempts",
    }
    for table in tenant_tables:
        others = [name for name in writable.get(table, columns[table]) if name != "tenant_id"]
        names = ", ".join(others)
        with refused() as reason:
            async with acting(tenants_engine, neighbours.ours) as connection:
                await sql(
                    connection,
                    f"INSERT INTO {table} (tenant_id, {names}) OVERRIDING SYSTEM VALUE"
                    f" SELECT :theirs, {names} FROM {table} LIMIT 1",
                    theirs=neighbours.theirs,
                )
        assert reason.sqlstate == NOT_ALLOWED, table
        assert ("row-level security" in reason.message) == (table in writable), table


async def test_others_rows_are_not_changed(
    tenants_engine: AsyncEngine, neighbours: Neighbours, database_url: str, tenant_tables: list[str]
) -> None:
    writable = rights(database_url, "UPDATE")
    assert writable, "the app may update something"
    for table, names in writable.items():
        # A command that a worker of another test carried out meanwhile is closed to everybody.
        open_ = "finished_at IS NULL" if table == "settlement_commands" else "true"
        async with acting(tenants_engine, neighbours.ours) as connection:
            rows = len(await sql(connection, f"SELECT 1 FROM {table} WHERE {open_}"))
            change = f"UPDATE {table} SET {names[0]} = {names[0]}"
            assert len(await sql(connection, f"{change} WHERE {open_} RETURNING 1")) == rows
            theirs = f"{change} WHERE tenant_id = :theirs RETURNING 1"
            assert await sql(connection, theirs, theirs=neighbours.theirs) == []


async def test_nothing_is_moved_to_another_tenant_or_deleted(
    tenants_engine: AsyncEngine, neighbours: Neighbours, tenant_tables: list[str]
) -> None:
    for table in tenant_tables:
        for statement in (f"UPDATE {table} SET tenant_id = :theirs", f"DELETE FROM {table}", f"TRUNCATE {table}"):
            if table in DELETABLE and statement.startswith("DELETE"):
                async with acting(tenants_engine, neighbours.ours) as connection:
                    theirs = f"{statement} WHERE tenant_id = :theirs RETURNING 1"
                    assert await sql(connection, theirs, theirs=neighbours.theirs) == []
                continue
            with refused() as reason:
                async with acting(tenants_engine, neighbours.ours) as connection:
                    parameters = {"theirs": neighbours.theirs} if ":theirs" in statement else {}
                    await sql(connection, statement, **parameters)
            assert reason.sqlstate == NOT_ALLOWED, statement


async def test_the_databases_clock_is_nobodys_to_set(
    tenants_engine: AsyncEngine, engine: AsyncEngine, neighbours: Neighbours, columns: dict[str, list[str]]
) -> None:
    stamped = [table for table, names in columns.items() if "recorded_at" in names]
    assert len(stamped) > 8
    for role in (tenants_engine, engine):
        for table in stamped:
            for statement in (
                f"UPDATE {table} SET recorded_at = now()",
                f"INSERT INTO {table} (recorded_at) VALUES (now())",
            ):
                with refused() as reason:
                    async with acting(role, neighbours.ours) as connection:
                        await sql(connection, statement)
                assert reason.sqlstate == NOT_ALLOWED, statement


@pytest.mark.parametrize(("table", "column"), NEVER_WRITTEN)
async def test_what_only_the_database_derives_is_not_written(
    tenants_engine: AsyncEngine, engine: AsyncEngine, neighbours: Neighbours, table: str, column: str
) -> None:
    for role in (tenants_engine, engine):
        with refused() as reason:
            async with acting(role, neighbours.ours) as connection:
                await sql(connection, f"UPDATE {table} SET {column} = {column}")
        assert reason.sqlstate == NOT_ALLOWED


@pytest.mark.parametrize("table", UNCHANGING)
async def test_what_is_written_once_is_not_changed(
    tenants_engine: AsyncEngine, engine: AsyncEngine, neighbours: Neighbours, columns: dict[str, list[str]], table: str
) -> None:
    column = columns[table][-1]
    for role in (tenants_engine, engine):
        for statement in (f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}", f"TRUNCATE {table}"):
            with refused() as reason:
                async with acting(role, neighbours.ours) as connection:
                    await sql(connection, statement)
            assert reason.sqlstate == NOT_ALLOWED, statement


async def test_positions_are_the_relays_to_give(tenants_engine: AsyncEngine, neighbours: Neighbours) -> None:
    with refused() as reason:
        async with acting(tenants_engine, neighbours.ours) as connection:
            await sql(connection, "UPDATE outbox SET position = 1")
    assert reason.sqlstate == NOT_ALLOWED
    with refused() as reason:
        async with acting(tenants_engine, neighbours.ours) as connection:
            await sql(
                connection,
                "INSERT INTO outbox (tenant_id, event_id, topic, type, subject, data, occurred_at, position)"
                " SELECT tenant_id, :event, topic, type, subject, data, occurred_at, 1 FROM outbox LIMIT 1",
                event=new_id(),
            )
    assert reason.sqlstate == NOT_ALLOWED


@pytest.fixture
def plain_login(postgres: EmbeddedPostgres, database_url: str) -> Iterator[str]:
    """A login that is a member of the app's role and of nothing else."""
    name = f"login_{new_id().hex}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN IN ROLE holdfast_app".encode())
    yield database_url.replace("postgres@", f"{name}@")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"DROP ROLE {name}".encode())


async def test_a_plain_login_reaches_no_other_role(plain_login: str, neighbours: Neighbours) -> None:
    for role in (Role.OWNER, Role.ENGINE):
        with pytest.raises(asyncpg.PostgresError, match="permission denied to set role"):
            await asyncpg.connect(plain_login, server_settings={"role": role.value})
    app = {"role": Role.APP.value}
    connection = await asyncpg.connect(plain_login, server_settings=app, statement_cache_size=0)
    try:
        for other in ("holdfast_owner", "holdfast_engine", "postgres"):
            for statement in (
                f"SET ROLE {other}",
                f"SET SESSION AUTHORIZATION {other}",
                f"GRANT {other} TO holdfast_app",
            ):
                with pytest.raises(asyncpg.PostgresError, match="permission denied"):
                    await connection.execute(statement)
        for statement in (
            "ALTER TABLE escrows DISABLE ROW LEVEL SECURITY",
            "ALTER TABLE escrows NO FORCE ROW LEVEL SECURITY",
            "DROP POLICY tenant ON escrows",
            "ALTER TABLE ledger_legs DISABLE TRIGGER apply",
            "CREATE TABLE public.mine (id int)",
            "CREATE FUNCTION public.current_tenant(int) RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid'",
            "CREATE OR REPLACE FUNCTION public.current_tenant() RETURNS uuid LANGUAGE sql AS 'SELECT NULL::uuid'",
            "SET session_replication_role = replica",
            "ALTER ROLE holdfast_app BYPASSRLS",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
        for statement in ("RESET ROLE", "SET ROLE NONE", "RESET ALL", "DISCARD ALL", "SET row_security = off"):
            await connection.execute(statement)
            await connection.execute("SELECT set_config('app.tenant', $1, false)", str(neighbours.ours))
            try:
                seen = {row[0] for row in await connection.fetch("SELECT tenant_id FROM escrows")}
            except asyncpg.InsufficientPrivilegeError:
                assert "row_security" in statement, "asked to leave the policies aside, Postgres refuses to answer"
            else:
                assert seen == {neighbours.ours}, statement
    finally:
        await connection.close()


async def test_a_function_with_the_owners_rights_is_not_misled(plain_login: str, neighbours: Neighbours) -> None:
    """A temporary table or a search path of the caller's does not stand in for ours."""
    connection = await asyncpg.connect(plain_login, server_settings={"role": Role.APP.value})
    try:
        await connection.execute("CREATE TEMP TABLE tenants (tenant_id uuid, name text)")
        await connection.execute("SET search_path = pg_temp, public")
        made = new_id()
        assert await connection.fetchval("SELECT public.create_tenant($1, $2)", made, f"named {made}") is True
        assert await connection.fetchval("SELECT count(*) FROM pg_temp.tenants") == 0
    finally:
        await connection.close()


async def test_a_thousand_careless_queries_leak_nothing(
    tenants_engine: AsyncEngine, neighbours: Neighbours, tenant_tables: list[str]
) -> None:
    chance = random.Random(20261101)
    rows = 0
    async with tenants_engine.connect() as connection:
        for _ in range(QUERIES // 10):
            tenant, other = chance.sample([neighbours.ours, neighbours.theirs], 2)
            async with connection.begin():
                await set_tenant(connection, tenant)
                for _ in range(10):
                    query = random_query(chance, tenant_tables, other)
                    seen = [row[0] for row in await sql(connection, f"SELECT * FROM ({query}) AS q LIMIT 200")]
                    rows += len(seen)
                    assert set(seen) <= {tenant, None} | OURS_TO_SEE["outbox"], query
    assert rows > QUERIES, "the queries found something to leak"
