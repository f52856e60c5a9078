"""Reconciliation as a workflow: what an operator sees, a worker that dies, a run that cannot go on, all tenants."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError
from temporalio.worker import Worker

from crew import create_worker
from db import ledger
from db.engine import tenant_transaction, transaction
from db.ids import new_id
from domain.errors import Unavailable
from domain.ids import reconciliation_workflow_id
from domain.ledger import transfer
from kit.clock import now
from kit.temporal import DEPLOYMENT_NAME
from tests.activities.reconciling import tamper
from tests.desk import BUYER, TASK_QUEUE, Desk
from tests.polling import eventually
from tools.deployment import Build, make_current
from workflows.client import ReconciliationClient
from workflows.reconciliation import (
    ReconcileTenant,
    ReconciliationOutcome,
    ReconciliationSweepWorkflow,
    Sweep,
)

BATCH = 1_000
DETACH = "UPDATE accounts SET available_minor = available_minor + 1 WHERE tenant_id = :tenant AND ref = 'alice'"


async def test_an_operator_sees_what_was_compared(desk: Desk, owner_engine: AsyncEngine) -> None:
    await desk.deposit(BUYER, 5)
    await tamper(owner_engine, DETACH, tenant=desk.tenant)
    request = ReconcileTenant(tenant_id=desk.tenant, run_id=new_id())
    client = ReconciliationClient(desk.client, TASK_QUEUE)
    await client.start(request, summary="a test")
    assert len(await desk.sql("SELECT 1 FROM reconciliation_runs")) == 1, "it is recorded when start() returns"
    handle = desk.client.get_workflow_handle(
        reconciliation_workflow_id(desk.tenant, request.run_id), result_type=ReconciliationOutcome
    )
    outcome = await handle.result()
    assert (outcome.checked, outcome.unexplained, outcome.share_explained) == (4, 2, "0.500000")
    summaries = [
        event.user_metadata.summary.data.decode().strip('"')
        async for event in handle.fetch_history_events()
        if event.HasField("activity_task_scheduled_event_attributes")
    ]
    assert summaries[:2] == ["record that the run began", "compare ledger"]
    assert summaries[-2:] == ["record what was found", "delete the sums of the run before"]


async def fill(desk: Desk, count: int) -> None:
    """A ledger of ``count`` transactions among few accounts."""
    for number in range(8):
        await desk.deposit(f"user-{number}", count)
    for _ in range(0, count, BATCH):
        postings = [
            transfer(f"user-{n % 8}", f"user-{(n + 1) % 8}", "USDC", 1, transaction_id=new_id(), effective_at=now())
            for n in range(BATCH)
        ]
        async with tenant_transaction(desk.engine, desk.tenant) as connection:
            await ledger.post(connection, desk.tenant, postings)


async def test_a_worker_that_dies_leaves_its_place_to_the_next(
    temporal: Client, worker: Worker, desk: Desk, engine: AsyncEngine, owner_engine: AsyncEngine
) -> None:
    """It dies in the middle of the ledger; what it added up is neither lost nor added again."""
    await fill(desk, 40_000)
    queue, deployment = f"{TASK_QUEUE}-{new_id()}", f"{DEPLOYMENT_NAME}-{new_id()}"

    def another() -> Worker:
        return create_worker(temporal, queue, "1", tenants=desk.engine, engine=engine, deployment=deployment)

    first = asyncio.create_task(another().run())
    await make_current(temporal, Build(deployment, "1"))
    request = ReconcileTenant(tenant_id=desk.tenant, run_id=new_id())
    await ReconciliationClient(temporal, queue).start(request, summary="a test")

    async with transaction(owner_engine) as connection:
        # Between two of its pages, somebody else takes the book from it; then it goes.
        book = text("SELECT 1 FROM reconciliation_bases WHERE tenant_id = :tenant AND through_sequence > 0 FOR UPDATE")

        async def adding() -> bool:
            return bool((await connection.execute(book, {"tenant": desk.tenant})).all())

        await eventually(adding)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        [(added,)] = await desk.sql(
            "SELECT count(*) FROM ledger_transactions"
            " WHERE sequence <= (SELECT max(through_sequence) FROM reconciliation_bases)"
        )
    assert 0 < added < 40_000, "it was meant to die in the middle"
    async with another():
        workflow_id = reconciliation_workflow_id(desk.tenant, request.run_id)
        handle = temporal.get_workflow_handle(workflow_id, result_type=ReconciliationOutcome)
        outcome = await handle.result()
    assert (outcome.unexplained, outcome.checked) == (0, 40_008 + 9 + 1)


async def test_a_run_that_cannot_go_on_says_why(desk: Desk, owner_engine: AsyncEngine) -> None:
    await desk.deposit(BUYER, 5)
    request = ReconcileTenant(tenant_id=desk.tenant, run_id=new_id())
    async with transaction(owner_engine) as connection:
        # Somebody who writes, and stays: the run waits until nothing older can still appear.
        await connection.execute(text("SELECT pg_current_xact_id()"))
        await ReconciliationClient(desk.client, TASK_QUEUE).start(request, summary="a test")
        await tamper(owner_engine, "DELETE FROM reconciliation_bases WHERE tenant_id = :tenant", tenant=desk.tenant)
    handle = desk.client.get_workflow_handle(reconciliation_workflow_id(desk.tenant, request.run_id))
    with pytest.raises(WorkflowFailureError):
        await handle.result()
    [run] = await desk.sql("SELECT * FROM reconciliation_runs")
    assert (run.status, run.checked) == ("failed", 0)
    assert "BaseMissing" in run.failure
    assert await desk.sql("SELECT 1 FROM outbox WHERE type = 'ledger.reconciled'") == []


async def test_the_same_run_is_begun_once(desk: Desk) -> None:
    await desk.deposit(BUYER, 5)
    client = ReconciliationClient(desk.client, TASK_QUEUE)
    request = ReconcileTenant(tenant_id=desk.tenant, run_id=new_id())
    await asyncio.gather(*(client.start(request, summary="a test") for _ in range(5)), return_exceptions=True)
    handle = desk.client.get_workflow_handle(reconciliation_workflow_id(desk.tenant, request.run_id))
    await handle.result()
    with suppress(Unavailable):
        await client.start(request, summary="again, when it is over")
    assert len(await desk.sql("SELECT 1 FROM reconciliation_runs")) == 1
    [(runs, audits)] = await desk.sql(
        "SELECT (SELECT count(*) FROM outbox WHERE type = 'ledger.reconciled'),"
        " (SELECT count(*) FROM audit_log WHERE action = 'ledger.reconciliation_started')"
    )
    assert (runs, audits) == (1, 1)


async def test_a_sweep_reconciles_every_tenant_that_has_books(desk: Desk) -> None:
    await desk.deposit(BUYER, 5)
    handle = await desk.client.start_workflow(
        ReconciliationSweepWorkflow.run,
        Sweep(after=UUID(int=desk.tenant.int - 1)),
        id=f"sweep-{new_id()}",
        task_queue=TASK_QUEUE,
    )
    swept = await handle.result()
    assert (swept.tenants, swept.failed) == (1, 0)
    [run] = await desk.sql("SELECT * FROM reconciliation_runs")
    assert (run.status, run.is_full) == ("finished", True), "without a book, the first run reads everything"
    child = desk.client.get_workflow_handle(reconciliation_workflow_id(desk.tenant, run.run_id))

    async def completed() -> bool:
        return (await child.describe()).status is WorkflowExecutionStatus.COMPLETED

    await eventually(completed)
