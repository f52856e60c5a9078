"""Doubles of what stands outside; Postgres and Temporal are never among them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from uuid import UUID

from activities.consuming import Delivered, Failed, TenantEvent
from activities.ports import Outgoing, Published, Publisher
from db.ids import new_id
from domain.errors import Unavailable


class Inbox:
    """A consumer's handler that keeps what it is handed. ``away`` makes it unavailable, ``poison`` says which events
    it cannot take."""

    def __init__(self, types: Sequence[str] | None = None) -> None:
        self.types = types
        self.taken: list[TenantEvent] = []
        self.attempts = 0
        self.away = False
        self.poison: Callable[[TenantEvent], bool] = lambda _: False
        self.before_return: Callable[[], None] | None = None

    async def deliver(self, events: Sequence[TenantEvent], upto: int) -> Delivered:
        self.attempts += 1
        await asyncio.sleep(0)
        if self.away:
            raise Unavailable("inbox", "away")
        bad = [event for event in events if self.poison(event)]
        self.taken += [event for event in events if event not in bad]
        if self.before_return is not None:
            self.before_return()
        return Delivered(upto, [Failed(event, "cannot be taken") for event in bad])

    async def close(self) -> None:
        """Nothing is held."""

    @property
    def positions(self) -> list[int]:
        return [event.position for event in self.taken]


class Mortal:
    """A publisher whose process dies after the broker acknowledged, and before anything is recorded."""

    def __init__(self, real: Publisher) -> None:
        self._real = real
        self.deaths = 0

    @property
    def stream(self) -> str:
        return self._real.stream

    async def publish(self, events: Sequence[Outgoing]) -> Published:
        await self._real.publish(events[: 2 * len(events) // 3])
        self.deaths += 1
        raise RuntimeError("killed")

    async def close(self) -> None:
        await self._real.close()


class SlowDesk:
    """What a bench sends commands to, taking its time; the escrows in ``broken`` are never funded."""

    def __init__(self, pause_seconds: float, broken: Sequence[int] = ()) -> None:
        self._pause_seconds = pause_seconds
        self._broken = broken
        self.took: dict[int, list[int]] = {}

    async def create(self, number: int) -> UUID:
        await self._take(number, 0)
        return new_id()

    async def move(self, escrow_id: UUID, number: int, step: int) -> None:
        await self._take(number, step)

    async def _take(self, number: int, step: int) -> None:
        await asyncio.sleep(self._pause_seconds)
        if step == 1 and number in self._broken:
            raise ValueError("no")
        self.took.setdefault(number, []).append(step)
