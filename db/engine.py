"""Connections: one engine per role and process, a transaction per tenant step, faults sorted into families."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from enum import StrEnum
from io import BytesIO
from typing import Any
from uuid import UUID

import asyncpg
from sqlalchemy import text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from domain.errors import Refusal, Unavailable

CONNECT_TIMEOUT_SECONDS = 5
STATEMENT_TIMEOUT_MS = 10_000
LOCK_TIMEOUT_MS = 5_000
#: The server ends a statement before this; what takes longer is a connection on which nothing arrives any more.
ANSWER_TIMEOUT_SECONDS = 12
IDLE_TRANSACTION_TIMEOUT_MS = 30_000
POOL_WAIT_SECONDS = 5

#: SQLSTATE classes that say "not now": connection, resources, operator intervention, serialization and deadlocks.
_TRANSIENT_CLASSES = ("08", "53", "57", "40")
#: A lock that did not come in time, and a server that only reads while another one takes over.
_TRANSIENT_STATES = frozenset({"55P03", "25006"})
#: Constraints that state a rule: what breaks one is refused, not a bug. The rules in ``domain`` say no first; these
#: are what the database itself holds, whoever writes.
_RULES = {
    "accounts_overdraft_check": ("insufficient_funds", "the account has less available than this takes"),
    "accounts_held_check": ("hold_exhausted", "the account has less on hold than this takes"),
    "holds_remaining_check": ("hold_exhausted", "the hold has less left than this takes"),
    "ledger_transactions_tenant_id_kind_reference_key": ("reference_taken", "the reference names another transaction"),
    "ledger_transactions_tenant_id_reverses_id_key": ("already_reversed", "the transaction was reversed before"),
    "pending_transfers_tenant_id_reference_key": ("reference_taken", "the reference names another transfer"),
    "margin_parameter_versions_effective_from_key": (
        "effective_from_taken",
        "another version of the margin parameters takes effect at that instant",
    ),
    "chain_sources_relayer_id_key": ("source_taken", "the contract, or the addresses, are followed already"),
    "escrows_tenant_id_reference_key": ("reference_taken", "the reference names another escrow"),
}

_ENTER = text("SELECT set_config('app.tenant', :tenant, true)")
_NOTIFY = text("SELECT pg_notify(:channel, :said)")


class RowsRefused(Exception):
    """The database refused rows that were copied into it: a bug of whoever made them."""


class Role(StrEnum):
    """The database roles. ``OWNER`` migrates; ``APP`` lives under row-level security; ``ENGINE`` sees every tenant."""

    OWNER = "holdfast_owner"
    APP = "holdfast_app"
    ENGINE = "holdfast_engine"


class _Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """A driver's connection whose BEGIN also names the tenant: one message to the server where two would be sent.

    ``next_tenant`` is whose rows the next transaction sees and writes; None is nobody's.
    """

    next_tenant: UUID | None = None

    def transaction(self, **_: Any) -> _Transaction:
        """What SQLAlchemy begins, commits and rolls back."""
        return _Transaction(self)


class _Transaction:
    """A transaction of the server's default isolation, in which savepoints are made by their own statements."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    async def start(self) -> None:
        tenant, self._connection.next_tenant = self._connection.next_tenant, None
        entering = "" if tenant is None else f"; SELECT set_config('app.tenant', '{UUID(int=tenant.int)}', true)"
        await self._connection.execute(f"BEGIN{entering}")

    async def commit(self) -> None:
        await self._connection.execute("COMMIT")

    async def rollback(self) -> None:
        await self._connection.execute("ROLLBACK")


def driver_url(database_url: str, driver: str) -> URL:
    """``postgresql://…`` for one driver; libpq's ``sslmode`` becomes asyncpg's ``ssl``."""
    url = make_url(database_url).set(drivername=f"postgresql+{driver}")
    if driver == "asyncpg" and "sslmode" in url.query:
        url = url.update_query_dict({"ssl": url.query["sslmode"]}).difference_update_query(["sslmode"])
    return url


