"""Tenants and keys: made once, found by hash alone, counted without a lost use, revoked for good."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from db import identity
from db.engine import tenant_transaction, transaction
from db.identity import ApiKeyRow, NewKey
from db.ids import new_id
from domain.identity import KEY_RANDOM_BYTES, Scope, hash_key, make_key
from tests.db.raw import CHECK_VIOLATION, UNIQUE_VIOLATION, acting, refused, sql

AT = datetime(2026, 5, 1, tzinfo=UTC)
_chance = random.Random(11)


def fresh(name: str = "a key", **changes: object) -> tuple[str, NewKey]:
    """A key, and what is stored of it."""
    key = make_key(_chance.randbytes(KEY_RANDOM_BYTES))
    fields: dict[str, object] = {
        "key_id": new_id(),
        "key_hash": hash_key(key),
        "prefix": key[:7],
        "last_four": key[-4:],
        "name": name,
        "scopes": [Scope.ESCROWS_READ, Scope.LEDGER_READ],
    }
    return key, NewKey(**(fields | changes))  # type: ignore[arg-type]


async def store(engine: AsyncEngine, tenant: UUID, key: NewKey) -> ApiKeyRow:
    async with tenant_transaction(engine, tenant) as connection:
        return await identity.create_key(connection, tenant, key)


async def find(engine: AsyncEngine, key: str) -> ApiKeyRow | None:
    """As the API asks: before it knows whose key it is."""
    async with transaction(engine) as connection:
        return await identity.find_api_key(connection, hash_key(key))


async def test_a_tenant_is_made_once_under_a_name(tenants_engine: AsyncEngine) -> None:
    name = f"desk {new_id()}"

    async def make() -> UUID | None:
        tenant = new_id()
        async with transaction(tenants_engine) as connection:
            return tenant if await identity.create_tenant(connection, new_tenant=tenant, name=name) else None

    made = [tenant for tenant in await asyncio.gather(*(make() for _ in range(8))) if tenant is not None]
    assert len(made) == 1
    async with tenant_transaction(tenants_engine, made[0]) as connection:
        found = await identity.find_tenant(connection, made[0])
        assert found is not None
        assert (found.tenant_id, found.name) == (made[0], name)
        assert await sql(connection, "SELECT count(*) FROM tenants WHERE name = :name", name=name) == [(1,)]


async def test_a_tenant_finds_only_itself(tenants_engine: AsyncEngine, tenant: UUID) -> None:
    other = new_id()
    async with transaction(tenants_engine) as connection:
        assert await identity.create_tenant(connection, new_tenant=other, name=f"other {other}")
    async with tenant_transaction(tenants_engine, tenant) as connection:
        assert await identity.find_tenant(connection, other) is None
        assert await identity.find_tenant(connection, tenant) is not None


async def test_a_tenants_first_key_follows_in_the_same_transaction(tenants_engine: AsyncEngine) -> None:
    tenant, (key, new) = new_id(), fresh()
    async with transaction(tenants_engine) as connection:
        assert await identity.create_tenant(connection, new_tenant=tenant, name=f"with key {tenant}")
        await identity.create_key(connection, tenant, new)
    found = await find(tenants_engine, key)
    assert found is not None
    assert found.tenant_id == tenant


async def test_a_key_reads_back_as_stored_and_is_nowhere_in_clear(tenants_engine: AsyncEngine, tenant: UUID) -> None:
    key, new = fresh("the name", user_id="alice", expires_at=AT)
    stored = await store(tenants_engine, tenant, new)
    assert await find(tenants_engine, key) == stored
    assert (stored.key_id, stored.tenant_id, stored.name) == (new.key_id, tenant, "the name")
    assert (stored.scopes, stored.user_id) == ([Scope.ESCROWS_READ, Scope.LEDGER_READ], "alice")
    assert (stored.expires_at, stored.revoked_at, stored.use_count, stored.last_used_at) == (AT, None, 0, None)
    async with tenant_transaction(tenants_engine, tenant) as connection:
        [row] = await sql(connection, "SELECT to_jsonb(k)::text AS whole, key_hash FROM api_keys k")
    assert key not in row.whole
    assert key[7:-4] not in row.whole
    assert bytes(row.key_hash) == hash_key(key)


async def test_a_key_that_was_never_made_is_not_found(tenants_engine: AsyncEngine) -> None:
    assert await find(tenants_engine, fresh()[0]) is None


async def test_no_two_keys_have_one_hash_in_any_tenant(tenants_engine: AsyncEngine, tenant: UUID) -> None:
    _, new = fresh()
    await store(tenants_engine, tenant, new)
    other = new_id()
    async with transaction(tenants_engine) as connection:
        await identity.create_tenant(connection, new_tenant=other, name=f"other {other}")
    with refused() as reason:
        await store(tenants_engine, other, NewKey(new_id(), new.key_hash, "p", "l", "n", []))
    assert reason.sqlstate == UNIQUE_VIOLATION
    with refused() as reason:
        await store(tenants_engine, tenant, NewKey(new_id(), b"short", "p", "l", "n", []))
    assert reason.sqlstate == CHECK_VIOLATION


async def test_a_revoked_key_is_found_with_its_first_revocation(tenants_engine: AsyncEngine, tenant: UUID) -> None:
    key, new = fresh()
    await store(tenants_engine, tenant, new)
    for at in (AT, AT + timedelta(days=1), AT - timedelta(days=1)):
        async with tenant_transaction(tenants_engine, tenant) as connection:
            revoked = await identity.revoke_key(connection, new.key_id, at)
        assert revoked is not None
        assert revoked.revoked_at == AT
    assert await find(tenants_engine, key) == revoked


async def test_a_tenant_revokes_only_its_own_keys(tenants_engine: AsyncEngine, tenant: UUID) -> None:
    key, new = fresh()
    await store(tenants_engine, tenant, new)
    async with tenant_transaction(tenants_engine, new_id()) as connection:
        assert await identity.revoke_key(connection, new.key_id, AT) is None
    found = await find(tenants_engine, key)
    assert found is not None
    assert found.revoked_at is None


async def test_keys_page_newest_first(tenants_engine: AsyncEngine, tenant: UUID) -> None:
    ids = sorted(new_id() for _ in range(5))
    for key_id in ids:
        await store(tenants_engine, tenant, fresh(key_id=key_id)[1])
    pages: list[UUID] = []
    before: UUID | None = None
    async with tenant_transaction(tenants_engine, tenant) as connection:
        while page := await identity.list_keys(connection, before=before, limit=2):
            pages += [key.key_id for key in page]
            before = page[-1].key_id
    assert pages == ids[::-1]


async def test_uses_are_counted_for_any_tenant_and_none_is_lost(tenants_engine: AsyncEngine, tenant: UUID) -> None:
    """Many processes flush what they counted, in whatever order they met the keys."""
    other = new_id()
    async with transaction(tenants_engine) as connection:
        await identity.create_tenant(connection, new_tenant=other, name=f"other {other}")
    keys = []
    for number in range(20):
        key, new = fresh()
        await store(tenants_engine, tenant if number % 2 else other, new)
        keys.append((key, new.key_id))
    chance = random.Random(5)

    async def flush(number: int) -> None:
        order = chance.sample([key_id for _, key_id in keys], len(keys))
        async with transaction(tenants_engine) as connection:
            uses = dict.fromkeys(order, 2) | {new_id(): 1}
            await identity.count_key_uses(connection, uses, AT + timedelta(seconds=number))

    await asyncio.gather(*(flush(number) for number in range(20)))
    for key, _ in keys:
        found = await find(tenants_engine, key)
        assert found is not None
        assert (found.use_count, found.last_used_at) == (40, AT + timedelta(seconds=19))


async def test_the_last_use_does_not_go_back(tenants_engine: AsyncEngine, tenant: UUID) -> None:
    key, new = fresh()
    await store(tenants_engine, tenant, new)
    for at in (AT, AT - timedelta(days=1)):
        async with transaction(tenants_engine) as connection:
            await identity.count_key_uses(connection, {new.key_id: 3}, at)
    found = await find(tenants_engine, key)
    assert found is not None
    assert (found.use_count, found.last_used_at) == (6, AT)


@pytest.mark.parametrize("column", ["scopes", "user_id", "key_hash", "expires_at", "name"])
async def test_a_key_is_revoked_but_never_changed(tenants_engine: AsyncEngine, tenant: UUID, column: str) -> None:
    await store(tenants_engine, tenant, fresh()[1])
    with refused() as reason:
        async with acting(tenants_engine, tenant) as connection:
            await sql(connection, f"UPDATE api_keys SET {column} = {column}")
    assert "permission denied" in reason.message
