"""Stories of settlement commands; see ``record``."""

from __future__ import annotations

from typing import Any

from temporalio.client import WorkflowExecutionStatus, WorkflowHandle

from tests.commands import command, finished, take, wake
from tests.desk import SELLER, Desk, terms
from tests.polling import eventually


async def settlement(desk: Desk) -> list[WorkflowHandle[Any, Any]]:
    """Both lanes: a refusal, an escrow that is funded, and money that comes before its turn in the other lane."""
    escrow_id = await desk.open(terms(1_000_000))
    commands = [
        command("deposit", 1_500_000),
        command("escrow_fund", 1_000_000, escrow_id=escrow_id),
        command("withdrawal", 600_000),
        command("escrow_refund", 1_000_000, SELLER, escrow_id=escrow_id),
    ]
    await take(desk.engine, desk.tenant, commands)
    run = await wake(desk.client, desk.tenant)
    await finished(desk.engine, desk.tenant, commands)
    await run.result()
    return [run]


async def settlement_moved(desk: Desk) -> list[WorkflowHandle[Any, Any]]:
    """A run that is asked to move while it waits for more hands over to a new one."""
    commands = [command("deposit", 1), command("deposit", 2)]
    await take(desk.engine, desk.tenant, commands[:1])
    run = await wake(desk.client, desk.tenant)
    await finished(desk.engine, desk.tenant, commands[:1])
    found = await run.describe()
    first: WorkflowHandle[Any, Any] = desk.client.get_workflow_handle(found.id, run_id=found.run_id)
    await run.signal("move")

    async def moved() -> bool:
        return (await first.describe()).status is WorkflowExecutionStatus.CONTINUED_AS_NEW

    await eventually(moved)
    await take(desk.engine, desk.tenant, commands[1:])
    await finished(desk.engine, desk.tenant, commands[1:])
    last: WorkflowHandle[Any, Any] = desk.client.get_workflow_handle(found.id)
    await last.result()
    return [first, last]


SETTLEMENT = (settlement, settlement_moved)
