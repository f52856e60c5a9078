"""Books of contracts: what their events and the ledger say, read in one snapshot, and what comparing them came to."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.chain import Block, Books
from domain.chain.books import Figures, Money, Part

_FIGURES = text(
    """
    WITH cursor AS MATERIALIZED (
        SELECT settled_sequence FROM chain_cursors WHERE source_id = :source
    ), told AS MATERIALIZED (
        SELECT e.sequence, e.outcome, e.kind, e.subject, e.account,
               CASE e.kind WHEN 'Funded' THEN e.amount WHEN 'Withdrawn' THEN 0 ELSE -e.amount END AS held,
               CASE e.kind WHEN 'Funded' THEN 0 WHEN 'Withdrawn' THEN -e.amount ELSE e.amount END AS owed
        FROM chain_events e WHERE e.source_id = :source AND e.canonical AND e.token = :token
          AND e.kind IN ('Funded', 'Released', 'Refunded', 'Withdrawn')
    ), spans AS (
        -- A withdrawal takes all that an account was credited with: these are its credits since the one before.
        SELECT t.*, count(*) FILTER (WHERE kind = 'Withdrawn')
               OVER (PARTITION BY account ORDER BY sequence DESC) AS span
        FROM told t WHERE kind <> 'Funded' AND account IN (
            SELECT account FROM told WHERE kind IN ('Released', 'Refunded') AND outcome IN ('unsupported', 'disagrees'))
    ), unmirrored AS MATERIALIZED (
        -- What a settled withdrawal took of credits that are not in the ledger, by why they are not.
        SELECT w.sequence, c.outcome, w.account, sum(c.owed) AS owed
        FROM spans w JOIN spans c ON c.account = w.account AND c.span = w.span
        WHERE w.kind = 'Withdrawn' AND w.outcome = 'settled' AND c.kind <> 'Withdrawn' AND c.outcome <> 'settled'
        GROUP BY 1, 2, 3
    ), moves AS MATERIALIZED (
        SELECT * FROM told
        UNION ALL SELECT sequence, outcome, 'Withdrawn', NULL, account, 0, -owed FROM unmirrored
        UNION ALL SELECT sequence, 'settled', 'Withdrawn', NULL, account, 0, owed FROM unmirrored
    ), waits AS MATERIALIZED (
        SELECT e.subject, e.account, e.kind FROM chain_events e, cursor
        WHERE e.source_id = :source AND e.canonical AND e.sequence > cursor.settled_sequence
    ), classes AS (
        SELECT CASE WHEN outcome = 'settled' AND sequence > :sequence THEN 'ahead' WHEN sequence > :sequence THEN NULL
                    ELSE coalesce(outcome, 'waiting') END AS class, sum(held) AS held, sum(owed) AS owed
        FROM moves GROUP BY 1
    ), mirrored AS (
        SELECT decode(substr(x.custody_onchain_id, 3), 'hex') AS subject, sum(h.remaining_minor) AS held
        FROM escrows x
        JOIN escrow_milestones m ON m.tenant_id = x.tenant_id AND m.escrow_id = x.escrow_id
        JOIN holds h ON h.tenant_id = m.tenant_id AND h.hold_id = m.milestone_id
        WHERE x.tenant_id = :tenant AND x.custody_relayer_id = :relayer AND x.custody_token = :token_text GROUP BY 1
    ), credited AS (
        SELECT decode(substr(c.account, 3), 'hex') AS account, sum(h.remaining_minor) AS owed
        FROM chain_credits c JOIN holds h ON h.tenant_id = c.tenant_id AND h.hold_id = c.hold_id
        WHERE c.tenant_id = :tenant AND c.relayer_id = :relayer AND c.token = :token_text GROUP BY 1
    ), escrows_differ AS (
        SELECT coalesce(told.held, 0) - coalesce(mirrored.held, 0) AS held,
               subject IN (SELECT w.subject FROM waits w WHERE w.kind <> 'Withdrawn') AS waits
        FROM (SELECT subject, sum(held) AS held FROM moves WHERE outcome = 'settled' AND kind <> 'Withdrawn'
              GROUP BY subject) AS told
        FULL JOIN mirrored USING (subject)
    ), accounts_differ AS (
        SELECT coalesce(told.owed, 0) - coalesce(credited.owed, 0) AS owed,
               account IN (SELECT w.account FROM waits w
                           WHERE w.kind IN ('Released', 'Refunded', 'Withdrawn')) AS waits
        FROM (SELECT account, sum(owed) AS owed FROM moves WHERE outcome = 'settled' AND kind <> 'Funded'
              GROUP BY account) AS told
        FULL JOIN credited USING (account)
    )
    SELECT (SELECT count(*) FROM chain_events e WHERE e.source_id = :source AND e.canonical
              AND e.sequence <= :sequence) AS events,
           (SELECT jsonb_object_agg(class, jsonb_build_array(held::text, owed::text)) FROM classes
            WHERE class IS NOT NULL) AS classes,
           coalesce((SELECT sum(held) FROM escrows_differ WHERE waits), 0) AS held_under_way,
           coalesce((SELECT sum(held) FROM escrows_differ WHERE NOT waits), 0) AS held_wrong,
           coalesce((SELECT sum(owed) FROM accounts_differ WHERE waits), 0) AS owed_under_way,
           coalesce((SELECT sum(owed) FROM accounts_differ WHERE NOT waits), 0) AS owed_wrong,
           coalesce((SELECT sum(held) FROM mirrored), 0) AS ledger_held,
           coalesce((SELECT sum(owed) FROM credited), 0) AS ledger_owed,
           coalesce((SELECT sum(-available_minor) FROM accounts
                     WHERE tenant_id = :tenant AND ref = :outside AND asset = :asset), 0) AS outside
    """
)


@dataclass(frozen=True, slots=True)
class Compared:
    """What comparing one token's books came to."""

    token: bytes
    block: Block
    figures: Figures
    parts: tuple[Part, ...]


