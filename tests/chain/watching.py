"""What a followed source left in Postgres, and whether that is what its chain says."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from db.chain import sources
from db.engine import tenant_transaction, transaction
from db.ids import new_id
from domain.chain import ChainKind, Event, Source, consumer_id
from domain.ids import relayer_workflow_id
from tests.db.raw import sql


async def register(
    tenants_engine: AsyncEngine,
    tenant: UUID,
    chain: str,
    *,
    address: bytes | None = None,
    start_block: int = 0,
    follow_from: int = 0,
    last_sequence: int = 0,
    sequenced: bool = True,
    network: str = "eip155:31337",
) -> Source:
    """A source of the tenant's, as the API registers it."""
    address = address or new_id().bytes + bytes(4)
    source = Source(
        source_id=0,
        tenant_id=tenant,
        relayer_id=f"{chain}:0x{address.hex()}",
        chain=chain,
        kind=ChainKind.EVM,
        network=network,
        addresses=(address,),
        start_block=start_block,
        sequenced=sequenced,
        settles=False,
    )
    async with tenant_transaction(tenants_engine, tenant) as connection:
        return await sources.register(connection, source, follow_from=follow_from, last_sequence=last_sequence)


async def rows(engine: AsyncEngine, source: Source, *, canonical: bool = True) -> list[tuple[Any, ...]]:
    """The source's events in the chain's order."""
    async with transaction(engine) as connection:
        found = await sql(
            connection,
            "SELECT consumer_id, block_number, block_hash, tx_hash, log_index, sequence, amount, payload"
            " FROM chain_events WHERE source_id = :source AND canonical = :canonical ORDER BY block_number, log_index",
            source=source.source_id,
            canonical=canonical,
        )
    return [tuple(row) for row in found]


def expected(source: Source, events: Iterable[Event]) -> list[tuple[Any, ...]]:
    """What ``rows`` answers if these are the chain's events."""
    return [
        (
            consumer_id(source.namespace, event.tx_hash, event.ordinal),
            event.block_number,
            event.block_hash,
            event.tx_hash,
            event.log_index,
            event.sequence,
            event.amount,
            event.payload,
        )
        for event in events
    ]


async def cursor(engine: AsyncEngine, source: Source) -> Any:
    async with transaction(engine) as connection:
        [row] = await sql(
            connection,
            "SELECT c.*, s.status, s.status_reason, v.blocks AS covered FROM chain_cursors c"
            " JOIN chain_sources s USING (source_id) JOIN chain_coverage v USING (source_id)"
            " WHERE source_id = :source",
            source=source.source_id,
        )
    return row


async def told(engine: AsyncEngine, source: Source) -> list[tuple[str, dict[str, Any]]]:
    """What was told of the relayer, in the order of writing."""
    async with transaction(engine) as connection:
        found = await sql(
            connection,
            "SELECT type, data FROM outbox WHERE subject = :subject ORDER BY outbox_id",
            subject=relayer_workflow_id(source.relayer_id),
        )
    return [(row.type, row.data) for row in found]


def replayed(events: Iterable[tuple[str, dict[str, Any]]]) -> list[tuple[Any, ...]]:
    """The state that a consumer of the events has, who holds that each is reverted in the reverse order."""
    held: list[tuple[Any, ...]] = []
    for type_, data in events:
        one = (data.get("consumer_id"), data.get("block_number"), data.get("block_hash"), data.get("log_index"))
        if type_ == "chain.event_applied":
            assert one[0] not in {each[0] for each in held}, f"applied twice: {data}"
            held.append(one)
        elif type_ == "chain.event_reverted":
            assert held, f"reverted before it was applied: {data}"
            assert held.pop() == one, f"reverted out of order: {data}"
    return held


def as_told(found: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Rows as a consumer of the events knows them."""
    return [(str(row[0]), row[1], f"0x{bytes(row[2]).hex()}", row[4]) for row in found]
