"""The sealer: batches of what was committed under a Merkle root, and a signed checkpoint over them every minute."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import Counter, Gauge
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from activities.sealing.outside import CheckpointFile, Forked
from db.engine import transaction
from db.sealing import queries
from db.sealing.queries import CheckpointRow, NotSealable
from db.sealing.streams import STREAMS, Stream
from domain.errors import Unavailable
from domain.sealing import merkle, notes
from domain.sealing.horizon import Horizon
from domain.sealing.merkle import Frontier
from domain.sealing.notes import Checkpoint, NoteInvalid, VerifierKey
from domain.sealing.records import ENTRY_BYTES, BatchHead, Entry, entries_of, leaves_of
from kit.clock import now
from kit.signing import SigningKey, verify

BATCH_ENTRIES = 5_000
SEAL_SECONDS = 1.0
#: While transactions that were under way are about to end.
WRITERS_POLL_SECONDS = 0.05
#: How often the file outside is compared with the database, at least.
MIRROR_SECONDS = 5.0
RETRY_SECONDS = 1.0
BROKEN_SECONDS = 30.0
_PAGE = 1_000

_log = logging.getLogger(__name__)
_sealed = Counter("holdfast_sealed_entries_total", "Entries that this process sealed", ["stream"])
_lag_seconds = Gauge("holdfast_seal_lag_seconds", "Age of the oldest committed entry without a seal", ["stream"])
_writers_waited = Gauge("holdfast_seal_waits_for_writers", "Open transactions that hold sealing up", ["stream"])
_signed_at = Gauge("holdfast_checkpoint_timestamp_seconds", "When the last checkpoint was signed", ["stream"])
_unsigned = Gauge("holdfast_seal_unsigned_batches", "Batches that no checkpoint covers yet", ["stream"])
_broken = Gauge("holdfast_seal_broken", "1 while database and signed checkpoints contradict each other", ["stream"])
_failures = Counter("holdfast_seal_failures_total", "Rounds of the sealer that failed", ["stream", "reason"])


class SealsBroken(Exception):
    """What is in the database contradicts what was signed: nothing more is signed until a person has looked."""


@dataclass(frozen=True, slots=True)
class Signer:
    """With what checkpoints are signed, in whose name, how often at most, and where they are kept outside."""

    key: SigningKey = field(repr=False)
    directory: Path
    origin: str
    every_seconds: float = 60.0
    #: The public halves of keys that signed before this one.
    old_keys: tuple[bytes, ...] = ()

    def name(self, stream: Stream) -> VerifierKey:
        """The key under the name of the stream's log."""
        return VerifierKey(f"{self.origin}/{stream.name}", self.key.public)

    def file(self, stream: Stream) -> CheckpointFile:
        """The stream's checkpoints outside the database."""
        return CheckpointFile(self.directory, stream.name)

    def read(self, note: str) -> Checkpoint:
        """The checkpoint in a note that this key or an older one signed, under whatever name; else ``NoteInvalid``."""
        for older in self.old_keys:
            with suppress(NoteInvalid):
                return notes.read(note, older, verify)
        return notes.read(note, self.key.public, verify)


