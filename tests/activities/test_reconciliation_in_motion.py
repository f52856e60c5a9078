"""Reconciliation while the books move: nothing that is only in motion is a difference, and nothing is counted twice."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import ActivityEnvironment

from activities.escrow.messages import ApproveMessage, FundMessage, RefundMessage, ReleaseMessage
from activities.reconciliation.messages import Progress
from db import ledger
from db.engine import tenant_transaction
from db.ids import new_id
from domain.ledger import SYSTEM_EXTERNAL, Leg, Posting, Pot, TransactionKind
from kit.clock import now
from tests.activities.reconciling import Reconciler, tamper
from tests.activities.steps import FEES, Steps
from tests.desk import BUYER, SELLER, terms

POSTERS = 16
ACCOUNTS = [f"user-{number}" for number in range(10)]
SEED = 20261121


def move(rng: random.Random) -> Posting:
    """Money between two of few accounts, which therefore wait for one another."""
    source, target = rng.sample([*ACCOUNTS, SYSTEM_EXTERNAL], 2)
    amount = rng.randint(1, 9)
    legs = (Leg(source, "USDC", Pot.AVAILABLE, -amount), Leg(target, "USDC", Pot.AVAILABLE, amount))
    return Posting(new_id(), TransactionKind.DEPOSIT, legs, now())


@asynccontextmanager
async def posters(steps: Steps) -> AsyncIterator[list[int]]:
    """Sixteen callers that post, some of them slow to commit, and one that carries escrows through their lives."""
    posted = [0]
    for account in ACCOUNTS:
        await steps.deposit(account, 1_000_000)
    await steps.deposit(BUYER, 900_000_000)

    async def post(number: int) -> None:
        rng = random.Random(SEED + number)
        while True:
            async with tenant_transaction(steps.engine, steps.tenant) as connection:
                await ledger.post(connection, steps.tenant, [move(rng) for _ in range(rng.randint(1, 5))])
                if number % 8 == 0:
                    await connection.execute(text("SELECT pg_sleep(0.03)"))
            posted[0] += 1

    async def trade() -> None:
        while True:
            escrow = await steps.open(terms(1_000_003, 77, **FEES))
            await steps.apply(escrow, BUYER, FundMessage())
            await steps.apply(escrow, BUYER, ApproveMessage(positions=(1,)))
            await steps.apply(escrow, BUYER, ReleaseMessage(positions=(1,), amount_minor=333_333))
            await steps.apply(escrow, SELLER, RefundMessage())

    tasks = [asyncio.create_task(trade()), *(asyncio.create_task(post(number)) for number in range(POSTERS))]
    try:
        yield posted
        assert [task.exception() for task in tasks if task.done()] == []
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_books_in_motion_show_no_difference(
    steps: Steps, tenants_engine: AsyncEngine, engine: AsyncEngine
) -> None:
    # A tail so short that every page of balances has to catch up first.
    reconciler = Reconciler(tenants_engine, engine, steps.tenant, ledger=50, keys=20, tail=50)
    async with posters(steps) as posted:
        ended = [await reconciler.run()]
        for _ in range(2):
            before = posted[0]
            ended += await asyncio.gather(
                reconciler.run(full=False), reconciler.run(full=False), reconciler.run(full=True)
            )
            assert posted[0] > before, "the posters were meant to post meanwhile"
    ended.append(await reconciler.run(full=False))
    found = [(each.area, each.finding) for run in ended for each in await reconciler.findings(run.run_id)]
    assert found == []
    assert posted[0] > 100
    [(through, highest)] = await steps.sql(
        "SELECT (SELECT max(through_sequence) FROM reconciliation_runs),"
        " (SELECT max(sequence) FROM ledger_transactions)"
    )
    assert through == highest, "at rest, everything has been added up"


async def test_a_difference_is_found_in_books_that_move(
    steps: Steps, tenants_engine: AsyncEngine, engine: AsyncEngine, owner_engine: AsyncEngine
) -> None:
    reconciler = Reconciler(tenants_engine, engine, steps.tenant)
    change = "UPDATE accounts SET available_minor = available_minor + 1 WHERE tenant_id = :tenant AND ref = 'user-3'"
    async with posters(steps):
        await tamper(owner_engine, change, tenant=steps.tenant)
        outcome = await reconciler.run()
    [finding] = [each.finding for each in await reconciler.findings(outcome.run_id) if each.area == "accounts"]
    assert (finding.code, finding.subject) == ("available_differs", "account:user-3")
    assert finding.actual is not None
    assert finding.expected == finding.actual - 1


async def test_what_commits_late_is_waited_for(steps: Steps, tenants_engine: AsyncEngine, engine: AsyncEngine) -> None:
    """Its number is lower than what is already there to see; passed over, it would be missing from the sums."""
    await steps.deposit(ACCOUNTS[0], 100)
    await steps.deposit(ACCOUNTS[1], 100)
    reconciler = Reconciler(tenants_engine, engine, steps.tenant)
    legs = (Leg(ACCOUNTS[0], "USDC", Pot.AVAILABLE, -5), Leg("late", "USDC", Pot.AVAILABLE, 5))
    request, plan = await reconciler.begin()
    async with tenant_transaction(steps.engine, steps.tenant) as connection:
        await ledger.post(connection, steps.tenant, [Posting(new_id(), TransactionKind.DEPOSIT, legs, now())])
        async with tenant_transaction(steps.engine, steps.tenant) as other:
            early = (Leg(ACCOUNTS[1], "USDC", Pot.AVAILABLE, -7), Leg("early", "USDC", Pot.AVAILABLE, 7))
            await ledger.post(other, steps.tenant, [Posting(new_id(), TransactionKind.DEPOSIT, early, now())])
        adding = asyncio.create_task(reconciler.compare(request, plan, "ledger"))
        await connection.execute(text("SELECT pg_sleep(0.3)"))
        assert not adding.done()
    compared = [await adding]
    assert compared[0].checked == 4
    compared += [await reconciler.compare(request, plan, area) for area in plan.areas[1:]]
    assert (await reconciler.finish(request, plan, compared)).unexplained == 0


async def test_an_attempt_goes_on_where_the_last_one_stopped(
    steps: Steps, tenants_engine: AsyncEngine, engine: AsyncEngine
) -> None:
    for number in range(20):
        await steps.deposit(f"user-{number}", 5)
    reconciler = Reconciler(tenants_engine, engine, steps.tenant, ledger=3)
    request, plan = await reconciler.begin()
    reconciler.environment = stopping = ActivityEnvironment()
    beats: list[Progress] = []

    def stop(*details: Progress) -> None:
        beats.append(details[0])
        if details[0].checked >= 9:
            stopping.cancel()

    stopping.on_heartbeat = stop
    with pytest.raises(asyncio.CancelledError):
        await reconciler.compare(request, plan, "ledger")
    [(through, summed)] = await steps.sql(
        "SELECT through_sequence, (SELECT sum(abs(available)) FROM reconciliation_accounts) FROM reconciliation_bases"
    )
    assert summed >= 9 * 10
    # The last beat that reached the server may be older than the last commit.
    reconciler.environment = ActivityEnvironment()
    reconciler.environment.info = replace(reconciler.environment.info, heartbeat_details=[beats[1].model_dump()])
    again = await reconciler.compare(request, plan, "ledger")
    assert again.checked == 20
    assert through > 0
    reconciler.environment = ActivityEnvironment()
    rest = [await reconciler.compare(request, plan, area) for area in plan.areas[1:]]
    assert (await reconciler.finish(request, plan, [again, *rest])).unexplained == 0
