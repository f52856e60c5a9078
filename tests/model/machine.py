"""The state machine: what people and the clock do, step by step, and the comparison after each."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, TypeVar
from uuid import UUID

import uvloop
from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from db.engine import Role, create_engine, tenant_transaction, transaction
from db.identity import create_tenant
from db.ids import new_id
from tests.model import database
from tests.model.asks import Ask, Command, Opening, Worker, agrees, really, supposedly
from tests.model.books import World
from tests.model.controls import Bounds
from tests.model.drafts import Draft
from tests.model.moves import Bound, SetApart, Stop
from tests.model.plans import (
    ANY_TERMS,
    BOUNDED,
    BOUNDS,
    DEALS,
    MONEY,
    ORDERS,
    SETTLE,
    SOUND_TERMS,
    STOPS,
    Errand,
    Money,
    Plan,
    Settle,
    Terms,
)
from tests.model.racing import explained

T = TypeVar("T")
START = datetime(2026, 3, 1, 9, 0, 0, 123456, tzinfo=UTC)
DEALS_MAX = 6
WORKERS = 2
#: By how many microseconds the clock misses a deadline.
OFF = st.sampled_from([-1, 0, 0, 1])
NOW_OR_OFF = st.sampled_from([None, None, None, -1, 0, 1])
#: By how much a buyer's deposit misses what is needed.
SHORT = st.sampled_from([0, 0, 0, 1])
ACTS = st.one_of(ORDERS, MONEY, DEALS)

PLANS = st.lists(ACTS, min_size=1, max_size=2)


class Bridge:
    """An event loop and connections that outlive the machines, whose rules are no coroutines."""

    def __init__(self, database_url: str) -> None:
        # A loop of our own: the run's default one belongs to the other tests.
        self._loop = uvloop.new_event_loop()
        self.engine = create_engine(database_url, Role.APP, pool_size=12)
        self.met: Counter[str] = Counter()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        # No Runner: it takes the signals over for each piece of work, which costs more than most pieces.
        return self._loop.run_until_complete(work)

    def __enter__(self) -> Bridge:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.run(self.engine.dispose())
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def report(self) -> str:
        """What was met how often, most often first."""
        return f"{sum(self.met.values())} asks; " + ", ".join(f"{what} {n}" for what, n in self.met.most_common())


class Machine(RuleBasedStateMachine):
    """One tenant, from its beginning."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self.bridge = bridge
        self.now = START
        self.world = World()
        self.tenant: UUID = new_id()
        self.asked: list[Ask] = []
        bridge.run(self._begin())

    async def _begin(self) -> None:
        async with transaction(self.bridge.engine) as connection:
            await create_tenant(connection, new_tenant=self.tenant, name=f"model-{self.tenant}")
        self.workers = [Worker(self.bridge.engine, self.tenant) for _ in range(WORKERS)]

    def teardown(self) -> None:
        self.bridge.run(self._end())

    async def _end(self) -> None:
        for worker in self.workers:
            await worker.doorbell.close()

    # --- asking both

    def ask(self, ask: Ask, *, twice: bool = False) -> None:
        """One ask, or the same by two workers at once; both give the model's answer, and it happens once."""
        expected = supposedly(ask, self.world)
        note(f"{self.now:%d %H:%M:%S.%f} {ask} -> {expected}")
        answers = self.bridge.run(self._really([ask] * (2 if twice else 1)))
        assert all(agrees(expected, answer) for answer in answers), f"{answers} instead of {expected}"
        different = database.differences(self.world.describe(), self.bridge.run(self._read()))
        assert not different, "\n".join(different)
        self._met(ask, answers[0])

    def race(self, asks: Sequence[Ask]) -> None:
        """Different asks at once: answers and state are those of one order or another."""
        answers = self.bridge.run(self._really(asks))
        found = self.bridge.run(self._read())
        note(f"{self.now:%d %H:%M:%S.%f} at once: {[*zip(asks, answers, strict=True)]}")
        self.world = explained(self.world, asks, answers, found)
        for ask, answer in zip(asks, answers, strict=True):
            self._met(ask, answer)

    async def _really(self, asks: Sequence[Ask]) -> list[str]:
        workers = (self.workers[index % WORKERS] for index in range(len(asks)))
        return await asyncio.gather(*(really(ask, worker) for ask, worker in zip(asks, workers, strict=False)))

    async def _read(self) -> dict[str, dict[Any, Any]]:
        async with tenant_transaction(self.bridge.engine, self.tenant) as connection:
            assert await database.wrong(connection) == []
            return await database.read(connection)

    def _met(self, ask: Ask, answer: str) -> None:
        self.asked.append(ask)
        self.bridge.met[f"{ask.kind}: {answer if '_' in answer else 'done'}"] += 1

    # --- what happens

    def _draft(self) -> Draft:
        return Draft(self.world, self.now, str(new_id()))

    @initialize(first=SOUND_TERMS, second=SOUND_TERMS)
    def begin(self, first: Terms, second: Terms) -> None:
        for agreed in (first, second):
            self.ask(Opening(str(new_id()), agreed(self.now), self.now))
        for deal in (0, 1):
            self.provide(deal, 0)

    def provide(self, deal: int, short: int) -> None:
        """Somebody deposits what a deal's buyer still needs for it, or a unit less."""
        if (deposit := self._draft().provision(deal, short)) is not None:
            self.ask(deposit)

    @precondition(lambda self: len(self.world.deals) < DEALS_MAX)
    @rule(agreed=SOUND_TERMS)
    def open(self, agreed: Terms) -> None:
        self.ask(Opening(str(new_id()), agreed(self.now), self.now), twice=True)

    @precondition(lambda self: len(self.world.deals) < DEALS_MAX)
    @rule(agreed=ANY_TERMS)
    def open_perhaps(self, agreed: Terms) -> None:
        self.ask(Opening(str(new_id()), agreed(self.now), self.now))

    @rule(money=MONEY, twice=st.booleans())
    def move_money(self, money: Plan, twice: bool) -> None:
        """Money moves, or should; who would pay and has nothing gets something first, mostly."""
        if (deposit := self._draft().allowance(money)) is not None:
            self.ask(deposit)
        if (ask := self._draft().of(money)) is not None:
            self.ask(ask, twice=twice)

    @rule(deal=DEALS, choice=st.integers(0, 11), named=st.booleans(), twice=st.booleans(), short=SHORT)
    def go_on(self, deal: int, choice: int, named: bool, twice: bool, short: int) -> None:
        """Somebody who may does something that can be done; the money for it comes first, or a unit less."""
        ask = self._draft().next(deal, choice, named=named)
        if isinstance(ask, Command) and ask.order.kind == "fund":
            self.provide(deal, short)
        if ask is not None:
            self.ask(ask, twice=twice)

    @rule(deal=DEALS, choices=st.lists(st.integers(0, 11), min_size=1, max_size=6), disputed=st.booleans())
    def go_on_and_on(self, deal: int, choices: list[int], disputed: bool) -> None:
        """A deal takes several steps in a row, perhaps once it is ``disputed``."""
        if disputed:
            self._approve(deal)
            self.order(Errand(deal, "dispute", "seller", None, "all"))
        for choice in choices:
            self.go_on(deal, choice, named=False, twice=False, short=0)

    @rule(order=ORDERS)
    def order(self, order: Plan) -> None:
        """Anybody asks for anything."""
        if (ask := self._draft().of(order)) is not None:
            self.ask(ask)

    @rule(plans=st.lists(ACTS, min_size=2, max_size=3))
    def together(self, plans: list[Plan | int]) -> None:
        if asks := self._asks(plans):
            self.race(asks)

    def _asks(self, plans: list[Plan | int]) -> list[Ask]:
        """Several; a number stands for the next thing to do on that deal."""
        asks = []
        for plan in plans:
            draft = self._draft()
            asks.append(draft.next(plan, plan, named=False) if isinstance(plan, int) else draft.of(plan))
        return [ask for ask in asks if ask is not None]

    @rule(stop=STOPS, meanwhile=PLANS, money=MONEY, deal=DEALS, choice=st.integers(0, 11))
    def frozen_for_a_while(self, stop: tuple[str, str], meanwhile: Any, money: Plan, deal: int, choice: int) -> None:
        """An operator stops something while others are at it, and again; then lets it go."""
        freeze = Stop("freeze", *stop, self.now)
        self.race([freeze, *self._asks(meanwhile)])
        self.ask(freeze)
        self.move_money(money, twice=False)
        self.go_on(deal, choice, named=False, twice=False, short=0)
        self.ask(Stop("lift", *stop, self.now))

    @rule(bounds=BOUNDS, meanwhile=PLANS, flows=st.lists(BOUNDED, min_size=1, max_size=3), deal=DEALS)
    def bounded_for_a_while(self, bounds: Any, meanwhile: Any, flows: list[Money], deal: int) -> None:
        """An operator bounds an account while others are at it; then not any more."""
        bound = self._draft().bound(*bounds)
        self.race([bound, *self._asks(meanwhile)])
        for money in flows:
            self.move_money(replace(money, user=bound.account, asset=bound.asset), twice=False)
        self.go_on(deal, 0, named=False, twice=False, short=0)
        self.ask(Bound(bound.account, bound.asset, Bounds(), self.now))

    @rule(passed=st.sampled_from([timedelta(microseconds=1), timedelta(minutes=30), timedelta(days=1)]))
    def time_passes(self, passed: timedelta) -> None:
        self.now += passed

    def _approve(self, deal: int) -> None:
        """Have a deal's first open part funded and approved, if that can be."""
        self.provide(deal, 0)
        before = -1
        while before < len(self.world.receipts) and (ask := self._draft().forward(deal)) is not None:
            before = len(self.world.receipts)
            self.ask(ask)

    @rule(deal=DEALS, off=OFF, choice=st.integers(0, 4), approved=st.booleans(), then_fires=st.booleans())
    def deadline_comes(self, deal: int, off: int, choice: int, approved: bool, then_fires: bool) -> None:
        """The clock comes to a deadline, or a microsecond off it; somebody tries to beat the timer, which may fire.

        First the deal may be ``approved``, so that the deadline is that of its inspection.
        """
        if approved:
            self._approve(deal)
        if (due := self._draft().due(deal)) is not None:
            self.now = max(self.now, due + timedelta(microseconds=off))
        if (ask := self._draft().last_moment(deal, choice)) is not None:
            self.ask(ask)
        if then_fires:
            self.order(Errand(deal, "pass_deadline", None, None, "all"))

    # What a precondition sees must not hang on who won a race: so not the transfers that there are, but the attempts.
    @precondition(lambda self: any(isinstance(ask, SetApart) for ask in self.asked))
    @rule(
        ahead=st.integers(0, 5),
        off=st.sampled_from([None, None, None, -1, 0, 1]),
        settle=SETTLE,
        then_fires=st.booleans(),
    )
    def transfer_ends(self, ahead: int, off: int | None, settle: Settle, then_fires: bool) -> None:
        """A transfer in two phases is ended in good time, or when its own time ends."""
        pending = self._draft().pending(ahead)
        if off is not None and pending is not None:
            self.now = max(self.now, pending.expires_at + timedelta(microseconds=off))
        self.move_money(replace(settle, which=ahead), twice=False)
        if then_fires:
            self.move_money(Settle(ahead, "expire", "all"), twice=True)

    @precondition(lambda self: self.asked)
    @rule(which=st.integers(0, 40), later=st.booleans())
    def again(self, which: int, later: bool) -> None:
        """An earlier ask comes again, perhaps with a later clock: what it did once it does not do again."""
        ask = self.asked[-1 - which % len(self.asked)]
        self.ask(replace(ask, at=self.now) if later else ask)  # type: ignore[type-var]

    @precondition(lambda self: any(isinstance(ask, Command) for ask in self.asked))
    @rule(which=st.integers(0, 40), order=ORDERS)
    def other_words_under_an_earlier_step(self, which: int, order: Plan) -> None:
        """A step that was done is done, whatever comes under its name."""
        commands = [ask for ask in self.asked if isinstance(ask, Command)]
        earlier, ask = commands[-1 - which % len(commands)], self._draft().of(order)
        if isinstance(ask, Command):
            self.ask(replace(ask, key=earlier.key, step=earlier.step))
