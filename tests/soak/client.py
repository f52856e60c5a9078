"""A client that does not give up: it repeats a request under its key until it has an answer, and writes all down."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import httpx

TIMEOUT_SECONDS = 12.0
PAUSE_SECONDS_MAX = 1.5
RECENT = 50
HANG_UP_SECONDS_MAX = 0.08
#: Shares of requests: sent twice at once; left by their sender before the answer, and sent again; repeated at the end.
TWICE, ABANDONED, REPEATED_LATER = 0.08, 0.06, 0.25
REPLAYED = "idempotency-replayed"
IN_FLIGHT = "idempotency_key_in_flight"


@dataclass(frozen=True, slots=True)
class Answer:
    """A final answer, as it came."""

    status: int
    content: bytes
    replayed: bool

    @property
    def ok(self) -> bool:
        """Whether the request was accepted."""
        return 200 <= self.status < 300

    @property
    def json(self) -> Any:
        """What it says."""
        return json.loads(self.content)

    @property
    def code(self) -> str:
        """``ok``, or the code of the refusal."""
        if self.ok:
            return "ok"
        try:
            return str(self.json["code"])
        except (ValueError, KeyError, TypeError):
            return f"{self.status} without a code"


@dataclass(slots=True)
class Request:
    """One request of a client, with every answer that was final for it: one for each time that it was asked."""

    key: str | None
    path: str
    body: Mapping[str, Any] | bytes
    media_type: str = "application/json"
    answers: list[Answer] = field(default_factory=list)
    attempts: int = 0

    @property
    def content(self) -> bytes:
        """Its bytes on the wire."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


class NoAnswer(Exception):
    """A request had no final answer within the client's patience."""


