"""JSON over HTTP as price sources speak it: bounded bodies, exact numbers, and errors that name no address or key."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn

import httpx

from activities.vendors.guard import SourceFault
from kit import shallow

DEFAULT_RETRY_SECONDS = 60.0

# It writes whole addresses, and some hold a key.
logging.getLogger("httpx").setLevel(logging.WARNING)
logging.getLogger("httpcore").setLevel(logging.WARNING)


class Answer:
    """An answer whose body is whole and within its bound."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def json(self) -> Any:
        """The body, numbers with a point as ``Decimal``; raises ``SourceFault`` for what is no JSON."""
        try:
            return shallow.loads(self.body, parse_float=Decimal, parse_constant=_no_number)
        except (ValueError, ArithmeticError):
            raise SourceFault("nonsense", f"HTTP {self.status} with a body that is no JSON") from None

    def retry_after_seconds(self) -> float:
        """How long it asks to be left alone: seconds, or a date (RFC 9110, section 10.2.3)."""
        asked = asked_seconds(self.headers.get("retry-after", ""), datetime.now(UTC))
        return DEFAULT_RETRY_SECONDS if asked is None else asked


def asked_seconds(retry_after: str, now: datetime) -> float | None:
    """How long a ``Retry-After`` asks to be left alone; None for one that says nothing."""
    said = retry_after.strip()
    if said.isdigit() and said.isascii() and len(said) < 8:
        return float(said)
    try:
        until = parsedate_to_datetime(said)
        return max(0.0, (until if until.tzinfo else until.replace(tzinfo=UTC)).timestamp() - now.timestamp())
    except (TypeError, ValueError, OverflowError):
        return None


class Http:
    """A client of one source. It follows no redirect: what moved is for an operator to see."""

    def __init__(self, *, max_body_bytes: int, headers: Mapping[str, str] | None = None) -> None:
        self._max_body_bytes = max_body_bytes
        self._headers = {"Accept": "application/json", "User-Agent": "holdfast", **(headers or {})}
        self._client: httpx.AsyncClient | None = None

    async def get(self, url: str, params: Any = None) -> Answer:
        """GET; raises ``SourceFault`` when there is no answer."""
        return await self.send("GET", url, params=params)

    async def post(self, url: str, body: Any) -> Answer:
        """POST a JSON body."""
        return await self.send("POST", url, json=body)

    async def send(self, method: str, url: str, **how: Any) -> Answer:
        """One request. The time it may take is the caller's to bound; bodies are bounded here."""
        try:
            async with self._opened().stream(method, url, **how) as response:
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > self._max_body_bytes:
                        raise SourceFault("too_large", f"a body of more than {self._max_body_bytes} bytes")
                return Answer(response.status_code, response.headers, bytes(body))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # Its text may hold the address, so its class has to do.
            raise SourceFault("away", f"no connection: {type(error).__name__}") from None

    async def close(self) -> None:
        """Let go of the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def _opened(self) -> httpx.AsyncClient:
        if self._client is None:
            limits = httpx.Limits(max_connections=8, max_keepalive_connections=4)
            # The guard bounds the call as a whole; this ends what it could not.
            self._client = httpx.AsyncClient(headers=self._headers, limits=limits, timeout=30.0, follow_redirects=False)
        return self._client


def refused(answer: Answer) -> SourceFault:
    """The fault that a status other than 200 is, where the vendor has no word of its own."""
    if answer.status == 429:
        return SourceFault("rate_limited", "HTTP 429: too many calls", retry_after_seconds=answer.retry_after_seconds())
    if answer.status == 503 and "retry-after" in answer.headers:
        return SourceFault("away", "HTTP 503", retry_after_seconds=answer.retry_after_seconds())
    if answer.status in (401, 403):
        return SourceFault("denied", f"HTTP {answer.status}: the key is missing, wrong or not enough", final=True)
    return SourceFault("status", f"HTTP {answer.status}")


def instant_of(seconds: object) -> datetime | None:
    """The instant of a unix time in seconds; None for what is none."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | Decimal):
        return None
    try:
        return datetime.fromtimestamp(int(seconds), UTC)
    except (OverflowError, ValueError, OSError, ArithmeticError):
        return None


def decimal_of(value: object) -> Decimal | None:
    """A JSON number, or its text, exactly; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
        return None
    if isinstance(value, str) and len(value) > 100:
        return None
    try:
        found = Decimal(value)
    except ArithmeticError:
        return None
    return found if found.is_finite() else None


def _no_number(said: str) -> NoReturn:
    raise ValueError(f"{said} is no number")
