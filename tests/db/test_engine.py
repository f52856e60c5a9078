"""Connections: every wait has a limit, and what goes wrong is told apart: absent, refused, or a bug."""

from __future__ import annotations

import asyncio
import contextlib
from uuid import UUID

import asyncpg
import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import Role, create_engine, driver_url, tenant_transaction, transaction, translate_errors
from db.ids import new_id
from domain.errors import Unavailable
from tests.cable import Cable, Fault
from tests.db.raw import acting, sql
from tests.polling import eventually
from tools.local.process import free_port


def _caused(error: Exception) -> Exception:
    """A driver's error, as SQLAlchemy hands it on."""
    adapted = Exception(str(error))
    adapted.__cause__ = error
    return adapted


async def test_every_connection_acts_as_its_role_and_has_its_limits(
    tenants_engine: AsyncEngine, engine: AsyncEngine, owner_engine: AsyncEngine
) -> None:
    for made, role in ((tenants_engine, Role.APP), (engine, Role.ENGINE), (owner_engine, Role.OWNER)):
        async with acting(made) as connection:
            await sql(connection, "RESET ROLE")
            [(user,)] = await sql(connection, "SELECT current_user")
            limits = [
                (await sql(connection, f"SHOW {name}"))[0][0]
                for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "timezone")
            ]
        assert (user, limits) == (role, ["10s", "5s", "30s", "UTC"])


async def test_a_database_that_is_not_there_is_unavailable() -> None:
    engine = create_engine(f"postgresql://nobody@127.0.0.1:{free_port()}/nothing", Role.APP, pool_size=1)
    with pytest.raises(Unavailable) as caught:
        await _touch(engine)
    assert caught.value.what == "postgres"
    await engine.dispose()


async def test_a_connection_that_fell_silent_is_given_up(database_url: str) -> None:
    """Somebody between us and the server forgot the connection: nothing arrives, and nobody says so."""
    async with Cable(database_url) as cable:
        engine = create_engine(cable.url, Role.APP, pool_size=2, answer_timeout_seconds=0.5)
        try:
            await asyncio.gather(_touch(engine), _touch(engine))
            cable.break_(Fault.SWALLOWING)
            async with asyncio.timeout(10):
                for outcome in await asyncio.gather(*(_touch(engine) for _ in range(4)), return_exceptions=True):
                    assert isinstance(outcome, Unavailable), outcome
            cable.mend(reset=False)
            async with asyncio.timeout(10):
                await _touch_until_it_works(engine)
                await asyncio.gather(_touch(engine), _touch(engine))
        finally:
            await engine.dispose()


async def test_a_pool_that_is_used_up_is_unavailable(database_url: str) -> None:
    engine = create_engine(database_url, Role.APP, pool_size=1)
    engine.pool._timeout = 0.05  # type: ignore[attr-defined]
    try:
        async with transaction(engine):
            with pytest.raises(Unavailable):
                await _touch(engine)
        await _touch(engine)
    finally:
        await engine.dispose()


async def test_a_lost_connection_is_unavailable_and_the_next_one_works(database_url: str) -> None:
    engine = create_engine(database_url, Role.APP, pool_size=1)
    try:
        async with transaction(engine) as connection:
            [(pid,)] = await sql(connection, "SELECT pg_backend_pid()")
        await _terminate(database_url, pid)
        with pytest.raises(Unavailable):
            await _touch(engine)
        await _touch(engine)
        with pytest.raises(Unavailable):
            await _lose(engine, database_url)
        await _touch(engine)
    finally:
        await engine.dispose()


async def test_connections_that_are_lost_at_any_moment_are_only_unavailable(empty_url: str) -> None:
    """While one is being set up, between two messages, in the middle of a statement: never as a bug."""
    engine = create_engine(empty_url, Role.OWNER, pool_size=4)
    killing = True

    async def work() -> None:
        while killing:
            with contextlib.suppress(Unavailable):
                await _run(engine, "SELECT 1", "SELECT pg_sleep(0.001)", "SELECT 2")

    workers = [asyncio.create_task(work()) for _ in range(4)]
    async with await psycopg.AsyncConnection.connect(empty_url, autocommit=True) as connection:
        for _ in range(150):
            await asyncio.sleep(0.005)
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
    killing = False
    await asyncio.gather(*workers)
    await _touch_until_it_works(engine)
    await engine.dispose()


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress"),
        asyncpg.AdminShutdownError("terminating connection"),
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        ConnectionRefusedError("refused"),
        TimeoutError(),
        PoolTimeoutError("no connection"),
        DBAPIError("SELECT 1", {}, _caused(asyncpg.InternalClientError("cannot switch to state 11"))),
        DBAPIError("SELECT 1", {}, Exception(), connection_invalidated=True),
    ],
    ids=repr,
)
def test_absence_is_told_whatever_it_looks_like(error: Exception) -> None:
    with pytest.raises(Unavailable) as caught, translate_errors():
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    ("setting", "blocked"),
    [("lock_timeout", "SELECT pg_advisory_xact_lock(77)"), ("statement_timeout", "SELECT pg_sleep(5)")],
)
async def test_a_wait_that_is_too_long_is_unavailable(tenants_engine: AsyncEngine, setting: str, blocked: str) -> None:
    async with transaction(tenants_engine) as holder:
        await sql(holder, "SELECT pg_advisory_xact_lock(77)")
        with pytest.raises(Unavailable):
            await _run(tenants_engine, f"SET LOCAL {setting} = '50ms'", blocked)


