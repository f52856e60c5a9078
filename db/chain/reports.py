"""Relayers as their owners read them: where each stands, what is missing, how its providers do.

Statements see what their transaction sees: a tenant's own relayers, or every tenant's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.chain.sources import Followed, followed_of
from domain.chain import RelayerStatus
from domain.chain.health import Course
from domain.chain.ranges import Ranges, count

#: More relayers than this are not looked at in one go.
RELAYERS_MAX: Final = 100_000
#: Missing ranges that are named, of all that there are.
GAPS_MAX: Final = 50


@dataclass(frozen=True, slots=True)
class Reorganisation:
    """One that was found."""

    ancestor_number: int
    depth: int
    old_hash: bytes
    new_hash: bytes
    events_reverted: int
    below_finalized: bool
    providers: tuple[str, ...]
    found_at: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a relayer stands. ``missing_blocks`` are neither here nor, as a job's, on their way."""

    followed: Followed
    course: Course
    block_hash: bytes | None
    last_sequence: int
    confirmed_number: int
    finalized_number: int
    moved_at: datetime | None
    settled_sequence: int

    @property
    def source_id(self) -> int:
        """Its number, in whose order relayers were registered."""
        return self.followed.source.source_id


@dataclass(frozen=True, slots=True)
class Gaps:
    """Blocks up to the live end that are not here: some of them by range, and how many they are in all."""

    blocks: int
    being_filled: int
    ranges: Ranges
    more: bool


@dataclass(frozen=True, slots=True)
class Provider:
    """How a provider does, as whoever asked it last wrote down."""

    chain: str
    provider: str
    status: str
    reason: str | None
    head_number: int | None
    latency_ms: int | None
    requests: int
    failures: int
    range_blocks: int | None
    status_at: datetime
    seen_at: datetime


#: Multiranges of a source: what should be here, what is, and what jobs are at.
_SETS = """
    CROSS JOIN LATERAL (SELECT int8multirange(int8range(s.start_block, greatest(c.block_number + 1, s.start_block)))
        - coalesce((SELECT v.blocks FROM chain_coverage v WHERE v.source_id = s.source_id), '{}') AS missing) g
    CROSS JOIN LATERAL (SELECT coalesce(range_agg(int8range(j.from_block, j.to_block + 1)), '{}') AS filling
        FROM backfill_jobs j WHERE j.tenant_id = s.tenant_id AND j.source_id = s.source_id
        AND j.status IN ('pending', 'running', 'verifying')) f
"""
_STANDING = f"""
    SELECT s.source_id, s.tenant_id, s.relayer_id, s.chain, s.kind, s.network, s.addresses, s.start_block, s.sequenced,
        s.settles, s.status, s.status_reason, s.recorded_at, c.block_number, c.block_hash, c.last_sequence,
        c.head_number, c.head_at, c.confirmed_number, c.finalized_number, c.asked_at, c.moved_at, c.settled_sequence,
        b.at AS block_at, (SELECT coalesce(sum(upper(r) - lower(r)), 0) FROM unnest(g.missing - f.filling) r) AS missing
    FROM chain_sources s JOIN chain_cursors c USING (source_id)
    LEFT JOIN chain_blocks b ON b.source_id = s.source_id AND b.number = c.block_number AND b.canonical {_SETS}
"""
_GAPS = text(
    "SELECT lower(r) AS first, upper(r) - 1 AS last,"
    " (SELECT coalesce(sum(upper(h) - lower(h)), 0) FROM unnest(g.missing) h) AS blocks,"
    " (SELECT coalesce(sum(upper(h) - lower(h)), 0) FROM unnest(g.missing * f.filling) h) AS being_filled"
    f" FROM chain_sources s JOIN chain_cursors c USING (source_id) {_SETS} CROSS JOIN LATERAL unnest(g.missing) r"
    " WHERE s.source_id = :source ORDER BY 1 LIMIT :limit"
)
_REORG = text(
    "SELECT ancestor_number, depth, old_hash, new_hash, events_reverted, below_finalized, providers, found_at"
    " FROM chain_reorgs WHERE source_id = :source ORDER BY reorg_no DESC LIMIT 1"
)
_FINAL_SEQUENCE = text(
    "SELECT sequence FROM chain_events WHERE source_id = :source AND canonical AND sequence IS NOT NULL"
    " AND block_number <= :finalized ORDER BY sequence DESC LIMIT 1"
)


