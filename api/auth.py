"""Who is calling: API keys, looked up once in a few seconds, their uses counted in batches."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.datastructures import Headers

from db import identity as db_identity
from db.engine import transaction
from db.identity import ApiKeyRow
from domain.errors import Refusal, Unavailable
from domain.identity import KEY_RANDOM_BYTES, Principal, Scope, has_valid_checksum, hash_key, make_key
from kit.clock import now

#: A revoked key stops after this long at the latest.
CACHE_SECONDS = 5.0
CACHE_KEYS = 10_000
FLUSH_SECONDS = 5.0
#: What a row shows of its key, to recognise it by.
SHOWN_CHARACTERS = 8

_SCOPES = {scope.value: scope for scope in Scope}
_log = structlog.get_logger(__name__)


def fresh_key() -> str:
    """A new API key from the system's randomness."""
    return make_key(os.urandom(KEY_RANDOM_BYTES))


def presented_key(headers: Headers) -> str:
    """The key that a request brings, in either of the two headers."""
    if (key := headers.get("x-api-key")) is not None:
        return key.strip()
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and credentials.strip():
        return credentials.strip()
    raise Refusal("key_missing", "send an API key as X-API-Key or as Authorization: Bearer")


class Keys:
    """Turns a request's key into its principal. ``run`` writes the counted uses until it is cancelled.

    ``clock`` is monotonic, in seconds.
    """

    def __init__(self, engine: AsyncEngine, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._cache: OrderedDict[bytes, tuple[float, ApiKeyRow | None]] = OrderedDict()
        self._uses: Counter[UUID] = Counter()

    async def principal(self, headers: Headers) -> Principal:
        """Who calls; refuses a key that is missing, mistyped, unknown, revoked or expired."""
        principal = await self.admit(headers)
        self._uses[principal.key_id] += 1
        return principal

    async def admit(self, headers: Headers) -> Principal:
        """The same for a request that was counted when it came, and still goes on."""
        key = presented_key(headers)
        if not has_valid_checksum(key):
            raise Refusal("key_invalid", "this is not an API key of ours")
        row = await self._find(hash_key(key))
        if row is None:
            raise Refusal("key_invalid", "this API key does not exist")
        if row.revoked_at is not None:
            raise Refusal("key_revoked", "this API key was revoked")
        if row.expires_at is not None and row.expires_at <= now():
            raise Refusal("key_expired", "this API key has expired")
        scopes = frozenset(_SCOPES[name] for name in row.scopes if name in _SCOPES)
        return Principal(row.tenant_id, row.key_id, scopes, row.user_id)

    def forget(self) -> None:
        """Look every key up again; this process just changed one."""
        self._cache.clear()

    async def run(self) -> None:
        """Write the counted uses every few seconds."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            try:
                await self.flush()
            except Unavailable:
                continue  # flush() has told, and kept what it has
            except Exception:  # noqa: BLE001 - logged below with its traceback
                # Counting goes on: one fault must not end it for the life of the process.
                _log.exception("key uses could not be written")

    async def flush(self) -> None:
        """Write the uses counted since the last time; they are kept when the database does not answer."""
        uses, self._uses = self._uses, Counter()
        if not uses:
            return
        try:
            async with transaction(self._engine) as connection:
                await db_identity.count_key_uses(connection, uses, now())
        except Exception as error:
            self._uses.update(uses)
            if isinstance(error, Unavailable):
                _log.warning("key uses were not written and will be later", reason=error.message)
            raise

    async def _find(self, key_hash: bytes) -> ApiKeyRow | None:
        known = self._cache.get(key_hash)
        if known is not None and known[0] > self._clock():
            return known[1]
        asked_at = self._clock()
        async with transaction(self._engine) as connection:
            row = await db_identity.find_api_key(connection, key_hash)
        self._cache[key_hash] = (asked_at + CACHE_SECONDS, row)
        self._cache.move_to_end(key_hash)
        while len(self._cache) > CACHE_KEYS:
            self._cache.popitem(last=False)
        return row
