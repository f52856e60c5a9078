"""How many requests a provider may still be sent. One budget holds for every process, and is drawn on in slices."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from activities.chain.ports import Lane

#: How much of a second's requests a process takes at a time: a round trip a slice, and little lost by who stops.
SLICE_SECONDS: Final = 0.25
#: Of what a full budget holds, jobs leave this for the live end.
RESERVE_SHARE: Final = 0.25
_WAIT_SECONDS_MIN: Final = 0.02
_WAIT_SECONDS_MAX: Final = 2.0


class Allowance(Protocol):
    """Whom to ask before a request is made."""

    async def take(self, requests: int, lane: Lane) -> None:
        """Returns when so many requests may be made."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a draw gave, and how long to wait for more where it gave nothing."""

    tokens: float
    wait_seconds: float


#: Draws up to ``wanted`` and leaves ``reserve`` in the budget.
Draw = Callable[[float, float], Awaitable[Drawn]]


class SharedAllowance:
    """Slices of one provider's budget. What a job drew, the live end may use; not the other way round.

    The budget holds at most one second's requests, so a provider's limit holds over any second but the first.
    """

    def __init__(self, per_second: float, draw: Draw) -> None:
        self._per_second = per_second
        self._draw = draw
        self._left = dict.fromkeys(Lane, 0.0)
        self._turns = {lane: asyncio.Lock() for lane in Lane}

    async def take(self, requests: int, lane: Lane) -> None:
        """See ``Allowance``. What is larger than the budget is paid for bit by bit."""
        owed = float(requests)
        async with self._turns[lane]:
            while True:
                owed = self._use(owed, lane)
                if owed <= 0:
                    return
                drawn = await self._draw(self._slice(owed), self._reserve(lane))
                self._left[lane] += drawn.tokens
                if drawn.tokens <= 0:
                    await asyncio.sleep(min(max(drawn.wait_seconds, _WAIT_SECONDS_MIN), _WAIT_SECONDS_MAX))

    def _use(self, owed: float, lane: Lane) -> float:
        for purse in (Lane.LIVE, Lane.JOB) if lane is Lane.LIVE else (Lane.JOB,):
            used = min(owed, self._left[purse])
            self._left[purse] -= used
            owed -= used
        return owed

    def _slice(self, owed: float) -> float:
        return min(max(owed, self._per_second * SLICE_SECONDS), max(1.0, self._per_second))

    def _reserve(self, lane: Lane) -> float:
        return max(1.0, self._per_second) * RESERVE_SHARE if lane is Lane.JOB else 0.0
