"""Publication: every event to a stream of a broker outside, recorded once the broker has acknowledged it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncConnection

from activities.consuming import Delivered, Failed, TenantEvent
from activities.margin.published import note_published
from activities.ports import Outgoing, Publisher
from db.consumers import Publication, record_publications
from db.outbox import rendered

__all__ = ["Publishing", "consumer_name"]


def consumer_name(publisher: Publisher) -> str:
    """The name of the cursor. Each stream has its own, and so a new stream gets the feed from its beginning."""
    return f"publisher:{publisher.stream}"


@dataclass(frozen=True, slots=True)
class _Acknowledged(Delivered):
    """What the broker has."""

    publications: Sequence[Publication] = field(default=())

    async def record(self, connection: AsyncConnection) -> None:
        await record_publications(connection, self.publications)
        await note_published(connection, [publication.event for publication in self.publications])


class Publishing:
    """A consumer's handler that hands every event to ``publisher``, in the order of the feed."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    @property
    def types(self) -> None:
        """All of them."""
        return

    async def deliver(self, events: Sequence[TenantEvent], upto: int) -> Delivered:
        """Publish a page; done with what was acknowledged, whatever became of the rest."""
        ended = await self._publisher.publish([_outgoing(event) for event in events])
        has = [
            Publication(event, self._publisher.stream, sequence)
            for event, sequence in zip(events, ended.sequences, strict=False)
        ]
        rest = events[len(has) :]
        if not rest:
            return _Acknowledged(upto, publications=has)
        if ended.refused is not None:
            return _Acknowledged(rest[0].position, [Failed(rest[0], ended.refused)], publications=has)
        return _Acknowledged(rest[0].position - 1, absence=ended.absence, publications=has)

    async def close(self) -> None:
        """Let go of the broker."""
        await self._publisher.close()


def _outgoing(event: TenantEvent) -> Outgoing:
    return Outgoing(
        event_id=event.event_id,
        tenant_id=event.tenant_id,
        position=event.position,
        topic=event.topic,
        type=event.type,
        subject=event.subject,
        payload=rendered(event),
    )
