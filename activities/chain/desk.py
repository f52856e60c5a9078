"""One chain through all of its providers: the answers that enough of them give, complete and checked."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from operator import eq
from time import monotonic
from typing import Any, Final, TypeVar

from activities.chain import heads, reading
from activities.chain.joining import Joined
from activities.chain.pool import OK, Member, Patience, Pool, Provider
from activities.chain.ports import ChainFault, FaultKind, Forked, Lane, ProviderHealth
from activities.chain.quorum import Agreed, Contradicted, Inquiry
from activities.chain.reading import Piece, Reading
from domain.chain import Block, Books, Fetched, Head, Source
from domain.chain.checking import difference
from domain.chain.ranges import cut
from domain.errors import Unavailable

A = TypeVar("A")

#: A live range up to so many blocks is fetched with all of its headers; and any of a source without numbers.
WHOLE_BLOCKS_MAX: Final = 512
#: Pieces of one range that are asked for at once.
PIECES_AT_ONCE: Final = 4
#: How often a range is begun again because the chain moved under it.
_MOVES_MAX: Final = 3


class Desk:
    """See ``ChainDesk``. ``agreeing`` providers must give the same answer, headers and events alike.

    A provider's answer is first held against itself (order, hashes, parents, numbers without a gap, the counter), then
    against the others'. What a quorum says of the same blocks convicts who says otherwise.
    """

    def __init__(
        self,
        name: str,
        network: str,
        providers: Sequence[Provider],
        *,
        agreeing: int = 1,
        confirmations: int = 12,
        finality_depth: int | None = None,
        poll_seconds: float = 1.0,
        patience: Patience | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        if not 1 <= agreeing <= len(providers):
            raise ValueError(f"{agreeing} of {len(providers)} providers cannot agree")
        self._name = name
        self._confirmations = confirmations
        self._finality_depth = finality_depth
        self._poll_seconds = poll_seconds
        self._agreeing = agreeing
        self._pool = Pool(providers, network, patience or Patience(), clock)

    @property
    def name(self) -> str:
        """What the configuration calls the chain."""
        return self._name

    @property
    def confirmations(self) -> int:
        """How many blocks on top make a block confirmed."""
        return self._confirmations

    @property
    def finality_depth(self) -> int | None:
        """How many blocks on top make one final; None: the chain's word alone counts."""
        return self._finality_depth

    @property
    def poll_seconds(self) -> float:
        """How often the head is looked at."""
        return self._poll_seconds

    async def head(self, lane: Lane) -> Head:
        """See ``ChainDesk``."""
        return await heads.vouched(self._name, self._pool, lane, self._agreeing)

    async def blocks(self, numbers: Sequence[int], lane: Lane) -> Sequence[Block]:
        """See ``ChainDesk``."""
        if not numbers:
            return []
        agreed = await self._inquire(
            lane,
            self._agreeing,
            lambda member: self._headers(member, numbers, lane),
            height=max(numbers),
            same=eq,
        )
        for member, other in agreed.others:
            _on_another_branch(member, other[-1], agreed)
        if len(agreed.members) == 1:
            await self._contest(max(agreed.answer, key=lambda block: block.number), agreed, lane)
        return agreed.answer

    async def counter(self, source: Source, block: Block, lane: Lane) -> int | None:
        """See ``ChainDesk``. Who keeps no state that old is passed over, while somebody does."""
        counted = await self._counted(source, block, lane)
        return None if counted is None else counted.answer

    async def books(self, source: Source, token: bytes, block: Block, lane: Lane) -> Books | None:
        """See ``ChainDesk``; as ``counter`` is asked for."""
        said = await self._kept(lambda member: reading.books(member, source, token, block, lane), block, lane)
        return None if said is None else said.answer

    async def fetch(
        self, source: Source, first: int, last: int, lane: Lane, *, after: Block | None, after_sequence: int | None
    ) -> Fetched:
        """See ``ChainDesk``. A live range of at most ``WHOLE_BLOCKS_MAX`` blocks comes ``whole``."""
        if first > last or (after is not None and after.number != first - 1):
            raise ValueError(f"no range: {first} to {last}, after {after}")
        whole = not source.sequenced or (lane is Lane.LIVE and last - first < WHOLE_BLOCKS_MAX)
        span = Piece(source, first, last, lane, whole)
        if after_sequence is None and source.sequenced:
            after_sequence = await self._sequence_before(source, first, after, lane)
        for _ in range(_MOVES_MAX):
            fetched = await self._fetch(span, after, after_sequence)
            if fetched is not None:
                return fetched
        raise Unavailable(f"chain:{self._name}", f"blocks {first} to {last} change while they are read")

    def health(self) -> Sequence[ProviderHealth]:
        """See ``ChainDesk``."""
        return [member.health() for member in self._pool.members]

    async def close(self) -> None:
        """Let go of connections."""
        for member in self._pool.members:
            await member.close()

    async def _fetch(self, span: Piece, after: Block | None, after_sequence: int | None) -> Fetched | None:
        """All pieces joined in order; None where the chain moved between two of them."""
        joined = Joined(after, after_sequence)
        pieces = self._pieces(span)
        pieces[0] = replace(pieces[0], below=after)
        async with aclosing(self._ahead(pieces, after_sequence)) as answers:
            async for read_ahead, found in answers:
                piece, agreed = read_ahead, found
                if joined.continues(agreed.answer) and joined.gap(span.source, agreed.answer) is not None:
                    # Asked again by who knows what came before: then the gap is somebody's.
                    piece = replace(piece, first=joined.back(piece.first), below=joined.below)
                    agreed = await self._read(piece, joined.sequence)
                if not joined.continues(agreed.answer):
                    if piece.first > span.first:
                        return None
                    await self._fork(joined.below, agreed, span.lane)
                for member, _ in agreed.others:
                    await self._convict(member, piece, agreed)
                joined.add(piece, agreed)
        if joined.counter is None and span.source.sequenced:
            await self._end(joined, span)
        return joined.fetched(span)

    async def _end(self, joined: Joined, span: Piece) -> None:
        """None of those who agree keeps the last block's counter; another may, and is one against them."""
        counted = await self._counted(span.source, joined.blocks[-1], span.lane)
        if counted is None:
            return
        told = joined.against(counted.answer)
        if told is None:
            joined.counter = counted.answer
        elif counted.answer < (joined.sequence or 0) and len(counted.members) < self._agreeing:
            # That there is an event, more of them say.
            for member in counted.members:
                member.accuse(told)
                member.shun()
        else:
            raise Unavailable(f"chain:{self._name}", told)

    async def _counted(self, source: Source, block: Block, lane: Lane) -> Agreed[int] | None:
        if not source.sequenced:
            return None
        return await self._kept(lambda member: reading.counter(member, source, block, lane), block, lane)

    async def _kept(self, ask: Callable[[Member], Awaitable[A | None]], block: Block, lane: Lane) -> Agreed[A] | None:
        """What enough of those say who keep the state of a block, or a single one where no more do; None where nobody
        does."""
        without = set[Member]()

        async def asked(member: Member) -> A:
            said = await ask(member)
            if said is None:
                without.add(member)
                raise ChainFault(FaultKind.NO_STATE, f"it keeps no state of block {block.number}")
            return said

        for need in sorted({self._agreeing, 1}, reverse=True):
            try:
                return await self._inquire(lane, need, asked, height=block.number, same=eq)
            except Unavailable:
                if not without:
                    raise
        return None

    def _pieces(self, span: Piece) -> list[Piece]:
        """As wide as whoever is asked first bears."""
        member = self._pool.next(span.last, ()) or self._pool.members[0]
        ranges = cut([(span.first, span.last)], member.spans.blocks)
        return [Piece(span.source, first, last, span.lane, span.whole) for first, last in ranges]

    async def _ahead(
        self, pieces: Sequence[Piece], after_sequence: int | None
    ) -> AsyncGenerator[tuple[Piece, Agreed[Reading]], None]:
        """Answers in order, several of them asked for at once. Only the first piece's knows what came before it."""
        under_way: deque[tuple[Piece, asyncio.Task[Agreed[Reading]]]] = deque()
        try:
            for piece in pieces:
                known = after_sequence if piece is pieces[0] else None
                under_way.append((piece, asyncio.ensure_future(self._read(piece, known))))
                if len(under_way) >= PIECES_AT_ONCE:
                    yield under_way[0][0], await under_way[0][1]
                    under_way.popleft()
            while under_way:
                yield under_way[0][0], await under_way[0][1]
                under_way.popleft()
        finally:
            for _, task in under_way:
                task.cancel()
            await asyncio.gather(*(task for _, task in under_way), return_exceptions=True)

    async def _read(self, piece: Piece, after_sequence: int | None) -> Agreed[Reading]:
        return await self._inquire(
            piece.lane,
            self._agreeing,
            lambda member: reading.read(member, piece, after_sequence),
            height=piece.last,
            same=reading.same,
        )

    async def _convict(self, member: Member, piece: Piece, agreed: Agreed[Reading]) -> None:
        """Who says something else of the very same blocks, twice, is lying; of others, it is on another branch."""
        true = agreed.answer
        try:
            async with asyncio.timeout(self._pool.patience.hedge):
                said = await reading.read(member, piece, None)
        except Contradicted as fault:
            member.accuse(fault.message)
            member.shun()
            return
        except (ChainFault, TimeoutError):
            return
        if (said.blocks[0].hash, said.blocks[-1].hash) != (true.blocks[0].hash, true.blocks[-1].hash):
            _on_another_branch(member, said.blocks[-1], agreed)
        elif told := difference(said.events, true.events) or reading.miscounted(said, true):
            member.accuse(f"of the same blocks as {', '.join(agreed.names)}, it says otherwise: {told}")
            member.shun()

    async def _contest(self, top: Block, agreed: Agreed[Any], lane: Lane) -> None:
        """A single one's word about a block does not stand against another's that is as far: who lags on a branch that
        the chain left looks just like who was first to leave it."""
        for member in self._pool.usable():
            as_far = member.status == OK and (member.head_number or 0) >= top.number
            if member in agreed.members or not as_far:
                continue
            try:
                (block,) = await reading.headers(member, [top.number], lane)
            except ChainFault:
                continue
            if block.hash != top.hash:
                raise Unavailable(
                    f"chain:{self._name}", f"{agreed.names[0]} and {member.name} have each another block {top.number}"
                )

    async def _fork(self, below: Block | None, agreed: Agreed[Reading], lane: Lane) -> None:
        """Raises ``Forked``; but if it still has the block, or another that is as far has it, nobody can say."""
        assert below is not None, "without a block below nothing forks"
        found = agreed.answer.blocks[0].parent_hash
        top = agreed.answer.blocks[-1].number
        for member in self._pool.usable() if len(agreed.members) == 1 else ():
            if member in agreed.members or (member.head_number or 0) >= top:
                try:
                    (block,) = await reading.headers(member, [below.number], lane)
                except ChainFault:
                    continue
                if block.hash == below.hash:
                    raise Unavailable(
                        f"chain:{self._name}", f"{agreed.names[0]} left block {below.number}, {member.name} has it"
                    )
        raise Forked(below.number, below.hash, found, agreed.names)

    async def _sequence_before(self, source: Source, first: int, after: Block | None, lane: Lane) -> int | None:
        if first <= source.start_block:
            return 0
        block = after or (await self.blocks([first - 1], lane))[0]
        return await self.counter(source, block, lane)

    async def _inquire(
        self,
        lane: Lane,
        need: int,
        ask: Callable[[Member], Awaitable[A]],
        *,
        height: int,
        same: Callable[[A, A], bool],
    ) -> Agreed[A]:
        return await Inquiry(self._name, self._pool, lane, need, ask, same=same, height=height).result()

    async def _headers(self, member: Member, numbers: Sequence[int], lane: Lane) -> list[Block]:
        """Headers; of one whose word is enough, it is heard twice, for by them reorganisations are judged."""
        blocks = await reading.headers(member, numbers, lane)
        if self._agreeing == 1 and await reading.headers(member, numbers, lane) != blocks:
            raise ChainFault(FaultKind.BEHIND, f"headers up to block {blocks[-1].number} change while they are read")
        return blocks


def _on_another_branch(member: Member, top: Block, agreed: Agreed[Any]) -> None:
    member.lags(f"its block {top.number} is not that of {', '.join(agreed.names)}")
