"""A worker of webhooks as a process of its own, which dies at a point: ADDRESS QUEUE DATABASE_URL POINT.

It has everything that a delivery passes: the relay with its consumers, workflows, and turns of endpoints.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.ports import Reached
from activities.vendors.outward import OutwardClient
from crew import create_relay, create_webhook_worker, create_worker
from db.engine import Role, create_engine
from kit.temporal import connect
from tests.hooks import LOCAL, QUICK

#: As in production: who is woken looks for longer than who wakes it takes to commit.
PACE = replace(QUICK, linger_seconds=3.0)

#: The statements of a delivery, by what marks them.
STATEMENTS = {
    "fanned": "INSERT INTO webhook_deliveries",
    "claimed": "INSERT INTO webhook_attempts",
    "noted": "UPDATE webhook_attempts",
}
#: Every point at which a process may die: a statement with its commit still to come, one whose commit is done, and
#: before and after the request.
POINTS = ("sent", "noted", "noted-committed", "fanned", "fanned-committed", "claimed", "claimed-committed", "sending")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying(engine: AsyncEngine, point: str) -> AsyncEngine:
    """An engine whose process dies where the point is a statement's."""
    name, _, committed = point.partition("-")
    marker = STATEMENTS.get(name)
    done: set[int] = set()

    def executed(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        empty = name == "claimed" and not getattr(cursor, "_rows", ())
        if marker is None or marker not in statement or empty:
            return
        if not committed:
            die()
        done.add(id(connection.connection.dbapi_connection))

    def returned(dbapi_connection: Any, _: Any) -> None:
        if id(dbapi_connection) in done:
            die()

    event.listen(engine.sync_engine, "after_cursor_execute", executed)
    event.listen(engine.sync_engine.pool, "checkin", returned)
    return engine


class Door:
    """The door to receivers, before or behind which the process dies."""

    def __init__(self, point: str) -> None:
        self._door = OutwardClient(allow=LOCAL)
        self._point = point

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, **limits: Any) -> Reached:
        if self._point == "sending":
            die()
        reached = await self._door.post(url, headers, body, **limits)
        if self._point == "sent":
            die()
        return reached

    async def close(self) -> None:
        await self._door.close()


async def main(address: str, queue: str, url: str, point: str) -> None:
    """Work until killed; the deployment is called as the queue."""
    tenants = create_engine(url, Role.APP, pool_size=4)
    engine = dying(create_engine(url, Role.ENGINE, pool_size=8), point)
    client = await connect(address)
    webhooks = create_webhook_worker(client, queue, engine=engine, outward=Door(point), pace=PACE)
    async with (
        create_worker(client, queue, "only", tenants=tenants, engine=engine, deployment=queue),
        webhooks,
    ):
        await create_relay(client, queue, url, engine=engine).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
