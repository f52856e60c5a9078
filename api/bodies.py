"""Request bodies: strict JSON whose numbers are exact.

A JSON number is read from its text as a ``Decimal`` (or an ``int``), never through a float. What the standard allows
but no honest client sends is refused: NaN and Infinity, a key twice, text that no database can hold.
"""

from __future__ import annotations

import json
from decimal import Decimal, InvalidOperation
from email.message import Message
from typing import Any, NoReturn

from starlette.datastructures import Headers
from starlette.requests import Request

from domain.errors import Refusal
from kit.shallow import is_too_deep

#: Longer numbers are no amount, and turning their text into a number takes time.
MAX_NUMBER_LENGTH = 200
NDJSON = "application/x-ndjson"


class JsonRequest(Request):
    """A request whose JSON body is read by ``parse``."""

    async def json(self) -> Any:
        """The body's value; refuses as ``parse`` does."""
        if not hasattr(self, "_json"):
            self._json = parse(await self.body())
        return self._json


def parse(body: bytes) -> Any:
    """The value that ``body`` denotes; refuses with ``body_invalid`` what is not strict UTF-8 JSON."""
    try:
        text = body.decode("utf-8", errors="strict")
        if is_too_deep(text):
            _refuse("the body is nested too deeply")
        value = _DECODER.decode(text)
    except UnicodeDecodeError:
        _refuse("the body is not UTF-8")
    except json.JSONDecodeError as error:
        _refuse(f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}")
    return value


def canonical(value: Any) -> bytes:
    """The same bytes for bodies that say the same, whatever their spacing and the order of their keys."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_text).encode()


async def meaning(request: Request) -> bytes:
    """The same bytes for requests whose bodies say the same; lines of JSON are taken as they are written."""
    body = await request.body()
    if not body or is_ndjson(request.headers):
        return body
    return canonical(await request.json())


def is_ndjson(headers: Headers) -> bool:
    """Whether the body calls itself one JSON value a line."""
    declared = headers.get("content-type")
    return declared is not None and _media_type(declared) == NDJSON


def check_content_type(request: Request) -> None:
    """Refuse a body that calls itself anything but JSON; one without a type is taken at its word."""
    declared = request.headers.get("content-type")
    if declared is None:
        return
    maintype, _, subtype = _media_type(declared).partition("/")
    if maintype == "application" and (subtype == "json" or subtype.endswith("+json")):
        return
    raise Refusal("content_type_unsupported", "send the body as application/json")


def _media_type(declared: str) -> str:
    message = Message()
    message["content-type"] = declared
    return message.get_content_type()


def _refuse(message: str) -> NoReturn:
    raise Refusal("body_invalid", message, field="body")


def _decimal(text: str) -> Decimal:
    if len(text) > MAX_NUMBER_LENGTH:
        _refuse(f"a number is longer than {MAX_NUMBER_LENGTH} characters")
    try:
        return Decimal(text)
    except InvalidOperation:
        _refuse(f"{text} is not a number of sensible size")


def _integer(text: str) -> int:
    if len(text) > MAX_NUMBER_LENGTH:
        _refuse(f"a number is longer than {MAX_NUMBER_LENGTH} characters")
    return int(text)


def _constant(text: str) -> NoReturn:
    _refuse(f"{text} is not a number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            _refuse(f"the key {name[:80]!r} stands twice in one object")
        found[name] = value
    return found


def _text(value: object) -> str:
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(type(value).__name__)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_decimal, parse_int=_integer, parse_constant=_constant, strict=True
)
