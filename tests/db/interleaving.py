"""Every order in which the statements of concurrent transactions can meet the database, one after the other.

Each actor works through a connection of its own, whose statements and commit wait for their turn. A schedule lets one
actor do one thing at a time; who waits for a lock is left waiting, as the database says that it does, until the other
lets go. ``explore`` plays all the schedules that there are, ``sample`` some of them.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

SETTLE_LIMIT_SECONDS = 20
_BLOCKED = text("SELECT pid FROM unnest(CAST(:pids AS int[])) AS pid WHERE cardinality(pg_blocking_pids(pid)) > 0")

#: What an actor does with the engine that it is given.
Act = Callable[[AsyncEngine], Awaitable[Any]]
#: Looks at what is committed, between any two turns.
Look = Callable[[], Awaitable[None]]
#: Sets the stage anew, and answers who acts on it.
Stage = Callable[[], Awaitable[Sequence[Act]]]


class Actor:
    """One transaction's worth of work. ``engine`` is what it must use."""

    def __init__(self, act: Act, engine: AsyncEngine) -> None:
        self._engine = engine
        self._turn: asyncio.Future[None] | None = None
        self.pids: set[int] = set()
        self.task: asyncio.Task[Any] = asyncio.create_task(self._perform(act))

    async def _perform(self, act: Act) -> Any:
        return await act(cast("AsyncEngine", self))

    @property
    def waits(self) -> bool:
        """Whether the next thing that it does is held back."""
        return self._turn is not None and not self._turn.done()

    def go(self) -> None:
        assert self._turn is not None
        self._turn.set_result(None)

    async def turn(self) -> None:
        self._turn = asyncio.get_running_loop().create_future()
        await self._turn

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection]:
        """As ``AsyncEngine.connect``."""
        async with self._engine.connect() as connection:
            raw = await connection.get_raw_connection()
            pid = cast("Any", raw.driver_connection).get_server_pid()
            self.pids.add(pid)
            try:
                yield cast("AsyncConnection", _Held(connection, self))
            finally:
                self.pids.discard(pid)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """As ``AsyncEngine.begin``."""
        async with self.connect() as connection, connection.begin():
            yield connection


#: What meets no other posting: saying whose rows are meant, and passing the gate that only a freeze closes.
_APART = ("set_config", "ledger_enter")


class _Held:
    """A connection whose statements wait for their turn."""

    def __init__(self, connection: AsyncConnection, actor: Actor) -> None:
        self._connection = connection
        self._actor = actor

    async def get_raw_connection(self) -> Any:
        return await self._connection.get_raw_connection()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[None]:
        """A transaction whose commit waits for its turn as well."""
        async with self._connection.begin():
            yield
            await self._actor.turn()

    async def execute(self, statement: Any, parameters: Any = None) -> Any:
        await self._turn(statement)
        return await self._connection.execute(statement, parameters)

    async def scalar(self, statement: Any, parameters: Any = None) -> Any:
        await self._turn(statement)
        return await self._connection.scalar(statement, parameters)

    async def _turn(self, statement: Any) -> None:
        if not any(word in str(statement) for word in _APART):
            await self._actor.turn()


class Interleaving:
    """Plays schedules on a database. ``look`` is called between any two turns."""

    def __init__(self, engine: AsyncEngine, look: Look) -> None:
        self._engine = engine
        self._look = look
        self.played = 0

    async def explore(self, stage: Stage) -> list[list[Any]]:
        """Every schedule: what the actors answered in each, an exception where they raised one."""
        answers, left = [], [list[int]()]
        while left:
            prefix = left.pop()
            said, trace = await self._play(await stage(), partial(_given, prefix))
            answers.append(said)
            for depth in range(len(prefix), len(trace)):
                chosen, ready = trace[depth]
                left += [[*(pick for pick, _ in trace[:depth]), other] for other in ready if other != chosen]
        return answers

    async def sample(self, stage: Stage, *, times: int, seed: int) -> list[list[Any]]:
        """Some schedules, by chance, the same for the same seed."""
        chance = random.Random(seed)
        return [(await self._play(await stage(), lambda ready, _: chance.choice(ready)))[0] for _ in range(times)]

    async def _play(
        self, acts: Sequence[Act], choose: Callable[[Sequence[int], int], int]
    ) -> tuple[list[Any], list[tuple[int, list[int]]]]:
        actors = [Actor(act, self._engine) for act in acts]
        trace: list[tuple[int, list[int]]] = []
        self.played += 1
        async with asyncio.timeout(SETTLE_LIMIT_SECONDS), self._engine.connect() as observer:
            await self._settle(actors, observer)
            while not all(actor.task.done() for actor in actors):
                ready = [index for index, actor in enumerate(actors) if actor.waits]
                if ready:
                    chosen = choose(ready, len(trace))
                    trace.append((chosen, ready))
                    actors[chosen].go()
                await self._settle(actors, observer)
                await self._look()
        return await asyncio.gather(*(actor.task for actor in actors), return_exceptions=True), trace

    async def _settle(self, actors: Sequence[Actor], observer: AsyncConnection) -> None:
        """Wait until each is done, waits for its turn, or waits for another one's lock."""
        while True:
            await asyncio.sleep(0)
            busy = [actor for actor in actors if not actor.waits and not actor.task.done()]
            if not busy:
                return
            pids = [pid for actor in busy for pid in actor.pids]
            blocked = {row.pid for row in await observer.execute(_BLOCKED, {"pids": pids})}
            await observer.rollback()
            still = [actor for actor in busy if not actor.waits and not actor.task.done()]
            # Whoever ended meanwhile may have let others go, and what was said of them is no longer so.
            if still == busy and len(busy) < len(actors) and all(each.pids and each.pids <= blocked for each in busy):
                return


def _given(prefix: Sequence[int], ready: Sequence[int], turn: int) -> int:
    return prefix[turn] if turn < len(prefix) else ready[0]
