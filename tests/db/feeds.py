"""A feed of its own for a test: a database that no other relay works in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from activities.relay import Relay
from db.audit import AuditRecord, Origin
from db.doorbell import Doorbell
from db.engine import tenant_transaction, transaction
from db.ids import new_id
from db.outbox import SETTLEMENT_TOPIC, FeedEvent, OutboxEvent, feed, number_committed
from db.step import step

AT = datetime(2026, 5, 1, tzinfo=UTC)
FOR_EVER = 3_600.0


class Feeds:
    """A database of its own, so that no relay but the test's is at work in it."""

    def __init__(self, url: str, app: AsyncEngine, engine: AsyncEngine, tenant: UUID) -> None:
        self.url = url
        self.app = app
        self.engine = engine
        self.tenant = tenant
        self.doorbell = Doorbell(app)

    async def tell(self, subject: str, number: int = 0, *, pause: float = 0.0, tenant: UUID | None = None) -> UUID:
        """One step with one event, which commits ``pause`` seconds after it was written."""
        made = new_id()
        written = OutboxEvent(made, SETTLEMENT_TOPIC, "test.told", subject, AT, {"number": number})
        whose = tenant or self.tenant
        async with step(self.app, self.doorbell, tenant_id=whose, step_id=f"{subject}:{number}") as opened:
            record = AuditRecord(subject, "told", AT, Origin(), {})
            await opened.finish(result={}, audit=record, events=[written])
            await asyncio.sleep(pause)
        return made

    async def number(self, limit: int = 2_000) -> int:
        async with transaction(self.engine) as connection:
            return sum((await number_committed(connection, limit=limit)).values())

    async def read(self, after: int = 0, limit: int = 1_000, tenant: UUID | None = None) -> list[FeedEvent]:
        async with tenant_transaction(self.app, tenant or self.tenant) as connection:
            return await feed(connection, topic=None, after=after, limit=limit)

    async def sees(self, event_id: UUID) -> bool:
        return event_id in {event.event_id for event in await self.read()}


@asynccontextmanager
async def running(relay: Relay) -> AsyncIterator[asyncio.Task[None]]:
    """The relay at work beside the test; a relay that died fails it."""
    task = asyncio.create_task(relay.run())
    try:
        yield task
        assert not task.done(), "the relay ended by itself"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
