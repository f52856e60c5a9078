"""The types of input fields that contexts share. Every text has a length and no character that a database refuses."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
)

#: Without control characters, and not only of spaces.
_LINE = r"^[^\x00-\x1F\x7F-\x9F]*[^\x00-\x20\x7F-\xA0][^\x00-\x1F\x7F-\x9F]*$"
_PROSE = r"^[^\x00-\x08\x0B\x0C\x0E-\x1F\x7F-\x9F]+$"
_ISO_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d")
#: What an amount may look like; how fine it may be is the asset's to say.
_AMOUNT = re.compile(r"[0-9]{1,78}(?:\.[0-9]{1,78})?\Z")

Line = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_LINE)]
Prose = Annotated[str, StringConstraints(min_length=1, max_length=2000, pattern=_PROSE)]
Symbol = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]{0,19}$"), Field(examples=["USDC"])]
UserId = Annotated[
    Line, Field(description="The tenant's own opaque name of a user; also the ref of the user's accounts")
]


class Input(BaseModel):
    """A request body: a field that nobody knows is refused, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _instant(value: object) -> object:
    if isinstance(value, str) and _ISO_INSTANT.match(value):
        return value
    raise ValueError("must be an ISO 8601 instant with an offset, as 2026-01-31T12:00:00Z")


#: PostgreSQL's driver takes the last instant that Python knows for infinity; nothing of ours lies out here.
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC)


def _utc(value: datetime) -> datetime:
    try:
        at = value.astimezone(UTC)
    except OverflowError:
        raise ValueError("is out of range") from None
    if not _FIRST <= at < _LAST:
        raise ValueError("must lie between the years 1970 and 9999")
    return at


Instant = Annotated[AwareDatetime, BeforeValidator(_instant), AfterValidator(_utc)]


def _integer(value: object) -> object:
    """JSON knows one kind of number, so 1.0 is the integer 1; a text or a boolean is none."""
    if isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) < 40 and value == int(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError("must be an integer")


#: Stands last in an ``Annotated[int, …]``, behind its bounds.
WHOLE = BeforeValidator(_integer)


def _amount(value: Any) -> str:
    """The plain decimal text of a string or a JSON number."""
    text = value
    if isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) <= 78:
        text = f"{value:f}"
    elif isinstance(value, int) and not isinstance(value, bool):
        text = str(value)
    if not isinstance(text, str) or not _AMOUNT.match(text):
        raise ValueError("must be a non-negative decimal, as text or as a JSON number")
    return text


#: Decimal text; ``parse_minor`` makes it exact once the asset is known.
Amount = Annotated[
    str,
    PlainValidator(_amount),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^[0-9]{1,78}(\.[0-9]{1,78})?$"},
                {"type": "number", "minimum": 0},
            ],
            "description": "A decimal amount; a string, or a JSON number read from its text. Finer than the asset's "
            "scale is refused, not rounded",
            "examples": ["125.50"],
        }
    ),
]
DecimalText = Annotated[
    str, Field(description="Decimal text with exactly the asset's number of places", examples=["125.500000"])
]
