"""A worker as a process of its own, which a test kills in the middle of deliveries:
ADDRESS QUEUE DATABASE_URL TWILIO_URL FOLDER.

A number that ends in 1 is held up before its message is handed over, one that ends in 2 behind it; ``FOLDER`` tells the
test where each stands, and ``FOLDER/go`` lets all of them go on.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime
from pathlib import Path

from activities.alerts.sending import Senders
from activities.ports import Handed, Sms
from activities.vendors.outward import OutwardClient
from crew import create_worker
from db.engine import Role, create_engine
from kit.temporal import connect
from tests.alert_house import senders


class HeldUp:
    """Text messages that stop where the test wants to kill."""

    def __init__(self, real: Senders, folder: Path) -> None:
        self._real = real.sms
        self._folder = folder

    @property
    def name(self) -> str:
        return self._real.name

    async def send(self, sms: Sms) -> Handed:
        if sms.to.endswith("1"):
            await self._stand(sms, "before")
        handed = await self._real.send(sms)
        if sms.to.endswith("2"):
            await self._stand(sms, "behind")
        return handed

    async def find(self, sms: Sms, since: datetime) -> Handed:
        return await self._real.find(sms, since)

    async def close(self) -> None:
        await self._real.close()

    async def _stand(self, sms: Sms, where: str) -> None:
        (self._folder / f"{sms.to}.{where}").touch()
        while not (self._folder / "go").exists():  # noqa: ASYNC110 - the test is another process
            await asyncio.sleep(0.05)


async def main(address: str, queue: str, url: str, twilio_url: str, folder: str) -> None:
    """Work until killed; the deployment is called as the queue."""
    tenants, engine = create_engine(url, Role.APP, pool_size=8), create_engine(url, Role.ENGINE, pool_size=4)
    client = await connect(address)
    real = senders("http://127.0.0.1:9", twilio_url, OutwardClient(), None)
    held = Senders(real.mail, HeldUp(real, Path(folder)), real.callback)
    worker = create_worker(client, queue, "only", tenants=tenants, engine=engine, deployment=queue, senders=held)
    async with worker:
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
