"""What happens around every request: its id, log line and metrics, the limit of its body, and the bugs it meets."""

from __future__ import annotations

import re
import time
from secrets import token_hex
from urllib.parse import unquote_to_bytes

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import problems
from domain.errors import Refusal

MAX_BODY_BYTES = 1024 * 1024
#: What may be longer, by path: requests that carry thousands of things at once, and say so by their type.
LONG_BODIES = {"/api/v1/commands/ingest": (b"application/x-ndjson", 8 * 1024 * 1024)}
REQUEST_ID_HEADER = "X-Request-ID"
#: Stands in logs and metrics for a request whose sender left before its body was whole.
CLIENT_GONE = 499

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,127}\Z")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_BUCKETS = (0.005, 0.01, 0.02, 0.04, 0.06, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0)

_log = structlog.get_logger("api.access")


class HttpMetrics:
    """Counts and durations by route template, never by path: paths hold ids and would grow without end."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "holdfast_http_requests", "Answered requests", ["method", "route", "status"], registry=registry
        )
        self.duration = Histogram(
            "holdfast_http_request_duration_seconds",
            "Time to answer",
            ["method", "route"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self.in_flight = Gauge("holdfast_http_requests_in_flight", "Requests being worked on", registry=registry)


class RequestMiddleware:
    """The outermost layer of ours, so that nothing leaves without a request id, a log line and a count."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(scope, send)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=answer.request_id)
        started = time.perf_counter()
        with self._metrics.in_flight.track_inprogress():
            try:
                if _is_text(scope):
                    await self._app(scope, _limited(scope, receive), answer.send)
                else:
                    refusal = Refusal("path_invalid", "the path and the query are percent-encoded UTF-8")
                    await problems.refusal_response(Request(scope), refusal)(scope, receive, answer.send)
            except ClientDisconnect:
                answer.status = answer.status or CLIENT_GONE  # nobody is there to be answered
            except Exception:
                _log.exception("request failed")
                if answer.status is not None:
                    raise  # too late for another answer; the server closes the connection
                await problems.fault_response(Request(scope, receive))(scope, receive, answer.send)
            finally:
                self._tell(scope, answer.status or 500, time.perf_counter() - started)

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "OTHER"
        route = getattr(scope.get("route"), "path", "unmatched")
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.duration.labels(method, route).observe(seconds)
        client = scope.get("client") or ("", 0)
        _log.info(
            "request",
            method=scope["method"],
            path=scope["path"],
            route=route,
            status=status,
            duration_ms=round(seconds * 1000, 1),
            client=client[0],
        )


class _Answer:
    """One answer on its way out: gets the headers that every answer has, and remembers its status."""

    def __init__(self, scope: Scope, send: Send) -> None:
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        self.request_id = given if _SANE_REQUEST_ID.match(given) else token_hex(16)
        self.status: int | None = None
        self._send = send
        scope.setdefault("state", {})["request_id"] = self.request_id

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers[REQUEST_ID_HEADER] = self.request_id
            headers.setdefault("Cache-Control", "no-store")
            headers.setdefault("X-Content-Type-Options", "nosniff")
        await self._send(message)


def _limited(scope: Scope, receive: Receive) -> Receive:
    """``receive`` that stops a body over the limit: at once when it says its length, else when it grows too long."""
    declared = Headers(scope=scope).get("content-length", "0")
    most = _body_limit(scope)
    too_long = declared.isdigit() and (len(declared) > 18 or int(declared) > most)
    taken = 0

    async def limited() -> Message:
        nonlocal taken
        if too_long:
            raise _too_large(most)
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > most:
            raise _too_large(most)
        return message

    return limited


def _body_limit(scope: Scope) -> int:
    media_type, most = LONG_BODIES.get(scope["path"], (b"", MAX_BODY_BYTES))
    declared = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower().encode("latin-1")
    return most if declared == media_type else MAX_BODY_BYTES


def _is_text(scope: Scope) -> bool:
    """Whether path and query are UTF-8. The framework would put a replacement character for what is not, and so make
    one name of many."""
    try:
        for part in (scope.get("raw_path") or b"", scope.get("query_string") or b""):
            unquote_to_bytes(part).decode()
    except UnicodeDecodeError:
        return False
    return True


def _too_large(most: int) -> Refusal:
    return Refusal("body_too_large", f"a body may have {most} bytes here")
