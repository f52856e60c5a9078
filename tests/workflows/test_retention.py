"""What is kept for a time only goes, by a workflow that a schedule starts."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client
from temporalio.worker import Worker

from db.engine import tenant_transaction, transaction
from db.ids import new_id
from tests.desk import TASK_QUEUE, Desk
from tests.polling import eventually
from tools.local.registration import reconcile_schedules
from workflows.retention import RetentionWorkflow
from workflows.schedules import schedules


async def keep(desk: Desk, key: str) -> None:
    async with tenant_transaction(desk.engine, desk.tenant) as connection:
        await connection.execute(
            text(
                "INSERT INTO idempotency_keys (tenant_id, caller, key, fingerprint, operation_id, locked_until)"
                " VALUES (:tenant, '', :key, '\\x00', :id, now())"
            ),
            {"tenant": desk.tenant, "key": key, "id": new_id()},
        )


async def test_old_keys_are_deleted_and_young_ones_stay(
    desk: Desk, temporal: Client, owner_engine: AsyncEngine
) -> None:
    await keep(desk, "old")
    await keep(desk, "young")
    async with transaction(owner_engine) as connection:
        await connection.execute(
            text("UPDATE idempotency_keys SET recorded_at = now() - interval '8 days' WHERE key = 'old'")
        )
    deleted = await temporal.execute_workflow(RetentionWorkflow.run, id=f"retention-{new_id()}", task_queue=TASK_QUEUE)
    assert deleted >= 1, "other tests of this run may have left old ones, too"
    assert [row.key for row in await desk.sql("SELECT key FROM idempotency_keys")] == ["young"]


async def test_the_schedule_starts_it(temporal: Client, worker: Worker) -> None:
    declared = schedules(TASK_QUEUE)
    assert set((await reconcile_schedules(temporal, declared)).created) == set(declared)
    handle = temporal.get_schedule_handle("holdfast:retention")
    await handle.trigger()

    async def ran() -> bool:
        return bool((await handle.describe()).info.recent_actions)

    await eventually(ran)
    await reconcile_schedules(temporal, {})
