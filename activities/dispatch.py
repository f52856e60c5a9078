"""The dispatcher: events start and signal workflows, under ids that come from the event."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from temporalio.common import TypedSearchAttributes

from activities.consuming import Delivered, Failed, TenantEvent
from domain.errors import Unavailable

__all__ = ["CONSUMER", "Dispatcher", "Listener", "TenantEvent", "Wake", "Waking", "deliver_wakes"]

#: The name of the dispatcher's cursor.
CONSUMER = "dispatcher"
#: How many wakes are on their way at a time.
CONCURRENT_WAKES = 16


@dataclass(frozen=True, slots=True)
class Wake:
    """A workflow that an event starts, or, with ``signal``, that it starts or wakes.

    ``workflow_id`` comes from the event, so that a repeat meets the same run. A start without a signal happens once
    under its id. A signal says that there is work, and nothing more: of several wakes of one workflow that stand close
    together in the feed, the last one may stand for all, so its arguments must do for all.
    """

    workflow: str | Callable[..., Any]
    workflow_id: str
    argument: Any
    summary: str
    search_attributes: TypedSearchAttributes
    signal: str | None = None
    signal_argument: Any = None


Listener = Callable[[TenantEvent], Wake]


class Waking(Protocol):
    """Who reaches workflows."""

    async def wake(self, wake: Wake) -> None:
        """Deliver a wake. One that was delivered before is no error; raises ``Unavailable`` when it cannot be now."""


class Dispatcher:
    """A consumer's handler: asks ``listeners`` what an event wakes, and has ``waking`` do it."""

    def __init__(self, listeners: Mapping[str, Listener], waking: Waking) -> None:
        self._listeners = listeners
        self._waking = waking

    @property
    def types(self) -> Sequence[str]:
        """The types of events that somebody listens to."""
        return tuple(self._listeners)

    async def deliver(self, events: Sequence[TenantEvent], upto: int) -> Delivered:
        """Wake what the events wake, several at a time. An absence leaves the whole page for the next attempt."""
        failed: list[Failed] = []
        wanted: dict[tuple[str, str | None], tuple[Wake, list[TenantEvent]]] = {}
        for event in events:
            try:
                wake = self._listeners[event.type](event)
            except Exception as bug:  # noqa: BLE001 - told with the event, counted and recorded
                failed.append(_failed(event, bug))
                continue
            key = (wake.workflow_id, wake.signal)
            wanted[key] = (wake, [*wanted.get(key, (wake, []))[1], event])
        return Delivered(upto, failed + await deliver_wakes(self._waking, list(wanted.values())))

    async def close(self) -> None:
        """Nothing is held."""


async def deliver_wakes(waking: Waking, wakes: Sequence[tuple[Wake, Sequence[TenantEvent]]]) -> list[Failed]:
    """Wake several at a time, each told by its events; answers those that met a bug. Raises the first absence."""
    places = asyncio.Semaphore(CONCURRENT_WAKES)

    async def deliver(wake: Wake) -> None:
        async with places:
            await waking.wake(wake)

    failed: list[Failed] = []
    ends = await asyncio.gather(*(deliver(wake) for wake, _ in wakes), return_exceptions=True)
    for end, (_, told) in zip(ends, wakes, strict=True):
        if isinstance(end, Unavailable):
            raise end
        if isinstance(end, Exception):
            failed += [_failed(event, end) for event in told]
        elif end is not None:
            raise end
    return failed


def _failed(event: TenantEvent, bug: Exception) -> Failed:
    return Failed(event, f"{type(bug).__name__}: {bug}")
