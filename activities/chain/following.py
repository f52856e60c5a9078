"""One source's live end: look at the head, fetch ahead, write in order, and go back where the chain went another way.

Pieces are fetched several at a time and written one after the other: rows, coverage, cursor and events outward in one
commit, by whoever holds the cursor. Somebody who was overtaken finds the cursor elsewhere and plans anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from activities.chain import telling
from activities.chain.beginning import begin, check_beginning
from activities.chain.ports import ChainDesk, Forked, Lane
from db import audit, outbox
from db.audit import AuditRecord, Origin
from db.chain import coverage, cursors, sources, writing
from db.chain.cursors import NotFollowing, Overtaken, Stand
from db.doorbell import Doorbell
from db.engine import transaction
from db.outbox import OutboxEvent
from domain.chain import Fetched, Head, RelayerStatus, Source
from domain.chain.following import (
    OPEN_BLOCKS,
    Depths,
    Joins,
    Position,
    Sizes,
    above,
    behind,
    final_number,
    joins,
    marked,
    pieces,
    went_back,
)
from domain.chain.lineage import Ancestor, Reorg, common, looks, parted
from domain.chain.ranges import Range, intersection
from domain.errors import Unavailable
from domain.ids import relayer_workflow_id
from kit.clock import now

#: Pieces on their way at a time, and how many are planned before the head is looked at again.
AHEAD: Final = 4
PLANNED: Final = 16
#: Blocks of a piece among those that are final; fewer where they hold many events.
FINAL_BLOCKS_MIN, FINAL_BLOCKS, FINAL_BLOCKS_MAX = 1, 500, 2_000
MANY_EVENTS, FEW_EVENTS = 5_000, 1_000
#: A history that has nothing in common with what is here is believed when it is seen so many times in a row.
STRANGE_LOOKS: Final = 3
#: How often a head without news is noted; also how soon a relayer at rest learns that it was told to stop.
HEARD_SECONDS: Final = 1.0

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Tally:
    """What became of some looks."""

    blocks: int = 0
    events: int = 0
    reorgs: int = 0
    reverted: int = 0
    head: Head | None = None
    fault: str | None = None


@dataclass(slots=True)
class _Ahead:
    """A piece on its way; ``known``: it was said what it continues."""

    piece: Range
    known: bool
    task: asyncio.Task[Fetched] = field(repr=False)


class Follower:
    """Follows one source through a desk. ``engine`` sees every tenant; ``doorbell`` wakes the relay.

    There may be several of one source, in several processes: the cursor is moved by whoever finds it where it was.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        doorbell: Doorbell,
        desk: ChainDesk,
        source: Source,
        *,
        hear_seconds: float = HEARD_SECONDS,
    ) -> None:
        self._engine = engine
        self._doorbell = doorbell
        self._desk = desk
        self._source = source
        self._depths = Depths(desk.confirmations, desk.finality_depth)
        self._position: Position | None = None
        self._verified = False
        self._strange = 0
        self._final_blocks = FINAL_BLOCKS
        self._heard_at = 0.0
        self._hear_seconds = hear_seconds
        self.tally = Tally()

    @property
    def position(self) -> Position | None:
        """Where it believes that the cursor stands."""
        return self._position

    async def look(self) -> bool:
        """Look at the head once and write what is new; whether there may be more at once.

        Raises ``Unavailable`` where the chain or the database does not answer, ``NotFollowing`` where the relayer is
        to stop.
        """
        head = await self._desk.head(Lane.LIVE)
        self.tally.head = head
        try:
            if self._position is None:
                self._position = await self._load()
            return await self._see(self._position, head)
        except Overtaken as overtaken:
            _log.info("planned anew: %s", overtaken, extra={"relayer": self._source.relayer_id})
            self._position = None
            return True

    async def _load(self) -> Position:
        async with transaction(self._engine) as connection:
            stand = await cursors.read(connection, self._source.source_id)
        if stand.status is not RelayerStatus.FOLLOWING:
            raise NotFollowing(stand.status)
        return stand.position

    async def _see(self, position: Position, head: Head) -> bool:
        if await check_beginning(self._engine, self._desk, self._source, position, head):
            self._doorbell.ring()
            raise NotFollowing(RelayerStatus.HALTED)
        if await begin(self._engine, self._desk, self._source, position, head):
            self._position = None
            return True
        if not self._verified:
            # A process that died in the middle of things, or a chain that changed while nobody looked.
            if position.hash is not None and await self._part(position, head, None):
                return True
            self._verified = True
        latest = head.latest
        if latest.number > position.number:
            return await self._catch_up(position, head)
        if latest.number == position.number and latest.hash != position.hash:
            return await self._part(position, head, None)
        if latest.number < position.number and await self._differs(head):
            return await self._part(position, head, None)
        if latest.number == position.number and marked(position, head, self._depths) != position:
            await self._move(position, position, head)
        elif monotonic() - self._heard_at >= self._hear_seconds:
            await self._hear(position, head)
        return False

    async def _differs(self, head: Head) -> bool:
        """Whether a head that is lower than what is here stands on another history; else a provider only lags."""
        async with transaction(self._engine) as connection:
            block = await writing.hash_at(connection, self._source.source_id, head.latest.number)
        return block is not None and block.hash != head.latest.hash

    async def _hear(self, position: Position, head: Head) -> None:
        self._heard_at = monotonic()
        async with transaction(self._engine) as connection:
            stand = await cursors.heard(connection, self._source.source_id, head.latest, now())
        self._expect(stand, position)

    @staticmethod
    def _expect(stand: Stand, position: Position) -> None:
        if stand.status is not RelayerStatus.FOLLOWING:
            raise NotFollowing(stand.status)
        if stand.position != position:
            raise Overtaken(f"the cursor is at {stand.position.number}, not at {position.number}")

    async def _catch_up(self, position: Position, head: Head) -> bool:
        """Write what lies between the cursor and the head, or a part of it."""
        wanted = (position.number + 1, head.latest.number)
        async with transaction(self._engine) as connection:
            stand = await cursors.read(connection, self._source.source_id)
            self._expect(stand, position)
            covered = await coverage.covered(connection, self._source.source_id, wanted)
            known = above(covered, position.number)
            first = None if known is None else await writing.hash_at(connection, self._source.source_id, known[0])
        if known is not None:
            if first is None or position.hash is None or first.parent_hash == position.hash:
                await self._skip(position, known, head)
            elif not await self._part(position, head, None):
                # What jobs write is final: the providers said two things of one chain.
                raise Unavailable(f"chain:{self._desk.name}", f"block {known[0]} was filled in with another parent")
            return True
        final = final_number(head, self._depths)
        sizes = Sizes(final=self._final_blocks, open=OPEN_BLOCKS)
        await self._write_each(position, pieces(position, wanted[1], covered, final, sizes)[:PLANNED], head)
        written = self._position
        # What looks like another chain is looked at again, and not at once.
        return not self._strange and (written is None or written.number < head.latest.number)

    async def _write_each(self, position: Position, planned: Sequence[Range], head: Head) -> None:
        """Fetch pieces ahead and write them in order, until one does not join."""
        waiting, ahead = deque(planned), deque[_Ahead]()

        def begin() -> None:
            if waiting:
                known = len(waiting) == len(planned)
                piece = waiting.popleft()
                ahead.append(_Ahead(piece, known, asyncio.create_task(self._fetch(piece, position if known else None))))

        try:
            for _ in range(AHEAD):
                begin()
            while ahead:
                first = ahead.popleft()
                try:
                    fetched = await first.task
                except Forked as fork:
                    await self._part(position, head, fork.providers)
                    return
                begin()
                moved = await self._take(position, first, fetched, head)
                if moved is None:
                    return
                position = moved
        finally:
            for each in ahead:
                each.task.cancel()
            await asyncio.gather(*(each.task for each in ahead), return_exceptions=True)

    async def _fetch(self, piece: Range, behind_: Position | None) -> Fetched:
        return await self._desk.fetch(
            self._source,
            *piece,
            Lane.LIVE,
            after=None if behind_ is None else behind_.tip,
            after_sequence=None if behind_ is None or not self._source.sequenced else behind_.last_sequence,
        )

    async def _take(self, position: Position, ahead: _Ahead, fetched: Fetched, head: Head) -> Position | None:
        """Write a piece if it joins; None where it does not, and what was fetched behind it is of no use either."""
        verdict = joins(position, fetched, sequenced=self._source.sequenced)
        if verdict.joins is Joins.YES:
            return await self._move(position, behind(position, fetched), head, fetched)
        _log.info("a piece does not join: %s", verdict.reason, extra={"relayer": self._source.relayer_id})
        if verdict.joins is Joins.FORKED:
            await self._part(position, head, fetched.providers)
        elif ahead.known:
            # The desk vouched for it, and knew what it continues.
            raise Unavailable(f"chain:{self._desk.name}", verdict.reason)
        # Else it was fetched ahead of what it continues; the next look asks for it by what is known now.
        return None

    async def _move(self, position: Position, beyond: Position, head: Head, fetched: Fetched | None = None) -> Position:
        """Move the cursor on with what stands behind it, in one commit."""
        source, at = self._source, now()
        beyond = marked(beyond, head, self._depths)
        events: list[OutboxEvent] = []
        self._position = None
        async with transaction(self._engine) as connection:
            covered = await cursors.own(connection, source.source_id, position)
            if fetched is not None:
                if intersection(covered, [(fetched.first, fetched.last)]):
                    raise Overtaken(f"blocks from {fetched.first} on are covered meanwhile")
                await writing.append(connection, source, fetched)
                events += telling.applied(source, fetched.events, at)
            events += await self._became_final(connection, position.finalized, beyond.finalized)
            await cursors.move(connection, source.source_id, beyond, at, head.latest)
            await outbox.append(connection, source.tenant_id, events)
        self._moved_to(beyond, bool(events))
        if fetched is not None:
            self._count(fetched)
        return beyond

    async def _skip(self, position: Position, known: Range, head: Head) -> None:
        """Move the cursor over blocks that a job has filled in."""
        source, at = self._source, now()
        self._position = None
        async with transaction(self._engine) as connection:
            covered = await cursors.own(connection, source.source_id, position)
            if above(covered, position.number) != known:
                raise Overtaken(f"blocks from {known[0]} on are covered otherwise")
            beyond = marked(await self._over(connection, position, known), head, self._depths)
            events = await self._became_final(connection, position.finalized, beyond.finalized)
            await cursors.move(connection, source.source_id, beyond, at, head.latest)
            await outbox.append(connection, source.tenant_id, events)
        self._moved_to(beyond, bool(events))

    async def _over(self, connection: AsyncConnection, position: Position, known: Range) -> Position:
        """The position behind blocks that are covered."""
        last = await writing.hash_at(connection, self._source.source_id, known[1])
        found = await writing.stretch(connection, self._source.source_id, *known)
        beyond = replace(position, number=known[1], hash=None if last is None else last.hash)
        if not self._source.sequenced or not found.events:
            return beyond
        if not found.is_contiguous or found.first != position.last_sequence + 1 or found.last is None:
            raise RuntimeError(f"covered blocks {known[0]} to {known[1]} do not hold what follows {position}: {found}")
        return replace(beyond, last_sequence=found.last)

    async def _became_final(self, connection: AsyncConnection, before: int, final: int) -> list[OutboxEvent]:
        if final <= before:
            return []
        found = await writing.stretch(connection, self._source.source_id, before + 1, final)
        return [telling.finalized(self._source, final, found.last, now())] if found.events else []

    def _moved_to(self, position: Position, told: bool) -> None:
        self._position, self._heard_at, self._strange = position, monotonic(), 0
        if told:
            self._doorbell.ring()

    def _count(self, fetched: Fetched) -> None:
        self.tally.blocks += fetched.last - fetched.first + 1
        self.tally.events += len(fetched.events)
        if len(fetched.events) > MANY_EVENTS:
            self._final_blocks = max(FINAL_BLOCKS_MIN, self._final_blocks // 2)
        elif len(fetched.events) < FEW_EVENTS:
            self._final_blocks = min(FINAL_BLOCKS_MAX, 2 * self._final_blocks)

    async def _part(self, position: Position, head: Head, providers: Sequence[str] | None) -> bool:
        """Compare what is here with the chain, and leave what the chain left; whether there was any."""
        async with transaction(self._engine) as connection:
            kept = await writing.kept(connection, self._source.source_id, position.finalized, position.number)
        seen: dict[int, bytes] = {}
        found: Ancestor | None = None
        for heights in looks(list(kept), head.latest.number):
            seen |= {block.number: block.hash for block in await self._desk.blocks(heights, Lane.LIVE)}
            found = common(kept, seen)
            if found is not None:
                break
        # Where the head is lower than what is here and stands on it, a provider lags: that proves nothing.
        if not seen or (found is not None and found.number == max(seen)):
            return False
        # Nothing in common is what a node of another chain shows, to which a balancer sent us once.
        self._strange = self._strange + 1 if found is None else 0
        if 0 < self._strange < STRANGE_LOOKS:
            return False
        reorg = parted(position, kept, seen, found, tuple(self._vouching() if providers is None else providers))
        await (self._halt(position, reorg) if reorg.below_finalized else self._leave(position, reorg))
        return True

    def _vouching(self) -> list[str]:
        return [each.provider for each in self._desk.health() if each.status == "ok"]

    async def _leave(self, position: Position, reorg: Reorg) -> None:
        """Go back to the ancestor: what stands above it is kept as orphans, its events are told as reverted."""
        source, at = self._source, now()
        self._position = None
        async with transaction(self._engine) as connection:
            await cursors.own(connection, source.source_id, position)
            left = await writing.leave(connection, source.source_id, reorg.ancestor.number, position.number)
            await writing.record_reorg(connection, source, reorg, events_reverted=len(left), at=at)
            back = went_back(position, reorg.ancestor.number, reorg.ancestor.hash, [event.sequence for event in left])
            await cursors.move(connection, source.source_id, back, at)
            events = [telling.reorganized(source, reorg, len(left), at), *telling.reverted(source, left, at)]
            await outbox.append(connection, source.tenant_id, events)
            await audit.write(connection, source.tenant_id, self._record("chain.reorganized", reorg))
        self.tally.reorgs += 1
        self.tally.reverted += len(left)
        self._moved_to(back, told=True)

    async def _halt(self, position: Position, reorg: Reorg) -> None:
        """Stop: the chain would leave what is final, on which money has moved."""
        source, at = self._source, now()
        reason = f"the chain left block {position.finalized}, which was final"
        self._position = None
        async with transaction(self._engine) as connection:
            await cursors.own(connection, source.source_id, position)
            await writing.record_reorg(connection, source, reorg, events_reverted=0, at=at)
            await sources.set_status(connection, source.source_id, RelayerStatus.HALTED, reason)
            await outbox.append(connection, source.tenant_id, [telling.halted(source, reason, at)])
            await audit.write(connection, source.tenant_id, self._record("chain.relayer_halted", reorg))
        self._doorbell.ring()
        raise NotFollowing(RelayerStatus.HALTED)

    def _record(self, action: str, reorg: Reorg) -> AuditRecord:
        subject = relayer_workflow_id(self._source.relayer_id)
        details = {
            "ancestor_number": reorg.ancestor.number,
            "depth": reorg.depth,
            "old_hash": telling.hexed(reorg.old_hash),
            "new_hash": telling.hexed(reorg.new_hash),
        }
        return AuditRecord(subject, action, now(), Origin(workflow_id=subject), details)
