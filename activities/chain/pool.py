"""The providers of one chain, as one process knows them: who may be asked, in which order, and what each one did."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Final, TypeVar

from activities.chain.budget import Allowance
from activities.chain.ports import ChainFault, ChainReader, FaultKind, Lane, ProviderHealth
from activities.chain.ranges import SpanTuner

A = TypeVar("A")

OK, LAGGING, DOWN, ACCUSED, WRONG_CHAIN = "ok", "lagging", "down", "accused", "wrong_chain"
_DOWN_AFTER: Final = 3
_REASON_MAX: Final = 500
#: These say something of the request, and nothing of the provider.
_BLAMELESS: Final = frozenset({FaultKind.TOO_WIDE, FaultKind.TOO_MUCH, FaultKind.NO_STATE, FaultKind.BEHIND})


@dataclass(frozen=True, slots=True)
class Patience:
    """How long things are waited for, in seconds.

    ``live`` and ``job``: how long a question is put again before nobody can say. ``hedge``: with no answer for so long
    another provider is asked too. ``backoff`` doubles with each failure in a row up to ``backoff_max``. ``accused``:
    who was caught lying is asked like others again after it, twice as long each time; and earlier, from
    ``accused_alone`` on and doubling up to ``backoff_max``, where nobody else answers. One whom nobody showed to lie is
    only asked last. ``behind``: how long somebody
    may yet get what nobody has. ``wrong_chain`` and ``network``:
    how often a provider is asked which chain it has. ``heads``: how often those are asked for their head who were not
    needed for it. ``lag_blocks``: a head so much lower is lag.
    """

    live: float = 15.0
    job: float = 60.0
    hedge: float = 1.0
    backoff: float = 0.1
    backoff_max: float = 30.0
    accused: float = 600.0
    accused_alone: float = 0.5
    behind: float = 2.0
    wrong_chain: float = 60.0
    network: float = 600.0
    heads: float = 10.0
    lag_blocks: int = 3

    def of(self, lane: Lane) -> float:
        """How long a question of this lane is put again."""
        return self.live if lane is Lane.LIVE else self.job


@dataclass(frozen=True, slots=True)
class Provider:
    """A node, and on which terms it is asked."""

    reader: ChainReader
    timeout_seconds: float = 10.0
    range_blocks_max: int = 10_000
    allowance: Allowance | None = None


class Member:
    """One provider with what is known of it."""

    def __init__(self, provider: Provider, network: str, patience: Patience, clock: Callable[[], float]) -> None:
        self.name = provider.reader.name
        self.spans = SpanTuner(provider.range_blocks_max)
        self.head_number: int | None = None
        self.heard_at = float("-inf")
        self.in_flight = 0
        self.latency = 0.0
        self.free_at = 0.0
        self._provider = provider
        self._network = network
        self._patience = patience
        self._clock = clock
        self._status, self._reason, self._status_at = OK, "", datetime.now(UTC)
        self._requests = self._failures = self._in_a_row = self._offences = 0
        self._failed_at = float("-inf")
        self._accused_until = self._shunned_until = self._alone_at = 0.0
        self._limited_until = 0.0
        self._network_until = 0.0
        self._network_lock = asyncio.Lock()

    @property
    def status(self) -> str:
        """As ``ProviderHealth`` says it."""
        if self._status == ACCUSED and self._clock() >= self._accused_until:
            self._turn(OK, "it was accused, and is asked again")
        return self._status

    @property
    def reason(self) -> str:
        """Of the status, or of the last failure."""
        return self._reason

    @property
    def is_shunned(self) -> bool:
        """Whether others, who answered, showed that it lied: it is asked where nobody else answers, and not often."""
        return self._clock() < self._shunned_until

    @property
    def alone_at(self) -> float:
        """When it may be asked where nobody else answers, though it was accused."""
        return max(self._alone_at, self.free_at)

    async def ask(self, lane: Lane, requests: int, asking: Callable[[ChainReader], Awaitable[A]]) -> A:
        """One question, which costs so many requests; raises ``ChainFault``, after which it is left alone for a while.

        The first question of all, and one now and then, is which chain it has.
        """
        await self._wait_as_told()
        if self._provider.allowance is not None:
            await self._provider.allowance.take(requests, lane)
        if self._clock() >= self._network_until:
            await self._verify()
        began = self._clock()
        try:
            answer = await self._timed(requests, asking)
        except ChainFault as fault:
            self.failed(fault, began)
            raise
        self._answered(self._clock() - began)
        return answer

    def failed(self, fault: ChainFault, began: float) -> None:
        """It gave no usable answer to what was asked at ``began``."""
        now = self._clock()
        if fault.kind in _BLAMELESS:
            if fault.kind is FaultKind.BEHIND:
                self.free_at = max(self.free_at, now + self._patience.backoff)
            return
        self._failures += 1
        if self.status != ACCUSED:
            # Else the evidence stands.
            self._reason = fault.message[:_REASON_MAX]
        if fault.kind is FaultKind.REFUSED or began < self._failed_at:
            # Of several questions at once, the first failure counts: together they are one.
            return
        self._failed_at = now
        self._in_a_row += 1
        pause = min(self._patience.backoff * 2 ** min(self._in_a_row - 1, 16), self._patience.backoff_max)
        pause = max(pause * random.uniform(0.75, 1.25), fault.retry_after_seconds or 0.0)  # noqa: S311 - no secret
        self.free_at = max(self.free_at, now + min(pause, 10 * self._patience.backoff_max))
        if fault.kind is FaultKind.RATE_LIMITED:
            self._limited_until = self.free_at
        if self._in_a_row >= _DOWN_AFTER and self._status in (OK, LAGGING):
            self._turn(DOWN, fault.message)
            self._network_until = 0.0

    def accuse(self, evidence: str) -> None:
        """It was caught saying what is not so.

        It is asked last from now on. That it is shunned is for somebody to ask who had the true answer: a contract that
        does not count its events, or was registered from a block in its midst, makes liars of honest nodes, and they
        are those of every other contract as well.
        """
        self._offences += 1
        self._accused_until = self._clock() + self._patience.accused * self._doubled
        self._failures += 1
        self._turn(ACCUSED, evidence)

    def shun(self) -> None:
        """Somebody else had the answer to that of which it was accused."""
        now, patience = self._clock(), self._patience
        self._shunned_until = now + patience.accused * self._doubled
        self._alone_at = now + min(patience.accused_alone * self._doubled, patience.backoff_max)

    @property
    def _doubled(self) -> int:
        return 1 << min(max(self._offences - 1, 0), 7)

    def lags(self, reason: str) -> None:
        """It is behind the others, or on a branch that they left."""
        if self._status == OK:
            self._turn(LAGGING, reason)

    def keeps_up(self) -> None:
        """It has what the others have."""
        if self._status == LAGGING:
            self._turn(OK, "")

    def health(self) -> ProviderHealth:
        """See ``ProviderHealth``."""
        return ProviderHealth(
            provider=self.name,
            status=self.status,
            status_at=self._status_at,
            reason=self._reason or None,
            head_number=self.head_number,
            latency_ms=round(self.latency * 1000) or None,
            requests=self._requests,
            failures=self._failures,
            range_blocks=self.spans.blocks,
        )

    async def close(self) -> None:
        """Let go of connections."""
        await self._provider.reader.close()

    async def _wait_as_told(self) -> None:
        """What is under way goes on slower for one that was asked too often; raises ``ChainFault`` if that is long."""
        pause = self._limited_until - self._clock()
        if pause > self._patience.hedge:
            raise ChainFault(FaultKind.RATE_LIMITED, "it is to be left alone", retry_after_seconds=pause)
        if pause > 0:
            await asyncio.sleep(pause)

    async def _timed(self, requests: int, asking: Callable[[ChainReader], Awaitable[A]]) -> A:
        self._requests += requests
        self.in_flight += 1
        limit = self._provider.timeout_seconds
        try:
            async with asyncio.timeout(limit):
                return await asking(self._provider.reader)
        except TimeoutError:
            raise ChainFault(FaultKind.UNAVAILABLE, f"no answer within {limit:g} s") from None
        finally:
            self.in_flight -= 1

    async def _verify(self) -> None:
        async with self._network_lock:
            now = self._clock()
            if now < self._network_until:
                return
            try:
                # One odd answer is a fault, two are another chain.
                said = await self._said()
                if said != self._network:
                    said = await self._said()
            except ChainFault as fault:
                self.failed(fault, now)
                raise
            if said != self._network:
                message = f"it has chain {said[:100]}, not {self._network}"
                self._turn(WRONG_CHAIN, message)
                self.free_at = self._clock() + self._patience.wrong_chain
                raise ChainFault(FaultKind.WRONG_CHAIN, message)
            self._network_until = self._clock() + self._patience.network
            if self._status == WRONG_CHAIN:
                self._turn(OK, "it had another chain")

    async def _said(self) -> str:
        return await self._timed(1, lambda reader: reader.network())

    def _answered(self, seconds: float) -> None:
        self.latency = seconds if self.latency == 0 else self.latency * 0.8 + seconds * 0.2
        self._in_a_row = 0
        if self._status == DOWN:
            self._turn(OK, "")

    def _turn(self, status: str, reason: str) -> None:
        if status != self._status or status == ACCUSED:
            self._status_at = datetime.now(UTC)
        self._status, self._reason = status, reason[:_REASON_MAX]


class Pool:
    """All providers of a chain."""

    def __init__(
        self,
        providers: Sequence[Provider],
        network: str,
        patience: Patience,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.patience = patience
        self.clock = clock
        self.members = [Member(provider, network, patience, clock) for provider in providers]

    def next(self, height: int | None, without: Collection[Member], *, anybody: bool = False) -> Member | None:
        """Whom to ask now for something at this height; ``anybody`` lets in who is shunned, after a pause."""
        now = self.clock()
        free = [m for m in self.members if m not in without and self._free(m, now, anybody)]
        return min(free, key=lambda member: self._rank(member, height), default=None)

    def wait_seconds(self, without: Collection[Member], *, anybody: bool = False) -> float | None:
        """How long until one of the others may be asked; None where there is none."""
        now = self.clock()
        others = [member for member in self.members if member not in without]
        times = [m.alone_at if m.is_shunned else m.free_at for m in others if anybody or not m.is_shunned]
        return max(0.0, min(times) - now) if times else None

    def usable(self) -> list[Member]:
        """Those whose word counts now."""
        now = self.clock()
        return [member for member in self.members if self._free(member, now, anybody=False)]

    def observe(self, member: Member, head_number: int) -> None:
        """A provider said that this is its head."""
        member.head_number, member.heard_at = head_number, self.clock()

    def judge_lag(self, best: int, since: float) -> None:
        """Sort those out whose head, as heard since then, is far below this one."""
        for member in self.members:
            if member.head_number is not None and member.heard_at >= since:
                behind = best - member.head_number
                if behind > self.patience.lag_blocks:
                    member.lags(f"its head is {member.head_number}, {behind} blocks below {best}")
                else:
                    member.keeps_up()

    @staticmethod
    def _free(member: Member, now: float, anybody: bool) -> bool:
        if member.is_shunned:
            return anybody and now >= member.alone_at
        return now >= member.free_at

    @staticmethod
    def _rank(member: Member, height: int | None) -> tuple[int, int, float]:
        low = height is not None and member.head_number is not None and member.head_number < height
        order = (OK, LAGGING, DOWN, WRONG_CHAIN, ACCUSED).index(member.status)
        return (max(order, 1) if low else order, member.in_flight, member.latency)
