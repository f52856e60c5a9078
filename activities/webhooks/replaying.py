"""Replays: a range of the feed becomes deliveries again, a page a commit."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from activities.webhooks.fanout import delivery_of
from db import outbox
from db.engine import enter_tenant, transaction
from db.webhooks import writing
from db.webhooks.rendering import body_of

PAGE_EVENTS: Final = 1_000


async def replay_page(engine: AsyncEngine, tenant: UUID, subscription: UUID) -> None:
    """Look at the next page of the endpoint's oldest open replay; how far it is commits with what it began."""
    async with transaction(engine) as connection:
        replay = await writing.open_replay(connection, tenant, subscription)
        if replay is None:
            return
        to = await writing.subscriber(connection, tenant, subscription)
        if to is None:
            await writing.advance_replay(connection, replay, position=replay.upto, queued=0, finished=True)
            return
        position = replay.position
        if position is None:
            position = await writing.last_before(connection, replay.from_at, upto=replay.upto)
        await enter_tenant(connection, tenant)
        events = await outbox.feed(connection, topic=None, after=position, limit=PAGE_EVENTS)
        wanted = [
            delivery_of(to, event, body_of(event))
            for event in events
            if event.position <= replay.upto
            and replay.from_at <= event.recorded_at < replay.to_at
            and to.wanted.takes(event.type, event.subject, event.data)
        ]
        queued = await writing.add_again(connection, wanted, undelivered_only=replay.undelivered_only)
        last = events[-1].position if events else replay.upto
        over = last >= replay.upto or writing.is_past(events[-1].recorded_at, replay.to_at)
        await writing.advance_replay(connection, replay, position=min(last, replay.upto), queued=queued, finished=over)
