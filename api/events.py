"""The durable feed of events: at least once, ids stable, in order, and nothing that commits late is ever skipped."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Header, Query
from pydantic import AfterValidator, BaseModel, Field
from starlette.responses import Response

from api.deps import Call, caller, router
from api.pages import DEFAULT_LIMIT, Limit
from api.problems import documented
from api.streams import EventStream, follow
from db import outbox
from db.outbox import FeedEvent
from domain.errors import Refusal, Unavailable
from domain.identity import Scope

MAX_POSITION = 2**63 - 1

routes = router("/events", "events")
ROUTERS = (routes,)


def _known(topic: str) -> str:
    if topic not in outbox.TOPICS:
        raise ValueError(f"is one of {', '.join(outbox.TOPICS)}")
    return topic


Topic = Annotated[str, AfterValidator(_known), Field(json_schema_extra={"enum": list(outbox.TOPICS)})]


class EventView(BaseModel):
    """What happened. The same event always has the same `id`, by which a reader drops what it has seen."""

    id: UUID
    position: int = Field(description="Its place in the feed; grows, with gaps")
    topic: str
    type: str = Field(examples=["escrow.released"])
    subject: str = Field(description="What it happened to; order is kept for each", examples=["escrow:0198…"])
    occurred_at: datetime
    data: dict[str, Any]


class Feed(BaseModel):
    """Events in the order of the feed."""

    items: list[EventView]
    next_after: int = Field(description="Pass it as `after` to read on, also when there was nothing new")


class Topics(BaseModel):
    """The names of the topics."""

    items: list[str]


@routes.get("")
async def read_events(
    call: Annotated[Call, Depends(caller(Scope.EVENTS_READ))],
    topic: Annotated[Topic | None, Query(description="Only this topic")] = None,
    after: Annotated[int, Query(ge=0, le=MAX_POSITION, description="Start behind this position")] = 0,
    limit: Limit = DEFAULT_LIMIT,
) -> Feed:
    """The events behind a position. Service keys only: the feed tells what happens to every user of the tenant."""
    call.require_service_key()
    async with call.transaction() as connection:
        found = await outbox.feed(connection, topic=topic, after=after, limit=limit)
    items = [_view(event) for event in found]
    return Feed(items=items, next_after=items[-1].position if items else after)


_STREAMED = {
    "text/event-stream": {"schema": {"type": "string"}, "example": "id: 7\nevent: escrow.released\ndata: {…}\n\n"}
}


@routes.get(
    "/stream",
    response_class=Response,
    responses={**documented(429), 200: {"content": _STREAMED, "description": "Events"}},
)
async def stream_events(
    call: Annotated[Call, Depends(caller(Scope.EVENTS_READ))],
    topic: Annotated[Topic | None, Query(description="Only this topic")] = None,
    after: Annotated[
        int | None,
        Query(
            ge=0, le=MAX_POSITION, description="Start behind this position, 0 for all there is; else with what comes"
        ),
    ] = None,
    last_event_id: Annotated[
        int | None,
        Header(ge=0, le=MAX_POSITION, description="The last `id` that was read; goes before `after`"),
    ] = None,
) -> Response:
    """The feed as server-sent events, as they happen: `id` is the position, `event` the type, `data` an `EventView`.

    Begins behind `Last-Event-ID`, else behind `after`, else with what happens from now on. The first block carries no
    data, only an `id` to come back with. Within a stream nothing is left out or repeated; a reader that comes back
    with the last `id` misses nothing. A comment comes every 15 seconds in which nothing happens. The stream ends when
    the key is revoked or expires, and may end at any time: come back. A reader that takes nothing for 30 seconds is
    cut off. Service keys only.
    """
    call.require_service_key()
    streams = call.services.streams
    begin = last_event_id if last_event_id is not None else after
    if begin is None:
        begin = await streams.head(call.principal.tenant_id)
    stream = streams.enter(call.principal.tenant_id)

    async def admitted() -> bool:
        try:
            await call.services.keys.admit(call.request.headers)
        except Refusal:
            return False
        except Unavailable:
            pass  # nobody can say that it was revoked
        return True

    return EventStream(streams, stream, follow(streams, stream, topic=topic, after=begin, admitted=admitted))


@routes.get("/topics")
async def list_topics(call: Annotated[Call, Depends(caller(Scope.EVENTS_READ))]) -> Topics:
    """The topics of the feed."""
    call.require_service_key()
    return Topics(items=list(outbox.TOPICS))


def _view(event: FeedEvent) -> EventView:
    return EventView(
        id=event.event_id,
        position=event.position,
        topic=event.topic,
        type=event.type,
        subject=event.subject,
        occurred_at=event.occurred_at,
        data=event.data,
    )
