"""Settlement commands as tests use them: taken as the API takes them, worked off, and read back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client, WorkflowHandle
from temporalio.common import WorkflowIDConflictPolicy

from db import settlement
from db.audit import Origin
from db.engine import tenant_transaction
from db.ids import new_id
from db.settlement import Asked, RecordedCommand, Taken
from domain.ids import settlement_workflow_id
from domain.money import format_minor
from domain.settlement import FINISHED, Command, CommandKind
from kit.clock import now
from tests.desk import BUYER, SELLER, TASK_QUEUE
from tests.polling import eventually
from workflows.limits import TASK_TIMEOUT
from workflows.settlement import BatchOutcome, SettlementRun, SettlementWorkflow


def command(kind: CommandKind | str, amount_minor: int = 1_000_000, account: str = BUYER, **changes: Any) -> Command:
    """A command in USDC under a fresh id; a transfer goes to bob. ``changes`` replace fields."""
    fields: dict[str, Any] = {
        "command_id": f"cmd-{new_id()}",
        "kind": CommandKind(kind),
        "account_ref": account,
        "asset_symbol": "USDC",
        "amount_minor": amount_minor,
    }
    if kind == CommandKind.TRANSFER:
        fields["counterparty_ref"] = SELLER
    return Command(**(fields | changes))


async def take(engine: AsyncEngine, tenant: UUID, commands: Iterable[Command]) -> dict[str, Taken]:
    """Take commands in one commit."""
    asked = [Asked(one, format_minor(one.amount_minor, 6)) for one in commands]
    async with tenant_transaction(engine, tenant) as connection:
        return dict(await settlement.take(connection, tenant, asked, Origin(request_id="test"), now()))


async def read(engine: AsyncEngine, tenant: UUID, one: Command | str) -> RecordedCommand:
    """A command as it stands."""
    async with tenant_transaction(engine, tenant) as connection:
        found = await settlement.find(connection, one if isinstance(one, str) else one.command_id)
    assert found is not None
    return found


async def wake(
    client: Client, tenant: UUID, task_queue: str = TASK_QUEUE
) -> WorkflowHandle[SettlementWorkflow, BatchOutcome]:
    """Start or wake the tenant's workflow, as the relay does."""
    return await client.start_workflow(
        SettlementWorkflow.run,
        SettlementRun(tenant_id=tenant),
        id=settlement_workflow_id(tenant),
        task_queue=task_queue,
        task_timeout=TASK_TIMEOUT,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        start_signal="work",
        static_summary="a test's commands",
    )


async def finished(
    engine: AsyncEngine, tenant: UUID, commands: Iterable[Command], *, limit_seconds: float = 30.0
) -> list[RecordedCommand]:
    """Where commands ended, in the order given, once all have."""
    wanted = list(commands)

    async def all_finished() -> bool:
        return all([(await read(engine, tenant, one)).status in FINISHED for one in wanted])

    await eventually(all_finished, limit_seconds=limit_seconds)
    return [await read(engine, tenant, one) for one in wanted]
