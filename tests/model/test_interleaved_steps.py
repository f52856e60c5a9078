"""Whole steps, statement by statement in many orders: each ends as if they had come one after the other.

The orders of two or three bare postings are all played in ``tests/db/test_interleavings.py``; of whole steps there are
too many, so these are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.escrow.steps import EscrowActivities
from activities.ledger.steps import LedgerActivities
from activities.transfers.chain import ChainActivities
from activities.transfers.steps import PendingTransferActivities
from db.engine import tenant_transaction
from db.ids import new_id
from tests.db.interleaving import Act, Interleaving
from tests.model import database
from tests.model.asks import Ask, Command, Opening, Worker, really, supposedly
from tests.model.books import Flow, World
from tests.model.machine import START
from tests.model.moves import Chain, Resolve, SetApart, Transfer
from tests.model.pending import Pending
from tests.model.racing import explained
from tests.model.reference import Agreement, Order

SCHEDULES = 12
AGREED = Agreement("USDC", (60,), "alice", "bob", "judy", buyer_fee=250, seller_fee=100)


class Stage:
    """One tenant, asked one thing after the other or several at once, statement by statement."""

    def __init__(self, engine: AsyncEngine, tenant: UUID) -> None:
        self.engine = engine
        self.tenant = tenant
        self.world = World()
        self.play = Interleaving(engine, self.nothing_is_wrong)

    async def nothing_is_wrong(self) -> None:
        async with tenant_transaction(self.engine, self.tenant) as connection:
            assert await database.wrong(connection) == []

    async def do(self, *asks: Ask) -> None:
        worker = Worker(self.engine, self.tenant, attempts_max=1)
        for ask in asks:
            assert await really(ask, worker) == supposedly(ask, self.world)
        await worker.doorbell.close()

    async def at_once(self, asks: Sequence[Ask], *, seed: int) -> None:
        async def begin() -> list[Act]:
            return [partial(self._act, ask) for ask in asks]

        (answers,) = await self.play.sample(begin, times=1, seed=seed)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        async with tenant_transaction(self.engine, self.tenant) as connection:
            found = await database.read(connection)
        self.world = explained(self.world, asks, answers, found)

    async def _act(self, ask: Ask, engine: AsyncEngine) -> str:
        # Its bell rings beside it, through connections that wait for nobody.
        worker = Worker(self.engine, self.tenant, attempts_max=1)
        worker.escrow = EscrowActivities(engine, worker.doorbell)
        worker.ledger = LedgerActivities(engine, worker.doorbell)
        worker.chains = ChainActivities(engine, worker.doorbell)
        worker.pending = PendingTransferActivities(engine, worker.doorbell)
        said = await really(ask, worker)
        await worker.doorbell.close()
        return said


@pytest.fixture
def stage(tenants_engine: AsyncEngine, tenant: UUID) -> Stage:
    return Stage(tenants_engine, tenant)


def command(key: str, user: str | None, order: Order) -> Command:
    return Command(key, str(new_id()), user, order, START)


def flow(kind: str, amount: int, other: str | None = None) -> Flow:
    return Flow(str(new_id()), kind, "alice", "USDC", amount, other)


@pytest.mark.parametrize("seed", range(SCHEDULES))
async def test_one_balance_and_many_ways_to_spend_it(stage: Stage, seed: int) -> None:
    """Two escrows, a withdrawal and a chain over a hundred, each of which takes sixty."""
    first, second = str(new_id()), str(new_id())
    await stage.do(Transfer(flow("deposit", 100), START), Opening(first, AGREED, START), Opening(second, AGREED, START))
    chain = flow("transfer", 60, "bob")
    await stage.at_once(
        [
            command(first, "alice", Order("fund")),
            command(second, "alice", Order("fund")),
            Transfer(flow("withdrawal", 60), START),
            Chain(chain.key, (chain,), START),
        ],
        seed=seed,
    )


@pytest.mark.parametrize("seed", range(SCHEDULES))
async def test_one_milestone_and_many_ways_to_end_it(stage: Stage, seed: int) -> None:
    key = str(new_id())
    await stage.do(
        Transfer(flow("deposit", 100), START),
        Opening(key, AGREED, START),
        command(key, "alice", Order("fund")),
        command(key, "alice", Order("approve")),
    )
    await stage.at_once(
        [
            command(key, "alice", Order("release")),
            command(key, "bob", Order("refund", (1,), 40)),
            command(key, "alice", Order("dispute")),
            command(key, "alice", Order("release", (1,), 30)),
        ],
        seed=seed,
    )


@pytest.mark.parametrize("seed", range(SCHEDULES))
async def test_one_transfer_and_many_ways_to_resolve_it(stage: Stage, seed: int) -> None:
    pending = Pending(str(new_id()), "alice", "bob", "USDC", 60)
    await stage.do(Transfer(flow("deposit", 60), START), SetApart(pending, None, START))
    await stage.at_once(
        [
            Resolve(pending.key, str(new_id()), "post", 20, START),
            Resolve(pending.key, str(new_id()), "void", None, START),
            Transfer(flow("withdrawal", 50), START),
        ],
        seed=seed,
    )


@pytest.mark.parametrize("seed", range(SCHEDULES))
async def test_one_deposit_and_many_ways_to_take_it_back(stage: Stage, seed: int) -> None:
    arrived = flow("deposit", 100)
    await stage.do(Transfer(arrived, START))
    reversals = [Transfer(Flow(str(new_id()), "reversal", takes_back=arrived.key), START) for _ in range(2)]
    await stage.at_once([*reversals, Transfer(flow("withdrawal", 60), START)], seed=seed)
