"""Open event streams: who has them, what wakes them, and what ends them.

One connection of the process hears that the feed has grown, one query then finds whose it grew for, and the streams of
those tenants read on. Streams of one tenant that stand at one place share a read. No connection is held while a socket
is written to.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter as Count
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from uuid import UUID

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from db import outbox
from db.engine import tenant_transaction, transaction
from db.listening import listen
from db.outbox import FEED_CHANNEL, FeedEvent
from domain.errors import Refusal, Unavailable
from domain.ids import PLATFORM_TENANT
from kit.settings import ApiSettings

POLL_SECONDS = 1.0
RETRY_SECONDS = 1.0
#: Between two looks at a feed that grows without pause, so that looking has a price that is bounded.
LOOK_SECONDS = 0.01
NEWS_EVENTS = 5_000
PAGE_EVENTS = 50
#: Reads of all streams together that hold a connection at a time; the rest of the pool is for requests.
CONCURRENT_READS = 4

#: What a reader sees of a stream on which nothing happens.
HEARTBEAT_SECONDS = 15.0
#: How often a stream looks whether its key still opens the door.
KEY_SECONDS = 5.0
#: A socket that takes nothing for this long is closed.
STALL_SECONDS = 30.0
#: How long a stream may take to end when the process stops.
CLOSE_SECONDS = 2.0
#: After how long a browser comes back to a stream that ended.
RECONNECT_MS = 1_000

#: The name under which the server leaves a function in the scope that drops the connection without a word.
ABORT = "holdfast.abort"

_log = structlog.get_logger(__name__)


class StreamMetrics:
    """What the streams of this process do."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.open = Gauge("holdfast_event_streams", "Event streams that are open", registry=registry)
        self.read = Counter("holdfast_event_streams_read", "Events read for streams", registry=registry)
        self.ended = Counter("holdfast_event_streams_ended", "Streams that ended, by why", ["why"], registry=registry)


@dataclass(frozen=True, slots=True)
class Page:
    """Events as they leave, and where the next read begins."""

    chunk: bytes
    last: int
    events: int


class Stream:
    """One open stream; it is woken when its tenant has news."""

    def __init__(self, tenant_id: UUID) -> None:
        self.tenant_id = tenant_id
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """There may be something to read."""
        self._woken.set()

    def expect(self) -> None:
        """Forget what woke it: from here on, news is what comes after."""
        self._woken.clear()

    async def woken(self, limit_seconds: float) -> bool:
        """Whether it was woken within the limit."""
        try:
            async with asyncio.timeout(limit_seconds):
                await self._woken.wait()
        except TimeoutError:
            return False
        return True


