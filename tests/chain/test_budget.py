"""One budget of requests for every process, the live end first; and what is written of providers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import monotonic
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from activities.chain.budget import BURST_SECONDS, RESERVE_SHARE, SharedAllowance
from activities.chain.desk import Desk
from activities.chain.noting import ProviderNotes, note
from activities.chain.pool import Provider
from activities.chain.ports import Lane
from db.chain import budget, providers
from db.chain.providers import Seen
from db.engine import transaction
from db.ids import new_id
from tests.chain.nodes import NETWORK, ModelChain, Node, source

PER_SECOND = 200.0
AT = datetime(2026, 11, 26, 12, tzinfo=UTC)


def allowance(engine: AsyncEngine, name: str, per_second: float = PER_SECOND) -> SharedAllowance:
    return SharedAllowance(engine, "dev", name, per_second)


async def taken(one: SharedAllowance, lane: Lane, until: float) -> int:
    """How many requests it gives until then."""
    count = 0
    while monotonic() < until:
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + until - monotonic()):
                await one.take(1, lane)
        except TimeoutError:
            break
        count += 1
    return count


async def test_processes_share_one_budget(engine: AsyncEngine) -> None:
    name, seconds = str(new_id()), 1.0
    processes = [allowance(engine, name) for _ in range(4)]
    until = monotonic() + seconds
    counts = await asyncio.gather(*(taken(one, Lane.JOB, until) for one in processes))
    most = PER_SECOND * (seconds + BURST_SECONDS)
    assert 0.5 * PER_SECOND * seconds <= sum(counts) <= most, counts


async def test_the_live_end_goes_first(engine: AsyncEngine) -> None:
    name = str(new_id())
    job, live = allowance(engine, name), allowance(engine, name)
    until = monotonic() + 1.0
    jobs = [asyncio.create_task(taken(job, Lane.JOB, until)) for _ in range(3)]
    await asyncio.sleep(0.3)
    waits = []
    for _ in range(5):
        began = monotonic()
        await live.take(4, Lane.LIVE)
        waits.append(monotonic() - began)
        await asyncio.sleep(0.1)
    assert sorted(waits)[2] < 0.05, waits
    assert sum(await asyncio.gather(*jobs)) > 20


async def test_what_is_larger_than_the_budget_is_paid_bit_by_bit(engine: AsyncEngine) -> None:
    for lane in Lane:
        one = allowance(engine, str(new_id()))
        began = monotonic()
        await one.take(200, lane)
        # The burst is there at once, the rest comes.
        assert 0.45 <= monotonic() - began < 1.5


async def test_jobs_leave_a_reserve(engine: AsyncEngine) -> None:
    bucket = budget.Bucket("dev", str(new_id()), 0.001, 10.0)
    leave = bucket.most * RESERVE_SHARE
    async with transaction(engine) as connection:
        assert await budget.draw(connection, bucket, 6, leave) == 0
        assert await budget.draw(connection, bucket, 1, leave) > 100
        assert await budget.owe(connection, bucket, 4) == 0
        assert await budget.owe(connection, bucket, 1) == pytest.approx(1_000, rel=0.01)


@pytest.fixture
async def undone(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction that leaves nothing."""
    async with engine.connect() as connection:
        yield connection
        await connection.rollback()


def seen(**changes: object) -> Seen:
    one = Seen("a", "ok", AT, None, 10, 5, 7, 1, 1_000)
    return replace(one, **changes)  # type: ignore[arg-type]


async def written(connection: AsyncConnection, chain: str) -> dict[str, tuple[str, int, int]]:
    rows = await connection.execute(
        text("SELECT provider, status, requests, failures FROM chain_providers WHERE chain = :chain"), {"chain": chain}
    )
    return {row.provider: (row.status, row.requests, row.failures) for row in rows}


async def test_what_one_process_found_out_stands_against_the_others(undone: AsyncConnection) -> None:
    chain, accused = str(new_id()), seen(status="accused", reason="asked twice: a gap")
    assert await providers.put(undone, chain, [seen(), seen(provider="b")], AT) == []
    assert await providers.put(undone, chain, [accused], AT) == [accused]
    assert await providers.put(undone, chain, [accused], AT) == [], "it is told once"
    await providers.put(undone, chain, [seen()], AT + timedelta(minutes=5))
    assert await written(undone, chain) == {"a": ("accused", 28, 4), "b": ("ok", 7, 1)}
    await providers.put(undone, chain, [seen()], AT + timedelta(minutes=11))
    assert (await written(undone, chain))["a"][0] == "ok"


async def test_of_two_who_write_first_one_tells(engine: AsyncEngine) -> None:
    chain, accused = str(new_id()), seen(status="accused", reason="asked twice: a gap")

    async def put() -> int:
        async with transaction(engine) as connection:
            return len(await providers.put(connection, chain, [accused], AT))

    async with transaction(engine) as connection:
        assert await providers.put(connection, chain, [accused], AT) == [accused]
        other = asyncio.create_task(put())
        done, _ = await asyncio.wait([other], timeout=0.3)
        assert not done, "it waits for the first"
    assert await other == 0


async def test_who_is_accused_is_an_event(undone: AsyncConnection, tenant: UUID) -> None:
    chain, followed = str(new_id()), replace(source(), tenant_id=tenant)
    accused = seen(status="accused", reason="asked twice: a gap")
    assert await note(undone, chain, [accused, seen(provider="b")], followed, AT) == 1
    assert await note(undone, chain, [accused], followed, AT) == 0
    rows = await undone.execute(
        text("SELECT type, subject, data FROM outbox WHERE tenant_id = :tenant"), {"tenant": tenant}
    )
    assert [tuple(row) for row in rows] == [
        (
            "chain.provider_accused",
            f"relayer:{followed.relayer_id}",
            {
                "chain": chain,
                "provider": "a",
                "reason": "asked twice: a gap",
                "relayer_id": followed.relayer_id,
            },
        )
    ]


async def test_notes_are_kept_every_few_seconds(engine: AsyncEngine) -> None:
    node, chain = Node("a", ModelChain.of(0, 1, 1)), str(new_id())
    desk, now = Desk(chain, NETWORK, [Provider(node)]), [100.0]
    notes = [ProviderNotes(engine, desk, clock=lambda: now[0]) for _ in range(2)]
    counts = []
    for seconds in (0, 1, 5):
        await desk.head(Lane.LIVE)
        now[0] += seconds
        await asyncio.gather(*(one.keep(source(), AT) for one in notes))
        async with transaction(engine) as connection:
            counts.append((await written(connection, chain))["a"][1])
    assert counts == [3, 3, 7], "the network, and two a head; whoever writes them"
