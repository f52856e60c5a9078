"""One question to as many providers as must agree on its answer; who fails is passed over, who is slow is overtaken."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from activities.chain.pool import DOWN, WRONG_CHAIN, Member, Pool
from activities.chain.ports import ChainFault, FaultKind, Lane
from domain.errors import Unavailable

A = TypeVar("A")
#: Before somebody who is shunned is asked, everybody else failed so often.
_FAILURES = 3
_ROUND_SECONDS_MAX = 2.0


class Contradicted(ChainFault):
    """A provider says what cannot be so, and said it twice; the message is the evidence."""

    def __init__(self, evidence: str) -> None:
        super().__init__(FaultKind.NONSENSE, evidence)


@dataclass(frozen=True, slots=True)
class Agreed(Generic[A]):
    """An answer, those who gave it, and what others said instead."""

    answer: A
    members: tuple[Member, ...]
    others: tuple[tuple[Member, A], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of those who agree."""
        return tuple(member.name for member in self.members)


class Inquiry(Generic[A]):
    """One question of a lane, put until ``need`` providers gave answers that are the same by ``same``.

    ``height`` is the block that it is about: who is known not to have it is asked last. Raises ``Unavailable``.
    """

    def __init__(
        self,
        chain: str,
        pool: Pool,
        lane: Lane,
        need: int,
        ask: Callable[[Member], Awaitable[A]],
        *,
        same: Callable[[A, A], bool],
        height: int | None = None,
    ) -> None:
        self._chain = chain
        self._pool = pool
        self._lane = lane
        self._need = need
        self._ask = ask
        self._same = same
        self._height = height
        self._pending: dict[asyncio.Task[A], tuple[Member, float]] = {}
        self._answers: dict[Member, A] = {}
        self._asked: set[Member] = set()
        self._out: set[Member] = set()
        self._reasons: dict[str, str] = {}
        self._contradicted: set[Member] = set()
        self._failures: Counter[Member] = Counter()
        self._kinds: dict[Member, FaultKind] = {}
        self._began = pool.clock()
        self._round = 1

    async def result(self) -> Agreed[A]:
        """The agreed answer."""
        until = self._began + self._pool.patience.of(self._lane)
        try:
            while True:
                self._start()
                if self._pending:
                    await self._collect()
                else:
                    await self._pause(until)
                found = self._majority()
                if len(found) >= self._need:
                    for member in self._contradicted:
                        member.shun()
                    return self._agreed(found)
        finally:
            await self._drop()

    def _start(self, *, extra: int = 0) -> None:
        """Ask as many as are still needed, if the answers so far agree and those under way will too."""
        while len(self._majority()) + len(self._pending) < self._need + extra:
            member = self._pool.next(self._height, self._asked | self._out, anybody=self._nobody_else())
            if member is None:
                return
            self._asked.add(member)
            task = asyncio.ensure_future(self._ask(member))
            self._pending[task] = (member, self._pool.clock())

    def _nobody_else(self) -> bool:
        """Those who may be asked without a doubt have answered, or are not going to: it is the turn of the shunned."""
        settled = self._out | self._answers.keys()
        return not self._pending and all(
            member.status in (DOWN, WRONG_CHAIN) or member.is_shunned or self._failures[member] >= _FAILURES
            for member in self._pool.members
            if member not in settled
        )

    async def _collect(self) -> None:
        done, _ = await asyncio.wait(
            self._pending, timeout=self._pool.patience.hedge, return_when=asyncio.FIRST_COMPLETED
        )
        if not done:
            # Who failed before may do better by now than who is still silent.
            self._asked = self._answers.keys() | {member for member, _ in self._pending.values()}
            self._start(extra=len(self._pending))
            return
        for task in done:
            member, _ = self._pending.pop(task)
            try:
                self._answers[member] = task.result()
                # That it was late, or that another node answered for it, is no lie.
                self._contradicted.discard(member)
            except ChainFault as fault:
                self._passed_over(member, fault)

    def _passed_over(self, member: Member, fault: ChainFault) -> None:
        self._answers.pop(member, None)
        self._reasons[member.name] = fault.message
        self._kinds[member] = fault.kind
        self._failures[member] += 1
        if isinstance(fault, Contradicted):
            member.accuse(fault.message)
            self._contradicted.add(member)
        elif fault.kind in (FaultKind.REFUSED, FaultKind.NO_STATE):
            self._out.add(member)

    async def _pause(self, until: float) -> None:
        """Everybody was asked: begin another round when somebody may be asked again."""
        stands = self._majority()
        agree = len(stands) == len(self._answers)
        stays = self._out | (set(self._answers) if agree else set())
        if self._behind():
            until = min(until, self._began + self._pool.patience.behind)
        wait = self._pool.wait_seconds(stays, anybody=self._nobody_else())
        pause = min(self._pool.patience.backoff * 2 ** min(self._round - 1, 16), _ROUND_SECONDS_MAX)
        if wait is None or self._pool.clock() + wait > until:
            raise self._unavailable()
        await asyncio.sleep(max(wait, pause))
        if not agree:
            self._answers.clear()
        self._asked = set(self._answers)
        self._round += 1

    def _behind(self) -> bool:
        """Nobody failed otherwise than by not having it, or not yet."""
        return not self._answers and set(self._kinds.values()) == {FaultKind.BEHIND}

    def _majority(self) -> list[Member]:
        groups: list[list[Member]] = []
        for member, answer in self._answers.items():
            for group in groups:
                if all(self._same(self._answers[other], answer) for other in group):
                    group.append(member)
                    break
            else:
                groups.append([member])
        return max(groups, key=len, default=[])

    def _agreed(self, members: list[Member]) -> Agreed[A]:
        others = tuple((member, answer) for member, answer in self._answers.items() if member not in members)
        return Agreed(self._answers[members[0]], tuple(members), others)

    def _unavailable(self) -> Unavailable:
        said = dict(self._reasons)
        if len(self._answers) > 1:
            said |= {member.name: "says otherwise" for member in self._answers}
        words = "; ".join(f"{name}: {reason}" for name, reason in sorted(said.items())) or "nobody may be asked now"
        return Unavailable(f"chain:{self._chain}", f"{self._need} must agree, and cannot: {words}"[:1_000])

    async def _drop(self) -> None:
        """Leave those alone who are still at it; who was overtaken is known as slow."""
        slow, now = self._pool.patience.hedge, self._pool.clock()
        pending: dict[asyncio.Task[Any], tuple[Member, float]] = dict(self._pending)
        self._pending.clear()
        for task, (member, began) in pending.items():
            task.cancel()
            if self._answers and now - began > slow:
                member.failed(ChainFault(FaultKind.UNAVAILABLE, f"no answer within {slow:g} s, and another had"), began)
        await asyncio.gather(*pending, return_exceptions=True)