class Streams:
    """The streams of this process. ``run`` wakes them until it is cancelled; ``close`` ends them.

    ``hear`` are other channels to be heard on the same connection, with what each notification calls.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        settings: ApiSettings,
        metrics: StreamMetrics,
        *,
        hear: Mapping[str, Callable[[], None]] | None = None,
    ) -> None:
        self._engine = engine
        self._hear = {channel: _deaf(wake) for channel, wake in {FEED_CHANNEL: self._wake_up, **(hear or {})}.items()}
        self._dsn = settings.database_url
        self.metrics = metrics
        self._most = settings.api_streams_max
        self._most_per_tenant = settings.api_streams_per_tenant_max
        self._open: set[Stream] = set()
        self._per_tenant: Count[UUID] = Count()
        self._seen: int | None = None
        self._wake = asyncio.Event()
        self._closed = asyncio.Event()
        self._reads: dict[tuple[UUID, str | None, int], asyncio.Task[Page]] = {}
        self._places = asyncio.Semaphore(CONCURRENT_READS)

    def enter(self, tenant_id: UUID) -> Stream:
        """A place for one stream, until it leaves; refused when the process, or the tenant, has as many as it may."""
        if self.closing:
            raise Unavailable("api", "this process is stopping")
        if len(self._open) >= self._most or self._per_tenant[tenant_id] >= self._most_per_tenant:
            raise Refusal("too_many_streams", "as many event streams are open as this process takes; try again later")
        stream = Stream(tenant_id)
        self._open.add(stream)
        self._per_tenant[tenant_id] += 1
        self.metrics.open.set(len(self._open))
        self._wake.set()
        return stream

    def leave(self, stream: Stream) -> None:
        """Give the place back."""
        if stream not in self._open:
            return
        self._open.remove(stream)
        self._per_tenant -= Count([stream.tenant_id])
        self.metrics.open.set(len(self._open))

    async def run(self) -> None:
        """Wake streams as the feed grows."""
        listener = asyncio.create_task(listen(self._dsn, self._hear))
        try:
            while True:
                self._wake.clear()
                try:
                    await self._look()
                except Unavailable as error:
                    _log.warning("event streams wait", reason=error.message)
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                except Exception:  # noqa: BLE001 - logged; one fault must not silence every stream
                    _log.exception("event streams could not be woken")
                    self._seen = None
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                await asyncio.sleep(LOOK_SECONDS)
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._wake.wait()
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)

    def close(self) -> None:
        """End every stream, and take no new one: the process stops. Readers come back to another one."""
        self._closed.set()
        for stream in self._open:
            stream.wake()

    @property
    def closing(self) -> bool:
        """Whether streams are to end."""
        return self._closed.is_set()

    async def overdue(self) -> None:
        """Return once a stream should have ended, had its reader taken what it was sent."""
        await self._closed.wait()
        await asyncio.sleep(CLOSE_SECONDS)

    async def head(self, tenant_id: UUID) -> int:
        """Where a stream begins that wants what is yet to come."""
        async with self._places, tenant_transaction(self._engine, tenant_id) as connection:
            return await outbox.tenant_head(connection)

    async def read(self, tenant_id: UUID, topic: str | None, after: int) -> Page:
        """What comes after a position, ready to be sent; streams that ask the same at once are answered by one read."""
        key = (tenant_id, topic, after)
        task = self._reads.get(key)
        if task is None:
            task = self._reads[key] = asyncio.create_task(self._read(tenant_id, topic, after))
            task.add_done_callback(lambda done: self._read_ended(key, done))
        return await asyncio.shield(task)

    def _read_ended(self, key: tuple[UUID, str | None, int], task: asyncio.Task[Page]) -> None:
        self._reads.pop(key, None)
        if not task.cancelled():
            task.exception()  # where nobody is left who asked, nobody needs to be told

    async def _read(self, tenant_id: UUID, topic: str | None, after: int) -> Page:
        async with self._places, tenant_transaction(self._engine, tenant_id) as connection:
            events = await outbox.feed(connection, topic=topic, after=after, limit=PAGE_EVENTS)
        self.metrics.read.inc(len(events))
        return Page(_chunk(events), events[-1].position if events else after, len(events))

    def _wake_up(self) -> None:
        self._wake.set()

    async def _look(self) -> None:
        """Find out for whom the feed grew, and wake those."""
        if not self._open:
            self._seen = None
            return
        if self._seen is None:
            # The first look in a while: nobody knows what was missed, so everybody reads.
            async with transaction(self._engine) as connection:
                self._seen = await outbox.feed_head(connection)
            for stream in self._open:
                stream.wake()
            return
        while True:
            async with transaction(self._engine) as connection:
                news = await outbox.feed_news(connection, after=self._seen, most=NEWS_EVENTS)
            if not news:
                return
            everybody = PLATFORM_TENANT in news
            for stream in self._open:
                if everybody or stream.tenant_id in news:
                    stream.wake()
            self._seen = max(news.values())


def _chunk(events: Sequence[FeedEvent]) -> bytes:
    return b"".join(
        b"id: %d\nevent: %b\ndata: %b\n\n" % (event.position, event.type.encode(), outbox.rendered(event))
        for event in events
    )


class EventStream(Response):
    """An answer that goes on: written piece by piece, each within a limit, until its reader or its source ends it."""

    media_type = "text/event-stream"

    def __init__(self, streams: Streams, stream: Stream, chunks: AsyncGenerator[bytes]) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._streams = streams
        self._stream = stream
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the source ends, the reader leaves, or the socket takes nothing any more."""
        sending = asyncio.create_task(self._send(send))
        others = {
            asyncio.create_task(_left(receive)): "reader",
            asyncio.create_task(self._streams.overdue()): "stopped",
        }
        try:
            await asyncio.wait([sending, *others], return_when=asyncio.FIRST_COMPLETED)
            why = next((why for task, why in others.items() if task.done()), "source")
        finally:
            self._streams.leave(self._stream)
            for task in (sending, *others):
                task.cancel()
            ended, *_ = await asyncio.gather(sending, *others, return_exceptions=True)
        if isinstance(ended, _Stalled):
            why = "stalled"
        self._streams.metrics.ended.labels(why).inc()
        if why in {"stalled", "stopped"}:
            _log.info("event stream dropped", why=why)
            # Closing would wait for what the socket does not take.
            scope.get("extensions", {}).get(ABORT, lambda: None)()
        elif isinstance(ended, Exception):
            raise ended

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._chunks) as chunks:
            async for chunk in chunks:
                await _within_limit(send, chunk, more=True)
        await _within_limit(send, b"", more=False)


async def follow(
    streams: Streams,
    stream: Stream,
    *,
    topic: str | None,
    after: int,
    admitted: Callable[[], Awaitable[bool]],
) -> AsyncGenerator[bytes]:
    """The chunks of one stream: every event behind ``after``, in order, and comments in silence.

    Ends when ``admitted`` says that the key opens the door no more, and when the process stops. A database that is
    away is waited for.
    """
    yield b"retry: %d\nid: %d\n\n" % (RECONNECT_MS, after)
    check_at, beat_at = time.monotonic() + KEY_SECONDS, time.monotonic() + HEARTBEAT_SECONDS
    reading = True
    while not streams.closing:
        page: Page | None = None
        if time.monotonic() >= check_at:
            if not await admitted():
                return
            check_at = time.monotonic() + KEY_SECONDS
        if reading:
            stream.expect()
            with suppress(Unavailable):
                page = await streams.read(stream.tenant_id, topic, after)
            reading = page is None
        if page is not None and page.events:
            yield page.chunk
            after, beat_at = page.last, time.monotonic() + HEARTBEAT_SECONDS
            reading = page.events == PAGE_EVENTS
            if reading:
                continue
        if time.monotonic() >= beat_at:
            yield b": nothing new\n\n"
            beat_at = time.monotonic() + HEARTBEAT_SECONDS
        quiet = RETRY_SECONDS if reading else max(0.0, min(check_at, beat_at) - time.monotonic())
        reading = await stream.woken(quiet) or reading


class _Stalled(Exception):
    """The socket took nothing within the limit."""


async def _within_limit(send: Send, chunk: bytes, *, more: bool) -> None:
    try:
        async with asyncio.timeout(STALL_SECONDS):
            await send({"type": "http.response.body", "body": chunk, "more_body": more})
    except TimeoutError:
        raise _Stalled from None


async def _left(receive: Receive) -> None:
    """Return when the reader has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _deaf(wake: Callable[[], None]) -> Callable[[str], None]:
    """Wakes, whatever is said: a stream tells its reader what comes, and looks at all of it."""
    return lambda _: wake()
