"""How a chain's providers do is written down by whoever asks them; who was caught lying is an event, once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from time import monotonic
from typing import Final
from weakref import WeakKeyDictionary

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from activities.chain.ports import ChainDesk, ProviderHealth
from db import outbox
from db.chain import providers
from db.chain.providers import Seen
from db.engine import transaction
from db.ids import new_id
from domain.chain import Source

EVERY_SECONDS: Final = 5.0
#: Requests and failures that are written already, by desk and provider: whoever uses a desk writes what is new.
_written: WeakKeyDictionary[ChainDesk, Counter[tuple[str, str]]] = WeakKeyDictionary()


class ProviderNotes:
    """Writes how a desk's providers do, every few seconds at most; ``engine`` sees every tenant."""

    def __init__(
        self,
        engine: AsyncEngine,
        desk: ChainDesk,
        *,
        every_seconds: float = EVERY_SECONDS,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._engine = engine
        self._desk = desk
        self._every_seconds = every_seconds
        self._clock = clock
        self._next_at = float("-inf")
        self._written = _written.setdefault(desk, Counter())
        self._accused: set[tuple[str, datetime]] = set()

    async def keep(self, source: Source, at: datetime) -> bool:
        """Write if it is time, or if somebody was accused; answers whether events were written, for the doorbell.

        ``source`` is whose reading showed it, and whose tenant is told.
        """
        now = self._clock()
        accused = {(each.provider, each.status_at) for each in self._desk.health() if each.status == providers.ACCUSED}
        if now < self._next_at and accused <= self._accused:
            return False
        self._next_at = now + self._every_seconds
        seen = [self._taken(each) for each in self._desk.health()]
        try:
            async with transaction(self._engine) as connection:
                told = await note(connection, self._desk.name, seen, source, at)
        except BaseException:
            for each in seen:
                self._take(each.provider, -each.requests, -each.failures)
            raise
        self._accused = accused
        return told > 0

    def _taken(self, health: ProviderHealth) -> Seen:
        name = health.provider
        requests = health.requests - self._written[name, "requests"]
        failures = health.failures - self._written[name, "failures"]
        self._take(name, requests, failures)
        return Seen(
            provider=name,
            status=health.status,
            status_at=health.status_at,
            reason=health.reason,
            head_number=health.head_number,
            latency_ms=health.latency_ms,
            requests=requests,
            failures=failures,
            range_blocks=health.range_blocks,
        )

    def _take(self, name: str, requests: int, failures: int) -> None:
        self._written[name, "requests"] += requests
        self._written[name, "failures"] += failures


async def note(connection: AsyncConnection, chain: str, seen: Sequence[Seen], source: Source, at: datetime) -> int:
    """Write it, and an event for each provider that is accused since now; answers how many."""
    accused = await providers.put(connection, chain, seen, at)
    events = [
        outbox.OutboxEvent(
            event_id=new_id(),
            topic=outbox.SETTLEMENT_TOPIC,
            type="chain.provider_accused",
            subject=f"relayer:{source.relayer_id}",
            occurred_at=each.status_at,
            data={
                "chain": chain,
                "provider": each.provider,
                "reason": each.reason or "",
                "relayer_id": source.relayer_id,
            },
        )
        for each in accused
    ]
    await outbox.append(connection, source.tenant_id, events)
    return len(events)
