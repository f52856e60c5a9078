"""What stands between us and every price source: its time limit, its rate, its circuit breaker, its metrics."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from prometheus_client import Counter, Gauge, Histogram

from domain.prices.model import Reading

#: What a source said so long ago may stand in where it must not be asked again yet; ages are judged all the same.
REUSE_SECONDS = 60.0
RETRY_AFTER_SECONDS_MAX = 3_600.0
_MINUTE = 60.0

_log = logging.getLogger(__name__)
_calls = Counter("holdfast_price_source_calls_total", "Calls of price sources, by what came of them", ["source", "end"])
_seconds = Histogram("holdfast_price_source_seconds", "How long calls of price sources take", ["source"])
_state = Gauge("holdfast_price_source_breaker", "0: it is asked; 1: it is tried; 2: it is left alone", ["source"])


class SourceFault(Exception):
    """A source gave no answer that can be used. ``reason`` goes to operators: no key, no address is in it.

    ``kind`` is its place in the metrics. ``retry_after_seconds``: it asked to be left alone for so long.
    ``final``: asking again will not help until somebody changes something here.
    """

    def __init__(
        self, kind: str, reason: str, *, retry_after_seconds: float | None = None, final: bool = False
    ) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds
        self.final = final


class Circuit(IntEnum):
    """Where a breaker stands."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


@dataclass(frozen=True, slots=True)
class Limits:
    """One source's limits; see ``kit.pricing``."""

    timeout_seconds: float = 5.0
    calls_per_minute: int = 20
    spacing_seconds: float = 0.0
    breaker_failures: int = 5
    breaker_seconds: float = 60.0


class Breaker:
    """Opens after so many failures in a row, or at once for as long as the source asked; then one call tries it."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._failures = 0
        self._open_until: float | None = None
        self._trying = False

    @property
    def circuit(self) -> Circuit:
        """Where it stands."""
        if self._open_until is None:
            return Circuit.CLOSED
        return Circuit.OPEN if self._clock() < self._open_until or self._trying else Circuit.HALF_OPEN

    def admits(self) -> bool:
        """Whether a call may go out; half open, one at a time."""
        if self.circuit is Circuit.HALF_OPEN:
            self._trying = True
            return True
        return self.circuit is Circuit.CLOSED

    def succeeded(self) -> None:
        """It answered."""
        self._failures, self._open_until, self._trying = 0, None, False

    def failed(self, fault: SourceFault) -> None:
        """It did not, or not usefully."""
        self._failures += 1
        was_open, self._trying = self._open_until is not None, False
        if fault.retry_after_seconds is not None:
            self._open_until = self._clock() + min(fault.retry_after_seconds, RETRY_AFTER_SECONDS_MAX)
        elif fault.final or was_open or self._failures >= self._limits.breaker_failures:
            self._open_until = self._clock() + self._limits.breaker_seconds

    def abandoned(self) -> None:
        """A call ended without having found out anything."""
        self._trying = False


class GuardedSource(ABC):
    """A price source behind its guard. Who derives from it says how it is asked, and raises ``SourceFault``."""

    def __init__(self, name: str, limits: Limits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._limits = limits
        self._clock = clock
        self._breaker = Breaker(limits, clock)
        self._asked_at: deque[float] = deque()
        self._last: tuple[float, Sequence[Reading]] | None = None
        self._one = asyncio.Lock()

    @property
    @abstractmethod
    def assets(self) -> Sequence[str]:
        """Whose prices it is asked for."""

    @abstractmethod
    async def fetch(self) -> Sequence[Reading]:
        """Ask once. What concerns one asset is a fault of its reading, what concerns the call is raised."""

    @abstractmethod
    def feed_of(self, asset: str) -> str:
        """Where exactly the asset's price is read."""

    async def close(self) -> None:
        """Let go of connections. Nothing, unless a source holds some."""
        return

    @property
    def circuit(self) -> Circuit:
        """Where its breaker stands."""
        return self._breaker.circuit

    async def read(self) -> Sequence[Reading]:
        """What the source says; faults in words where it says nothing. Asked by several at once, it is asked once."""
        try:
            async with asyncio.timeout(self._limits.timeout_seconds * 2):
                async with self._one:
                    return await self._read()
        except TimeoutError:
            return self._faults("other calls of it have not ended")

    async def _read(self) -> Sequence[Reading]:
        if self._last is not None and self._clock() - self._last[0] < self._limits.spacing_seconds:
            return self._last[1]
        if not self._breaker.admits():
            return self._instead("its circuit breaker is open")
        if not self._within_rate():
            self._breaker.abandoned()
            return self._instead(f"{self._limits.calls_per_minute} calls a minute are its limit")
        began = self._clock()
        try:
            async with asyncio.timeout(self._limits.timeout_seconds):
                readings = await self.fetch()
        except SourceFault as fault:
            return self._failed(fault)
        except TimeoutError:
            return self._failed(SourceFault("timeout", f"no answer within {self._limits.timeout_seconds:g} s"))
        except asyncio.CancelledError:
            self._breaker.abandoned()
            raise
        except Exception as bug:  # noqa: BLE001 - one source must not end a refresh; the class names no key
            _log.exception("a price source met a bug", extra={"source": self.name})
            return self._failed(SourceFault("bug", f"a bug of ours: {type(bug).__name__}"))
        finally:
            _seconds.labels(self.name).observe(self._clock() - began)
        self._breaker.succeeded()
        self._last = (self._clock(), readings)
        self._count("answered")
        return readings

    def _within_rate(self) -> bool:
        now = self._clock()
        while self._asked_at and now - self._asked_at[0] >= _MINUTE:
            self._asked_at.popleft()
        if len(self._asked_at) >= self._limits.calls_per_minute:
            return False
        self._asked_at.append(now)
        return True

    def _failed(self, fault: SourceFault) -> Sequence[Reading]:
        self._breaker.failed(fault)
        self._count(fault.kind)
        level = logging.ERROR if fault.final else logging.WARNING
        _log.log(
            level, "a price source failed", extra={"source": self.name, "kind": fault.kind, "reason": fault.reason}
        )
        if fault.retry_after_seconds is not None:
            return self._instead(fault.reason)
        return self._faults(fault.reason)

    def _instead(self, reason: str) -> Sequence[Reading]:
        """What it said last, where it must not be asked now and that is not long ago; else why there is nothing."""
        _state.labels(self.name).set(self._breaker.circuit)
        if self._last is not None and self._clock() - self._last[0] <= REUSE_SECONDS:
            return self._last[1]
        return self._faults(reason)

    def _faults(self, reason: str) -> Sequence[Reading]:
        return [Reading(self.name, asset, self.feed_of(asset), fault=reason) for asset in self.assets]

    def _count(self, end: str) -> None:
        _calls.labels(self.name, end).inc()
        _state.labels(self.name).set(self._breaker.circuit)
