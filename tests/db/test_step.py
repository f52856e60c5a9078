"""One step, one effect: whatever is tried, however often and by however many at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from db import audit, ledger, outbox, receipts
from db.audit import AuditRecord, Origin
from db.doorbell import Doorbell
from db.engine import tenant_transaction
from db.ids import new_id
from db.outbox import SETTLEMENT_TOPIC, WAKE_CHANNEL, OutboxEvent
from db.step import StepNotFinished, step
from domain.errors import Refusal
from domain.ledger import deposit
from tests.db.raw import sql
from tests.polling import eventually

AT = datetime(2026, 5, 1, 12, 30, 15, 123456, tzinfo=UTC)


class Room:
    """A tenant's steps: each deposits one unit and tells of it."""

    def __init__(self, engine: AsyncEngine, tenant: UUID) -> None:
        self.engine = engine
        self.tenant = tenant
        self.doorbell = Doorbell(engine)
        self.bodies = 0

    async def run(self, step_id: str, *, events: int = 1, pause: float = 0.0) -> Any:
        """One attempt of a step; answers its receipt, or what it made."""
        async with step(self.engine, self.doorbell, tenant_id=self.tenant, step_id=step_id) as opened:
            if opened.receipt is not None:
                return opened.receipt
            self.bodies += 1
            made = new_id()
            arriving = deposit("alice", "USDC", 1, transaction_id=made, effective_at=AT)
            await ledger.post(opened.connection, self.tenant, [arriving])
            await asyncio.sleep(pause)
            result = {"transaction": str(made), "nested": {"list": [1, None, "\u20ac"]}}
            await opened.finish(result=result, audit=record(step_id), events=[event(step_id, n) for n in range(events)])
            return result

    async def broken(self, *, finishes: int, error: BaseException | None = None) -> None:
        """An attempt that deposits, finishes so many times, and then fails."""
        async with step(self.engine, self.doorbell, tenant_id=self.tenant, step_id="step") as opened:
            arriving = deposit("alice", "USDC", 1, transaction_id=new_id(), effective_at=AT)
            await ledger.post(opened.connection, self.tenant, [arriving])
            for _ in range(finishes):
                await opened.finish(result={}, audit=record("step"), events=[event("step")])
            if error is not None:
                raise error

    async def left(self) -> dict[str, int]:
        """How many rows there are."""
        tables = ("ledger_transactions", "accounts", "audit_log", "outbox", "receipts")
        async with tenant_transaction(self.engine, self.tenant) as connection:
            return {table: int((await sql(connection, f"SELECT count(*) FROM {table}"))[0][0]) for table in tables}


NOTHING = {"ledger_transactions": 0, "accounts": 0, "audit_log": 0, "outbox": 0, "receipts": 0}
ONCE = {"ledger_transactions": 1, "accounts": 2, "audit_log": 1, "outbox": 1, "receipts": 1}


def record(subject: str) -> AuditRecord:
    return AuditRecord(subject, "tested", AT, Origin("alice", None, "request", "workflow"), {"why": "\u00fc"})


def event(subject: str, number: int = 0) -> OutboxEvent:
    return OutboxEvent(new_id(), SETTLEMENT_TOPIC, f"test.{number}", subject, AT, {"number": number})


@pytest.fixture
async def room(tenants_engine: AsyncEngine, tenant: UUID) -> AsyncIterator[Room]:
    made = Room(tenants_engine, tenant)
    yield made
    await made.doorbell.close()


async def test_a_step_that_is_repeated_answers_its_receipt(room: Room) -> None:
    first = await room.run("step")
    assert [await room.run("step") for _ in range(3)] == [first] * 3
    assert room.bodies == 1
    assert await room.left() == ONCE
    async with tenant_transaction(room.engine, room.tenant) as connection:
        assert await receipts.find(connection, "step") == first
        assert await receipts.find(connection, "another") is None


async def test_attempts_at_once_have_one_effect_and_one_answer(room: Room) -> None:
    answers = await asyncio.gather(*(room.run("step", pause=0.05) for _ in range(10)))
    assert room.bodies == 1
    assert [answer == answers[0] for answer in answers] == [True] * 10
    assert await room.left() == ONCE


async def test_a_step_is_one_tenants_own(room: Room, tenants_engine: AsyncEngine) -> None:
    await room.run("step")
    other = Room(tenants_engine, new_id())
    async with tenant_transaction(tenants_engine, other.tenant) as connection:
        await sql(connection, "SELECT create_tenant(:tenant, :name)", tenant=other.tenant, name=str(other.tenant))
    await other.run("step")
    await other.doorbell.close()
    assert (other.bodies, await other.left()) == (1, ONCE)


