"""A worker of the margin book as a process of its own, which a test may kill: ADDRESS QUEUE DATABASE_URL."""

from __future__ import annotations

import asyncio
import sys

from crew import create_worker
from db.engine import Role, create_engine
from kit.temporal import connect


async def main(address: str, queue: str, url: str) -> None:
    """Work until killed; the deployment is called as the queue."""
    tenants, engine = create_engine(url, Role.APP, pool_size=4), create_engine(url, Role.ENGINE, pool_size=8)
    client = await connect(address)
    async with create_worker(client, queue, "only", tenants=tenants, engine=engine, deployment=queue):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
