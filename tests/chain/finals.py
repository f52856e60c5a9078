"""What a relayer says when a contract's events become final, and waiting until they are settled."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from db import outbox
from db.engine import tenant_transaction
from db.ids import new_id
from domain.ids import relayer_workflow_id
from kit.clock import now
from tests.chain.contract import Contract
from tests.polling import eventually


async def finalized(engine: AsyncEngine, contract: Contract) -> None:
    """Write what the contract told since, and say that it is final, as a relayer does."""
    await contract.write(engine)
    data = {"relayer_id": contract.relayer_id, "block_number": len(contract.blocks), "last_sequence": 0}
    subject = relayer_workflow_id(contract.relayer_id)
    event = outbox.OutboxEvent(new_id(), outbox.SETTLEMENT_TOPIC, "chain.finalized", subject, now(), data)
    async with tenant_transaction(engine, contract.tenant) as connection:
        await outbox.append(connection, contract.tenant, [event])


async def settled(engine: AsyncEngine, contract: Contract) -> None:
    async def all_of_it() -> bool:
        async with tenant_transaction(engine, contract.tenant) as connection:
            found = await connection.scalar(
                text("SELECT settled_sequence FROM chain_cursors WHERE source_id = :source"),
                {"source": contract.source.source_id},
            )
        return bool(found == contract.events[-1].sequence)

    await eventually(all_of_it)
