"""Transfers in two phases through their workflow: expiry by skipped time, lost runs, outages, bugs, renewals."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.testing import ActivityEnvironment, TimeSkipper

from activities.messages import OriginMessage
from activities.transfers.messages import ApplyResolution
from activities.transfers.steps import PendingTransferActivities
from crew import create_worker
from db.doorbell import Doorbell
from db.engine import Role, create_engine, transaction
from db.ids import new_id
from domain.errors import Refusal, Unavailable
from domain.ledger import Balance
from domain.transfers import TransferStatus
from kit.clock import now
from tests.cable import Cable
from tests.desk import BUYER, SELLER, TASK_QUEUE, Desk
from tests.polling import eventually
from tools.deployment import Build, make_current
from workflows.limits import STEP_LIMIT
from workflows.transfers import PostMessage, ResolutionMessage, VoidMessage
from workflows.transfers.watch import TransferWatchWorkflow

DAY = timedelta(days=1)
RACERS = 32


@pytest.fixture
def skipper(desk: Desk) -> TimeSkipper:
    return TimeSkipper(desk.client)


async def code_of(desk: Desk, transfer_id: object) -> str:
    with pytest.raises(Refusal) as refused:
        await desk.resolve(transfer_id, PostMessage())  # type: ignore[arg-type]
    return refused.value.code


async def test_a_post_ends_the_workflow(desk: Desk) -> None:
    await desk.deposit(BUYER, 100)
    transfer_id = await desk.pend(60)
    assert await desk.balance(BUYER) == Balance(40, 60)
    assert (await desk.resolve(transfer_id, PostMessage(amount_minor=50))).status is TransferStatus.POSTED
    assert (await desk.pending_handle(transfer_id).result()).status is TransferStatus.POSTED
    assert (await desk.balance(BUYER), await desk.balance(SELLER)) == (Balance(50), Balance(50))
    assert await code_of(desk, transfer_id) == "transfer_posted"


async def test_what_nobody_resolves_returns_at_its_expiry(desk: Desk, skipper: TimeSkipper) -> None:
    await desk.deposit(BUYER, 100)
    transfer_id = await desk.pend(100, timeout_seconds=30 * 86_400)
    await skipper.fast_forward(desk.pending_handle(transfer_id), 29 * DAY)
    assert (await desk.pending(transfer_id)).status is TransferStatus.PENDING
    await skipper.fast_forward(desk.pending_handle(transfer_id), 2 * DAY)
    assert (await desk.pending_handle(transfer_id).result()).status is TransferStatus.EXPIRED
    found = await desk.pending(transfer_id)
    assert found.status is TransferStatus.EXPIRED
    assert found.resolved_at is not None
    assert found.resolved_at >= found.expires_at
    assert await desk.balance(BUYER) == Balance(100)
    assert await code_of(desk, transfer_id) == "transfer_expired"


async def test_money_that_is_not_there_is_not_set_apart(desk: Desk) -> None:
    transfer_id = new_id()
    with pytest.raises(Refusal) as refused:
        await desk.pend(1, transfer_id)
    assert refused.value.code == "insufficient_funds"
    with pytest.raises(WorkflowFailureError):
        await desk.pending_handle(transfer_id).result()


async def test_racers_have_one_winner(desk: Desk) -> None:
    await desk.deposit(BUYER, 100)
    # The expiry races, too, on a slow machine; here it is far away.
    transfer_id = await desk.pend(100, timeout_seconds=60)
    commands: list[ResolutionMessage] = [PostMessage(), VoidMessage(), PostMessage(amount_minor=1)]
    tries = [desk.resolve(transfer_id, commands[number % 3]) for number in range(RACERS)]
    found = await asyncio.gather(*tries, return_exceptions=True)
    won = [answer for answer in found if not isinstance(answer, BaseException)]
    assert len(won) == 1
    # A racer that comes when the run has just ended is told to look at the row.
    assert all(isinstance(answer, Refusal | Unavailable) for answer in found if answer is not won[0])
    codes = {answer.code for answer in found if isinstance(answer, Refusal)}
    assert codes <= {f"transfer_{won[0].status.lower()}"}
    kinds = await desk.sql("SELECT kind FROM ledger_transactions WHERE kind IN ('transfer_post', 'transfer_void')")
    assert len(kinds) == 1


async def test_a_repeated_command_has_one_effect(desk: Desk) -> None:
    await desk.deposit(BUYER, 100)
    transfer_id, command_id = await desk.pend(100), new_id()
    first = await desk.resolve(transfer_id, VoidMessage(), command_id)
    await desk.pending_handle(transfer_id).result()
    for repeated in (False, True):
        assert await desk.resolve(transfer_id, VoidMessage(), command_id, repeated=repeated) == first
    assert await desk.balance(BUYER) == Balance(100)


async def test_a_lost_workflow_gets_a_new_run(desk: Desk) -> None:
    await desk.deposit(BUYER, 100)
    transfer_id = await desk.pend(100)
    await desk.pending_handle(transfer_id).terminate("lost")
    assert (await desk.resolve(transfer_id, PostMessage())).status is TransferStatus.POSTED
    with pytest.raises(Refusal) as refused:
        await desk.resolve(new_id(), PostMessage())
    assert refused.value.code == "transfer_unknown"


async def test_the_watch_brings_a_lost_workflow_back(desk: Desk, owner_engine: AsyncEngine, temporal: Client) -> None:
    await desk.deposit(BUYER, 100)
    transfer_id = await desk.pend(100)
    await desk.pending_handle(transfer_id).terminate("lost")
    async with transaction(owner_engine) as connection:
        await connection.execute(
            text("UPDATE pending_transfers SET expires_at = now() - interval '1 hour' WHERE transfer_id = :id"),
            {"id": transfer_id},
        )
    found = await temporal.execute_workflow(
        TransferWatchWorkflow.run, id=f"transfer-watch-{new_id()}", task_queue=TASK_QUEUE
    )
    assert found >= 1
    assert (await desk.pending_handle(transfer_id).result()).status is TransferStatus.EXPIRED
    assert await desk.balance(BUYER) == Balance(100)


async def test_it_moves_to_a_new_run_when_asked(desk: Desk) -> None:
    await desk.deposit(BUYER, 100)
    transfer_id = await desk.pend(100)
    handle = desk.pending_handle(transfer_id)
    first = (await handle.describe()).run_id
    await handle.signal("move")

    async def moved() -> bool:
        found = await handle.describe()
        return found.run_id != first and found.status is WorkflowExecutionStatus.RUNNING

    await eventually(moved)
    assert (await desk.resolve(transfer_id, PostMessage())).status is TransferStatus.POSTED


async def test_a_stale_copy_is_noticed_and_replaced(desk: Desk, tenants_engine: AsyncEngine) -> None:
    """The row moves behind the workflow's back, as after a commit whose answer was lost."""
    await desk.deposit(BUYER, 100)
    transfer_id = await desk.pend(100)
    behind = PendingTransferActivities(tenants_engine, Doorbell(tenants_engine))
    asked = ApplyResolution(
        tenant_id=desk.tenant,
        transfer_id=transfer_id,
        step="behind",
        command=VoidMessage(),
        origin=OriginMessage(user_id=BUYER),
        at=now(),
    )
    await ActivityEnvironment().run(behind.resolve, asked)
    assert await code_of(desk, transfer_id) == "transfer_voided"
    assert (await asyncio.wait_for(desk.pending_handle(transfer_id).result(), 20)).status is TransferStatus.VOIDED


