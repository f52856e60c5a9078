"""What may be subscribed to: every type of event with the shape of its data, and how subscriptions name types."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from domain.errors import Refusal
from domain.ids import escrow_workflow_id
from domain.webhooks.kinds import KINDS, TEST_TYPE, EventKind

__all__ = ["CATALOGUE", "TEST_TYPE", "EventKind", "Wanted", "check_event_types", "envelope_schema"]

CATALOGUE: Final[Mapping[str, EventKind]] = {kind.type: kind for kind in KINDS}
EVERYTHING: Final = "*"

_PATTERN = re.compile(r"[a-z][a-z0-9_.]{0,99}\*?|\*")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events an endpoint gets: types, among them beginnings with ``*`` behind, of one user or one escrow.

    ``*`` alone is everything that happens to the tenant. What happens to everybody, as prices that change every few
    seconds, has to be named.
    """

    types: tuple[str, ...]
    user: str | None = None
    escrow: UUID | None = None

    def takes(self, type_: str, subject: str, data: Mapping[str, Any]) -> bool:
        """Whether an event is one of these."""
        if not _names(self.types, type_):
            return False
        if self.user is not None and not _concerns(type_, data, self.user):
            return False
        if self.escrow is None:
            return True
        return subject == escrow_workflow_id(self.escrow) or data.get("escrow_id") == str(self.escrow)


@lru_cache(maxsize=4_096)
def _names(types: tuple[str, ...], type_: str) -> bool:
    kind = CATALOGUE.get(type_)
    everybodys = kind is not None and kind.everybodys
    return any(
        (not everybodys if pattern == EVERYTHING else type_.startswith(pattern[:-1]))
        if pattern.endswith("*")
        else type_ == pattern
        for pattern in types
    )


def _concerns(type_: str, data: Mapping[str, Any], user: str) -> bool:
    kind = CATALOGUE.get(type_)
    return kind is not None and any(data.get(name) == user for name in kind.users)


def check_event_types(types: Sequence[str]) -> None:
    """Refuses types that no event of the catalogue has."""
    if not types:
        raise Refusal("event_types_missing", "name at least one type of event, or *", field="event_types")
    for index, pattern in enumerate(types):
        known = _PATTERN.fullmatch(pattern) is not None and (
            pattern == EVERYTHING or any(_names((pattern,), type_) for type_ in CATALOGUE)
        )
        if not known:
            message = f"there are no events {pattern[:100]!r}; see GET /api/v1/webhooks/event-types"
            raise Refusal("event_type_unknown", message, field=f"event_types.{index}")


def envelope_schema(kind: EventKind) -> dict[str, Any]:
    """The JSON Schema of the body that an endpoint gets for an event of this kind."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": kind.type,
        "description": kind.description,
        "type": "object",
        "required": ["id", "type", "timestamp", "subject", "data"],
        "properties": {
            "id": {"type": "string", "format": "uuid", "description": "The event's; also the header webhook-id"},
            "type": {"const": kind.type},
            "timestamp": {"type": "string", "format": "date-time", "description": "When it happened"},
            "subject": {"type": "string", "description": "What it happened to"},
            "position": {
                "type": ["integer", "null"],
                "description": "Its place in the feed, which grows; null for a test",
            },
            "data": kind.schema,
        },
    }