async def test_a_deadlock_is_unavailable(tenants_engine: AsyncEngine) -> None:
    met = asyncio.Barrier(2)

    async def cross(first: int, second: int) -> None:
        async with transaction(tenants_engine) as connection:
            await sql(connection, "SELECT pg_advisory_xact_lock(:key)", key=first)
            await met.wait()
            await sql(connection, "SELECT pg_advisory_xact_lock(:key)", key=second)

    found = await asyncio.gather(cross(7_001, 7_002), cross(7_002, 7_001), return_exceptions=True)
    assert sorted(type(each).__name__ for each in found) == ["NoneType", "Unavailable"]


async def test_a_server_that_only_reads_is_unavailable(tenants_engine: AsyncEngine, tenant: UUID) -> None:
    """As a standby does in the moments of a fail-over."""

    async def write() -> None:
        async with transaction(tenants_engine) as connection:
            await sql(connection, "SET TRANSACTION READ ONLY")
            await sql(connection, "SELECT create_tenant(:tenant, 'nobody')", tenant=tenant)

    with pytest.raises(Unavailable):
        await write()


async def test_a_bug_stays_what_it_is(tenants_engine: AsyncEngine, tenant: UUID) -> None:
    with pytest.raises(DBAPIError, match="does not exist"):
        await _run(tenants_engine, "SELECT no_such_column FROM escrows")
    with pytest.raises(DBAPIError, match="null value"):
        async with tenant_transaction(tenants_engine, tenant) as connection:
            await sql(connection, "INSERT INTO accounts (tenant_id) VALUES (:tenant)", tenant=tenant)


def test_urls_are_made_for_each_driver() -> None:
    url = "postgresql://me:p%40ss@db:5432/name?sslmode=require&application_name=x"
    kept = driver_url(url, "psycopg")
    assert (kept.drivername, kept.query["sslmode"]) == ("postgresql+psycopg", "require")
    made = driver_url(url, "asyncpg")
    assert (made.drivername, made.password) == ("postgresql+asyncpg", "p@ss")
    assert dict(made.query) == {"application_name": "x", "ssl": "require"}
    assert driver_url("postgres://db/name", "asyncpg").drivername == "postgresql+asyncpg"


async def _touch(engine: AsyncEngine) -> None:
    await _run(engine, "SELECT 1")


async def _run(engine: AsyncEngine, *statements: str) -> None:
    async with transaction(engine) as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def _touch_until_it_works(engine: AsyncEngine) -> None:
    """The pool may have connections left that it does not know to be lost, each for one failure."""

    async def works() -> bool:
        try:
            await _touch(engine)
        except Unavailable:
            return False
        return True

    await eventually(works)


async def _lose(engine: AsyncEngine, database_url: str) -> None:
    """A transaction whose connection goes while it is open."""
    async with transaction(engine) as connection:
        [(pid,)] = await sql(connection, "SELECT pg_backend_pid()")
        await _terminate(database_url, pid)
        await sql(connection, "SELECT 1")


async def _terminate(database_url: str, pid: int) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        await connection.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])


async def test_a_tenant_is_entered_with_its_own_transaction_alone(database_url: str) -> None:
    """BEGIN names the tenant: one that never begins, fails, or ends, leaves nothing to the connection's next user."""
    engine = create_engine(database_url, Role.APP, pool_size=1)
    mine, other = new_id(), new_id()

    async def entered() -> str:
        async with transaction(engine) as connection:
            return str((await sql(connection, "SELECT coalesce(current_setting('app.tenant', true), '')"))[0][0])

    async with tenant_transaction(engine, mine) as connection:
        assert await sql(connection, "SELECT current_setting('app.tenant')") == [(str(mine),)]
        async with connection.begin_nested():
            assert await sql(connection, "SELECT current_setting('app.tenant')") == [(str(mine),)]
    assert await entered() == ""
    async with tenant_transaction(engine, mine):
        pass
    assert await entered() == ""
    with contextlib.suppress(DBAPIError):
        async with tenant_transaction(engine, mine) as connection:
            await sql(connection, "SELECT 1 / 0")
    assert await entered() == ""
    with contextlib.suppress(ZeroDivisionError):
        async with tenant_transaction(engine, mine):
            raise ZeroDivisionError
    assert await entered() == ""
    async with tenant_transaction(engine, other) as connection:
        assert await sql(connection, "SELECT current_setting('app.tenant')") == [(str(other),)]
    await engine.dispose()
