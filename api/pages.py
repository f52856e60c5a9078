"""Cursor pages: an opaque token says where the next page starts, and for which list.

The token carries a checksum over the list's name, its filters and the position. It is no secret (tenants are separated
by the database), but a token that was altered, or brought to another list or other filters, is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from fastapi import Query
from pydantic import AfterValidator, BaseModel, Field

from domain.errors import Refusal

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
_CHECKSUM_BYTES = 8
_NUMBER = re.compile(r"[0-9]{1,18}\Z", re.ASCII)

ItemT = TypeVar("ItemT")

Limit = Annotated[
    int,
    Query(ge=1, description=f"How many items at most; more than {MAX_LIMIT} means {MAX_LIMIT}"),
    AfterValidator(lambda limit: min(limit, MAX_LIMIT)),
]
CursorToken = Annotated[
    str | None, Query(max_length=500, description="`next_cursor` of the page before, with the same filters")
]


class Page(BaseModel, Generic[ItemT]):
    """One page of a list."""

    items: list[ItemT]
    next_cursor: str | None = Field(description="Asks for the next page; null on the last one")


class Pager:
    """The cursors of one list under one set of filters."""

    def __init__(self, list_name: str, filters: Mapping[str, Any]) -> None:
        self._scope = f"{list_name}?{json.dumps(filters, sort_keys=True, default=str)}\n".encode()

    def token(self, position: object) -> str:
        """The token for what comes behind ``position``."""
        text = str(position).encode()
        return base64.urlsafe_b64encode(self._checksum(text) + text).rstrip(b"=").decode()

    def position(self, token: str | None) -> str | None:
        """The position that a token of this list holds; refuses any other token."""
        if token is None:
            return None
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise self._refusal() from None
        checksum, text = raw[:_CHECKSUM_BYTES], raw[_CHECKSUM_BYTES:]
        if not text or checksum != self._checksum(text):
            raise self._refusal()
        try:
            return text.decode()
        except UnicodeDecodeError:
            raise self._refusal() from None

    def before(self, token: str | None) -> UUID | None:
        """The position as an id."""
        position = self.position(token)
        if position is None:
            return None
        try:
            return UUID(position)
        except ValueError:
            raise self._refusal() from None

    def after(self, token: str | None) -> int:
        """The position as a number, 0 at the start."""
        position = self.position(token) or "0"
        if not _NUMBER.match(position):
            raise self._refusal()
        return int(position)

    def page(self, rows: list[ItemT], limit: int, position: str) -> tuple[list[ItemT], str | None]:
        """Rows that were read with one more than ``limit``, and the next token; ``position`` names the attribute."""
        if len(rows) <= limit:
            return rows, None
        rows = rows[:limit]
        return rows, self.token(getattr(rows[-1], position))

    def _checksum(self, text: bytes) -> bytes:
        return hashlib.sha256(self._scope + text).digest()[:_CHECKSUM_BYTES]

    @staticmethod
    def _refusal() -> Refusal:
        return Refusal("cursor_invalid", "this is not a cursor of this list with these filters", field="cursor")
