"""How many requests a provider may still be sent. One budget holds for every process, and is drawn on in slices."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from sqlalchemy.ext.asyncio import AsyncEngine

from activities.chain.ports import Lane
from db.chain import budget
from db.engine import transaction

#: How much of a second's requests a process takes at a time: a round trip a slice, and little lost by who stops.
SLICE_SECONDS: Final = 0.1
#: What a full budget holds: so much may go out at once after a pause.
BURST_SECONDS: Final = 0.5
#: Of a full budget, jobs leave this for the live end.
RESERVE_SHARE: Final = 0.4
_WAIT_SECONDS_MAX: Final = 2.0


class Allowance(Protocol):
    """Whom to ask before a request is made."""

    async def take(self, requests: int, lane: Lane) -> None:
        """Returns when so many requests may be made."""


class SharedAllowance:
    """Slices of one provider's budget in Postgres.

    The live end takes what it needs, also of what is still to come, and waits for that; jobs take only what leaves
    it a reserve. So while it owes, jobs wait. Raises ``Unavailable`` without the database.
    """

    def __init__(self, engine: AsyncEngine, chain: str, provider: str, per_second: float) -> None:
        self._engine = engine
        self._bucket = budget.Bucket(chain, provider, per_second, max(1.0, per_second * BURST_SECONDS))
        self._slice = per_second * SLICE_SECONDS
        self._left = dict.fromkeys(Lane, 0.0)
        self._turns = {lane: asyncio.Lock() for lane in Lane}

    async def take(self, requests: int, lane: Lane) -> None:
        """See ``Allowance``. What a job drew and did not use, the live end may."""
        owed = float(requests)
        async with self._turns[lane]:
            while True:
                owed = self._use(owed, lane)
                if owed <= 1e-9:
                    return
                # Whoever waits may be overtaken and dropped, what was drawn is there for the next.
                wait = await asyncio.shield(self._live(owed) if lane is Lane.LIVE else self._job(owed))
                if wait > 0:
                    await asyncio.sleep(min(wait, _WAIT_SECONDS_MAX) if lane is Lane.JOB else wait)

    def _use(self, owed: float, lane: Lane) -> float:
        for purse in Lane if lane is Lane.LIVE else (lane,):
            used = min(owed, self._left[purse])
            self._left[purse] -= used
            owed -= used
        return owed

    async def _live(self, owed: float) -> float:
        wanted = max(owed, min(self._slice, self._bucket.most))
        async with transaction(self._engine) as connection:
            wait = await budget.owe(connection, self._bucket, wanted)
        self._left[Lane.LIVE] += wanted
        return wait

    async def _job(self, owed: float) -> float:
        leave = self._bucket.most * RESERVE_SHARE
        wanted = min(max(owed, self._slice), self._bucket.most - leave)
        async with transaction(self._engine) as connection:
            wait = await budget.draw(connection, self._bucket, wanted, leave)
        if wait == 0:
            self._left[Lane.JOB] += wanted
        return wait
