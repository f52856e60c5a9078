"""Tenants and their first keys, made from the command line."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from api.auth import SHOWN_CHARACTERS, fresh_key
from db import audit, identity
from db.engine import Role, create_engine, transaction
from db.ids import new_id
from domain.errors import Unavailable
from domain.identity import Scope, has_valid_checksum, hash_key
from kit.clock import now
from tools.local.home import write_atomically
from tools.local.process import StackError

T = TypeVar("T")

_ORIGIN = audit.Origin(request_id="command-line")


class TenantError(StackError):
    """The tenant cannot be made."""


def create_tenant(database_url: str, name: str, *, scopes: frozenset[Scope]) -> tuple[UUID, str]:
    """Make a tenant with one key; its id and the key, which is not stored anywhere."""
    return asyncio.run(_with_engine(database_url, lambda engine: _create(engine, name, scopes)))


def ensure_first_key(database_url: str, name: str, file: Path) -> bool:
    """Make sure that `file` holds a key that works and has every scope, making the tenant and a key where needed.

    True when one was made; an earlier one goes on working. The key may do everything, making tenants included: it is
    the operator's.
    """
    held = file.read_text().strip() if file.exists() else ""
    key = asyncio.run(_with_engine(database_url, lambda engine: _ensure(engine, name, held)))
    if key is None:
        return False
    write_atomically(file, key + "\n", mode=0o600)
    return True


async def _with_engine(database_url: str, work: Callable[[AsyncEngine], Awaitable[T]]) -> T:
    engine = create_engine(database_url, Role.ENGINE, pool_size=1)
    try:
        return await work(engine)
    except Unavailable as error:
        raise TenantError(f"DATABASE_URL: the database does not answer ({error.message})") from error
    finally:
        await engine.dispose()


async def _create(engine: AsyncEngine, name: str, scopes: frozenset[Scope]) -> tuple[UUID, str]:
    tenant = new_id()
    async with transaction(engine) as connection:
        if not await identity.create_tenant(connection, new_tenant=tenant, name=name):
            raise TenantError(f"there is a tenant {name!r} already")
        await _record(connection, tenant, f"tenant:{tenant}", "tenant.created", {"name": name})
        return tenant, await _create_key(connection, tenant, scopes)


async def _ensure(engine: AsyncEngine, name: str, held: str) -> str | None:
    async with transaction(engine) as connection:
        if await _works(connection, held):
            return None
        # Under the name's lock: two processes that start at once make one tenant.
        await connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"),
            {"name": name},
        )
        tenant = new_id()
        if await identity.create_tenant(connection, new_tenant=tenant, name=name):
            await _record(connection, tenant, f"tenant:{tenant}", "tenant.created", {"name": name})
        else:
            rows = await connection.execute(text("SELECT tenant_id FROM tenants WHERE name = :name"), {"name": name})
            tenant = rows.scalar_one()
        return await _create_key(connection, tenant, frozenset(Scope))


async def _works(connection: AsyncConnection, key: str) -> bool:
    if not has_valid_checksum(key):
        return False
    row = await identity.find_api_key(connection, hash_key(key))
    if row is None or row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= now()):
        return False
    # One that was made before a scope existed lacks it, and no key grants what it lacks.
    return set(row.scopes) >= {scope.value for scope in Scope}


async def _create_key(connection: AsyncConnection, tenant: UUID, scopes: frozenset[Scope]) -> str:
    key, key_id = fresh_key(), new_id()
    new = identity.NewKey(
        key_id=key_id,
        key_hash=hash_key(key),
        prefix=key[:SHOWN_CHARACTERS],
        last_four=key[-4:],
        name="first key",
        scopes=sorted(scope.value for scope in scopes),
    )
    await identity.create_key(connection, tenant, new)
    await _record(
        connection,
        tenant,
        f"key:{key_id}",
        "key.created",
        {"name": new.name, "scopes": new.scopes},
    )
    return key


async def _record(
    connection: AsyncConnection,
    tenant: UUID,
    subject: str,
    action: str,
    details: dict[str, object],
) -> None:
    await audit.write(connection, tenant, audit.AuditRecord(subject, action, now(), _ORIGIN, details))
