"""What an escrow's workflow outlives: a database that is away, bugs, lost runs, stale copies, storms of commands."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from functools import partial
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowUpdateFailedError
from temporalio.testing import ActivityEnvironment

from activities.escrow.messages import ApplyCommand
from activities.escrow.steps import EscrowActivities
from activities.escrow.watch import EscrowWatchActivities
from crew import create_worker
from db.doorbell import Doorbell
from db.engine import Role, create_engine, transaction
from db.ids import new_id
from domain.errors import Refusal
from domain.escrow import Status
from domain.ledger import Balance
from kit.clock import now
from tests.cable import Cable
from tests.desk import BUYER, SELLER, TASK_QUEUE, Desk, terms
from tests.polling import eventually
from tools.deployment import Build, make_current
from workflows.escrow import (
    ApproveMessage,
    CancelMessage,
    CommandMessage,
    EscrowCommand,
    FundMessage,
    OriginMessage,
    ReleaseMessage,
)
from workflows.escrow.watch import EscrowWatchWorkflow
from workflows.limits import STEP_LIMIT


@pytest.mark.timeout(240)
async def test_a_database_that_is_away_is_waited_for(
    desk: Desk, temporal: Client, tenants_engine: AsyncEngine, engine: AsyncEngine, database_url: str
) -> None:
    """The outage is longer than a round of attempts, a deadline falls into it, and a command was accepted before."""
    name = f"outage-{new_id()}"
    await desk.deposit(BUYER, 1_000_000)
    async with Cable(database_url) as cable:
        cut_off = create_engine(cable.url, Role.APP, pool_size=5)
        far = Desk(desk.tenant, temporal, tenants_engine, name)
        async with create_worker(temporal, name, "only", tenants=cut_off, engine=engine, deployment=name):
            await make_current(temporal, Build(name, "only"))
            expiring = await far.open(terms(funding_deadline=now() + timedelta(seconds=5)))
            escrow_id = await far.open(terms(1_000_000))
            cable.cut()
            funding = asyncio.create_task(send(far, escrow_id, FundMessage()))
            await asyncio.sleep(STEP_LIMIT.total_seconds() + 2)  # the outage is the test
            assert not funding.done()
            cable.mend()
            await asyncio.wait_for(funding, 40)
            assert (await far.row(escrow_id)).status is Status.FUNDED
            assert (await asyncio.wait_for(far.handle(expiring).result(), 60)).status is Status.EXPIRED
        await cut_off.dispose()


async def test_a_bug_fails_the_command_and_not_what_comes_after(desk: Desk, owner_engine: AsyncEngine) -> None:
    await desk.deposit(BUYER, 1_000_000)
    escrow_id = await desk.open(terms(1_000_000))
    command_id = new_id()
    broken = f"CHECK (tenant_id <> '{desk.tenant}' OR status <> 'funded')"
    async with transaction(owner_engine) as connection:
        await connection.execute(text(f"ALTER TABLE escrows ADD CONSTRAINT a_bug {broken} NOT VALID"))
    try:
        with pytest.raises(WorkflowUpdateFailedError):
            await desk.command(escrow_id, BUYER, FundMessage(), command_id)
        assert await desk.balance(BUYER) == Balance(1_000_000, 0)
    finally:
        async with transaction(owner_engine) as connection:
            await connection.execute(text("ALTER TABLE escrows DROP CONSTRAINT a_bug"))
    repeated = EscrowCommand(
        command_id=command_id, command=FundMessage(), origin=OriginMessage(user_id=BUYER), repeated=True
    )
    again = partial(desk.escrows.command, desk.tenant, escrow_id, repeated)
    assert (await again(attempt_id=new_id())).status is Status.FUNDED
    assert (await again(attempt_id=new_id())).version == 2, "it has one effect, however often it is repeated"


async def test_the_watch_brings_a_lost_workflow_back(desk: Desk, owner_engine: AsyncEngine, temporal: Client) -> None:
    escrow_id = await desk.open(terms(funding_deadline=now() + timedelta(hours=1)))
    await desk.handle(escrow_id).terminate("lost")
    async with transaction(owner_engine) as connection:
        await connection.execute(
            text("UPDATE escrows SET funding_deadline = now() - interval '1 hour' WHERE escrow_id = :id"),
            {"id": escrow_id},
        )
    found = await temporal.execute_workflow(EscrowWatchWorkflow.run, id=f"watch-{new_id()}", task_queue=TASK_QUEUE)
    assert found >= 1
    assert (await desk.handle(escrow_id).result()).status is Status.EXPIRED
    assert (await desk.row(escrow_id)).status is Status.EXPIRED


async def test_the_watch_tells_a_run_that_does_not_know_of_its_deadline(
    desk: Desk, owner_engine: AsyncEngine, temporal: Client
) -> None:
    escrow_id = await desk.open(terms(funding_deadline=now() + timedelta(hours=1)))
    async with transaction(owner_engine) as connection:
        await connection.execute(
            text("UPDATE escrows SET funding_deadline = now() - interval '1 hour' WHERE escrow_id = :id"),
            {"id": escrow_id},
        )
    await temporal.execute_workflow(EscrowWatchWorkflow.run, id=f"watch-{new_id()}", task_queue=TASK_QUEUE)
    async with asyncio.timeout(20):
        assert (await desk.handle(escrow_id).result()).status is Status.EXPIRED


async def test_the_watch_ends_a_run_that_does_not_know_of_its_end(
    desk: Desk, tenants_engine: AsyncEngine, engine: AsyncEngine, temporal: Client
) -> None:
    escrow_id = await desk.open(terms(1_000_000))
    await apply_behind(desk, tenants_engine, escrow_id, CancelMessage(), "unheard")

    async def told() -> bool:
        return bool(await desk.sql("SELECT 1 FROM outbox WHERE type = 'escrow.cancelled' AND position IS NOT NULL"))

    await eventually(told)
    watch = EscrowWatchActivities(engine, ended_after=timedelta(0))

    async def ended() -> bool:
        await ActivityEnvironment(client=temporal).run(watch.resume_overdue)
        return (await desk.handle(escrow_id).describe()).status is WorkflowExecutionStatus.COMPLETED

    await eventually(ended)


async def test_a_run_that_was_rebuilt_leaves_the_judgement_to_the_row(
    desk: Desk, temporal: Client, tenants_engine: AsyncEngine, engine: AsyncEngine
) -> None:
    """A worker dies between the commit of a step and the end of its task: the history knows nothing of the command."""
    name = f"rebuilt-{new_id()}"
    await desk.deposit(BUYER, 1_000_000)
    far = Desk(desk.tenant, temporal, tenants_engine, name)
    working = partial(create_worker, temporal, name, "only", tenants=tenants_engine, engine=engine, deployment=name)
    async with working():
        await make_current(temporal, Build(name, "only"))
        escrow_id = await far.open(terms(1_000_000))
        await far.command(escrow_id, BUYER, ApproveMessage())
    await apply_behind(desk, tenants_engine, escrow_id, FundMessage(), "unheard")
    async with working():
        assert (await far.command(escrow_id, BUYER, ReleaseMessage())).status is Status.COMPLETED
        assert (await far.handle(escrow_id).result()).status is Status.COMPLETED
    assert await desk.balance(SELLER) == Balance(1_000_000, 0)


async def test_a_stale_copy_is_noticed_and_replaced(desk: Desk, tenants_engine: AsyncEngine) -> None:
    """The row moves behind the workflow's back, as after a commit whose answer was lost."""
    await desk.deposit(BUYER, 1_000_000)
    escrow_id = await desk.open(terms(1_000_000))
    await apply_behind(desk, tenants_engine, escrow_id, FundMessage(), "behind")
    with pytest.raises(Refusal) as refused:
        await desk.command(escrow_id, BUYER, FundMessage())
    assert refused.value.code == "milestone_already_funded"

    async def reloaded() -> bool:
        waiting = await desk.escrows.waiting(escrow_id)
        return waiting is not None and waiting.status is Status.FUNDED

    await eventually(reloaded)
    await desk.command(escrow_id, BUYER, ApproveMessage())
    assert (await desk.command(escrow_id, BUYER, ReleaseMessage())).status is Status.COMPLETED
    assert await desk.balance(SELLER) == Balance(1_000_000, 0)


