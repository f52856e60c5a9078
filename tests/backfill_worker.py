"""A filler of backfill chunks as a process of its own, which dies at a point: ADDRESS QUEUE DATABASE_URL POINT.

It dies in its fourth piece: while it fetches it, with everything written and the commit still to come, or with the
commit done and nobody told.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.chain.filling import FillPace
from activities.chain.ports import Lane
from chainwork import create_backfill_worker
from db.engine import Role, create_engine
from domain.chain import Block, Fetched, Source
from kit.temporal import connect
from tests.chain.memory import CHAIN, MemoryChain, MemoryDesk

LENGTH, DENSITY = 200, 3
PIECES = 4
POINTS = ("fetching", "moved", "committed")
#: Pieces of a few blocks, and hardly any ahead: what is fetched is written soon.
PACE = FillPace(first_blocks=1, piece_events=4 * DENSITY, ahead_events=1, look_seconds=0.05)
#: The statement that moves a chunk; its commit makes everything of a piece durable.
MARKER = "UPDATE backfill_chunks SET done_to"


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Narrow(MemoryDesk):
    """Where the point is there, the process dies in a fetch."""

    def __init__(self, point: str) -> None:
        super().__init__(MemoryChain(LENGTH, density=DENSITY))
        self._point = point

    async def fetch(
        self, source: Source, first: int, last: int, lane: Lane, *, after: Block | None, after_sequence: int | None
    ) -> Fetched:
        if self._point == "fetching" and len(self.fetched) >= PIECES:
            die()
        return await super().fetch(source, first, last, lane, after=after, after_sequence=after_sequence)


def dying(engine: AsyncEngine, point: str) -> AsyncEngine:
    """An engine whose process dies where the point is a statement's, or its commit's."""
    moved = 0
    done: set[int] = set()

    def executed(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        nonlocal moved
        if point not in ("moved", "committed") or MARKER not in statement:
            return
        moved += 1
        if moved < PIECES:
            return
        if point == "moved":
            die()
        done.add(id(connection.connection.dbapi_connection))

    def returned(dbapi_connection: Any, _: Any) -> None:
        if id(dbapi_connection) in done:
            die()

    event.listen(engine.sync_engine, "after_cursor_execute", executed)
    event.listen(engine.sync_engine.pool, "checkin", returned)
    return engine


async def main(address: str, queue: str, url: str, point: str) -> None:
    """Fill until killed."""
    engine = dying(create_engine(url, Role.ENGINE, pool_size=6), point)
    client = await connect(address)
    await create_backfill_worker(client, queue, engine=engine, chains={CHAIN: Narrow(point)}, pace=PACE).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
