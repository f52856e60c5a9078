"""NATS JetStream as the broker that events are published to.

One stream has the subjects ``<prefix>.>``; an event goes to ``<prefix>.<topic>.<tenant id>``. Three things keep it
single and in order. The broker drops what comes again under one ``Nats-Msg-Id`` within its window. Each message says
which sequence it expects before it, so that none overtakes another, however many are on their way and whatever is lost
between. And after a fault the last message of the stream tells how far the one before got, also beyond the window.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote, urlsplit

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import Header, PubAck, StorageType, StreamConfig
from nats.js.errors import APIError, NotFoundError

from activities.ports import Outgoing, Published
from domain.errors import Unavailable

CONNECT_SECONDS = 3.0
ACK_SECONDS = 5.0
CLOSE_SECONDS = 2.0
#: Messages without acknowledgement at a time.
IN_FLIGHT = 256
#: What a message's headers may come to, beside its payload.
HEADER_BYTES = 2_048

#: The server's codes for a message that it will never take.
_MESSAGE_TOO_LARGE = 10054
#: How the stream's headers are written: printable ASCII, everything else escaped.
_PLAIN = " !\"#$&'()*+,-./:;<=>?@[]^_`{|}~"

_log = logging.getLogger(__name__)


class NatsPublisher:
    """Publishes to the stream ``stream`` of the servers ``urls``, which it makes where it is missing.

    ``window_seconds`` is for how long a stream that it makes remembers ids.
    """

    def __init__(
        self, urls: Sequence[str], *, stream: str, prefix: str, window_seconds: int, tls: ssl.SSLContext | None = None
    ) -> None:
        self._urls = list(urls)
        self._stream = stream
        self._prefix = prefix
        self._window_seconds = window_seconds
        self._tls = tls
        self._client: Client | None = None
        self._jetstream: JetStreamContext | None = None
        self._lost = asyncio.Event()
        #: The sequence of the stream's last message, and its id, where it is known.
        self._last: tuple[int, str | None] | None = None

    @property
    def stream(self) -> str:
        """The stream's name."""
        return self._stream

    async def publish(self, events: Sequence[Outgoing]) -> Published:
        """Publish in order, ``IN_FLIGHT`` at a time; ends at the first event that is not acknowledged."""
        try:
            jetstream = await self._reach()
        except Unavailable as absence:
            await self.close()
            return Published(absence=absence)
        sequences = self._found(events)
        while len(sequences) < len(events):
            chunk = events[len(sequences) : len(sequences) + IN_FLIGHT]
            ended = await self._send(jetstream, chunk)
            sequences += ended.sequences
            if ended.refused is not None or ended.absence is not None:
                # Whether what is still on its way arrives is not known: the stream itself will tell.
                await self.close()
                return Published(sequences, ended.refused, ended.absence)
        return Published(sequences)

    async def close(self) -> None:
        """Drop the connection, and with it what was thought of the stream."""
        client, self._client = self._client, None
        self._jetstream = self._last = None
        if client is not None:
            with suppress(NatsError, OSError, TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await client.close()

    def _found(self, events: Sequence[Outgoing]) -> list[int]:
        """The sequences of those first events that the stream has already: all up to the one that it has last."""
        assert self._last is not None, "reached"
        sequence, last_id = self._last
        ids = [str(event.event_id) for event in events]
        if last_id not in ids:
            return []
        count = ids.index(last_id) + 1
        return [sequence - count + 1 + index for index in range(count)]

    async def _send(self, jetstream: JetStreamContext, events: Sequence[Outgoing]) -> Published:
        assert self._last is not None, "reached"
        before = self._last[0]
        sending = [asyncio.create_task(self._one(jetstream, e, before + n)) for n, e in enumerate(events)]
        lost = asyncio.create_task(self._lost.wait())
        both: list[asyncio.Future[Any]] = [asyncio.gather(*sending, return_exceptions=True), lost]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            lost.cancel()
            for task in sending:
                task.cancel()
        ends = await asyncio.gather(*sending, return_exceptions=True)
        sequences: list[int] = []
        for event, end in zip(events, ends, strict=True):
            if isinstance(end, PubAck):
                sequences.append(end.seq)
                # A repeat adds nothing to the stream; then the next one did not find what it expected, and ends this.
                self._last = (max(end.seq, self._last[0]), str(event.event_id))
            elif isinstance(end, _Refused):
                return Published(sequences, refused=str(end))
            else:
                return Published(sequences, absence=self._absence(end))
        return Published(sequences)

    async def _one(self, jetstream: JetStreamContext, event: Outgoing, before: int) -> PubAck:
        assert self._client is not None, "reached"
        if len(event.payload) + HEADER_BYTES > self._client.max_payload:
            raise _Refused(f"its {len(event.payload)} bytes are more than the broker's max_payload takes")
        headers = {
            Header.MSG_ID.value: str(event.event_id),
            "Nats-Expected-Last-Sequence": str(before),
            "Holdfast-Type": quote(event.type, safe=_PLAIN),
            "Holdfast-Subject": quote(event.subject, safe=_PLAIN)[:1_024],
            "Holdfast-Position": str(event.position),
        }
        subject = f"{self._prefix}.{event.topic}.{event.tenant_id}"
        try:
            return await jetstream.publish(
                subject, event.payload, timeout=ACK_SECONDS, stream=self._stream, headers=headers
            )
        except APIError as error:
            if error.err_code == _MESSAGE_TOO_LARGE:
                raise _Refused(f"the stream says: {error.description}") from error
            raise

    async def _reach(self) -> JetStreamContext:
        """The connected stream; raises ``Unavailable`` naming the setting that leads nowhere."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS * 2):
                if self._client is None or not self._client.is_connected:
                    await self.close()
                    await self._connect()
                assert self._jetstream is not None, "connected"
                if self._last is None:
                    self._last = await self._look(self._jetstream)
                return self._jetstream
        except (NatsError, OSError, TimeoutError, ValueError) as error:
            raise self._absence(error) from error

    async def _connect(self) -> None:
        client = self._client = Client()
        self._lost = lost = asyncio.Event()

        async def closed() -> None:
            lost.set()

        async def failed(error: Exception) -> None:
            _log.debug("nats: %s", error)

        await client.connect(
            list(self._urls),
            name="holdfast",
            # The library's own would hold messages back and send them out of order; the consumer tries again.
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=int(CONNECT_SECONDS),
            ping_interval=10,
            max_outstanding_pings=2,
            closed_cb=closed,
            error_cb=failed,
            tls=self._tls,
        )
        self._jetstream = client.jetstream(timeout=ACK_SECONDS)

    async def _look(self, jetstream: JetStreamContext) -> tuple[int, str | None]:
        """The stream's last sequence and the id of the message there; makes the stream where it is missing."""
        wanted = f"{self._prefix}.>"
        try:
            info = await jetstream.stream_info(self._stream)
        except NotFoundError:
            made = StreamConfig(
                name=self._stream,
                description="The feed of events",
                subjects=[wanted],
                storage=StorageType.FILE,
                duplicate_window=self._window_seconds,
            )
            info = await jetstream.add_stream(made)
        if wanted not in (info.config.subjects or []):
            raise Unavailable(
                f"NATS_STREAM {self._stream}",
                f"it is there without the subjects {wanted} of NATS_SUBJECT_PREFIX: name another stream, or add them",
            )
        sequence = info.state.last_seq
        if not sequence:
            return 0, None
        try:
            last = await jetstream.get_msg(self._stream, seq=sequence)
        except NotFoundError:
            return sequence, None  # deleted, or past the stream's limits
        return sequence, (last.headers or {}).get(Header.MSG_ID.value)

    def _absence(self, error: object) -> Unavailable:
        if isinstance(error, Unavailable):
            return error
        places = ", ".join(
            urlsplit(url)._replace(netloc=urlsplit(url).netloc.rpartition("@")[2]).geturl() for url in self._urls
        )
        reason = "the connection is lost" if isinstance(error, asyncio.CancelledError) else _said(error)
        return Unavailable(f"NATS_URL {places}", reason)


class _Refused(Exception):
    """The broker will never take this message."""


def _said(error: object) -> str:
    return f"{type(error).__name__}: {error}".strip(": ")
