"""The set of events in Postgres is the chain's own, whatever goes wrong between us and the node.

A real node that reorganises, a proxy before it that goes wrong by a seed, and whoever follows dying at any time. With
the sequence check switched off the same must be seen to fail: so the proof can see.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.chain.desk import Desk
from activities.chain.following import Follower
from db.doorbell import Doorbell
from db.ids import new_id
from domain.chain import Source
from domain.errors import Unavailable
from tests.anvil import running
from tests.chain.faults import Fault, FaultProxy
from tests.chain.proving import Life, desk_over, rests, wrong
from tests.chain.watching import cursor, register

ROUNDS = 15
RATE = 0.1


@pytest.fixture
def life(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Life]:
    with running(tmp_path) as chain:
        yield Life(chain, seed=request.param)


async def source_of(tenants_engine: AsyncEngine, tenant: UUID, life: Life, *, sequenced: bool = True) -> Source:
    return await register(
        tenants_engine,
        tenant,
        f"anvil-{new_id().hex[-6:]}",
        address=bytes.fromhex(life.desk.contract.address[2:]),
        start_block=life.began,
        sequenced=sequenced,
    )


async def follow(engine: AsyncEngine, desk: Desk, source: Source) -> None:
    """Until it is cancelled, at whatever it is at: what was not committed is lost with it."""
    follower = Follower(engine, Doorbell(engine), desk, source, hear_seconds=0.2)
    while True:
        more = False
        with suppress(Unavailable):
            more = await follower.look()
        await asyncio.sleep(0 if more else 0.02)


async def live(engine: AsyncEngine, life: Life, desk: Desk, source: Source, *, kills: bool) -> None:
    """Rounds in which things happen, histories are left, and who follows dies."""
    chance = random.Random(life.seed)
    following = asyncio.create_task(follow(engine, desk, source))
    try:
        for round_ in range(ROUNDS):
            await asyncio.to_thread(life.happen, chance.randrange(2, 8))
            if round_ % 3 == 2:
                # What is left by a deep one is made up for by those behind it.
                depth = 64 if round_ == ROUNDS // 3 else chance.randrange(1, 64 if round_ < ROUNDS // 2 else 9)
                await asyncio.to_thread(life.reorganize, depth)
            await asyncio.sleep(chance.random() / 3)
            if kills and round_ % 2:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
                following = asyncio.create_task(follow(engine, desk, source))
        await asyncio.to_thread(life.mine, 2)
        assert await rests(engine, source, life, limit_seconds=40), await cursor(engine, source)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


SEEDS = [int(os.environ.get("HOLDFAST_PROOF_SEED", "1"))]


@pytest.mark.parametrize("life", SEEDS, indirect=True)
async def test_faults_reorganisations_and_deaths_leave_the_truth(
    engine: AsyncEngine, tenants_engine: AsyncEngine, tenant: UUID, life: Life
) -> None:
    source = await source_of(tenants_engine, tenant, life)
    with FaultProxy(life.chain.url, seed=life.seed, rate=RATE, hang_seconds=3) as proxy:
        desk = desk_over(proxy.url)
        await live(engine, life, desk, source, kills=True)
        await desk.close()
    assert await wrong(engine, source, life) == []
    assert len(life.truth()) > 10
    assert max(life.reorgs) == 64
    assert len(proxy.injected) >= 6, proxy.injected


@pytest.mark.parametrize("life", [7], indirect=True)
async def test_without_the_sequence_check_events_are_lost(
    engine: AsyncEngine, tenants_engine: AsyncEngine, tenant: UUID, life: Life
) -> None:
    """The same proof over a source whose numbers nobody looks at: hashes that match show nothing of what is missing.

    Every answer lacks something, so that no later one can happen to make up for what an earlier one left out.
    """
    source = await source_of(tenants_engine, tenant, life, sequenced=False)
    faults = [Fault.EMPTY, Fault.TRUNCATED]
    with FaultProxy(life.chain.url, seed=life.seed, rate=1, faults=faults) as proxy:
        desk = desk_over(proxy.url)
        await live(engine, life, desk, source, kills=False)
        await desk.close()
    assert any("are not here" in each for each in await wrong(engine, source, life))
