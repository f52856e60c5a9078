"""The body that an endpoint gets for an event: the same bytes for every endpoint and every attempt."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic_core import to_json

from db.outbox import FeedEvent


def body_of(event: FeedEvent) -> str:
    """The JSON for an event of the feed."""
    return envelope(event.event_id, event.type, event.occurred_at, event.subject, event.position, event.data)


def envelope(
    message_id: UUID, type_: str, at: datetime, subject: str, position: int | None, data: Mapping[str, Any]
) -> str:
    """The JSON, in one line; ``domain.webhooks.catalogue.envelope_schema`` describes it."""
    return to_json(
        {"id": message_id, "type": type_, "timestamp": at, "subject": subject, "position": position, "data": data}
    ).decode()
