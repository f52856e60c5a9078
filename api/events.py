"""The durable feed of events: at least once, ids stable, in order, and nothing that commits late is ever skipped."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Query
from pydantic import AfterValidator, BaseModel, Field

from api.deps import Call, caller, router
from api.pages import DEFAULT_LIMIT, Limit
from db import outbox
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
    items = [
        EventView(
            id=event.event_id,
            position=event.position,
            topic=event.topic,
            type=event.type,
            subject=event.subject,
            occurred_at=event.occurred_at,
            data=event.data,
        )
        for event in found
    ]
    return Feed(items=items, next_after=items[-1].position if items else after)


@routes.get("/topics")
async def list_topics(call: Annotated[Call, Depends(caller(Scope.EVENTS_READ))]) -> Topics:
    """The topics of the feed."""
    call.require_service_key()
    return Topics(items=list(outbox.TOPICS))