async def test_a_bug_fails_the_command_and_not_what_comes_after(desk: Desk, owner_engine: AsyncEngine) -> None:
    await desk.deposit(BUYER, 100)
    transfer_id, command_id = await desk.pend(100), new_id()
    broken = f"CHECK (tenant_id <> '{desk.tenant}' OR status <> 'VOIDED')"
    async with transaction(owner_engine) as connection:
        await connection.execute(text(f"ALTER TABLE pending_transfers ADD CONSTRAINT a_bug {broken} NOT VALID"))
    try:
        with pytest.raises(WorkflowUpdateFailedError):
            await desk.resolve(transfer_id, VoidMessage(), command_id)
        assert await desk.balance(BUYER) == Balance(0, 100)
    finally:
        async with transaction(owner_engine) as connection:
            await connection.execute(text("ALTER TABLE pending_transfers DROP CONSTRAINT a_bug"))
    again = await desk.resolve(transfer_id, VoidMessage(), command_id, repeated=True)
    assert again.status is TransferStatus.VOIDED
    assert await desk.balance(BUYER) == Balance(100)


async def test_a_database_that_is_away_is_waited_for(
    desk: Desk, temporal: Client, tenants_engine: AsyncEngine, engine: AsyncEngine, database_url: str
) -> None:
    """The outage is longer than a round of attempts, and an expiry falls into it."""
    name = f"outage-{new_id()}"
    await desk.deposit(BUYER, 100)
    async with Cable(database_url) as cable:
        cut_off = create_engine(cable.url, Role.APP, pool_size=5)
        far = Desk(desk.tenant, temporal, tenants_engine, name)
        async with create_worker(temporal, name, "only", tenants=cut_off, engine=engine, deployment=name):
            await make_current(temporal, Build(name, "only"))
            expiring = await far.pend(100, timeout_seconds=5)
            cable.cut()
            await asyncio.sleep(STEP_LIMIT.total_seconds() + 7)  # the outage is the test
            assert (await desk.pending(expiring)).status is TransferStatus.PENDING
            cable.mend()
            assert (await asyncio.wait_for(far.pending_handle(expiring).result(), 60)).status is TransferStatus.EXPIRED
        await cut_off.dispose()
    assert await desk.balance(BUYER) == Balance(100)
