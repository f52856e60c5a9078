"""How the providers of each chain do, as the processes that ask them last said."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

ACCUSED: Final = "accused"
#: So long what one process found out stands against others who have not.
ACCUSED_STANDS: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Seen:
    """How a provider does. ``requests`` and ``failures`` are those since the last time."""

    provider: str
    status: str
    status_at: datetime
    reason: str | None
    head_number: int | None
    latency_ms: int | None
    requests: int
    failures: int
    range_blocks: int | None


async def put(connection: AsyncConnection, chain: str, seen: Sequence[Seen], at: datetime) -> list[Seen]:
    """Write how a chain's providers do; answers those that are accused since now."""
    rows = await _standing(connection, chain, seen)
    if len(rows) < len(seen):
        # Of several who write of a provider for the first time, only one is to find that it is accused since now.
        await connection.execute(
            text(
                "INSERT INTO chain_providers (chain, provider, status, status_at, seen_at)"
                " SELECT :chain, n, 'ok', :at, :at FROM unnest(CAST(:names AS text[])) AS n ORDER BY n"
                " ON CONFLICT DO NOTHING"
            ),
            {"chain": chain, "at": at, "names": [each.provider for each in seen]},
        )
        rows = await _standing(connection, chain, seen)
    accused = {row.provider: row.status_at for row in rows if row.status == ACCUSED}
    await connection.execute(
        text(
            "INSERT INTO chain_providers AS p (chain, provider, status, reason, head_number, latency_ms, requests,"
            " failures, range_blocks, status_at, seen_at)"
            " SELECT :chain, provider, status, reason, head_number, latency_ms, requests, failures, range_blocks,"
            " status_at, :at FROM jsonb_to_recordset(CAST(:seen AS jsonb)) AS s (provider text, status text,"
            " reason text, head_number bigint, latency_ms int, requests bigint, failures bigint, range_blocks int,"
            " status_at timestamptz) ORDER BY provider"
            " ON CONFLICT (chain, provider) DO UPDATE SET"
            " status = CASE WHEN p.provider = ANY(:standing) THEN p.status ELSE excluded.status END,"
            " reason = CASE WHEN p.provider = ANY(:standing) THEN p.reason ELSE excluded.reason END,"
            " status_at = CASE WHEN p.provider = ANY(:standing) THEN p.status_at ELSE excluded.status_at END,"
            " head_number = coalesce(excluded.head_number, p.head_number),"
            " latency_ms = coalesce(excluded.latency_ms, p.latency_ms), range_blocks = excluded.range_blocks,"
            " requests = p.requests + excluded.requests, failures = p.failures + excluded.failures,"
            " seen_at = excluded.seen_at"
        ),
        {
            "chain": chain,
            "at": at,
            "seen": json.dumps([_row(each) for each in seen]),
            "standing": [
                each.provider
                for each in seen
                if each.status != ACCUSED and each.provider in accused and at - accused[each.provider] < ACCUSED_STANDS
            ],
        },
    )
    return [each for each in seen if each.status == ACCUSED and each.provider not in accused]


async def _standing(connection: AsyncConnection, chain: str, seen: Sequence[Seen]) -> Sequence[Any]:
    """What is written of these, which nobody else changes until the transaction ends."""
    rows = await connection.execute(
        text(
            "SELECT provider, status, status_at FROM chain_providers WHERE chain = :chain"
            " AND provider = ANY(:names) ORDER BY provider FOR UPDATE"
        ),
        {"chain": chain, "names": [each.provider for each in seen]},
    )
    return rows.all()


def _row(seen: Seen) -> dict[str, object]:
    return {
        "provider": seen.provider,
        "status": seen.status,
        "status_at": seen.status_at.isoformat(),
        "reason": seen.reason,
        "head_number": seen.head_number,
        "latency_ms": seen.latency_ms,
        "requests": seen.requests,
        "failures": seen.failures,
        "range_blocks": seen.range_blocks,
    }
