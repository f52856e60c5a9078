"""Who fills a chunk is killed in the middle of it: another goes on from what is committed; nothing is lost or twice."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from uuid import UUID

import pytest
from temporalio.client import Client

from activities.chain.filling import FillPace
from chainwork import create_backfill_worker
from crew import create_worker
from db.engine import transaction
from db.identity import create_tenant
from db.ids import new_id
from domain.chain import Source
from tests.backfill_worker import DENSITY, LENGTH, PIECES, POINTS, Narrow
from tests.backfilling import Bench
from tests.chain.memory import CHAIN, followed
from tools.deployment import Build, make_current
from tools.local.temporal import TemporalDevServer

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(150)
async def test_a_filler_dies_inside_a_chunk(bench: Bench, temporal: Client, temporal_server: TemporalDevServer) -> None:
    """One job for each point, all at once: a death is noticed when its heartbeats have stayed away for a while."""
    await asyncio.gather(*(_death(bench, temporal, temporal_server, point) for point in POINTS))


async def _death(bench: Bench, temporal: Client, server: TemporalDevServer, point: str) -> None:
    queue = f"fill-deaths-{new_id()}"
    mine = Bench(bench.url, temporal, bench.tenants, bench.engine, {}, queue=queue)
    async with transaction(mine.tenants) as connection:
        await create_tenant(connection, new_tenant=mine.tenant, name=queue)
    source = await followed(mine.tenants, mine.tenant)
    program = [sys.executable, "-m", "tests.backfill_worker", server.address, queue, bench.url, point]
    async with create_worker(temporal, queue, "1", tenants=mine.tenants, engine=mine.engine, deployment=queue):
        await make_current(temporal, Build(queue, "1"))
        job_id = await mine.start(source, 0, LENGTH - 1, chunk_blocks=LENGTH)
        process = await asyncio.create_subprocess_exec(*program, cwd=ROOT)
        try:
            async with asyncio.timeout(60):
                assert await process.wait() == -signal.SIGKILL, point
        finally:
            if process.returncode is None:
                process.kill()
        died_at = await _stands(mine, job_id)
        pieces = await mine.told("chain.backfilled")
        assert 0 <= died_at < LENGTH - 1, "it died inside the chunk"
        if point != "fetching":
            assert len(pieces) == PIECES - (point == "moved"), "a piece is there as a whole, or not at all"
        desk = Narrow("never")
        async with create_backfill_worker(
            temporal, queue, engine=mine.engine, chains={CHAIN: desk}, pace=FillPace(look_seconds=0.05)
        ):
            job = await mine.completed(job_id)
    assert desk.fetched[0][0] == died_at + 1, "it goes on from there"
    await _nothing_lost(mine, source, job.events_written)


async def _stands(mine: Bench, job_id: UUID) -> int:
    """The last block that is committed."""
    [chunk] = await mine.sql("SELECT done_to FROM backfill_chunks WHERE job_id = :job", job=job_id)
    return int(chunk.done_to)


async def _nothing_lost(mine: Bench, source: Source, written: int) -> None:
    events = LENGTH * DENSITY
    assert written == events
    assert await mine.stored(source) == list(range(1, events + 1))
    pieces = await mine.told("chain.backfilled")
    assert sum(piece["events"] for piece in pieces) == events
    assert await mine.covered(source) == ((0, LENGTH - 1),)
