"""The one door through which requests to strangers' URLs leave.

Whoever owns a URL may be hostile: to what lies behind us (addresses inside), and to us (answers without end). So an
address is judged three times: as it stands in the URL, as the resolver answers, of which one wrong answer is one too
many, and when the socket for it is made, behind which nothing decides any more where it leads. A name is not looked up
again between judging and connecting. No proxy, no redirect, no cookie, no decompression; one deadline over everything.
"""

from __future__ import annotations

import asyncio
import io
import re
import socket
import ssl
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache, partial
from ipaddress import ip_address
from time import monotonic
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.http import HttpProcessingError
from yarl import URL

from activities.ports import Answered, NoAnswer, NotSent, Reached
from activities.vendors.lookup import Lookup, Names, NamesUnknown
from domain.errors import Refusal
from domain.webhooks.addresses import Reach
from domain.webhooks.urls import Target, target_of

#: Servers close idle connections after five seconds and more; a request that meets the closing is lost.
IDLE_SECONDS = 4.0
LOOKUP_CACHE_SECONDS = 10
HEADER_BYTES_MAX = 16_384
_READ_BYTES = 16_384
_WHOLE_BYTES_MAX = 65_536
_FRESH_TRIES = 4
_TARGETS_MAX = 4_096
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: What a caller may not say: these belong to the connection, or to this client.
OURS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "te", "trailer", "expect"}
    | {"proxy-authorization", "proxy-connection", "accept-encoding", "user-agent", "cookie"}
)


@dataclass(slots=True)
class _Call:
    """How far a request has come. ``listed``: its host stands on the operator's list. ``transport``: by which something
    of it may have been sent."""

    listed: bool
    transport: asyncio.Transport | None = None

    def abort(self) -> None:
        """At once: closing TLS politely means reading on for as long as the other side sends."""
        if self.transport is not None:
            self.transport.abort()


_call: ContextVar[_Call] = ContextVar("outward_call")


class Blocked(OSError):
    """An address that we may not call. No connection to it was opened."""


class SpokeFirst(aiohttp.ClientConnectionError):
    """A server that says something before it is asked: no answer of it could be told from that."""


