"""Workers' processes are killed while they follow a real chain through faults and reorganisations: others go on.

``make soak-chain SEED= ROUNDS=`` plays many chains, and longer; an ordinary run plays one.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client

from domain.ids import relayer_workflow_id
from tests.anvil import running
from tests.chain.faults import FaultProxy
from tests.chain.fleet import DEATH_LIMIT_SECONDS, Fleet
from tests.chain.proving import Life, rests, wrong
from tests.chain.watching import cursor, register
from tests.chain.worker_process import POINTS
from tools.deployment import Build, make_current
from tools.local.temporal import TemporalDevServer
from workflows.chain.relayer_client import RelayerClient

ROUNDS = int(os.environ.get("HOLDFAST_PROOF_ROUNDS", "0"))
SEED = int(os.environ.get("HOLDFAST_PROOF_SEED") or (random.SystemRandom().getrandbits(24) if ROUNDS else 1))
#: How long a process lives that dies at no point of its own, and how many of them there are.
SECONDS, KILLED = (8.0, 3) if ROUNDS else (1.0, 0)


@pytest.fixture
def life(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Life]:
    with running(tmp_path) as chain:
        yield Life(chain, seed=request.param)


@pytest.mark.timeout(120 + 240 * bool(ROUNDS))
@pytest.mark.parametrize("life", range(SEED, SEED + max(1, ROUNDS)), indirect=True)
async def test_whoever_is_killed_the_truth_is_there(
    engine: AsyncEngine,
    tenants_engine: AsyncEngine,
    tenant: UUID,
    temporal: Client,
    temporal_server: TemporalDevServer,
    database_url: str,
    life: Life,
) -> None:
    chance = random.Random(life.seed)
    with FaultProxy(life.chain.url, seed=life.seed, rate=0.05, hang_seconds=3) as proxy:
        fleet = Fleet(temporal_server, database_url, proxy.url)
        source = await register(
            tenants_engine, tenant, fleet.chain, address=bytes.fromhex(life.desk.contract.address[2:]), start_block=1
        )
        run = temporal.get_workflow_handle(relayer_workflow_id(source.relayer_id))
        life.happen(5)
        async with fleet.worker(POINTS[0]) as process:
            await make_current(temporal, Build(fleet.queue, "only"))
            await RelayerClient(temporal, fleet.queue).start(tenant, source.relayer_id)
            await _dies(process)
        assert (await cursor(engine, source)).last_sequence == 0, "its commit was still to come"
        for point in POINTS[1:] if ROUNDS else ():
            async with fleet.worker(point) as process:
                await _live(life, chance, SECONDS)
                await _dies(process)
        for _ in range(KILLED):
            async with fleet.worker():
                await _live(life, chance, SECONDS * chance.random())
        life.reorganize(20)
        async with fleet.worker():
            await _live(life, chance, SECONDS)
            life.mine(2)
            rested = await rests(engine, source, life, limit_seconds=60)
        details = await run.query("__temporal_workflow_metadata", result_type=dict) if not rested else None
        assert rested, (life.seed, life.head, details, await cursor(engine, source))
    await run.terminate("the test is over")
    assert await wrong(engine, source, life) == []
    print(  # noqa: T201 - what the run was worth
        f"seed {life.seed}: {len(life.truth())} events, {sum(proxy.injected.values())} faults,"
        f" reorganisations {life.reorgs}"
    )


async def _dies(process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(DEATH_LIMIT_SECONDS):
        assert await process.wait() == -signal.SIGKILL


async def _live(life: Life, chance: random.Random, seconds: float) -> None:
    """Things happen for a while, and at the end once more."""
    end = monotonic() + seconds
    while monotonic() < end:
        await asyncio.to_thread(life.happen, chance.randrange(1, 6))
        if chance.random() < 0.25:
            await asyncio.to_thread(life.reorganize, chance.choice([1, 2, 3, chance.randrange(1, 65), 64]))
        await asyncio.sleep(chance.random() / 2)
    await asyncio.to_thread(life.happen, 2)