async def test_a_storm_of_refused_commands_is_carried_into_new_runs(desk: Desk) -> None:
    """More commands than a run takes, each accepted and then refused for want of money."""
    escrow_id = await desk.open(terms(1_000_000))
    first = (await desk.handle(escrow_id).describe()).run_id
    answers: Counter[str] = Counter()

    async def storm(count: int) -> None:
        for _ in range(count):
            try:
                await desk.command(escrow_id, BUYER, FundMessage())
            except Refusal as refusal:
                answers[refusal.code] += 1

    await asyncio.gather(*(storm(130) for _ in range(8)))
    assert answers == {"insufficient_funds": 1_040}
    found = await desk.handle(escrow_id).describe()
    assert found.run_id != first
    assert found.status is WorkflowExecutionStatus.RUNNING
    assert (await desk.command(escrow_id, BUYER, CancelMessage())).status is Status.CANCELLED


async def send(desk: Desk, escrow_id: object, command: FundMessage) -> None:
    """A command whose caller waits through an outage, repeating it as the API's callers are told to."""
    command_id = new_id()
    while True:
        try:
            await desk.command(escrow_id, BUYER, command, command_id)  # type: ignore[arg-type]
        except Exception as error:
            if type(error).__name__ != "Unavailable":
                raise
        else:
            return


async def apply_behind(desk: Desk, engine: AsyncEngine, escrow_id: UUID, command: CommandMessage, step: str) -> None:
    """Carry a command of the buyer out in the database, unknown to the escrow's workflow."""
    asked = ApplyCommand(
        tenant_id=desk.tenant,
        escrow_id=escrow_id,
        step=step,
        command=command,
        origin=OriginMessage(user_id=BUYER),
        at=now(),
    )
    await ActivityEnvironment().run(EscrowActivities(engine, Doorbell(engine)).apply, asked)
