"""How a chain's providers do is written down by whoever asks them; who was caught lying is an event, once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from time import monotonic
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from activities.chain.ports import ChainDesk
from db import outbox
from db.chain import providers
from db.chain.providers import Seen
from db.engine import transaction
from db.ids import new_id
from domain.chain import Source

EVERY_SECONDS: Final = 5.0


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
        self._written: dict[str, tuple[int, int]] = {}
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
        seen = self._seen()
        async with transaction(self._engine) as connection:
            told = await note(connection, self._desk.name, seen, source, at)
        self._accused = accused
        for each in seen:
            requests, failures = self._written.get(each.provider, (0, 0))
            self._written[each.provider] = (requests + each.requests, failures + each.failures)
        return told > 0

    def _seen(self) -> list[Seen]:
        found = []
        for each in self._desk.health():
            requests, failures = self._written.get(each.provider, (0, 0))
            found.append(
                Seen(
                    provider=each.provider,
                    status=each.status,
                    status_at=each.status_at,
                    reason=each.reason,
                    head_number=each.head_number,
                    latency_ms=each.latency_ms,
                    requests=each.requests - requests,
                    failures=each.failures - failures,
                    range_blocks=each.range_blocks,
                )
            )
        return found


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
