"""Calls of vendors' SDKs that block: in a bounded pool of threads, each within a limit, and with a clear end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TypeVar

from prometheus_client import Counter, Histogram

from activities.ports import Handed, NotTaken, Rejected, Taken
from kit.clock import now

#: Behind other calls; with their own limit it stays below what an activity has for handing a message over.
BEGIN_SECONDS = 3.0
RETRY_AFTER_SECONDS_MAX = 3_600.0
#: Threads that hang beyond their call's limit are written off; so many times the pool's size may hang at once.
_WRITTEN_OFF = 3
#: From here on a number is a moment, not a wait.
_EPOCH_SECONDS_MIN = 1_000_000_000

_T = TypeVar("_T")

_calls = Counter("holdfast_sender_calls_total", "Messages handed to vendors, by what came of it", ["vendor", "end"])
_seconds = Histogram("holdfast_sender_seconds", "How long calls of vendors take", ["vendor"])


class NotReached(Exception):
    """Nothing of a request was sent; the text says why, without any address."""


class Overdue(Exception):
    """A call did not end within its limit; what its thread does later nobody hears."""


class Gate:
    """Between connecting and sending. Who comes first decides: what is past it may arrive; closed, nothing will."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._passed = False
        self._closed = False

    def enter(self) -> None:
        """About to send; raises ``NotReached`` when nobody waits for it any more."""
        with self._lock:
            if self._closed:
                raise NotReached("given up before it was sent")
            self._passed = True

    def close(self) -> bool:
        """Whether nothing was sent; then nothing will be."""
        with self._lock:
            self._closed = True
            return not self._passed


class Threads:
    """``size`` calls at a time. Each has ``begin_seconds`` to begin, and from then on ``limit_seconds``."""

    def __init__(self, vendor: str, size: int, limit_seconds: float, *, begin_seconds: float = BEGIN_SECONDS) -> None:
        self.vendor = vendor
        self.limit_seconds = limit_seconds
        self._begin_seconds = begin_seconds
        self._size = size
        self._free = asyncio.Semaphore(size)
        self._pool: ThreadPoolExecutor | None = None

    async def call(self, work: Callable[[], _T]) -> _T:
        """What ``work`` returns or raises; raises ``NotReached`` if it did not begin, ``Overdue`` if it did not end."""
        try:
            async with asyncio.timeout(self._begin_seconds):
                await self._free.acquire()
        except TimeoutError:
            raise NotReached(f"{self._size} other calls are under way") from None
        try:
            with _seconds.labels(self.vendor).time():
                return await self._run(self._opened().submit(work))
        finally:
            self._free.release()

    async def _run(self, future: Future[_T]) -> _T:
        waiting = asyncio.wrap_future(future)
        try:
            done, _ = await asyncio.wait([waiting], timeout=self.limit_seconds)
        except asyncio.CancelledError:
            future.cancel()
            waiting.add_done_callback(_heard)
            raise
        if done:
            return waiting.result()
        waiting.add_done_callback(_heard)
        if future.cancel():
            raise NotReached("too many calls hang")
        raise Overdue(f"no answer within {self.limit_seconds:g} s")

    async def close(self) -> None:
        """Let go of the threads; a later call starts others."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    def _opened(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._size * (1 + _WRITTEN_OFF), thread_name_prefix=self.vendor)
        return self._pool


def _heard(future: asyncio.Future[_T]) -> None:
    """Nobody waits for it, and Python would complain that nobody heard its error."""
    if not future.cancelled():
        future.exception()


def count(vendor: str, handed: Handed) -> Handed:
    """Into the metrics, and on."""
    end = {Taken: "taken", Rejected: "rejected", NotTaken: "not_taken"}.get(type(handed), "unsure")
    _calls.labels(vendor, end).inc()
    return handed


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """How long a vendor asks to be left alone: ``Retry-After`` (RFC 9110), else when its rate limit begins anew."""
    said = (headers.get("Retry-After") or headers.get("X-RateLimit-Reset") or "").strip()
    if said.isascii() and said.isdigit() and len(said) < 12:
        seconds = float(said)
        seconds -= now().timestamp() if seconds >= _EPOCH_SECONDS_MIN else 0.0
    else:
        try:
            seconds = (parsedate_to_datetime(said).astimezone(UTC) - now()).total_seconds()
        except (TypeError, ValueError, OverflowError):
            return None
    return min(max(0.0, seconds), RETRY_AFTER_SECONDS_MAX)
