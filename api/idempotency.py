"""One request, one effect, one answer: what ``Idempotency-Key`` promises.

The same key with the same body gets the stored answer, byte for byte; with another body 422; while the first request
is still being worked on 409. A request that died between its effect and its answer leaves its operation id behind: who
repeats it works under that id, so that the effect is recognised instead of done again. Answers are kept for at least a
day. Input that is refused before anything began leaves nothing behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256, shake_256
from typing import Protocol, TypedDict
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from api import problems
from api.auth import presented_key
from api.bodies import meaning
from api.deps import Call
from db import idempotency as db_idempotency
from db.idempotency import Standing, StoredResponse
from db.ids import new_id
from domain.errors import Refusal, Unavailable

#: A request that is worked on renews its lease; one that died is taken over when this is past. Taking over one that
#: is merely slow does no harm: both work under one operation id, which has one effect.
LEASE_SECONDS = 6
RENEWAL_SECONDS = 2
REPLAYED_HEADER = "Idempotency-Replayed"


class Rendered(Protocol):
    """An answer whose bytes are known."""

    def render(self) -> StoredResponse:
        """The bytes that are sent and kept."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request is answered with."""

    status: int
    body: BaseModel
    headers: Mapping[str, str] = field(default_factory=dict)

    def render(self) -> StoredResponse:
        """The bytes that are sent and kept."""
        headers = {"Content-Type": "application/json", **self.headers}
        return StoredResponse(self.status, headers, self.body.model_dump_json().encode())


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at an operation. ``operation_id`` names the effect; ``repeated``: an earlier try under it died."""

    operation_id: UUID
    repeated: bool = False


class Operation(Protocol):
    """What a POST does, in three parts, so that no transaction stays open while a workflow works."""

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> Rendered | None:
        """Check the request against what is stored; a refusal leaves nothing behind. An answer ends it here."""

    async def perform(self) -> None:
        """Have it done; the outcome is an effect or a refusal."""

    async def answer(self, connection: AsyncConnection) -> Rendered:
        """Tell what came of it."""


class Configuration:
    """Base of an operation that ``prepare`` does and answers whole, in one commit: no workflow is behind it."""

    async def perform(self) -> None:
        """Nothing is left to do."""

    async def answer(self, connection: AsyncConnection) -> Answer:
        """Never asked: ``prepare`` answers."""
        raise NotImplementedError


async def once(call: Call, operation: Operation, *, secret: bool = False) -> Response:
    """Do ``operation`` unless the request's key says that it was done; ``secret`` seals the stored answer."""
    if call.idempotency_key is None:
        return _response(await _do(call, operation))
    claim = await _Claim.of(call, call.idempotency_key, secret=secret)
    return await claim.work(operation)


async def _do(call: Call, operation: Operation) -> StoredResponse:
    """The operation without a key: under an id of its own, and nothing is kept."""
    async with call.transaction() as connection:
        answer: Rendered | None = await operation.prepare(connection, Attempt(new_id()))
    if answer is None:
        await operation.perform()
        async with call.transaction() as connection:
            answer = await operation.answer(connection)
    return answer.render()


class _Name(TypedDict):
    """What names a claim: keys of different users of a tenant do not meet."""

    tenant: UUID
    caller: str
    key: str


class _Claim:
    """A request's hold on its idempotency key."""

    def __init__(self, call: Call, key: str, fingerprint: bytes, seal: bytes | None) -> None:
        self._call = call
        self._fingerprint = fingerprint
        self._seal = seal
        self._name = _Name(tenant=call.principal.tenant_id, caller=call.principal.user_id or "", key=key)

    @staticmethod
    async def of(call: Call, key: str, *, secret: bool) -> _Claim:
        request = call.request
        said = [request.method.encode(), request.scope["path"].encode(), await meaning(request)]
        seal = None
        if secret:
            # Only who brought the key that asked can open the answer; another key is another request.
            seal = presented_key(request.headers).encode()
            said.append(call.principal.key_id.bytes)
        return _Claim(call, key, sha256(b"\n".join(said)).digest(), seal)

    async def work(self, operation: Operation) -> Response:
        async with self._call.transaction() as connection:
            begun = await db_idempotency.begin(
                connection,
                **self._name,
                fingerprint=self._fingerprint,
                operation_id=new_id(),
                lease_seconds=LEASE_SECONDS,
            )
            if (known := self._known(begun)) is not None:
                return known
            attempt = Attempt(begun.operation_id, repeated=begun.standing is Standing.TAKEN_OVER)
            answer = await operation.prepare(connection, attempt)
            if answer is not None:
                return await self._keep(connection, begun.operation_id, answer.render())
        renewing = asyncio.create_task(self._renew(begun.operation_id))
        try:
            return await self._finish(operation, begun.operation_id)
        except Exception:
            # Unknown what it did: the id stays with the key, so that a retry can find out.
            await self._release(begun.operation_id)
            raise
        finally:
            renewing.cancel()

    async def _finish(self, operation: Operation, operation_id: UUID) -> Response:
        try:
            await operation.perform()
            async with self._call.transaction() as connection:
                answer = await operation.answer(connection)
                return await self._keep(connection, operation_id, answer.render())
        except Refusal as refusal:
            refused = problems.refusal_response(self._call.request, refusal)
            headers = {"Content-Type": problems.MEDIA_TYPE}
            stored = StoredResponse(refused.status_code, headers, bytes(refused.body))
            async with self._call.transaction() as connection:
                return await self._keep(connection, operation_id, stored)

    def _known(self, begun: db_idempotency.Begun) -> Response | None:
        if begun.standing is Standing.MISMATCH:
            message = "this key was used for another request"
            raise Refusal("idempotency_key_reused", message, field="Idempotency-Key")
        if begun.standing is Standing.IN_FLIGHT:
            message = "the first request with this key is still being worked on"
            raise Refusal("idempotency_key_in_flight", message, field="Idempotency-Key")
        if begun.response is None:
            return None
        body = self._sealed(begun.operation_id, begun.response.body)
        return _response(
            StoredResponse(begun.response.status, {**begun.response.headers, REPLAYED_HEADER: "true"}, body)
        )

    async def _keep(self, connection: AsyncConnection, operation_id: UUID, response: StoredResponse) -> Response:
        sealed = StoredResponse(response.status, response.headers, self._sealed(operation_id, response.body))
        kept = await db_idempotency.finish(connection, **self._name, operation_id=operation_id, response=sealed)
        # Whoever asks with this key is told the same, also where two worked on it at once.
        return _response(StoredResponse(kept.status, kept.headers, self._sealed(operation_id, kept.body)))

    async def _renew(self, operation_id: UUID) -> None:
        while True:
            await asyncio.sleep(RENEWAL_SECONDS)
            with suppress(Unavailable):
                async with self._call.transaction() as connection:
                    await db_idempotency.renew(
                        connection, **self._name, operation_id=operation_id, lease_seconds=LEASE_SECONDS
                    )

    async def _release(self, operation_id: UUID) -> None:
        with suppress(Unavailable):
            async with self._call.transaction() as connection:
                await db_idempotency.release(connection, **self._name, operation_id=operation_id)

    def _sealed(self, operation_id: UUID, body: bytes) -> bytes:
        """``body`` under a key stream that only the caller's API key yields; sealing twice opens it again."""
        if self._seal is None:
            return body
        stream = shake_256(self._seal + operation_id.bytes).digest(len(body))
        return bytes(left ^ right for left, right in zip(body, stream, strict=True))


def _response(stored: StoredResponse) -> Response:
    return Response(stored.body, stored.status, dict(stored.headers))
