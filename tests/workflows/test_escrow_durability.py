"""One command, one effect; and an escrow that outlives its workflow's runs."""

from __future__ import annotations

import asyncio

import pytest
from temporalio.client import WorkflowExecutionStatus

from db.ids import new_id
from domain.errors import Refusal
from domain.escrow import Status
from domain.ledger import Balance
from tests.desk import BUYER, SELLER, Desk, terms
from tests.polling import eventually
from workflows.escrow import ApproveMessage, CancelMessage, DisputeMessage, FundMessage, ReleaseMessage


async def test_one_command_id_has_one_effect_however_often_it_is_sent(desk: Desk) -> None:
    await desk.deposit(BUYER, 3_000_000)
    escrow_id = await desk.open(terms(1_000_000))
    await desk.command(escrow_id, BUYER, FundMessage())
    await desk.command(escrow_id, BUYER, ApproveMessage())
    command_id = new_id()
    part = ReleaseMessage(amount_minor=400_000)
    answers = await asyncio.gather(*(desk.command(escrow_id, BUYER, part, command_id) for _ in range(8)))
    assert len({answer.version for answer in answers}) == 1
    assert await desk.balance(SELLER) == Balance(400_000, 0)


async def test_of_racing_releases_exactly_one_wins(desk: Desk) -> None:
    await desk.deposit(BUYER, 1_000_000)
    escrow_id = await desk.open(terms(1_000_000))
    await desk.command(escrow_id, BUYER, FundMessage())
    await desk.command(escrow_id, BUYER, ApproveMessage())
    raced = await asyncio.gather(
        *(desk.command(escrow_id, BUYER, ReleaseMessage()) for _ in range(8)), return_exceptions=True
    )
    refused = [error for error in raced if isinstance(error, Refusal)]
    assert len(refused) == 7
    assert {refusal.code for refusal in refused} == {"escrow_closed"}
    assert await desk.balance(SELLER) == Balance(1_000_000, 0)


async def test_opening_twice_with_one_id_is_one_escrow(desk: Desk) -> None:
    escrow_id = new_id()
    opened = await asyncio.gather(*(desk.open(terms(), escrow_id) for _ in range(6)))
    assert set(opened) == {escrow_id}
    assert len(await desk.sql("SELECT 1 FROM escrows")) == 1
    assert len(await desk.sql("SELECT 1 FROM outbox")) == 1


async def test_a_closed_escrow_refuses_by_its_row_after_its_workflow_ended(desk: Desk) -> None:
    escrow_id = await desk.open(terms())
    await desk.command(escrow_id, SELLER, CancelMessage())
    await desk.handle(escrow_id).result()
    with pytest.raises(Refusal) as refused:
        await desk.command(escrow_id, BUYER, FundMessage())
    assert refused.value.code == "escrow_closed"
    assert (await desk.handle(escrow_id).result()).status is Status.CANCELLED, "the new run ended at once"


async def test_an_escrow_whose_workflow_is_lost_goes_on_from_its_row(desk: Desk) -> None:
    await desk.deposit(BUYER, 1_000_000)
    escrow_id = await desk.open(terms(1_000_000))
    await desk.command(escrow_id, BUYER, FundMessage())
    await desk.handle(escrow_id).terminate("a test of what happens when a workflow is lost")
    await desk.command(escrow_id, BUYER, ApproveMessage())
    assert (await desk.command(escrow_id, BUYER, ReleaseMessage())).status is Status.COMPLETED
    assert await desk.balance(SELLER) == Balance(1_000_000, 0)


async def test_a_command_that_took_effect_is_not_repeated_by_a_new_run(desk: Desk) -> None:
    await desk.deposit(BUYER, 2_000_000)
    escrow_id = await desk.open(terms(1_000_000, 1_000_000))
    await desk.command(escrow_id, BUYER, FundMessage())
    await desk.command(escrow_id, BUYER, ApproveMessage())
    command_id = new_id()
    part = ReleaseMessage(positions=(1,), amount_minor=100_000)
    await desk.command(escrow_id, BUYER, part, command_id)
    await desk.handle(escrow_id).terminate("its update ids are forgotten with it")
    await desk.command(escrow_id, BUYER, part, command_id)
    assert await desk.balance(SELLER) == Balance(100_000, 0)


async def test_continuing_as_new_keeps_everything(desk: Desk) -> None:
    await desk.deposit(BUYER, 1_000_000)
    escrow_id = await desk.open(terms(1_000_000, inspection_period_seconds=86_400))
    await desk.command(escrow_id, BUYER, FundMessage())
    before = await desk.handle(escrow_id).describe()
    await desk.handle(escrow_id).signal("move")

    async def moved() -> bool:
        found = await desk.handle(escrow_id).describe()
        return found.run_id != before.run_id and found.status is WorkflowExecutionStatus.RUNNING

    await eventually(moved)
    await desk.command(escrow_id, BUYER, DisputeMessage(reason="not as agreed"))
    waiting = await desk.escrows.waiting(escrow_id)
    assert waiting is not None
    assert waiting.status is Status.DISPUTED
    assert len(await desk.sql("SELECT 1 FROM audit_log WHERE subject = :s", s=f"escrow:{escrow_id}")) == 3
