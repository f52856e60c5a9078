"""Idempotency keys: one request, one effect, one answer, whoever crashes in between."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.retention import RetentionActivities
from db import idempotency
from db.engine import tenant_transaction, transaction
from db.idempotency import Begun, Standing, StoredResponse
from db.ids import new_id
from db.retention import IDEMPOTENCY_KEPT_DAYS, delete_old_idempotency_keys
from tests.db.raw import acting, sql

ASKED, OTHER = b"a" * 32, b"b" * 32
LAPSED, LONG = -1, 60
ANSWER = StoredResponse(201, {"Location": "/x", "ETag": '"1"'}, bytes(range(256)) + "é".encode())


class Desk:
    """One tenant's keys, each call in a transaction of its own, as the API makes them."""

    def __init__(self, engine: AsyncEngine, tenant: UUID) -> None:
        self.engine = engine
        self.tenant = tenant

    async def begin(
        self,
        key: str = "key",
        *,
        caller: str = "",
        fingerprint: bytes = ASKED,
        operation_id: UUID | None = None,
        lease_seconds: int = LONG,
    ) -> Begun:
        async with tenant_transaction(self.engine, self.tenant) as connection:
            return await idempotency.begin(
                connection,
                tenant=self.tenant,
                caller=caller,
                key=key,
                fingerprint=fingerprint,
                operation_id=operation_id or new_id(),
                lease_seconds=lease_seconds,
            )

    async def finish(self, operation_id: UUID, response: StoredResponse = ANSWER, key: str = "key") -> StoredResponse:
        async with tenant_transaction(self.engine, self.tenant) as connection:
            return await idempotency.finish(
                connection, tenant=self.tenant, caller="", key=key, operation_id=operation_id, response=response
            )

    async def release(self, operation_id: UUID, key: str = "key") -> None:
        async with tenant_transaction(self.engine, self.tenant) as connection:
            await idempotency.release(connection, tenant=self.tenant, caller="", key=key, operation_id=operation_id)


@pytest.fixture
def desk(tenants_engine: AsyncEngine, tenant: UUID) -> Desk:
    return Desk(tenants_engine, tenant)


async def test_a_key_is_new_then_in_flight_then_answered(desk: Desk) -> None:
    operation = new_id()
    assert await desk.begin(operation_id=operation) == Begun(Standing.NEW, operation)
    assert await desk.begin() == Begun(Standing.IN_FLIGHT, operation)
    await desk.finish(operation)
    for _ in range(2):
        assert await desk.begin() == Begun(Standing.STORED, operation, ANSWER)


async def test_an_answer_is_kept_byte_for_byte(desk: Desk) -> None:
    for number, body in enumerate((b"", b'{"a": 1.0,  "b":"\xc3\xa9"}\r\n', bytes(range(256)) * 50)):
        operation = (await desk.begin(str(number))).operation_id
        await desk.finish(operation, StoredResponse(200, {"X": "é"}, body), str(number))
        found = (await desk.begin(str(number))).response
        assert found == StoredResponse(200, {"X": "é"}, body)


@pytest.mark.parametrize("lapsed", [False, True])
@pytest.mark.parametrize("answered", [False, True])
async def test_a_key_used_for_something_else_is_a_mismatch(desk: Desk, lapsed: bool, answered: bool) -> None:
    operation = (await desk.begin(lease_seconds=LAPSED if lapsed else LONG)).operation_id
    if answered:
        await desk.finish(operation)
    assert await desk.begin(fingerprint=OTHER) == Begun(Standing.MISMATCH, operation)
    again = await desk.begin()
    expected = Standing.STORED if answered else Standing.TAKEN_OVER if lapsed else Standing.IN_FLIGHT
    assert again.standing is expected, "the mismatch left the key as it was"


async def test_callers_and_tenants_do_not_share_keys(desk: Desk, tenants_engine: AsyncEngine) -> None:
    other = Desk(tenants_engine, new_id())
    async with transaction(tenants_engine) as connection:
        await sql(connection, "SELECT create_tenant(:tenant, :name)", tenant=other.tenant, name=str(other.tenant))
    begun = [await desk.begin(), await desk.begin(caller="alice"), await desk.begin(caller="bob"), await other.begin()]
    assert {each.standing for each in begun} == {Standing.NEW}
    assert len({each.operation_id for each in begun}) == 4