async def final_block(connection: AsyncConnection, source_id: int) -> Block | None:
    """The last block of a source that is final; None before there is one."""
    row = (
        await connection.execute(
            text(
                "SELECT b.number, b.hash, b.parent_hash, b.at FROM chain_cursors c JOIN chain_blocks b"
                " ON b.source_id = c.source_id AND b.number = c.finalized_number AND b.canonical"
                " WHERE c.source_id = :source"
            ),
            {"source": source_id},
        )
    ).one_or_none()
    return None if row is None else Block(row.number, bytes(row.hash), bytes(row.parent_hash), int(row.at.timestamp()))


async def tokens_of(connection: AsyncConnection, source_id: int, among: Collection[bytes]) -> list[bytes]:
    """Those of these tokens in which the source's contract ever held money."""
    rows = await connection.execute(
        text(
            "SELECT t.token FROM unnest(CAST(:tokens AS bytea[])) AS t (token) WHERE EXISTS ("
            " SELECT FROM chain_events e WHERE e.source_id = :source AND e.canonical AND e.token = t.token"
            " AND e.kind = 'Funded') ORDER BY t.token"
        ),
        {"source": source_id, "tokens": list(among)},
    )
    return [bytes(row.token) for row in rows]


async def figures(
    connection: AsyncConnection, tenant: UUID, source_id: int, relayer_id: str, token: bytes, asset: str, books: Books
) -> Figures:
    """What is here of one token, beside what the contract says of it."""
    given = {
        "source": source_id,
        "tenant": tenant,
        "relayer": relayer_id,
        "token": token,
        "token_text": f"0x{token.hex()}",
        "asset": asset,
        "outside": f"system:chain:{relayer_id}",
        "sequence": books.sequence,
    }
    row = (await connection.execute(_FIGURES, given)).one()
    classes = {name: Money(int(held), int(owed)) for name, (held, owed) in (row.classes or {}).items()}
    none = Money()
    upto = [money for name, money in classes.items() if name != "ahead"]
    ledger = Money(int(row.ledger_held), int(row.ledger_owed))
    return Figures(
        books=books,
        events=row.events,
        told=Money(sum(money.held for money in upto), sum(money.owed for money in upto)),
        waiting=classes.get("waiting", none),
        ahead=classes.get("ahead", none),
        unsupported=classes.get("unsupported", none),
        disagreeing=classes.get("disagrees", none),
        under_way=Money(int(row.held_under_way), int(row.owed_under_way)),
        wrong=Money(int(row.held_wrong), int(row.owed_wrong)),
        ledger=ledger,
        outside=int(row.outside) - ledger.held - ledger.owed,
    )


async def put(connection: AsyncConnection, tenant: UUID, source_id: int, compared: Sequence[Compared]) -> None:
    """Keep what comparing came to; a block that is compared again has the newer figures."""
    rows: list[dict[str, Any]] = [
        {
            "source": source_id,
            "tenant": tenant,
            "token": each.token,
            "number": each.block.number,
            "sequence": each.figures.books.sequence,
            "balance": each.figures.books.balance,
            "held": each.figures.books.held,
            "owed": each.figures.books.owed,
            "ledger_held": each.figures.ledger.held,
            "ledger_owed": each.figures.ledger.owed,
            "parts": json.dumps(
                [
                    {"code": part.code, "what": part.what, "amount": str(part.amount), "explained": part.explained}
                    for part in each.parts
                ]
            ),
        }
        for each in compared
    ]
    if rows:
        await connection.execute(
            text(
                "INSERT INTO chain_books (source_id, tenant_id, token, block_number, sequence, balance, held, owed,"
                " ledger_held, ledger_owed, parts) VALUES (:source, :tenant, :token, :number, :sequence, :balance,"
                " :held, :owed, :ledger_held, :ledger_owed, CAST(:parts AS jsonb))"
                " ON CONFLICT (source_id, token, block_number) DO UPDATE SET balance = excluded.balance,"
                " ledger_held = excluded.ledger_held, ledger_owed = excluded.ledger_owed, parts = excluded.parts,"
                " compared_at = clock_timestamp()"
            ),
            rows,
        )
