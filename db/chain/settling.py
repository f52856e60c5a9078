"""Settling: which finalized events come next, what became of each, and which escrows they are of."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.chain import Settled


@dataclass(frozen=True, slots=True)
class Final:
    """An event that is final and waits to be settled."""

    sequence: int
    block_number: int
    tx_hash: bytes
    consumer_id: UUID
    kind: str
    subject: bytes | None
    account: bytes | None
    token: bytes | None
    amount: int | None
    payload: bytes
    at: datetime


@dataclass(frozen=True, slots=True)
class Link:
    """What an escrow on a chain is here. ``code`` and ``reason`` say why it is not followed, or no longer."""

    onchain_id: bytes
    escrow_id: UUID
    status: str
    code: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """A source whose next event is final and was not settled in time."""

    tenant_id: UUID
    relayer_id: str


@dataclass(frozen=True, slots=True)
class Told:
    """An event of an escrow, and what came of it; ``outcome`` is None until it is final and settled."""

    kind: str
    sequence: int
    tx_hash: bytes
    block_number: int
    at: datetime
    outcome: Settled | None
    code: str | None


_NEXT = text(
    """
    WITH cursor AS (
        SELECT c.settled_sequence, c.finalized_number FROM chain_cursors c
        JOIN chain_sources s ON s.source_id = c.source_id
        WHERE c.source_id = :source AND s.settles AND s.sequenced AND s.status <> 'halted'
    ), span AS (
        -- Whole blocks: what one transaction told is never settled in two parts.
        SELECT coalesce((SELECT e.block_number FROM chain_events e WHERE e.source_id = :source AND e.canonical
                         AND e.sequence = cursor.settled_sequence + :limit), cursor.finalized_number) AS last
        FROM cursor
    )
    SELECT e.sequence, e.block_number, e.tx_hash, e.consumer_id, e.kind, e.subject, e.account, e.token, e.amount::text,
           e.payload, e.at
    FROM cursor, span, chain_events e
    WHERE e.source_id = :source AND e.canonical AND e.sequence > cursor.settled_sequence
      AND e.block_number <= least(span.last, cursor.finalized_number)
    ORDER BY e.sequence LIMIT :most
    """
)

_UNMIRRORED = text(
    """
    SELECT w.sequence, sum(c.amount)::text AS amount
    FROM chain_events w
    CROSS JOIN LATERAL (
        SELECT coalesce(max(b.sequence), 0) AS sequence FROM chain_events b
        WHERE b.source_id = w.source_id AND b.canonical AND b.kind = 'Withdrawn' AND b.subject = w.subject
          AND b.token = w.token AND b.sequence < w.sequence
    ) AS before
    JOIN chain_events c ON c.source_id = w.source_id AND c.canonical AND c.kind IN ('Released', 'Refunded')
         AND c.account = w.account AND c.token = w.token AND c.sequence > before.sequence AND c.sequence < w.sequence
    WHERE w.source_id = :source AND w.canonical AND w.sequence = ANY (CAST(:numbers AS bigint[]))
      AND (c.outcome <> 'settled' OR c.sequence = ANY (CAST(:others AS bigint[])))
    GROUP BY w.sequence
    """
)

#: More events than these are in no block: 30 million gas pay for fewer.
_MOST = 100_000
#: Parts can be released one unit at a time; nobody reads further than this.
_TOLD_MOST = 1_000


async def settled_sequence(connection: AsyncConnection, source_id: int, *, lock: bool = False) -> int:
    """Up to which number the source's events are settled; with ``lock``, nobody else settles until the commit."""
    found: Any = await connection.scalar(
        text("SELECT settled_sequence FROM chain_cursors WHERE source_id = :source" + (" FOR UPDATE" if lock else "")),
        {"source": source_id},
    )
    return int(found)


async def next_final(connection: AsyncConnection, source_id: int, *, limit: int) -> list[Final]:
    """The next events in the order of their numbers, without a gap: about ``limit``, and always whole blocks.

    None of a source that does not settle, or whose relayer halted: what is final is in doubt there.
    """
    after = await settled_sequence(connection, source_id)
    rows = await connection.execute(_NEXT, {"source": source_id, "limit": limit, "most": _MOST})
    found: list[Final] = []
    for row in rows:
        if row.sequence != after + len(found) + 1:
            break
        found.append(_final(row))
    return found


async def finals_between(
    connection: AsyncConnection, source_id: int, after: int, through: int, kind: str | None = None
) -> list[Final]:
    """The events with these numbers, of one kind where it is named."""
    rows = await connection.execute(
        text(
            "SELECT e.sequence, e.block_number, e.tx_hash, e.consumer_id, e.kind, e.subject, e.account, e.token,"
            " e.amount::text, e.payload, e.at FROM chain_events e WHERE e.source_id = :source AND e.canonical"
            " AND e.sequence > :after AND e.sequence <= :through"
            " AND (CAST(:kind AS text) IS NULL OR e.kind = :kind) ORDER BY e.sequence"
        ),
        {"source": source_id, "after": after, "through": through, "kind": kind},
    )
    return [_final(row) for row in rows]


async def unmirrored(
    connection: AsyncConnection, source_id: int, withdrawals: Sequence[int], others: Collection[int]
) -> Mapping[int, int]:
    """Of each of these withdrawals, by its event's number: what it took of credits that are not in the ledger.

    A contract pays out all that it owes to an account in a token, also what it owes for escrows that are not followed.
    ``others`` are events that are about to get another outcome than settled. Who took nothing of it is left out.
    """
    rows = await connection.execute(_UNMIRRORED, {"source": source_id, "numbers": withdrawals, "others": list(others)})
    return {row.sequence: int(row.amount) for row in rows}


