"""Settlement commands on the real server, from the commit that takes them to their outcomes."""

from __future__ import annotations

import asyncio
from collections import Counter

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client, WorkflowExecutionStatus

from db.engine import transaction
from domain.ids import settlement_workflow_id
from domain.ledger import Balance
from domain.settlement import CommandStatus
from tests.commands import command, finished, take, wake
from tests.desk import BUYER, SELLER, Desk, terms
from tests.polling import eventually
from workflows.escrow import ApproveMessage, PartyMessage
from workflows.search import STATUS, TENANT
from workflows.settlement.workflow import LEDGER_BATCH


async def test_commands_run_by_themselves(desk: Desk) -> None:
    """The relay hears of them; nobody else starts anything. Both lanes, and each other's turns."""
    escrow_id = await desk.open(terms(600_000, 400_000))
    first = [
        command("deposit", 1_500_000),
        command("escrow_fund", 1_000_000, escrow_id=escrow_id),
        command("withdrawal", 600_000),
        command("withdrawal", 500_000),
        command("transfer", 1, SELLER, counterparty_ref=BUYER),
    ]
    await take(desk.engine, desk.tenant, first)
    found = await finished(desk.engine, desk.tenant, first)
    assert [one.status for one in found] == ["SETTLED", "SETTLED", "REJECTED", "SETTLED", "REJECTED"]
    await desk.command(escrow_id, BUYER, ApproveMessage())
    second = [
        command("escrow_refund", 100_000, SELLER, escrow_id=escrow_id, milestones=(2,)),
        command("escrow_release", 900_000, escrow_id=escrow_id),
        command("escrow_release", 1, escrow_id=escrow_id),
    ]
    await take(desk.engine, desk.tenant, second)
    found = await finished(desk.engine, desk.tenant, second)
    assert [one.status for one in found] == ["SETTLED", "SETTLED", "REJECTED"]
    refusal = found[2].outcome
    assert refusal is not None
    assert refusal.code == "escrow_closed"
    assert (await desk.row(escrow_id)).status == "completed"
    assert (await desk.balance(BUYER), await desk.balance(SELLER)) == (Balance(100_000), Balance(900_000))


async def test_operators_see_what_it_does_and_it_ends(desk: Desk) -> None:
    commands = [command("deposit", 5), command("withdrawal", 6)]
    await take(desk.engine, desk.tenant, commands)
    run = await wake(desk.client, desk.tenant)
    await finished(desk.engine, desk.tenant, commands)

    async def waits() -> bool:
        found = (await run.describe()).typed_search_attributes
        return found.get(STATUS) == "waiting" and found.get(TENANT) == str(desk.tenant)

    await eventually(waits)
    done = await run.result()
    assert (done.settled, done.rejected, done.failed) == (1, 1, 0)


async def test_a_faulty_command_holds_up_nobody(desk: Desk, owner_engine: AsyncEngine) -> None:
    commands = [command("deposit", 1, f"user-{number}") for number in range(60)]
    bad = commands[37]
    condition = f"CHECK (command_id <> '{bad.command_id}' OR status <> 'SETTLED')"
    async with transaction(owner_engine) as connection:
        await connection.execute(text(f"ALTER TABLE settlement_commands ADD CONSTRAINT faulty {condition} NOT VALID"))
    try:
        await take(desk.engine, desk.tenant, commands)
        found = await finished(desk.engine, desk.tenant, commands, limit_seconds=60)
    finally:
        async with transaction(owner_engine) as connection:
            await connection.execute(text("ALTER TABLE settlement_commands DROP CONSTRAINT faulty"))
    failed = [one.command for one in found if one.status is CommandStatus.FAILED]
    assert failed == [bad]
    assert Counter(one.status for one in found) == {"SETTLED": 59, "FAILED": 1}


async def test_thousands_on_the_ledger_and_some_escrows_beside_them(desk: Desk) -> None:
    escrows = await asyncio.gather(
        *(desk.open(terms(100, buyer=PartyMessage(user_id=f"buyer-{number}"))) for number in range(20))
    )
    many = [command("deposit", 1, f"user-{number % 50}") for number in range(3 * LEDGER_BATCH)]
    few = [
        made
        for number, escrow_id in enumerate(escrows)
        for made in (
            command("deposit", 100, f"buyer-{number}"),
            command("escrow_fund", 100, f"buyer-{number}", escrow_id=escrow_id),
        )
    ]
    await take(desk.engine, desk.tenant, [*few[:20], *many, *few[20:]])
    await finished(desk.engine, desk.tenant, [few[-1], few[0], many[-1]], limit_seconds=90)

    async def all_settled() -> bool:
        rows = await desk.sql("SELECT status, count(*) AS n FROM settlement_commands GROUP BY status")
        return {row.status: row.n for row in rows} == {"SETTLED": len(many) + len(few)}

    await eventually(all_settled, limit_seconds=60)
    assert (await desk.balance("user-7")) == Balance(60)
    outcomes = await desk.sql(
        "SELECT count(*) AS n, count(DISTINCT subject) AS m FROM outbox WHERE type = 'command.settled'"
    )
    assert (outcomes[0].n, outcomes[0].m) == (len(many) + len(few),) * 2


async def test_commands_that_come_while_it_moves_to_a_new_run_are_worked_off(desk: Desk, temporal: Client) -> None:
    first, second = command("deposit", 1), command("deposit", 2)
    await take(desk.engine, desk.tenant, [first])
    run = await wake(temporal, desk.tenant)
    await finished(desk.engine, desk.tenant, [first])
    before = await run.describe()
    await run.signal("move")
    await take(desk.engine, desk.tenant, [second])
    await finished(desk.engine, desk.tenant, [second])
    moved = temporal.get_workflow_handle(settlement_workflow_id(desk.tenant), run_id=before.run_id)

    async def has_moved() -> bool:
        return (await moved.describe()).status is WorkflowExecutionStatus.CONTINUED_AS_NEW

    await eventually(has_moved)