class Sealer:
    """Runs in every worker; an advisory lock lets one at a time seal. ``engine`` sees every tenant.

    A checkpoint is committed before it is written outside, so that the outside never tells of what the database could
    lose; what a crash left out is written by the next round of any worker. Nothing is signed that does not continue
    the last checkpoint outside.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        signer: Signer,
        *,
        streams: Iterable[Stream] = STREAMS.values(),
        seal_seconds: float = SEAL_SECONDS,
        batch_entries: int = BATCH_ENTRIES,
    ) -> None:
        self._engine = engine
        self._signer = signer
        self._streams = list(streams)
        self._horizons = {stream.name: Horizon() for stream in self._streams}
        self._seal_seconds = seal_seconds
        self._batch_entries = batch_entries

    async def run(self) -> None:
        """Work until cancelled. A database that is away is waited for; no fault of one stream stops another."""
        await asyncio.gather(*(self._run(stream) for stream in self._streams))

    async def _run(self, stream: Stream) -> None:
        compared_at = -MIRROR_SECONDS
        while True:
            try:
                if time.monotonic() - compared_at >= min(MIRROR_SECONDS, self._signer.every_seconds):
                    await self.checkpoint(stream)
                    compared_at = time.monotonic()
                while await self.seal(stream) == self._batch_entries:
                    pass
                pause = WRITERS_POLL_SECONDS if self._horizons[stream.name].waits else self._seal_seconds
            except Unavailable as error:
                _log.warning("the sealer waits for the database: %s", error)
                pause = RETRY_SECONDS
            except (SealsBroken, NotSealable) as error:
                _broken.labels(stream.name).set(1)
                _failures.labels(stream.name, "broken").inc()
                _log.error("the %s is not sealed any further: %s", stream.name, error)
                pause = BROKEN_SECONDS
            except Exception:  # noqa: BLE001 - logged below with its traceback
                # Money moves on without seals for a while; whoever watches the metrics hears of it.
                _failures.labels(stream.name, "error").inc()
                _log.exception("a round of the sealer failed")
                pause = BROKEN_SECONDS
            await asyncio.sleep(pause)

    async def seal(self, stream: Stream) -> int:
        """Seal one batch; returns how many entries it has, 0 when there is nothing that may be sealed yet."""
        horizon = self._horizons[stream.name]
        async with transaction(self._engine) as connection:
            newest = await queries.newest_key(connection, stream)
            writers = await queries.writers(connection, stream) if newest > horizon.safe else frozenset()
        horizon.look(newest, writers)
        _writers_waited.labels(stream.name).set(len(writers) if horizon.waits else 0)
        # A snapshot of its own, taken after the look: it sees all that the horizon promises.
        async with transaction(self._engine) as connection:
            if not await queries.take_turn(connection):
                return 0
            last = await queries.last_batch(connection, stream)
            after = 0 if last is None else last.last_key
            raw = b""
            if horizon.safe > after:
                raw = await queries.entries(
                    connection, stream, after=after, until=horizon.safe, limit=self._batch_entries
                )
            if raw:
                last = await self._append(connection, stream, last, raw)
            seconds = await queries.waiting(connection, stream, after=0 if last is None else last.last_key)
        _lag_seconds.labels(stream.name).set(seconds)
        _sealed.labels(stream.name).inc(len(raw) // ENTRY_BYTES)
        return len(raw) // ENTRY_BYTES

    async def _append(
        self, connection: AsyncConnection, stream: Stream, last: BatchHead | None, raw: bytes
    ) -> BatchHead:
        size, total = (0, 0) if last is None else (last.batch_no, last.total_count)
        count = len(raw) // ENTRY_BYTES
        head = BatchHead(
            stream.name,
            size + 1,
            first_key=entry_at(raw, 0).key,
            last_key=entry_at(raw, count - 1).key,
            entry_count=count,
            total_count=total + count,
            root=merkle.root(leaves_of(raw)),
        )
        edge = await queries.frontier(connection, stream, size)
        await queries.insert_batch(connection, head, raw, edge.append(head.leaf()))
        return head

    async def checkpoint(self, stream: Stream) -> bool:
        """Bring the file outside up to date and sign what is new, when it is time; whether something was signed.

        Raises ``SealsBroken`` when the database is not what was signed, and ``OSError`` for a file that cannot be used.
        """
        outside = await self._mirror(stream)
        signed = await self._sign(stream, outside)
        if signed:
            await self._mirror(stream)
        _broken.labels(stream.name).set(0)
        return signed

    async def _mirror(self, stream: Stream) -> Checkpoint | None:
        """Add to the file what only the database has; the last checkpoint of the file."""
        file = self._signer.file(stream)
        line = await asyncio.to_thread(file.last)
        outside = None if line is None else self._read(line.note, f"the end of {file.path}")
        while True:
            # The first row is the one that the file ends with: the database still has to have it.
            after = -1 if outside is None else outside.size - 1
            async with transaction(self._engine) as connection:
                rows = await queries.list_checkpoints(connection, stream.name, after=after, limit=_PAGE)
            if outside is not None:
                if not rows or (rows[0].tree_size, rows[0].root) != (outside.size, outside.root):
                    raise SealsBroken(
                        f"{file.path} ends with a checkpoint of {outside.size} batches that the database does not have:"
                        " it was restored from a backup, or tampered with"
                    )
                rows = rows[1:]
            for row in rows:
                outside = self._read(row.note, f"the checkpoint of {row.tree_size} batches")
                if (outside.size, outside.root) != (row.tree_size, row.root):
                    raise SealsBroken(f"the checkpoint of {row.tree_size} batches is signed for something else")
                await asyncio.to_thread(self._add, file, row)
            if not rows:
                return outside

    def _read(self, note: str, what: str) -> Checkpoint:
        try:
            return self._signer.read(note)
        except NoteInvalid as error:
            raise SealsBroken(f"{what}: {error}") from error

    @staticmethod
    def _add(file: CheckpointFile, row: CheckpointRow) -> None:
        try:
            file.add(size=row.tree_size, at=row.recorded_at.isoformat(), note=row.note)
        except Forked as error:
            raise SealsBroken(str(error)) from error

    async def _sign(self, stream: Stream, outside: Checkpoint | None) -> bool:
        async with transaction(self._engine) as connection:
            if not await queries.take_turn(connection):
                return False
            last = await queries.last_checkpoint(connection, stream.name)
            head = await queries.last_batch(connection, stream)
            covered, size = 0 if last is None else last.tree_size, 0 if head is None else head.batch_no
            _unsigned.labels(stream.name).set(size - covered)
            if last is not None:
                _signed_at.labels(stream.name).set(last.recorded_at.timestamp())
            if covered != (0 if outside is None else outside.size):
                return False  # another worker signed meanwhile; the next round sees it
            young = last is not None and (now() - last.recorded_at).total_seconds() < self._signer.every_seconds
            if size == covered or young:
                return False
            root = await self._continued(connection, stream, outside, size)
            key = self._signer.name(stream)
            note = notes.sign(Checkpoint(key.name, size, root).text(), key, self._signer.key.sign)
            await queries.insert_checkpoint(
                connection, stream, tree_size=size, root=root, note=note, verifier_key=str(key)
            )
            return True

    async def _continued(
        self, connection: AsyncConnection, stream: Stream, outside: Checkpoint | None, size: int
    ) -> bytes:
        """The root over ``size`` batches: those behind the last signed root, added to what it was signed over."""
        edge = Frontier.empty() if outside is None else await queries.frontier(connection, stream, outside.size)
        if outside is not None and edge.root() != outside.root:
            raise SealsBroken(f"the first {outside.size} batches are not those that were signed")
        while edge.size < size:
            heads = await queries.heads(connection, stream, after=edge.size, limit=_PAGE)
            for head in heads[: size - edge.size]:
                if head.batch_no != edge.size + 1:
                    raise SealsBroken(f"batch {edge.size + 1} is not there")
                edge.append(head.leaf())
            if not heads:
                raise SealsBroken(f"batch {edge.size + 1} is not there")
        if edge.root() != (await queries.frontier(connection, stream, size)).root():
            raise SealsBroken(f"the nodes that are kept with the first {size} batches are not theirs")
        return edge.root()


def entry_at(raw: bytes, index: int) -> Entry:
    """One entry out of a batch."""
    return next(entries_of(raw[index * ENTRY_BYTES : (index + 1) * ENTRY_BYTES]))
