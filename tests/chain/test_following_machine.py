"""Random lives of a chain and of who follows it, on the real database: what is here, and what was told, is the truth.

A run is the same every time; ``HOLDFAST_MODEL_EXAMPLES=500`` makes a longer one with a fresh seed, which it prints.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from activities.chain.following import STRANGE_LOOKS, Follower
from activities.chain.ports import Lane
from activities.chain.relayer import RelayerActivities
from activities.chain.relayer_messages import CarryOut, RelayerCommand
from db.chain import coverage, cursors, writing
from db.doorbell import Doorbell
from db.engine import Role, create_engine, transaction
from db.identity import create_tenant
from db.ids import new_id
from domain.chain.following import Ask
from domain.errors import Unavailable
from tests.chain.model import ModelChain, ModelDesk
from tests.chain.watching import as_told, cursor, expected, register, replayed, rows, told
from tests.model.machine import Bridge
from tests.playing import EXAMPLES, play

SHORT, STEPS = 15, 30
#: What a run must have met, or it shows less than it says.
MET = {"reorg", "reorg while fetching", "lag", "restart", "rewind", "filled", "away", "race", "final"}
names = st.lists(st.sampled_from("abcdefghijklmnop"), max_size=3, unique=True)


class Chained(Bridge):
    """Also the role that sees every tenant."""

    def __init__(self, database_url: str) -> None:
        super().__init__(database_url)
        self.all = create_engine(database_url, Role.ENGINE, pool_size=6)
        self.met = Counter()

    def __enter__(self) -> Chained:
        return self

    def __exit__(self, *raised: Any) -> None:
        self.run(self.all.dispose())
        super().__exit__(*raised)


class Machine(RuleBasedStateMachine):
    def __init__(self, bridge: Chained) -> None:
        super().__init__()
        self.bridge = bridge
        self.chain = ModelChain()
        self.desk = ModelDesk(self.chain)
        self.doorbell = Doorbell(bridge.all)
        self.final = -1

    @initialize()
    def begin(self) -> None:
        self.bridge.run(self._begin())

    async def _begin(self) -> None:
        tenant = new_id()
        async with transaction(self.bridge.engine) as connection:
            await create_tenant(connection, new_tenant=tenant, name=f"chain-{tenant}")
        self.source = await register(self.bridge.engine, tenant, "model")
        self.followers = [self._follower(), self._follower()]

    def _follower(self) -> Follower:
        return Follower(self.bridge.all, self.doorbell, self.desk, self.source, hear_seconds=0.0)

    @rule(transactions=st.lists(names, min_size=1, max_size=5))
    def mine(self, transactions: list[list[str]]) -> None:
        for each in transactions:
            self.chain.mine(*each)

    @rule(depth=st.integers(1, 12), transactions=st.lists(names, min_size=1, max_size=12))
    def reorganize(self, depth: int, transactions: list[list[str]]) -> None:
        self.bridge.met["reorg"] += 1
        self.chain.drop(depth)
        self.mine(transactions)

    @rule(depth=st.integers(1, 6), transactions=st.lists(names, min_size=1, max_size=8))
    def reorganize_while_fetching(self, depth: int, transactions: list[list[str]]) -> None:
        def meanwhile() -> None:
            self.desk.before = None
            self.bridge.met["reorg while fetching"] += 1
            self.reorganize(depth, transactions)

        self.desk.before = meanwhile

    @rule(blocks=st.integers(0, 8))
    def lag(self, blocks: int) -> None:
        self.bridge.met["lag"] += bool(blocks)
        self.desk.lag = blocks

    @rule(behind=st.integers(0, 10))
    def finalize(self, behind: int) -> None:
        self.chain.finalize(self.chain.head.number - behind)

    @rule(which=st.integers(0, 1))
    def restart(self, which: int) -> None:
        self.bridge.met["restart"] += 1
        self.followers[which] = self._follower()

    @rule(which=st.integers(0, 1), times=st.integers(1, 3))
    def look(self, which: int, times: int) -> None:
        for _ in range(times):
            self.bridge.run(self._look(self.followers[which]))

    @rule()
    def look_together(self) -> None:
        self.bridge.met["race"] += 1
        self.bridge.run(self._together())

    async def _together(self) -> None:
        await asyncio.gather(*(self._look(follower) for follower in self.followers))

    @rule()
    def away(self) -> None:
        self.bridge.met["away"] += 1
        self.desk.away = True
        self.look(0, 1)
        self.desk.away = False

    async def _look(self, follower: Follower) -> bool:
        try:
            return await follower.look()
        except Unavailable as absence:
            assert absence.what == "chain:model", absence
            return True

    @rule(below=st.integers(0, 6))
    def rewind(self, below: int) -> None:
        self.bridge.run(self._rewind(below))

    async def _rewind(self, below: int) -> None:
        stand = await cursor(self.bridge.all, self.source)
        to_block = max(stand.finalized_number, stand.block_number - below)
        if to_block < 0:
            return
        self.bridge.met["rewind"] += 1
        command = RelayerCommand(command_id=new_id(), ask=Ask.REWIND, to_block=to_block)
        asked = CarryOut(tenant_id=self.source.tenant_id, relayer_id=self.source.relayer_id, command=command)
        await RelayerActivities(self.bridge.all, self.doorbell).carry_out(asked)

    @rule(blocks=st.integers(1, 8))
    def fill(self, blocks: int) -> None:
        self.bridge.run(self._fill(blocks))

    async def _fill(self, blocks: int) -> None:
        """As a job does, at or below what is final, in blocks that nobody has."""
        async with transaction(self.bridge.all) as connection:
            stand, _ = await cursors.lock(connection, self.source.source_id)
            last = self.chain.finalized
            first = max(stand.position.number + 2, last - blocks + 1)
            if first > last or await coverage.covered(connection, self.source.source_id, (first, last)):
                return
            self.bridge.met["filled"] += 1
            desk = ModelDesk(self.chain)
            fetched = await desk.fetch(self.source, first, last, Lane.JOB, after=None, after_sequence=None)
            await writing.append(connection, self.source, fetched)

    @invariant()
    def nothing_is_wrong(self) -> None:
        if hasattr(self, "source"):
            self.bridge.run(self._check())

    async def _check(self) -> None:
        found = await cursor(self.bridge.all, self.source)
        assert found.finalized_number >= self.final, "what was final is final"
        self.bridge.met["final"] += found.finalized_number > self.final
        self.final = found.finalized_number
        assert found.finalized_number <= max(self.chain.finalized, -1)
        final = [row for row in await rows(self.bridge.all, self.source) if row[1] <= found.finalized_number]
        assert final == expected(self.source, self.chain.events(0, found.finalized_number))

    def teardown(self) -> None:
        if hasattr(self, "source"):
            self.bridge.run(self._end())

    async def _end(self) -> None:
        """Left alone, it comes to rest at the truth."""
        self.desk.lag, self.desk.before = 0, None
        if (await cursor(self.bridge.all, self.source)).block_number > self.chain.head.number:
            self.chain.mine()
        rests = 0
        for _ in range(80):
            rests = 0 if await self._look(self.followers[0]) else rests + 1
            if rests > STRANGE_LOOKS:
                break
        else:
            raise AssertionError("it does not come to rest")
        found = await cursor(self.bridge.all, self.source)
        assert found.block_number >= self.chain.head.number
        held = await rows(self.bridge.all, self.source)
        assert held == expected(self.source, self.chain.events(0, self.chain.head.number))
        live = [each for each in as_told(held) if each in set(replayed(await told(self.bridge.all, self.source)))]
        assert replayed(await told(self.bridge.all, self.source)) == live
        await self.doorbell.close()


@pytest.mark.timeout(300 + 5 * EXAMPLES)
def test_what_is_here_and_what_was_told_is_the_truth(database_url: str) -> None:
    with Chained(database_url) as bridge:
        play("following", lambda: Machine(bridge), bridge.met, MET, short=SHORT, steps=STEPS)
        print(bridge.report())  # noqa: T201 - what the run was worth