def create_engine(
    database_url: str, role: Role, *, pool_size: int = 10, answer_timeout_seconds: float = ANSWER_TIMEOUT_SECONDS
) -> AsyncEngine:
    """An engine whose every connection acts as ``role``.

    The role is a start-up parameter, so it is also what ``RESET ROLE`` returns to. Every wait has a limit.
    """
    return create_async_engine(
        driver_url(database_url, "asyncpg"),
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_WAIT_SECONDS,
        # The connection used last has its statements prepared and its server process warm.
        pool_use_lifo=True,
        connect_args={
            "connection_class": _Connection,
            "timeout": CONNECT_TIMEOUT_SECONDS,
            "command_timeout": answer_timeout_seconds,
            "server_settings": {
                "role": role.value,
                "timezone": "UTC",
                "application_name": role.value,
                "statement_timeout": str(STATEMENT_TIMEOUT_MS),
                "lock_timeout": str(LOCK_TIMEOUT_MS),
                "idle_in_transaction_session_timeout": str(IDLE_TRANSACTION_TIMEOUT_MS),
            },
        },
    )


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise ``Unavailable`` for a database that does not answer and ``Refusal`` for a rule that it holds.

    A database's absence arrives in several classes, among them a bare ``ConnectionRefusedError``; it is told by
    ``OSError``, the invalidated flag, SQLSTATE, or the driver's word that it lost its own state, as it does when a
    connection ends between two messages; never by SQLAlchemy's classes.
    """
    try:
        yield
    except PoolTimeoutError as error:
        raise Unavailable("postgres", "no connection became free in time") from error
    except OSError as error:
        raise Unavailable("postgres", str(error) or type(error).__name__) from error
    except DBAPIError as error:
        sqlstate = str(getattr(error.orig, "sqlstate", None) or "")
        transient = sqlstate[:2] in _TRANSIENT_CLASSES or sqlstate in _TRANSIENT_STATES
        if transient or error.connection_invalidated or isinstance(_cause(error), asyncpg.InternalClientError):
            raise Unavailable("postgres", str(error.orig)) from error
        rule = _RULES.get(constraint_of(error) or "")
        if rule is not None:
            raise Refusal(*rule) from error
        raise
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        # Statements fail with a ``DBAPIError``; bare, it is the set-up of a new connection, which was lost at once.
        raise Unavailable("postgres", str(error)) from error


def constraint_of(error: DBAPIError) -> str | None:
    """The name of the constraint that a statement violated, where it did."""
    name = getattr(_cause(error), "constraint_name", None)
    return name if isinstance(name, str) else None


def _cause(error: DBAPIError) -> Any:
    """The driver's own error."""
    return getattr(error.orig, "__cause__", None)


@asynccontextmanager
async def transaction(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """One transaction without a tenant: for ``ENGINE``, and for functions that work before a tenant is known."""
    with translate_errors():
        async with engine.begin() as connection:
            yield connection


@asynccontextmanager
async def tenant_transaction(engine: AsyncEngine, tenant_id: UUID) -> AsyncIterator[AsyncConnection]:
    """One transaction that sees and writes the rows of one tenant."""
    with translate_errors():
        async with engine.connect() as connection:
            driver = await _driver(connection)
            driver.next_tenant = tenant_id
            try:
                async with connection.begin():
                    yield connection
            finally:
                # A transaction without a statement never began: the next one of this connection is another's.
                driver.next_tenant = None


async def enter_tenant(connection: AsyncConnection, tenant_id: UUID) -> None:
    """Let the rest of the transaction see and write the rows of this tenant, and of no other."""
    await connection.execute(_ENTER, {"tenant": str(tenant_id)})


async def notify(engine: AsyncEngine, channel: str, said: str = "") -> None:
    """Wake who listens on ``channel``, at once and in no transaction, saying less than 8,000 bytes."""
    with translate_errors():
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(_NOTIFY, {"channel": channel, "said": said})


async def copy_in(connection: AsyncConnection, table: str, columns: Sequence[str], lines: Sequence[str]) -> None:
    """Append rows to a table. A line has a row's fields between tabs; an empty field is null, so none is empty text.

    Fields have no control characters. Raises what a statement would: ``Unavailable``, or the error of the bug it is.
    """
    content = "\n".join(lines).encode()
    if b"\\" in content:
        content = content.replace(b"\\", b"\\\\")
    driver = await _driver(connection)
    try:
        done = await driver.copy_to_table(table, columns=columns, source=BytesIO(content), format="text", null="")
    except asyncpg.PostgresError as error:
        if (error.sqlstate or "")[:2] in _TRANSIENT_CLASSES or error.sqlstate in _TRANSIENT_STATES:
            raise
        raise RowsRefused(f"{table}: {error}") from error
    if done != f"COPY {len(lines)}":
        raise RowsRefused(f"{table}: {done} instead of {len(lines)} rows")


async def copy_records(
    connection: AsyncConnection, table: str, columns: Sequence[str], records: Iterable[Sequence[Any]]
) -> int:
    """Append rows to a table, in the driver's binary form; answers how many. Raises as ``copy_in`` does."""
    driver = await _driver(connection)
    try:
        done = await driver.copy_records_to_table(table, columns=columns, records=records)
    except asyncpg.PostgresError as error:
        if (error.sqlstate or "")[:2] in _TRANSIENT_CLASSES or error.sqlstate in _TRANSIENT_STATES:
            raise
        raise RowsRefused(f"{table}: {error}") from error
    return int(done.removeprefix("COPY "))


def driver_uuid(content: bytes) -> Any:
    """A UUID as the driver writes it fastest, for who copies rows by the million."""
    return asyncpg.pgproto.pgproto.UUID(content)


async def _driver(connection: AsyncConnection) -> _Connection:
    driver = (await connection.get_raw_connection()).driver_connection
    assert isinstance(driver, _Connection), "every engine is made by create_engine"
    return driver


async def close(*engines: AsyncEngine) -> None:
    """Give every pooled connection back to the server."""
    for engine in engines:
        await engine.dispose()
