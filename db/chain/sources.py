"""Sources: what is followed, by whom, and what its relayer does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.chain import ChainKind, RelayerStatus, Source

_COLUMNS = (
    "source_id, tenant_id, relayer_id, chain, kind, network, addresses, start_block, sequenced, settles, status,"
    " status_reason"
)


@dataclass(frozen=True, slots=True)
class Followed:
    """A source, and what its relayer does."""

    source: Source
    status: RelayerStatus
    reason: str | None


async def find(connection: AsyncConnection, relayer_id: str) -> Followed | None:
    """The source that a relayer follows."""
    rows = await connection.execute(
        text(f"SELECT {_COLUMNS} FROM chain_sources WHERE relayer_id = :relayer"), {"relayer": relayer_id}
    )
    row = rows.one_or_none()
    return None if row is None else followed_of(row)


async def get(connection: AsyncConnection, source_id: int) -> Followed:
    """A source that is there."""
    rows = await connection.execute(
        text(f"SELECT {_COLUMNS} FROM chain_sources WHERE source_id = :source"), {"source": source_id}
    )
    return followed_of(rows.one())


async def list_settling(connection: AsyncConnection, *, after: int, limit: int) -> Sequence[Source]:
    """Sources whose events move escrows, in the order in which they were registered, behind ``after``."""
    rows = await connection.execute(
        text(
            f"SELECT {_COLUMNS} FROM chain_sources WHERE source_id > :after AND settles AND sequenced"
            " ORDER BY source_id LIMIT :limit"
        ),
        {"after": after, "limit": limit},
    )
    return [followed_of(row).source for row in rows]


async def set_status(
    connection: AsyncConnection, source_id: int, status: RelayerStatus, reason: str | None = None
) -> None:
    """What its relayer does from now on, and why."""
    await connection.execute(
        text("UPDATE chain_sources SET status = :status, status_reason = :reason WHERE source_id = :source"),
        {"source": source_id, "status": status, "reason": reason},
    )


async def register(connection: AsyncConnection, source: Source, *, follow_from: int, last_sequence: int) -> Source:
    """A new source with its cursor and coverage; ``source.source_id`` is given here.

    The live end begins with block ``follow_from``; a value below ``start_block`` is none. ``last_sequence`` is the
    number of the last event before it, 0 where its relayer has to ask the contract. The constraint
    ``chain_sources_relayer_id_key`` holds one owner a contract.
    """
    scalar: Any = await connection.scalar(
        text(
            "INSERT INTO chain_sources (tenant_id, relayer_id, chain, kind, network, addresses, start_block, sequenced,"
            " settles, status) VALUES (:tenant, :relayer, :chain, :kind, :network, CAST(:addresses AS jsonb), :start,"
            " :sequenced, :settles, :status) RETURNING source_id"
        ),
        {
            "tenant": source.tenant_id,
            "relayer": source.relayer_id,
            "chain": source.chain,
            "kind": source.kind,
            "network": source.network,
            "addresses": "[" + ",".join(f'"{address.hex()}"' for address in source.addresses) + "]",
            "start": source.start_block,
            "sequenced": source.sequenced,
            "settles": source.settles,
            "status": RelayerStatus.FOLLOWING,
        },
    )
    source_id = int(scalar)
    before = max(follow_from, source.start_block) - 1
    await connection.execute(
        text(
            "WITH covers AS (INSERT INTO chain_coverage (source_id, tenant_id) VALUES (:source, :tenant))"
            " INSERT INTO chain_cursors (source_id, tenant_id, block_number, last_sequence, confirmed_number,"
            " finalized_number) VALUES (:source, :tenant, :before, :sequence, :before, :before)"
        ),
        {"source": source_id, "tenant": source.tenant_id, "before": before, "sequence": last_sequence},
    )
    return Source(
        source_id=source_id,
        tenant_id=source.tenant_id,
        relayer_id=source.relayer_id,
        chain=source.chain,
        kind=source.kind,
        network=source.network,
        addresses=source.addresses,
        start_block=source.start_block,
        sequenced=source.sequenced,
        settles=source.settles,
    )


def followed_of(row: Any) -> Followed:
    """The source that a row's columns describe, and what its relayer does."""
    source = Source(
        source_id=row.source_id,
        tenant_id=row.tenant_id,
        relayer_id=row.relayer_id,
        chain=row.chain,
        kind=ChainKind(row.kind),
        network=row.network,
        addresses=tuple(bytes.fromhex(address) for address in row.addresses),
        start_block=row.start_block,
        sequenced=row.sequenced,
        settles=row.settles,
    )
    return Followed(source, RelayerStatus(row.status), row.status_reason)