@dataclass(slots=True)
class Tally:
    """What the clients met."""

    attempts: int = 0
    retries: dict[str, int] = field(default_factory=dict)
    replayed: int = 0
    #: When an attempt began and ended that had an effect behind Temporal, for the time to recover.
    effects: list[tuple[float, float]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def retry(self, why: str) -> None:
        """Count a try that did not bring an answer."""
        self.retries[why] = self.retries.get(why, 0) + 1


class Client:
    """Speaks to the API over real sockets. ``patience_seconds`` bounds one request with all its repeats."""

    def __init__(
        self, url: str, api_key: str, journal: Path, chance: random.Random, *, patience_seconds: float
    ) -> None:
        self.requests: list[Request] = []
        self.tally = Tally()
        self._chance = chance
        self.patience_seconds = patience_seconds
        self._journal: TextIO = journal.open("w", buffering=1)
        self._began = time.monotonic()
        self._http = httpx.AsyncClient(
            base_url=f"{url}/api/v1",
            headers={"X-API-Key": api_key},
            timeout=TIMEOUT_SECONDS,
            limits=httpx.Limits(max_connections=500, max_keepalive_connections=40),
            trust_env=False,
        )

    async def close(self) -> None:
        """End its connections."""
        await self._http.aclose()
        self._journal.close()

    def has_recovered_since(self, at: float) -> bool:
        """Whether a request that was sent after this instant took effect, or nobody waits for an answer."""
        recent = self.tally.effects[-RECENT:]
        return any(sent > at for sent, _ in recent) or all(request.answers for request in self.requests)

    async def post(
        self, key: str | None, path: str, body: Mapping[str, Any] | bytes, *, media_type: str = "application/json"
    ) -> Answer:
        """The final answer to a request, which is now and then sent twice at once. Raises ``NoAnswer``.

        Without a key it has to be one that names its effect itself.
        """
        request = Request(key, path, body, media_type)
        self.requests.append(request)
        times = 2 if self._chance.random() < TWICE else 1
        await asyncio.gather(*(self._ask(request) for _ in range(times)))
        return request.answers[0]

    async def repeat_some(self) -> None:
        """Ask again for a share of everything that was answered."""
        chosen = [request for request in self.requests if request.answers and self._chance.random() < REPEATED_LATER]
        gate = asyncio.Semaphore(8)

        async def again(request: Request) -> None:
            async with gate:
                await self._ask(request)

        await asyncio.gather(*(again(request) for request in chosen))

    async def get(self, path: str, **query: Any) -> Any:
        """A resource, asked for until it comes."""
        deadline = time.monotonic() + self.patience_seconds
        while time.monotonic() < deadline:
            try:
                answer = await self._http.get(path, params=query)
                if answer.is_success:
                    return answer.json()
                if answer.status_code < 500:
                    raise NoAnswer(f"GET {path}: {answer.status_code} {answer.text}")
                self._fault(answer, path)
                self.tally.retry(str(answer.status_code))
            except httpx.HTTPError as error:
                self.tally.retry(type(error).__name__)
            await asyncio.sleep(self._chance.uniform(0.1, PAUSE_SECONDS_MAX))
        raise NoAnswer(f"GET {path}")

    async def _ask(self, request: Request) -> None:
        deadline = time.monotonic() + self.patience_seconds
        while time.monotonic() < deadline:
            answer = await self._attempt(request)
            if answer is not None:
                request.answers.append(answer)
                return
            await asyncio.sleep(self._chance.uniform(0.05, PAUSE_SECONDS_MAX))
        raise NoAnswer(f"POST {request.path} under {request.key}, {request.attempts} attempts")

    async def _attempt(self, request: Request) -> Answer | None:
        """One try; None where it has to be repeated."""
        request.attempts += 1
        self.tally.attempts += 1
        began = time.monotonic()
        headers = {"Content-Type": request.media_type}
        if request.key is not None:
            headers["Idempotency-Key"] = request.key
        if self._chance.random() < ABANDONED:
            await self._abandon(request, headers)
            self._again(request, began, "abandoned")
            return None
        try:
            got = await self._http.post(request.path, content=request.content, headers=headers)
        except httpx.HTTPError as error:
            self._again(request, began, type(error).__name__)
            return None
        answer = Answer(got.status_code, got.content, got.headers.get(REPLAYED) == "true")
        self._write(request, began, status=answer.status, code=answer.code, replayed=answer.replayed)
        if answer.status >= 500 or answer.code == IN_FLIGHT:
            self._fault(got, request.path)
            self._again(request, began, answer.code)
            return None
        if answer.replayed:
            self.tally.replayed += 1
        elif answer.ok and "/commands" not in request.path:
            self.tally.effects.append((began, time.monotonic()))
        return answer

    async def _abandon(self, request: Request, headers: Mapping[str, str]) -> None:
        """Send it, and hang up before the answer; over a socket of its own, since a pool counts what is cancelled."""
        to = self._http.build_request("POST", request.path, content=request.content, headers=headers)
        head = [f"POST {to.url.raw_path.decode()} HTTP/1.1", *(f"{n}: {v}" for n, v in to.headers.items()), "", ""]
        with suppress(OSError):
            _, writer = await asyncio.open_connection(to.url.host, to.url.port)
            writer.write("\r\n".join(head).encode() + request.content)
            await asyncio.sleep(self._chance.uniform(0.0, HANG_UP_SECONDS_MAX))
            writer.transport.abort()

    def _again(self, request: Request, began: float, why: str) -> None:
        self.tally.retry(why)
        self._write(request, began, again=why)

    def _fault(self, got: httpx.Response, path: str) -> None:
        """An absence is told by 503; any other fault is a bug, whatever was broken just then."""
        if got.status_code >= 500 and got.status_code != 503:
            self.tally.faults.append(f"{path}: {got.status_code}")

    def _write(self, request: Request, began: float, **outcome: Any) -> None:
        line = {
            "at": round(began - self._began, 3),
            "seconds": round(time.monotonic() - began, 3),
            "key": request.key,
            "path": request.path,
            **outcome,
        }
        if request.attempts == 1 and not isinstance(request.body, bytes):
            line["body"] = request.body
        self._journal.write(json.dumps(line) + "\n")