class OutwardClient:
    """Requests to strangers. Connections are kept for a moment and used again, each only for its own host."""

    def __init__(
        self,
        *,
        allow: Reach | None = None,
        user_agent: str = "Holdfast-Webhooks",
        lookup: Lookup | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._reach = allow or Reach()
        # What is refused is not remembered.
        self._target = lru_cache(_TARGETS_MAX)(partial(target_of, reach=self._reach))
        self._names = Names(lookup)
        self._headers = {"User-Agent": user_agent, "Accept-Encoding": "identity", "Accept": "*/*"}
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def post(
        self, url: str, headers: Mapping[str, str], body: bytes, *, deadline_seconds: float, read_bytes: int
    ) -> Reached:
        """POST once; see ``activities.ports.Outward``."""
        try:
            target = self._target(url)
        except Refusal as refusal:
            return NotSent(refusal.message, blocked=True)
        wrong = _wrong_header(headers)
        if wrong is not None:
            return NotSent(wrong)
        call = _Call(target.listed)
        token = _call.set(call)
        began = monotonic()
        until = asyncio.get_running_loop().time() + deadline_seconds
        whole = False
        try:
            async with asyncio.timeout_at(until):
                response = await self._asked(target, headers, body)
            found = bytearray()
            whole = await _read(response, found, read_bytes, until)
            return Answered(response.status, _headers(response.headers), bytes(found), not whole, _since(began))
        except TimeoutError:
            if call.transport is None:
                return NotSent(f"no connection within {deadline_seconds:g} s")
            return NoAnswer(f"no answer within {deadline_seconds:g} s", _since(began))
        except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as error:
            if call.transport is None:
                return _not_sent(error)
            return NoAnswer(_no_answer(error), _since(began))
        finally:
            if not whole:
                call.abort()
            _call.reset(token)

    async def _asked(self, target: Target, headers: Mapping[str, str], body: bytes) -> aiohttp.ClientResponse:
        url = URL(target.url, encoded=True)
        # A long body goes out in parts, with a look at everything else between them.
        data = body if len(body) <= _WHOLE_BYTES_MAX else io.BytesIO(body)
        return await self._opened().post(url, data=data, headers=headers, allow_redirects=False)

    async def close(self) -> None:
        """Let go of connections; a later call opens others."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()
        self._names.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = _Connector(
                resolver=_Resolver(self._names, self._reach),
                socket_factory=self._socket,
                # How much goes on at once is the callers' to bound, endpoint by endpoint: of two at one host, which may
                # be a big one with many customers, neither must wait for the other.
                limit=0,
                keepalive_timeout=IDLE_SECONDS,
                ttl_dns_cache=LOOKUP_CACHE_SECONDS,
                ssl=self._tls or True,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                headers=self._headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            )
        return self._session

    def _socket(self, info: tuple[Any, ...]) -> socket.socket:
        """The last to judge: every connection begins here, with the address that it will have."""
        family, kind, protocol, _, where = info
        call = _call.get(None)
        if family not in (socket.AF_INET, socket.AF_INET6):
            raise Blocked("an address of another family")
        if not self._reach.admits(ip_address(where[0]), named=call is not None and call.listed):
            raise Blocked("an address that is not public")
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made


class _Connector(aiohttp.TCPConnector):
    """Marks the moment from which something may have been sent, and hands out no connection on which the other side
    has spoken out of turn: what it said would pass for the answer to a request that it has not seen."""

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:  # noqa: ASYNC109 - aiohttp's
        for _ in range(_FRESH_TRIES):
            connection = await super().connect(req, traces, timeout)
            if connection.protocol is not None and not connection.protocol.should_close:
                _call.get().transport = connection.transport
                return connection
            connection.close()
        raise SpokeFirst


class _Resolver(AbstractResolver):
    """Names to addresses; all of them may be called, or none is told."""

    def __init__(self, names: Names, reach: Reach) -> None:
        self._names = names
        self._reach = reach

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002 - aiohttp asks for all of them
    ) -> list[ResolveResult]:
        addresses = [ip_address(each) for each in await self._names.find(host)]
        listed = self._reach.lists(host)
        if not addresses:
            raise NamesUnknown("its name has no address")
        if not all(self._reach.admits(address, named=listed) for address in addresses):
            raise Blocked("its name leads to an address that is not public")
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        return


async def _read(response: aiohttp.ClientResponse, found: bytearray, limit: int, until: float) -> bool:
    """Read into ``found``; whether that was all. What came until the deadline, or until the other side broke off, is an
    answer already: its status is there."""
    try:
        async with asyncio.timeout_at(until):
            while len(found) <= limit:
                chunk = await response.content.read(min(_READ_BYTES, limit + 1 - len(found)))
                if not chunk:
                    return True
                found += chunk
    except (TimeoutError, aiohttp.ClientError, HttpProcessingError, OSError):
        return False
    finally:
        # Whole, its connection has gone back already.
        response.close()
    del found[limit:]
    return False


def _headers(found: Mapping[str, str]) -> dict[str, str]:
    """In lower case, of visible text only, and not more than anybody wants to keep."""
    kept: dict[str, str] = {}
    size = 0
    for name, value in found.items():
        size += len(name) + len(value)
        if size > HEADER_BYTES_MAX:
            break
        text = value.encode(errors="surrogateescape").decode(errors="replace")
        text = "".join(sign if sign.isprintable() else " " for sign in text)
        kept[name.lower()] = f"{kept[name.lower()]}, {text}" if name.lower() in kept else text
    return kept


def _wrong_header(headers: Mapping[str, str]) -> str | None:
    for name, value in headers.items():
        if name.lower() in OURS:
            return f"the header {name.lower()} is not the caller's to set"
        if _HEADER.fullmatch(name) is None or not (value.isascii() and value.isprintable()):
            return "a header has characters that cannot be sent"
    return None


def _not_sent(error: Exception) -> NotSent:
    """Why there was no connection, without any address."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, Blocked):
            return NotSent(str(cause), blocked=True)
        if isinstance(cause, NamesUnknown):
            return NotSent(str(cause))
        cause = cause.__cause__
    if isinstance(error, SpokeFirst):
        return NotSent("the server speaks before it is asked")
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return NotSent(f"the server's certificate is not accepted: {_certificate(error.certificate_error)}")
    if isinstance(error, aiohttp.ClientSSLError):
        return NotSent("no TLS with the server")
    if isinstance(error, aiohttp.ClientConnectorError):
        return NotSent(f"no connection: {_words(error.os_error)}")
    if isinstance(error, ValueError):
        return NotSent("the request cannot be written down")
    return NotSent(f"no connection: {_words(error)}")


def _certificate(error: Exception) -> str:
    return error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else type(error).__name__


def _no_answer(error: Exception) -> str:
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the server closed the connection without an answer"
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.ClientPayloadError | HttpProcessingError | ValueError):
        return "the answer is no HTTP"
    return f"the connection broke: {_words(error)}"


def _words(error: BaseException) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        return "reset"
    return "unreachable" if isinstance(error, OSError) and error.errno else type(error).__name__


def _since(began: float) -> int:
    """Milliseconds."""
    return round((monotonic() - began) * 1000)
