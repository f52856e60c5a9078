"""Final events of a contract on the real server: from the event that says so to running escrows."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client, WorkflowExecutionStatus

from activities.chain.escrows import escrow_id_of
from db.chain.rows import instant_of
from domain.ids import chain_settlement_workflow_id
from domain.ledger import Balance
from tests.chain.contract import Contract
from tests.chain.finals import finalized, settled
from tests.desk import Desk
from tests.polling import eventually
from workflows.search import REFERENCE, STATUS


async def test_an_escrow_on_chain_runs_here(desk: Desk, engine: AsyncEngine, temporal: Client) -> None:
    contract = Contract(desk.tenant)
    await contract.register(engine)
    created_at = instant_of(contract.at + 1)
    onchain_id = contract.funded(contract.terms(inspection_seconds=60))
    contract.done(onchain_id, "approve", by=contract.buyer)
    await finalized(engine, contract)
    await settled(engine, contract)

    escrow_id = escrow_id_of(contract.relayer_id, f"0x{onchain_id.hex()}", created_at)
    run = desk.handle(escrow_id)
    described = await run.describe()
    assert described.status is WorkflowExecutionStatus.RUNNING
    assert described.typed_search_attributes.get(STATUS) == "approved"
    assert described.typed_search_attributes.get(REFERENCE) == f"0x{onchain_id.hex()}"
    # Its inspection ended long ago, and the desk's clock leaves it alone: on the chain nobody has passed it yet.
    assert (await desk.row(escrow_id)).status == "approved"

    contract.done(onchain_id, "pass_deadline", by=contract.stranger, seconds=60)
    await finalized(engine, contract)
    outcome = await run.result()
    assert outcome.status == "completed"
    await settled(engine, contract)
    contract.withdraw(contract.terms().token, contract.seller)
    await finalized(engine, contract)
    await settled(engine, contract)
    assert await desk.balance(contract.seller) == Balance()

    async def waits() -> bool:
        found = (await settlement.describe()).typed_search_attributes
        return (found.get(STATUS), found.get(REFERENCE)) == ("waiting", contract.relayer_id)

    settlement = temporal.get_workflow_handle(chain_settlement_workflow_id(contract.relayer_id))
    await eventually(waits)