async def links(connection: AsyncConnection, source_id: int, onchain_ids: Collection[bytes]) -> Mapping[bytes, Link]:
    """What is known of these escrows."""
    rows = await connection.execute(
        text(
            "SELECT onchain_id, escrow_id, status, code, reason FROM chain_escrows"
            " WHERE source_id = :source AND onchain_id = ANY (CAST(:ids AS bytea[]))"
        ),
        {"source": source_id, "ids": list(onchain_ids)},
    )
    return {
        bytes(row.onchain_id): Link(bytes(row.onchain_id), row.escrow_id, row.status, row.code, row.reason)
        for row in rows
    }


async def put_links(connection: AsyncConnection, source_id: int, tenant: UUID, fresh: Sequence[Link]) -> None:
    """Write what these escrows are from now on."""
    if fresh:
        await connection.execute(
            text(
                "INSERT INTO chain_escrows (source_id, tenant_id, onchain_id, escrow_id, status, code, reason)"
                " VALUES (:source, :tenant, :onchain, :escrow, :status, :code, :reason)"
                " ON CONFLICT (source_id, onchain_id) DO UPDATE"
                " SET status = excluded.status, code = excluded.code, reason = excluded.reason"
            ),
            [
                {
                    "source": source_id,
                    "tenant": tenant,
                    "onchain": link.onchain_id,
                    "escrow": link.escrow_id,
                    "status": link.status,
                    "code": link.code,
                    "reason": link.reason,
                }
                for link in fresh
            ],
        )


async def told_of(connection: AsyncConnection, escrow_id: UUID) -> list[Told]:
    """What its contract told of an escrow, in order: the first thousand."""
    rows = await connection.execute(
        text(
            "SELECT e.kind, e.sequence, e.tx_hash, e.block_number, e.at, e.outcome, e.outcome_code"
            " FROM chain_escrows l JOIN chain_events e ON e.source_id = l.source_id AND e.subject = l.onchain_id"
            " WHERE l.escrow_id = :escrow AND e.canonical ORDER BY e.sequence LIMIT :most"
        ),
        {"escrow": escrow_id, "most": _TOLD_MOST},
    )
    return [
        Told(
            row.kind,
            row.sequence,
            bytes(row.tx_hash),
            row.block_number,
            row.at,
            None if row.outcome is None else Settled(row.outcome),
            row.outcome_code,
        )
        for row in rows
    ]


async def settle(
    connection: AsyncConnection,
    source_id: int,
    after: int,
    through: int,
    others: Mapping[int, tuple[Settled, str]],
) -> int:
    """The events behind ``after`` up to ``through`` are settled, but for ``others``: number -> outcome and code.

    Moves the cursor; answers how many events there were.
    """
    numbers = list(others)
    done: Any = await connection.execute(
        text(
            "UPDATE chain_events e SET outcome = coalesce(o.outcome, 'settled'), outcome_code = o.code"
            " FROM generate_series(CAST(:first AS bigint), CAST(:through AS bigint)) AS n (sequence)"
            " LEFT JOIN unnest(CAST(:numbers AS bigint[]), CAST(:outcomes AS text[]), CAST(:codes AS text[]))"
            " AS o (sequence, outcome, code) ON o.sequence = n.sequence"
            " WHERE e.source_id = :source AND e.canonical AND e.sequence = n.sequence"
        ),
        {
            "source": source_id,
            "first": after + 1,
            "through": through,
            "numbers": numbers,
            "outcomes": [str(others[number][0]) for number in numbers],
            "codes": [others[number][1] for number in numbers],
        },
    )
    await connection.execute(
        text("UPDATE chain_cursors SET settled_sequence = :through WHERE source_id = :source"),
        {"source": source_id, "through": through},
    )
    return int(done.rowcount)


async def list_waiting(connection: AsyncConnection, waited: timedelta, *, limit: int) -> list[Waiting]:
    """Sources of any tenant whose next event is final and was recorded longer ago than ``waited``."""
    rows = await connection.execute(
        text(
            "SELECT s.tenant_id, s.relayer_id FROM chain_sources s JOIN chain_cursors c ON c.source_id = s.source_id"
            " WHERE s.settles AND s.sequenced AND s.status <> 'halted' AND EXISTS ("
            "   SELECT FROM chain_events e WHERE e.source_id = s.source_id AND e.canonical"
            "   AND e.sequence = c.settled_sequence + 1 AND e.block_number <= c.finalized_number"
            "   AND e.recorded_at < clock_timestamp() - CAST(:waited AS interval))"
            " ORDER BY s.source_id LIMIT :limit"
        ),
        {"waited": waited, "limit": limit},
    )
    return [Waiting(row.tenant_id, row.relayer_id) for row in rows]


def _final(row: Any) -> Final:
    return Final(
        sequence=row.sequence,
        block_number=row.block_number,
        tx_hash=bytes(row.tx_hash),
        consumer_id=row.consumer_id,
        kind=row.kind,
        subject=None if row.subject is None else bytes(row.subject),
        account=None if row.account is None else bytes(row.account),
        token=None if row.token is None else bytes(row.token),
        amount=None if row.amount is None else int(row.amount),
        payload=bytes(row.payload),
        at=row.at,
    )