async def test_different_steps_do_not_wait_for_one_another(room: Room) -> None:
    """Two steps that can only end together."""
    both = asyncio.Barrier(2)

    async def meet(step_id: str) -> None:
        async with step(room.engine, room.doorbell, tenant_id=room.tenant, step_id=step_id) as opened:
            await both.wait()
            await opened.finish(result={}, audit=record(step_id), events=[])

    async with asyncio.timeout(10):
        await asyncio.gather(meet("one"), meet("two"))


@pytest.mark.parametrize("error", [RuntimeError("a bug"), Refusal("no", "a rule"), asyncio.CancelledError()])
@pytest.mark.parametrize("finishes", [0, 1])
async def test_a_body_that_raises_leaves_nothing(room: Room, error: BaseException, finishes: int) -> None:
    with pytest.raises(type(error)):
        await room.broken(finishes=finishes, error=error)
    assert await room.left() == NOTHING
    await room.run("step")
    assert await room.left() == ONCE


async def test_a_step_that_says_nothing_writes_nothing(room: Room) -> None:
    with pytest.raises(StepNotFinished):
        await room.broken(finishes=0)
    assert await room.left() == NOTHING


async def test_a_step_finishes_once(room: Room) -> None:
    with pytest.raises(DBAPIError):
        await room.broken(finishes=2)
    assert await room.left() == NOTHING


async def test_an_empty_result_is_a_receipt_too(room: Room) -> None:
    async with step(room.engine, room.doorbell, tenant_id=room.tenant, step_id="step") as opened:
        await opened.finish(result={}, audit=record("step"), events=[])
    async with step(room.engine, room.doorbell, tenant_id=room.tenant, step_id="step") as again:
        assert again.receipt == {}


async def test_audit_and_events_read_back_as_written(room: Room) -> None:
    await room.run("thing:1", events=1)
    async with tenant_transaction(room.engine, room.tenant) as connection:
        [entry] = await audit.list_for(connection, "thing:1", after=0, limit=10)
        assert await audit.list_for(connection, "thing:1", after=entry.audit_id, limit=10) == []
        assert await audit.list_for(connection, "thing:2", after=0, limit=10) == []
        [row] = await sql(connection, "SELECT topic, type, subject, occurred_at, data FROM outbox")
    assert (entry.subject, entry.action, entry.at, entry.details) == ("thing:1", "tested", AT, {"why": "\u00fc"})
    assert (entry.actor_user, entry.actor_key_id) == ("alice", None)
    assert (entry.request_id, entry.workflow_id) == ("request", "workflow")
    assert tuple(row) == (SETTLEMENT_TOPIC, "test.0", "thing:1", AT, {"number": 0})


async def test_the_audit_log_pages_in_the_order_of_writing(room: Room) -> None:
    async with tenant_transaction(room.engine, room.tenant) as connection:
        for number in range(7):
            await audit.write(connection, room.tenant, AuditRecord("s", f"act {number}", AT, Origin(), {}))
    pages: list[str] = []
    after = 0
    async with tenant_transaction(room.engine, room.tenant) as connection:
        while page := await audit.list_for(connection, "s", after=after, limit=3):
            pages += [entry.action for entry in page]
            after = page[-1].audit_id
    assert pages == [f"act {number}" for number in range(7)]


async def test_events_of_one_step_keep_their_order(room: Room, engine: AsyncEngine) -> None:
    await room.run("step", events=50)

    async def numbered() -> bool:
        async with engine.begin() as connection:
            await outbox.number_committed(connection, limit=2_000)
        async with tenant_transaction(room.engine, room.tenant) as connection:
            return len(await outbox.feed(connection, topic=None, after=0, limit=100)) == 50

    await eventually(numbered)
    async with tenant_transaction(room.engine, room.tenant) as connection:
        found = await outbox.feed(connection, topic=SETTLEMENT_TOPIC, after=0, limit=100)
        assert await outbox.feed(connection, topic="another", after=0, limit=100) == []
    assert [each.data["number"] for each in found] == list(range(50))


async def test_the_relay_is_woken_after_the_commit_and_not_by_every_step(room: Room, database_url: str) -> None:
    rings = 0

    def count(*_: object) -> None:
        nonlocal rings
        rings += 1

    async def heard() -> bool:
        return rings > 0

    listener = await asyncpg.connect(database_url)
    try:
        await listener.add_listener(WAKE_CHANNEL, count)
        async with step(room.engine, room.doorbell, tenant_id=room.tenant, step_id="one") as opened:
            await opened.finish(result={}, audit=record("one"), events=[event("one")])
        await eventually(heard)
        for _ in range(500):
            room.doorbell.ring()
        await room.doorbell.close()
        await listener.fetchval("SELECT 1")
        assert rings < 100, "many rings make one notification"
    finally:
        await listener.close()


async def test_a_step_that_was_done_before_wakes_nobody(room: Room) -> None:
    await room.run("step")
    await room.doorbell.close()
    doorbell = Doorbell(room.engine)
    async with step(room.engine, doorbell, tenant_id=room.tenant, step_id="step") as opened:
        assert opened.receipt is not None
    assert doorbell._task is None
