"""Stories of settling from chains; see ``record``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle

from activities.chain.escrows import escrow_id_of
from activities.chain.messages import BooksSweep
from db.chain.rows import instant_of
from db.engine import Role, create_engine
from db.ids import new_id
from domain.ids import chain_settlement_workflow_id
from tests.chain.books import ModelChain
from tests.chain.contract import Contract
from tests.chain.finals import finalized, settled
from tests.chain.model import CHAINS
from tests.desk import TASK_QUEUE, Desk
from tests.polling import eventually
from workflows.chain.reconciliation import ChainReconciliationWorkflow
from workflows.chain.settlement import ChainSettlementWatchWorkflow

Run = WorkflowHandle[Any, Any]


@asynccontextmanager
async def all_tenants(desk: Desk) -> AsyncIterator[AsyncEngine]:
    """Connections of the role that writes what chains tell."""
    engine = create_engine(desk.engine.url.render_as_string(hide_password=False), Role.ENGINE, pool_size=2)
    try:
        yield engine
    finally:
        await engine.dispose()


async def chain_settlement(desk: Desk) -> list[Run]:
    """An escrow whose money a contract keeps, from its creation to its end; its settlement is moved to a new run."""
    contract = Contract(desk.tenant)
    created_at = instant_of(contract.at + 1)
    async with all_tenants(desk) as engine:
        await contract.register(engine)
        onchain_id = contract.funded(contract.terms(inspection_seconds=60))
        await finalized(engine, contract)
        await settled(engine, contract)
        contract.done(onchain_id, "approve", by=contract.buyer)
        contract.done(onchain_id, "pass_deadline", by=contract.stranger, seconds=60)
        contract.withdraw(contract.terms().token, contract.seller)
        await finalized(engine, contract)
        await settled(engine, contract)
    escrow = desk.handle(escrow_id_of(contract.relayer_id, f"0x{onchain_id.hex()}", created_at))
    await escrow.result()
    run: Run = desk.client.get_workflow_handle(chain_settlement_workflow_id(contract.relayer_id))
    first: Run = desk.client.get_workflow_handle(run.id, run_id=(await run.describe()).run_id)
    await run.signal("move")

    async def moved() -> bool:
        return (await first.describe()).status is WorkflowExecutionStatus.CONTINUED_AS_NEW

    await eventually(moved)
    await run.terminate("the story is over")
    return [first, escrow]


async def chain_settlement_watch(desk: Desk) -> list[Run]:
    run = await desk.client.start_workflow(
        ChainSettlementWatchWorkflow.run, id=f"chain-settlement-watch:{new_id()}", task_queue=TASK_QUEUE
    )
    await run.result()
    return [run]


async def chain_reconciliation(desk: Desk) -> list[Run]:
    """One contract is read and compared, and in the run after it there are no more."""
    contract = Contract(desk.tenant)
    async with all_tenants(desk) as engine:
        await contract.register(engine)
        contract.funded()
        await finalized(engine, contract)
        await settled(engine, contract)
    CHAINS["local"] = ModelChain(contract)
    run = await desk.client.start_workflow(
        ChainReconciliationWorkflow.run,
        BooksSweep(after=contract.source.source_id - 1),
        id=f"chain-reconciliation:{new_id()}",
        task_queue=TASK_QUEUE,
    )
    first: Run = desk.client.get_workflow_handle(run.id, run_id=run.first_execution_run_id)
    outcome = await run.result()
    del CHAINS["local"]
    assert (outcome.tokens, outcome.differing, outcome.unread) == (1, 0, 0)
    last: Run = desk.client.get_workflow_handle(run.id)
    return [first, last]


CHAIN_STORIES = (chain_settlement, chain_settlement_watch, chain_reconciliation)
