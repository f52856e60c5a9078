"""From a block of a chain to its event in the outbox: how long following takes, with a node on the same machine."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.chain.following import Follower
from activities.chain.ports import ChainDesk
from db.doorbell import Doorbell
from db.engine import Role, create_engine, transaction
from db.identity import create_tenant
from db.ids import new_id
from domain.chain import Source
from domain.errors import Unavailable
from domain.ids import relayer_workflow_id
from tests.anvil import running
from tests.chain.proving import Life, desk_over
from tests.chain.watching import register

POLL_SECONDS: Final = 0.1
LIMIT_SECONDS: Final = 30


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds from when the node has the block to when its event is written to the outbox, and how often."""

    events: int
    p50_ms: float
    p99_ms: float
    max_ms: float


async def head_to_outbox(database_url: str, folder: Path, *, events: int, pause_seconds: float = 0.13) -> Latency:
    """Follow a chain on which something happens every now and then, and see how far behind it is."""
    tenants, engine = create_engine(database_url, Role.APP), create_engine(database_url, Role.ENGINE)
    with running(folder) as chain:
        life = Life(chain, seed=1)
        tenant, name = new_id(), f"bench-{new_id().hex[-8:]}"
        async with transaction(tenants) as connection:
            await create_tenant(connection, new_tenant=tenant, name=name)
        address = bytes.fromhex(life.desk.contract.address[2:])
        source = await register(tenants, tenant, name, address=address, start_block=life.began)
        desk = desk_over(chain.url, poll_seconds=POLL_SECONDS)
        following = asyncio.create_task(_follow(engine, desk, source))
        had: dict[int, float] = {}
        try:
            await asyncio.to_thread(life.happen, 1)
            for _ in range(events):
                await asyncio.sleep(pause_seconds)
                had[await asyncio.to_thread(_one_more, life)] = time()
            written = await _written(engine, source, max(had))
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await desk.close()
            await tenants.dispose()
            await engine.dispose()
    took = sorted(1_000 * (written[block] - at) for block, at in had.items())
    return Latency(len(took), took[len(took) // 2], took[(99 * len(took)) // 100], took[-1])


def _one_more(life: Life) -> int:
    _, mined = life.desk.create(life.desk.terms())
    return int(mined.receipt["blockNumber"], 16)


async def _follow(engine: AsyncEngine, desk: ChainDesk, source: Source) -> None:
    follower = Follower(engine, Doorbell(engine), desk, source)
    while True:
        more = False
        with suppress(Unavailable):
            more = await follower.look()
        await asyncio.sleep(0 if more else POLL_SECONDS)


async def _written(engine: AsyncEngine, source: Source, last: int) -> dict[int, float]:
    """When the first event of each block was written, once the last is there."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while True:
            async with transaction(engine) as connection:
                rows = await connection.execute(
                    text(
                        "SELECT CAST(data->>'block_number' AS bigint) AS block,"
                        " min(extract(epoch FROM recorded_at)) AS at FROM outbox"
                        " WHERE subject = :subject AND type = 'chain.event_applied' GROUP BY 1"
                    ),
                    {"subject": relayer_workflow_id(source.relayer_id)},
                )
                found = {row.block: float(row.at) for row in rows}
            if last in found:
                return found
            await asyncio.sleep(0.1)
