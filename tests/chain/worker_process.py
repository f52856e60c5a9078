"""A worker that follows a chain, as a process of its own: ADDRESS QUEUE DATABASE_URL CHAIN NODE_URL POINT.

It dies at a point: with a piece written and its commit still to come (``moved``), or done (``moved-committed``); or
lives until it is killed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from chainwork import create_chain_worker
from crew import create_worker
from db.engine import Role, create_engine
from kit.temporal import connect
from tests.chain.proving import desk_over

POINTS = ("moved", "moved-committed")
TURN_SECONDS = 5.0


def dying(engine: AsyncEngine, point: str) -> AsyncEngine:
    """An engine whose process dies at the first piece with events that it commits."""
    full: set[int] = set()
    moved: set[int] = set()

    def executed(connection: Any, _: Any, statement: str, *__: Any) -> None:
        key = id(connection.connection.dbapi_connection)
        if "DELETE FROM chain_events" in statement:
            full.add(key)
        if "UPDATE chain_cursors SET block_number" in statement and key in full:
            if point == "moved":
                os.kill(os.getpid(), signal.SIGKILL)
            moved.add(key)

    def returned(dbapi_connection: Any, _: Any) -> None:
        full.discard(id(dbapi_connection))
        if point == "moved-committed" and id(dbapi_connection) in moved:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(engine.sync_engine, "after_cursor_execute", executed)
    event.listen(engine.sync_engine.pool, "checkin", returned)
    return engine


async def main(address: str, queue: str, url: str, chain: str, node_url: str, point: str) -> None:
    """Work until killed; the deployment is called as the queue."""
    tenants = create_engine(url, Role.APP, pool_size=4)
    engine = dying(create_engine(url, Role.ENGINE, pool_size=6), point)
    client = await connect(address)
    chains = {chain: desk_over(node_url)}
    following = create_chain_worker(client, queue, engine=engine, chains=chains, turn_seconds=TURN_SECONDS)
    async with create_worker(client, queue, "only", tenants=tenants, engine=engine, deployment=queue), following:
        print("ready", flush=True)  # noqa: T201 - whoever started it waits for this
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