async def test_of_many_at_once_one_works(desk: Desk) -> None:
    found = await asyncio.gather(*(desk.begin() for _ in range(20)))
    assert Counter(each.standing for each in found) == {Standing.NEW: 1, Standing.IN_FLIGHT: 19}
    assert len({each.operation_id for each in found}) == 1


async def test_a_dead_request_is_taken_over_once_and_under_its_own_id(desk: Desk) -> None:
    operation = (await desk.begin(lease_seconds=LAPSED)).operation_id
    found = await asyncio.gather(*(desk.begin() for _ in range(20)))
    assert Counter(each.standing for each in found) == {Standing.TAKEN_OVER: 1, Standing.IN_FLIGHT: 19}
    assert {each.operation_id for each in found} == {operation}


async def test_an_answered_key_is_never_taken_over(desk: Desk) -> None:
    operation = (await desk.begin(lease_seconds=LAPSED)).operation_id
    await desk.finish(operation)
    assert (await desk.begin()).standing is Standing.STORED


async def test_the_first_answer_stands(desk: Desk) -> None:
    """A request that was thought dead, and the one that took it over, both come to an end."""
    operation = (await desk.begin(lease_seconds=LAPSED)).operation_id
    assert (await desk.begin()).standing is Standing.TAKEN_OVER
    assert await desk.finish(operation) == ANSWER
    assert await desk.finish(operation, StoredResponse(500, {}, b"late")) == ANSWER, "both tell the same"
    assert (await desk.begin()).response == ANSWER


async def test_a_stranger_neither_answers_nor_releases(desk: Desk) -> None:
    await desk.begin()
    await desk.finish(new_id())
    await desk.release(new_id())
    assert (await desk.begin()).standing is Standing.IN_FLIGHT


async def test_a_released_key_is_worked_on_at_once_under_the_same_id(desk: Desk) -> None:
    operation = (await desk.begin()).operation_id
    await desk.release(operation)
    assert await desk.begin() == Begun(Standing.TAKEN_OVER, operation)
    await desk.finish(operation)
    await desk.release(operation)
    assert await desk.begin() == Begun(Standing.STORED, operation, ANSWER)


async def test_a_claim_that_was_rolled_back_never_was(desk: Desk) -> None:
    async with desk.engine.connect() as connection, connection.begin() as claim:
        await sql(connection, "SELECT set_config('app.tenant', :tenant, true)", tenant=str(desk.tenant))
        await idempotency.begin(
            connection,
            tenant=desk.tenant,
            caller="",
            key="key",
            fingerprint=OTHER,
            operation_id=new_id(),
            lease_seconds=LONG,
        )
        await claim.rollback()
    assert (await desk.begin()).standing is Standing.NEW


async def test_old_keys_go_and_young_ones_stay(
    desk: Desk, engine: AsyncEngine, owner_engine: AsyncEngine, tenants_engine: AsyncEngine
) -> None:
    kept = timedelta(days=IDEMPOTENCY_KEPT_DAYS)
    ages = {"young": timedelta(), "almost": kept - timedelta(minutes=5), "old": kept + timedelta(minutes=5)}
    for name in ages:
        await desk.finish((await desk.begin(name)).operation_id, key=name)
    async with acting(owner_engine, desk.tenant) as connection:
        for name, age in ages.items():
            change = "UPDATE idempotency_keys SET recorded_at = now() - CAST(:age AS interval)"
            await sql(connection, f"{change} WHERE tenant_id = :t AND key = :key", age=age, key=name, t=desk.tenant)
    assert await RetentionActivities(engine).delete_idempotency_keys() >= 1
    standings = {name: (await desk.begin(name)).standing for name in ages}
    assert standings == {"young": Standing.STORED, "almost": Standing.STORED, "old": Standing.NEW}


async def test_old_keys_go_in_batches(desk: Desk, engine: AsyncEngine, owner_engine: AsyncEngine) -> None:
    for number in range(7):
        await desk.begin(str(number))
    async with acting(owner_engine, desk.tenant) as connection:
        change = "UPDATE idempotency_keys SET recorded_at = now() - interval '30 days' WHERE tenant_id = :tenant"
        await sql(connection, change, tenant=desk.tenant)
    gone: list[int] = []
    while not gone or gone[-1] == 3:
        async with transaction(engine) as connection:
            gone.append(await delete_old_idempotency_keys(connection, limit=3))
    assert sum(gone) >= 7
    assert max(gone) <= 3
    async with tenant_transaction(desk.engine, desk.tenant) as connection:
        assert await sql(connection, "SELECT 1 FROM idempotency_keys") == []