async def find(connection: AsyncConnection, relayer_id: str) -> Standing | None:
    """Where one relayer stands."""
    rows = await connection.execute(text(f"{_STANDING} WHERE s.relayer_id = :relayer"), {"relayer": relayer_id})
    row = rows.one_or_none()
    return None if row is None else _standing(row)


async def list_(
    connection: AsyncConnection,
    *,
    chain: str | None = None,
    status: RelayerStatus | None = None,
    before: int | None = None,
    limit: int = RELAYERS_MAX,
) -> list[Standing]:
    """Relayers, the last registered first; ``before`` is the ``source_id`` of the last one that was read."""
    rows = await connection.execute(
        text(
            f"{_STANDING} WHERE (CAST(:before AS bigint) IS NULL OR s.source_id < :before)"
            " AND (CAST(:chain AS text) IS NULL OR s.chain = :chain)"
            " AND (CAST(:status AS text) IS NULL OR s.status = :status) ORDER BY s.source_id DESC LIMIT :limit"
        ),
        {"before": before, "chain": chain, "status": status, "limit": limit},
    )
    return [_standing(row) for row in rows]


async def gaps(connection: AsyncConnection, source_id: int) -> Gaps:
    """What is missing of a source, the lowest first."""
    rows = (await connection.execute(_GAPS, {"source": source_id, "limit": GAPS_MAX + 1})).all()
    ranges: Ranges = tuple((row.first, row.last) for row in rows[:GAPS_MAX])
    blocks = int(rows[0].blocks) if rows else count(ranges)
    return Gaps(blocks, int(rows[0].being_filled) if rows else 0, ranges, len(rows) > GAPS_MAX)


async def last_reorganisation(connection: AsyncConnection, source_id: int) -> Reorganisation | None:
    """The last one that a source's relayer found."""
    row = (await connection.execute(_REORG, {"source": source_id})).mappings().one_or_none()
    return None if row is None else Reorganisation(**{**row, "providers": tuple(row["providers"])})


async def final_sequence(connection: AsyncConnection, source_id: int, finalized: int) -> int:
    """The number of the last event in a block that is final, 0 before the first."""
    parameters = {"source": source_id, "finalized": finalized}
    return int(await connection.scalar(_FINAL_SEQUENCE, parameters) or 0)


async def providers(connection: AsyncConnection, chain: str | None = None) -> Sequence[Provider]:
    """How the providers of a chain do, or those of all chains."""
    rows = await connection.execute(
        text(
            "SELECT chain, provider, status, reason, head_number, latency_ms, requests, failures, range_blocks,"
            " status_at, seen_at FROM chain_providers WHERE CAST(:chain AS text) IS NULL OR chain = :chain"
            " ORDER BY chain, provider"
        ),
        {"chain": chain},
    )
    return [Provider(**row) for row in rows.mappings()]


async def following_any(connection: AsyncConnection, chain: str, addresses: Sequence[bytes]) -> str | None:
    """The relayer that follows one of these addresses already, of those that the transaction sees."""
    found: Any = await connection.scalar(
        text(
            "SELECT relayer_id FROM chain_sources WHERE chain = :chain"
            " AND jsonb_exists_any(addresses, CAST(:addresses AS text[])) LIMIT 1"
        ),
        {"chain": chain, "addresses": [address.hex() for address in addresses]},
    )
    return None if found is None else str(found)


def _standing(row: Any) -> Standing:
    followed = followed_of(row)
    course = Course(
        status=followed.status,
        reason=followed.reason,
        registered_at=row.recorded_at,
        block_number=row.block_number,
        block_at=row.block_at,
        head_number=row.head_number,
        head_at=row.head_at,
        heard_at=row.asked_at,
        gap_blocks=int(row.missing),
    )
    return Standing(
        followed=followed,
        course=course,
        block_hash=row.block_hash,
        last_sequence=row.last_sequence,
        confirmed_number=row.confirmed_number,
        finalized_number=row.finalized_number,
        moved_at=row.moved_at,
        settled_sequence=row.settled_sequence,
    )
