"""Settlement commands in the database: forward only, final, and found through the indexes however many wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from db import settlement
from db.engine import Role, create_engine, tenant_transaction, transaction
from db.identity import create_tenant
from db.ids import new_id
from domain.settlement import CommandStatus, Outcome
from tests.commands import command, read, take

SETTLED = Outcome(CommandStatus.SETTLED)
REJECTED = Outcome(CommandStatus.REJECTED, "insufficient_funds", "no")
#: The wrong index makes it tens of seconds; the right one some milliseconds.
LANE_SECONDS = 4.0


async def run(engine: AsyncEngine, tenant: UUID, query: str, **parameters: Any) -> list[Any]:
    async with tenant_transaction(engine, tenant) as connection:
        done = await connection.execute(text(query), parameters)
        return list(done.all()) if done.returns_rows else []


@pytest.mark.parametrize(
    "change",
    [
        "status = 'RECEIVED', code = NULL, finished_at = NULL, processing_at = NULL",
        "status = 'SETTLED', code = NULL",
        "code = 'other'",
        "reason = 'other'",
        "attempts = attempts + 1",
        "finished_at = now()",
    ],
)
async def test_a_finished_command_never_moves_again(tenants_engine: AsyncEngine, tenant: UUID, change: str) -> None:
    one = command("deposit")
    await take(tenants_engine, tenant, [one])
    sequence = (await read(tenants_engine, tenant, one)).sequence
    async with tenant_transaction(tenants_engine, tenant) as connection:
        assert await settlement.finish(connection, tenant, {sequence: REJECTED}) == {sequence}
    with pytest.raises(DBAPIError, match="never moves again"):
        await run(tenants_engine, tenant, f"UPDATE settlement_commands SET {change}")
    async with tenant_transaction(tenants_engine, tenant) as connection:
        assert await settlement.finish(connection, tenant, {sequence: SETTLED}) == set()
    assert (await read(tenants_engine, tenant, one)).status == "REJECTED"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("status = 'RECEIVED', processing_at = NULL", "goes forward"),
        ("transaction_id = gen_random_uuid()", "goes forward"),
        ("status = 'GONE'", "status_check"),
        ("status = 'SETTLED'", "outcome_check"),
        ("status = 'REJECTED', finished_at = now()", "outcome_check"),
        ("code = 'x'", "outcome_check"),
    ],
)
async def test_a_command_goes_forward_only(tenants_engine: AsyncEngine, tenant: UUID, change: str, why: str) -> None:
    one = command("deposit")
    await take(tenants_engine, tenant, [one])
    sequence = (await read(tenants_engine, tenant, one)).sequence
    async with tenant_transaction(tenants_engine, tenant) as connection:
        await settlement.take_up(connection, tenant, [sequence])
    with pytest.raises(DBAPIError, match=why):
        await run(tenants_engine, tenant, f"UPDATE settlement_commands SET {change}")
    assert (await read(tenants_engine, tenant, one)).status == "PROCESSING"


async def test_taking_twice_takes_once(tenants_engine: AsyncEngine, tenant: UUID) -> None:
    commands = [command("deposit", number) for number in range(1, 40)]
    answers = await asyncio.gather(*(take(tenants_engine, tenant, commands[:: (-1) ** n]) for n in range(8)))
    fresh = [one.command_id for answer in answers for one in commands if answer[one.command_id].fresh]
    assert sorted(fresh) == sorted(one.command_id for one in commands)
    # A worker of other tests may have carried them out by now.
    [events] = await run(tenants_engine, tenant, "SELECT count(*) AS n FROM outbox WHERE type = 'commands.received'")
    assert events.n == 1


@pytest.fixture
async def apart(migrated_url: str) -> AsyncIterator[AsyncEngine]:
    """A database of the test's own: no worker of another test carries its commands out."""
    engine = create_engine(migrated_url, Role.APP)
    yield engine
    await engine.dispose()


async def test_lanes_are_short_to_look_at_however_many_wait(apart: AsyncEngine) -> None:
    """Twenty thousand, half of them held up by the other half: first met by connections that saw an empty table."""
    engine, tenant = apart, new_id()
    async with transaction(engine) as connection:
        assert await create_tenant(connection, new_tenant=tenant, name=f"test-{tenant}")

    async def look() -> tuple[list[settlement.LedgerTurn], list[int]]:
        async with tenant_transaction(engine, tenant) as connection:
            ledger = await settlement.ledger_turns(connection, tenant, limit=1_000)
            return ledger, await settlement.escrow_turns(connection, tenant, limit=200)

    assert await look() == ([], [])
    for _ in range(2):
        await take(engine, tenant, [command("escrow_fund", 10, "alice", escrow_id=new_id()) for _ in range(5_000)])
    await take(engine, tenant, [command("deposit", 10, "alice") for _ in range(8_000)])
    await take(engine, tenant, [command("deposit", 10, f"user-{number}") for number in range(2_000)])
    started = time.perf_counter()
    ledger, escrow = await look()
    assert time.perf_counter() - started < LANE_SECONDS
    assert len(escrow) == 200
    assert [turn.command.account_ref for turn in ledger] == [f"user-{number}" for number in range(1_000)]
    async with tenant_transaction(engine, tenant) as connection:
        outcomes = {turn.sequence: REJECTED for turn in ledger}
        started = time.perf_counter()
        assert len(await settlement.finish(connection, tenant, outcomes)) == 1_000
        assert time.perf_counter() - started < LANE_SECONDS


async def test_tenants_whose_commands_wait(tenants_engine: AsyncEngine, engine: AsyncEngine, tenant: UUID) -> None:
    await take(tenants_engine, tenant, [command("deposit")])
    async with transaction(engine) as connection:
        assert tenant not in await settlement.list_waiting(connection, timedelta(minutes=5), limit=1_000)
        assert tenant in await settlement.list_waiting(connection, timedelta(0), limit=1_000)
