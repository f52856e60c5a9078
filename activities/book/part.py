"""A part of the book in this process: its columns, how far it has followed the accounts, and who waits."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from heapq import heappop, heappush
from typing import Final

import numpy as np
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from activities.book.columns import Columns, Fetched, Ints, Key, Place, Whole
from activities.book.deciding import Decided, instant
from activities.book.reading import changes, fetched, wholes
from activities.book.screen import Candidates, Weights, screen, set_windows
from db.engine import transaction
from db.margin import following

#: Accounts that changed are read again so many at a time.
PAGE: Final = 20_000
HELD_AGAIN: Final = timedelta(minutes=1)
#: Where accounts wait that the columns do not hold; their row is their number.
_WHOLE: Final[Key] = (-1, -1)


class Part:
    """Some shards. One revaluation at a time holds ``lock``."""

    def __init__(self, engine: AsyncEngine, shards: Sequence[int]) -> None:
        self.shards = tuple(shards)
        self.lock = asyncio.Lock()
        self.columns = Columns()
        self._engine = engine
        #: How many accounts the last look found liquidatable at prices that are not confirmed.
        self.held = 0
        self._since: int | None = None
        self._waiting: dict[Place, int] = {}
        self._due: list[tuple[int, Key, int]] = []

    @property
    def since(self) -> int:
        """Every transaction with an id below this one had ended when the accounts were read last."""
        return self._since or 0

    @property
    def waiting(self) -> int:
        """How many accounts are worse than told until their cooldown ends."""
        return len(self._waiting)

    @property
    def due(self) -> int | None:
        """When the first of them may be told, in microseconds since 2000."""
        while self._due and self._waiting.get((self._due[0][1], self._due[0][2])) != self._due[0][0]:
            heappop(self._due)
        return self._due[0][0] if self._due else None

    def due_at(self, at: datetime) -> datetime | None:
        """When to look again though no price changes: at the end of a cooldown; or soon, for a price is confirmed
        without a tick when it was only stale and then comes the same."""
        dues = [] if self.due is None else [instant(self.due)]
        dues += [at + HELD_AGAIN] if self.held else []
        return min(dues, default=None)

    def forget(self) -> None:
        """Begin anew: the next follow reads everything."""
        self.columns, self._since, self._waiting, self._due = Columns(), None, {}, []

    async def follow(self) -> int:
        """Read what changed since the last time, or everything; returns how many accounts were read."""
        if self._since is None:
            self.forget()
        async with transaction(self._engine) as connection:
            since = await following.enter(connection)
            self.columns.know(await following.symbols(connection))
            if self._since is None:
                content = await following.read(connection, self.columns.symbols, shards=self.shards)
                taken = await asyncio.to_thread(fetched, content, self.columns)
                del content
                await self._take(taken, connection)
                count = len(taken.heads)
            else:
                numbers, versions = changes(await following.changed(connection, self.shards, self._since))
                newer = await asyncio.to_thread(self._newer, numbers, versions)
                for begin in range(0, len(newer), PAGE):
                    page = newer[begin : begin + PAGE]
                    content = await following.read(connection, self.columns.symbols, accounts=page)
                    await self._take(await asyncio.to_thread(fetched, content, self.columns), connection)
                count = len(newer)
        self._since = since
        return count

    def candidates(self, at: Weights, now: int) -> list[Candidates]:
        """The rows that have to be decided: outside their window, or at the end of a cooldown."""
        found = {each.key: each for each in screen(self.columns, at)}
        for key, rows in self._ended(now).items():
            before = found.get(key)
            mine = np.array(rows, np.int64)
            found[key] = Candidates(key, mine if before is None else np.union1d(before.rows, mine))
        return list(found.values())

    def note(self, decided: Decided) -> None:
        """Remember who waits and until when; whoever was decided otherwise waits no longer."""
        key = decided.key or _WHOLE
        self.held += decided.held
        if self._waiting:
            for row in (*decided.steady, *decided.rows):
                self._waiting.pop((key, row), None)
        for row, (_, due) in decided.waiting.items():
            if self._waiting.get((key, row)) != due:
                self._waiting[key, row] = due
                heappush(self._due, (due, key, row))

    def _ended(self, now: int) -> dict[Key, list[int]]:
        """Rows whose cooldown is over. They wait until they are decided: a round that fails must not forget them."""
        ended: dict[Key, list[int]] = {}
        over: list[tuple[int, Key, int]] = []
        while (due := self.due) is not None and due <= now:
            over.append(heappop(self._due))
        for entry in over:
            heappush(self._due, entry)
            if entry[1] != _WHOLE:
                ended.setdefault(entry[1], []).append(entry[2])
        return ended

    def _newer(self, numbers: Ints, versions: Ints) -> list[int]:
        """The accounts of which something newer was written than is here."""
        known = self.columns
        pairs = zip(numbers.tolist(), versions.tolist(), strict=True)
        return sorted(number for number, version in pairs if version != known.version(number))

    async def _take(self, taken: Fetched, connection: AsyncConnection) -> None:
        numbers = taken.heads["account"][taken.odd].tolist()
        odd = wholes(*await following.odd(connection, numbers), self.columns) if numbers else {}
        try:
            await asyncio.to_thread(self._put, taken, odd)
        except BaseException:
            # Cancelled or failed in between: nobody knows what was taken in.
            self.forget()
            raise

    def _put(self, taken: Fetched, odd: Mapping[int, Whole]) -> None:
        """Take accounts in with their windows; none of them waits any more until it is decided again."""
        columns = self.columns
        for number in taken.heads["account"].tolist() if self._waiting else ():
            place = columns.find(number)
            self._waiting.pop((_WHOLE, number) if place is None else place, None)
        for key, rows in columns.put(taken, odd):
            set_windows(columns.tables[key], rows)
