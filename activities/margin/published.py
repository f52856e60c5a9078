"""Margin events have left once they are in the feed, where no broker takes them further."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncConnection

from activities.consuming import Delivered, TenantEvent
from db.margin import reports
from db.outbox import MARGIN_TOPIC
from domain.margin.telling import EventType

__all__ = ["CONSUMER", "InTheFeed", "note_published"]

#: The name of the cursor.
CONSUMER = "margin-published"


async def note_published(connection: AsyncConnection, events: Sequence[TenantEvent]) -> None:
    """Turn the published flag of those that are margin events."""
    mine = [(event.tenant_id, event.event_id) for event in events if event.topic == MARGIN_TOPIC]
    await reports.mark_published(connection, mine)


@dataclass(frozen=True, slots=True)
class _Noted(Delivered):
    """A page of margin events."""

    events: Sequence[TenantEvent] = field(default=())

    async def record(self, connection: AsyncConnection) -> None:
        await note_published(connection, self.events)


class InTheFeed:
    """A consumer's handler for a house without a broker; the publisher notes it itself where there is one."""

    @property
    def types(self) -> Sequence[str]:
        """Margin events."""
        return tuple(EventType)

    async def deliver(self, events: Sequence[TenantEvent], upto: int) -> Delivered:
        """They have their positions already."""
        return _Noted(upto, events=events)

    async def close(self) -> None:
        """Nothing is held."""
