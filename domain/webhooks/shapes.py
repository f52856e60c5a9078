"""What a type of event is made of, and how the JSON Schema of its data is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class EventKind:
    """A type of event. ``users`` are the fields of its data that name users; ``everybodys``: it happens to no tenant in
    particular."""

    type: str
    description: str
    schema: Mapping[str, Any]
    users: tuple[str, ...] = ()
    everybodys: bool = False


TEXT: Final = {"type": "string"}
MAYBE: Final = {"type": ["string", "null"]}
COUNT: Final = {"type": "integer"}
YES: Final = {"type": "boolean"}
ID: Final = {"type": "string", "format": "uuid"}
MAYBE_ID: Final = {"type": ["string", "null"], "format": "uuid"}
AT: Final = {"type": "string", "format": "date-time"}
AMOUNT: Final = {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"}
MAYBE_AMOUNT: Final = {"type": ["string", "null"], "pattern": r"^-?[0-9]+(\.[0-9]+)?$"}
ANYTHING: Final[Mapping[str, Any]] = {}


def data_of(optional: Mapping[str, Any] | None = None, /, **required: Mapping[str, Any]) -> dict[str, Any]:
    """An object with these fields; a name that Python keeps to itself has an underscore behind. More may come."""
    names = [name.rstrip("_") for name in required]
    properties = dict(zip(names, required.values(), strict=True)) | dict(optional or {})
    return {"type": "object", "required": names, "properties": properties, "additionalProperties": True}
