"""What an endpoint may be told to be: its headers, its pace, and the order of what it gets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from domain.errors import Refusal

HEADERS_MAX: Final = 20
HEADER_NAME_MAX: Final = 100
HEADER_VALUE_MAX: Final = 2_000
#: Requests on their way to one endpoint at a time.
CONCURRENCY_DEFAULT: Final = 16
CONCURRENCY_MAX: Final = 64
RATE_MAX: Final = 10_000

#: Set by the sender, or about the connection; nobody's to choose.
_RESERVED: Final = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    }
)
_RESERVED_PREFIX: Final = "webhook-"
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")


class Ordering(StrEnum):
    """In which order an endpoint gets events. ``SUBJECT``: those of one subject strictly one after the other, in the
    order of the feed; one that fails holds up those behind it until it is delivered or given up."""

    NONE = "none"
    SUBJECT = "subject"


class EndpointStatus(StrEnum):
    """Whether anything is sent."""

    ACTIVE = "active"
    DISABLED = "disabled"
    DELETED = "deleted"


class DisabledReason(StrEnum):
    """Why nothing is sent: its owner asked for it, it answered 410, or it failed for days."""

    ASKED = "asked"
    GONE = "gone"
    FAILING = "failing"


def check_enabled(status: EndpointStatus) -> None:
    """Refuses to send anything to an endpoint that is disabled."""
    if status is not EndpointStatus.ACTIVE:
        raise Refusal("webhook_disabled", "nothing is sent to an endpoint that is disabled: enable it first")


def check_headers(headers: Mapping[str, str]) -> None:
    """Refuses headers that are not an owner's to set, or that are none. Names are compared in lower case."""
    seen: set[str] = set()
    for name, value in headers.items():
        lower, field = name.lower(), f"headers.{name[:HEADER_NAME_MAX]}"
        if _NAME.fullmatch(name) is None or len(name) > HEADER_NAME_MAX:
            raise Refusal("header_not_allowed", "this is not the name of a header", field=field)
        if lower in _RESERVED or lower.startswith(_RESERVED_PREFIX):
            raise Refusal("header_not_allowed", f"{lower} is set by the sender", field=field)
        if lower in seen:
            raise Refusal("header_not_allowed", f"{lower} is there twice", field=field)
        if _VALUE.fullmatch(value) is None or len(value) > HEADER_VALUE_MAX:
            message = f"a value has 1 to {HEADER_VALUE_MAX} printable ASCII characters"
            raise Refusal("header_not_allowed", message, field=field)
        seen.add(lower)
