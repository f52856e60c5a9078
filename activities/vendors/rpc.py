"""JSON-RPC over HTTP as nodes of chains speak it: bounded bodies, one deadline, errors that name no address or key."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final, Generic, TypeVar

import aiohttp
import msgspec

from activities.chain.ports import ChainFault, FaultKind
from activities.vendors.http import asked_seconds
from activities.vendors.rpcfaults import Told, judged
from kit.shallow import is_body_too_deep

#: A method and its parameters.
Call = tuple[str, Sequence[Any]]
T = TypeVar("T")

_READ_BYTES: Final = 1 << 20
_CONNECTIONS_MAX: Final = 32
#: Shorter than nodes keep one: Bitcoin Core's end it after thirty.
IDLE_SECONDS: Final = 15.0
#: Parts of a URL that a node may repeat in its errors. Shorter ones are words, and a number may be a limit.
_PARTS: Final = re.compile(r"[/:@?&=#]+")
_SECRET_MIN: Final = 6
#: What is looked at of an error.
_TEXT_MAX: Final = 2_000


class _Answer(msgspec.Struct, Generic[T]):
    """One answer. What vendors write as an error has every shape; ``code`` and ``message`` beside it is one of them."""

    id: int | str | None = None
    result: T | None = None
    error: Any = None
    code: Any = None
    message: Any = None


class Rpc:
    """A client of one node. A URL may hold a user and a password; nothing of it is ever in a message."""

    def __init__(self, url: str, *, timeout_seconds: float, max_body_bytes: int) -> None:
        self._url = url
        self._secrets = [part for part in _PARTS.split(url) if len(part) >= _SECRET_MIN and not part.isdigit()]
        self._timeout_seconds = timeout_seconds
        self._max_body_bytes = max_body_bytes
        self._ids = itertools.count(1)
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def deadline(self) -> AsyncIterator[None]:
        """Everything within is over after the reader's time limit; raises ``ChainFault`` then."""
        try:
            async with asyncio.timeout(self._timeout_seconds):
                yield
        except TimeoutError:
            raise ChainFault(FaultKind.UNAVAILABLE, f"no answer within {self._timeout_seconds:g} s") from None

    async def call(self, method: str, params: Sequence[Any], result: type[T]) -> T | None:
        """The result of one call, None where the node says null; raises ``ChainFault``."""
        (answer,) = await self.batch([(method, params)], result)
        if isinstance(answer, ChainFault):
            raise answer
        return answer

    async def batch(self, calls: Sequence[Call], result: type[T]) -> Sequence[T | ChainFault | None]:
        """The results of several calls in one request, in their order: what the node refuses is a fault in its place.

        Raises ``ChainFault`` where the request as a whole has no answer.
        """
        first = next(self._ids)
        sent = [
            {"jsonrpc": "2.0", "id": first + place, "method": method, "params": params}
            for place, (method, params) in enumerate(calls)
        ]
        for _ in sent[1:]:
            next(self._ids)
        status, retry_after, body = await self._post(msgspec.json.encode(sent[0] if len(sent) == 1 else sent))
        methods = [method for method, _ in calls]
        return self.results(first, methods, result, status, retry_after, body)

    def results(
        self, first: int, methods: Sequence[str], result: type[T], status: int, retry_after: float | None, body: bytes
    ) -> Sequence[T | ChainFault | None]:
        """What a body says to calls whose ids run from ``first`` on; raises ``ChainFault`` where it is no answer."""
        answers = _decoded(body, result, Told(status, method=methods[0], retry_after_seconds=retry_after))
        if isinstance(answers, _Answer):
            answers = [answers]
            if len(methods) > 1:
                # Refused as a whole; or the node does not know what a batch is.
                raise self._fault(answers[0], status, retry_after, "batch")
            answers[0].id = first if answers[0].id is None else answers[0].id
        found = {answer.id: answer for answer in answers}
        if len(found) != len(methods) or any(first + place not in found for place in range(len(methods))):
            raise ChainFault(FaultKind.NONSENSE, f"{len(answers)} answers that are not those to {len(methods)} calls")
        return [self._result(found[first + place], status, retry_after, method) for place, method in enumerate(methods)]

    async def close(self) -> None:
        """Let go of connections; a later call opens others."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _result(self, answer: _Answer[T], status: int, retry_after: float | None, method: str) -> T | ChainFault | None:
        if answer.error is not None or (status != 200 and answer.result is None) or answer.message is not None:
            return self._fault(answer, status, retry_after, method)
        return answer.result

    def _fault(self, answer: _Answer[Any], status: int, retry_after: float | None, method: str) -> ChainFault:
        error = answer.error
        code, message = answer.code, answer.message
        if isinstance(error, dict):
            code, message = error.get("code", code), error.get("message", message)
            data = error.get("data")
            if isinstance(data, str):
                message = f"{message}: {data}"
            elif isinstance(data, dict):
                message = f"{message} {' '.join(f'{name}={value}' for name, value in data.items())}"
        elif error is not None and message is None:
            message = error
        text = "" if message is None else str(message)[:_TEXT_MAX]
        for secret in self._secrets:
            text = text.replace(secret, "…")
        number = code if isinstance(code, int) and not isinstance(code, bool) else None
        return judged(Told(status, number, text, method, retry_after))

    async def _post(self, content: bytes) -> tuple[int, float | None, bytes]:
        """The status, how long it asks to be left alone, and the body."""
        try:
            async with self._opened().post(self._url, data=content, allow_redirects=False) as response:
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > self._max_body_bytes:
                        response.close()
                        raise ChainFault(FaultKind.TOO_MUCH, f"a body of more than {self._max_body_bytes} bytes")
                retry_after = asked_seconds(response.headers.get("Retry-After", ""), datetime.now(UTC))
                return response.status, retry_after, bytes(body)
        except TimeoutError:
            raise
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Its text may hold the address, so its class has to do.
            raise ChainFault(FaultKind.UNAVAILABLE, f"no whole answer: {type(error).__name__}") from None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=_CONNECTIONS_MAX, keepalive_timeout=IDLE_SECONDS),
                headers={"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "holdfast"},
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=_READ_BYTES,
                trust_env=False,
                # The deadline bounds the call as a whole; this ends what it could not.
                timeout=aiohttp.ClientTimeout(total=300),
            )
        return self._session


@cache
def _decoder(result: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(_Answer[result] | list[_Answer[result]])


def _decoded(body: bytes, result: Any, told: Told) -> Any:
    """One answer or several; what is none is judged by its status."""
    if is_body_too_deep(body):
        raise ChainFault(FaultKind.NONSENSE, "a body that is nested too deeply")
    try:
        return _decoder(result).decode(body)
    except msgspec.ValidationError as error:
        if told.status == 200:
            raise ChainFault(FaultKind.NONSENSE, f"an answer of another shape: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
        if told.status == 200:
            raise ChainFault(FaultKind.NONSENSE, f"{len(body)} bytes that are no JSON") from None
    raise judged(told)
