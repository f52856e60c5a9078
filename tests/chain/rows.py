"""A tenant's rows of chains: a followed contract with a job, and what was fetched of it."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.chain.ports import Lane
from db.chain import cursors, sources, writing
from db.chain.rows import instant_of
from db.engine import tenant_transaction, transaction
from db.ids import new_id
from domain.chain.lineage import Ancestor, Reorg
from tests.chain.model import BEGAN, ModelChain, ModelDesk
from tests.chain.watching import register


async def follow(engine: AsyncEngine, tenant: UUID) -> None:
    """What the API writes; ``engine`` acts under row-level security."""
    source = await register(engine, tenant, "populated", address=tenant.bytes + bytes(4))
    async with tenant_transaction(engine, tenant) as connection:
        await connection.execute(
            text(
                "INSERT INTO backfill_jobs (tenant_id, job_id, source_id, name, from_block, to_block, chunk_blocks,"
                " status, total_blocks, updated_at) VALUES (:tenant, :job, :source, :name, 0, 9, 5, 'pending', 10, :at)"
            ),
            {
                "tenant": tenant,
                "job": new_id(),
                "source": source.source_id,
                "name": source.relayer_id,
                "at": instant_of(BEGAN),
            },
        )
        for statement in (
            "INSERT INTO chain_credits (tenant_id, hold_id, relayer_id, token, account)"
            " VALUES (:tenant, :tenant, 'populated', '0x00', '0x01')",
            "INSERT INTO chain_books (source_id, tenant_id, token, block_number, sequence, balance, held, owed,"
            " ledger_held, ledger_owed, parts) VALUES (:source, :tenant, '\\x00', 1, 0, 0, 0, 0, 0, 0, '[]')",
        ):
            await connection.execute(text(statement), {"source": source.source_id, "tenant": tenant})


async def fetch(engine: AsyncEngine, tenant: UUID) -> None:
    """What following leaves; ``engine`` sees every tenant."""
    chain = ModelChain()
    chain.mine("a")
    async with transaction(engine) as connection:
        followed = await sources.find(connection, f"populated:0x{(tenant.bytes + bytes(4)).hex()}")
        assert followed is not None
        source = followed.source
        await cursors.lock(connection, source.source_id)
        fetched = await ModelDesk(chain).fetch(source, 0, 1, Lane.JOB, after=None, after_sequence=None)
        await writing.append(connection, source, fetched)
        hash_ = chain.head.hash
        reorg = Reorg(Ancestor(0, hash_), 1, hash_, hash_, below_finalized=False, providers=("model",))
        await writing.record_reorg(connection, source, reorg, events_reverted=0, at=instant_of(BEGAN))
        for statement in (
            "INSERT INTO chain_escrows (source_id, tenant_id, onchain_id, escrow_id, status)"
            " SELECT :source, tenant_id, '\\x01', escrow_id, 'followed' FROM escrows WHERE tenant_id = :tenant LIMIT 1",
            "INSERT INTO backfill_chunks (tenant_id, job_id, chunk_no, first_block, last_block, done_to)"
            " SELECT tenant_id, job_id, 0, 0, 4, -1 FROM backfill_jobs"
            " WHERE tenant_id = :tenant AND source_id = :source",
        ):
            await connection.execute(text(statement), {"source": source.source_id, "tenant": tenant})
