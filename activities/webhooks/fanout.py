"""From the feed to deliveries: a page's events become rows for the endpoints that want them, in the commit that moves
the cursor, and the endpoints' workflows are woken."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Final
from uuid import UUID

from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from activities.consuming import Consumer, Delivered, TenantEvent
from activities.dispatch import Wake, Waking, deliver_wakes
from db.engine import transaction
from db.outbox import FeedEvent
from db.webhooks import writing
from db.webhooks.rendering import body_of
from db.webhooks.writing import NewDelivery, Origin, Subscriber
from domain.ids import PLATFORM_TENANT

__all__ = ["CONSUMER", "Fanout", "FanoutConsumer", "deliveries_of", "delivery_of"]

#: The name of the cursor.
CONSUMER: Final = "webhooks"
#: An endpoint's workflow is woken once in so many seconds, however many pages have something for it: a turn looks for
#: what is due some seconds longer than this.
WAKE_SECONDS: Final = 2.0

_queued = Counter("holdfast_webhook_deliveries_queued_total", "Deliveries that the feed began")

WakeFor = Callable[[UUID, UUID], Wake]


@dataclass(frozen=True, slots=True)
class _Queued(Delivered):
    """A page, and what it begins."""

    deliveries: Sequence[NewDelivery] = field(default=())

    async def record(self, connection: AsyncConnection) -> None:
        await writing.add(connection, self.deliveries, Origin.EVENT)
        _queued.inc(len(self.deliveries))


class Fanout:
    """A consumer's handler. ``engine`` sees every tenant; ``wake_for`` says what wakes an endpoint's workflow.

    The wake goes before the commit: a process that dies between the two has woken somebody for nothing, and the other
    way round would have left deliveries that nobody works off until the watch comes. Who is woken looks for longer than
    a commit takes.
    """

    def __init__(self, engine: AsyncEngine, waking: Waking, wake_for: WakeFor) -> None:
        self._engine = engine
        self._waking = waking
        self._wake_for = wake_for
        self._woken: dict[tuple[UUID, UUID], float] = {}

    @property
    def types(self) -> Sequence[str] | None:
        """Everything: who wants what is the endpoints' to say."""
        return None

    async def deliver(self, events: Sequence[TenantEvent], upto: int) -> Delivered:
        """Find out who wants what, and wake them. An absence leaves the whole page for the next attempt."""
        tenants = {event.tenant_id for event in events}
        async with transaction(self._engine) as connection:
            everybody = await writing.subscribers(connection, sorted(tenants))
        deliveries = deliveries_of(events, everybody)
        at = monotonic()
        self._woken = {whom: when for whom, when in self._woken.items() if at - when < WAKE_SECONDS}
        asleep = {(each.tenant_id, each.subscription_id) for each in deliveries} - self._woken.keys()
        await deliver_wakes(self._waking, [(self._wake_for(*whom), ()) for whom in sorted(asleep)])
        self._woken |= dict.fromkeys(asleep, at)
        return _Queued(upto, deliveries=deliveries)

    async def close(self) -> None:
        """Whoever takes over wakes anew."""
        self._woken.clear()


class FanoutConsumer(Consumer):
    """The consumer of ``Fanout``: while nobody has an endpoint, a page costs it one look."""

    async def read(self, connection: AsyncConnection, *, after: int, upto: int, limit: int) -> list[TenantEvent]:
        """Nothing while there are no endpoints."""
        if not await writing.any_at_all(connection):
            return []
        return await super().read(connection, after=after, upto=upto, limit=limit)


def deliveries_of(events: Sequence[TenantEvent], subscribers: Sequence[Subscriber]) -> list[NewDelivery]:
    """What the endpoints get of these events, in the order of the feed. What happened before an endpoint was there is
    not for it."""
    of_tenant: dict[UUID, list[Subscriber]] = defaultdict(list)
    for subscriber in subscribers:
        of_tenant[subscriber.tenant_id].append(subscriber)
    made: list[NewDelivery] = []
    for event in events:
        whose = subscribers if event.tenant_id == PLATFORM_TENANT else of_tenant.get(event.tenant_id, ())
        takers = [
            each
            for each in whose
            if event.recorded_at >= each.since and each.wanted.takes(event.type, event.subject, event.data)
        ]
        if not takers:
            continue
        body = body_of(event)
        made += [delivery_of(each, event, body) for each in takers]
    return made


def delivery_of(to: Subscriber, event: FeedEvent, body: str) -> NewDelivery:
    """What one endpoint gets of an event."""
    return NewDelivery(
        to.tenant_id, to.subscription_id, event.event_id, event.position, event.type, event.subject, body
    )
