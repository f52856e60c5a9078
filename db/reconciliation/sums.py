"""The second book: legs added up by account and hold, in the order of recording, page by page.

A page is one commit that adds its legs and moves ``through_sequence``, so a run that dies goes on where it stopped and
two runs on one base share the work. Only what is settled is added: numbers are given out before the commit, so a
transaction with a low number can still be under way when one with a higher number is there to see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.reconciliation import TransactionFigures

#: The base that a run compares with: its own when it began one, else the one that was completed last.
BASE = """
    SELECT base_id, through_sequence FROM reconciliation_bases
    WHERE tenant_id = :tenant AND CASE WHEN CAST(:own AS uuid) IS NULL THEN completed_at IS NOT NULL
                                       ELSE base_id = :own END
    ORDER BY completed_at DESC NULLS LAST LIMIT 1
"""

#: Looked up by key, leg by leg, and then only aggregated: no estimate of how much a page holds can lead to a plan that
#: compares everything with everything. A transaction without legs stays, with nothing beside it.
_ADD = text(
    """
    WITH page AS MATERIALIZED (
        SELECT transaction_id, sequence, leg_count FROM ledger_transactions
        WHERE tenant_id = :tenant AND sequence > :after AND sequence <= :upto ORDER BY sequence LIMIT :limit
    ), legs AS MATERIALIZED (
        SELECT p.transaction_id, p.leg_count, l.account_id, l.hold_id, l.asset, l.pot, l.amount_minor
        FROM page p LEFT JOIN LATERAL (
            SELECT account_id, hold_id, asset, pot, amount_minor FROM ledger_legs
            WHERE tenant_id = :tenant AND transaction_id = p.transaction_id OFFSET 0
        ) AS l ON true
    ), by_account AS (
        INSERT INTO reconciliation_accounts AS s (tenant_id, base_id, account_id, available, held)
        SELECT :tenant, :base, account_id, coalesce(sum(amount_minor) FILTER (WHERE pot = 'available'), 0),
               coalesce(sum(amount_minor) FILTER (WHERE pot = 'held'), 0)
        FROM legs WHERE account_id IS NOT NULL GROUP BY account_id ORDER BY account_id
        ON CONFLICT (tenant_id, base_id, account_id) DO UPDATE
        SET available = s.available + excluded.available, held = s.held + excluded.held
    ), by_hold AS (
        INSERT INTO reconciliation_holds AS s (tenant_id, base_id, hold_id, placed, remaining)
        SELECT :tenant, :base, hold_id, sum(greatest(amount_minor, 0)), sum(amount_minor)
        FROM legs WHERE hold_id IS NOT NULL GROUP BY hold_id ORDER BY hold_id
        ON CONFLICT (tenant_id, base_id, hold_id) DO UPDATE
        SET placed = s.placed + excluded.placed, remaining = s.remaining + excluded.remaining
    ), moved AS (
        UPDATE reconciliation_bases SET through_sequence = (SELECT max(sequence) FROM page)
        WHERE tenant_id = :tenant AND base_id = :base AND EXISTS (SELECT FROM page)
    ), by_asset AS (
        SELECT transaction_id, leg_count, asset, sum(amount_minor) AS total, count(asset) AS legs
        FROM legs GROUP BY transaction_id, leg_count, asset
    ), wrong AS (
        SELECT transaction_id, leg_count, sum(legs) AS legs,
               jsonb_object_agg(asset, total) FILTER (WHERE asset IS NOT NULL) AS sums
        FROM by_asset GROUP BY transaction_id, leg_count HAVING sum(legs) <> leg_count OR bool_or(total <> 0)
    )
    SELECT (SELECT count(*) FROM page) AS checked, (SELECT max(sequence) FROM page) AS through,
           (SELECT jsonb_agg(to_jsonb(w)) FROM wrong w) AS wrong
    """
)


@dataclass(frozen=True, slots=True)
class Base:
    """A second book, and the last transaction that it holds."""

    base_id: UUID
    through_sequence: int


@dataclass(frozen=True, slots=True)
class Added:
    """What one page added: how many transactions, up to which one, and those whose legs are wrong."""

    checked: int
    through_sequence: int
    wrong: Sequence[TransactionFigures]


async def begin_base(connection: AsyncConnection, tenant: UUID, base_id: UUID) -> None:
    """Open an empty book."""
    await connection.execute(
        text("INSERT INTO reconciliation_bases (tenant_id, base_id, through_sequence) VALUES (:tenant, :base, 0)"),
        {"tenant": tenant, "base": base_id},
    )


async def find_base(connection: AsyncConnection, tenant: UUID, own: UUID | None, *, lock: bool = False) -> Base | None:
    """The book of run ``own``, or without one the book that was completed last; locked until the commit if asked."""
    query = text(BASE + (" FOR UPDATE" if lock else ""))
    row = (await connection.execute(query, {"tenant": tenant, "own": own})).one_or_none()
    return None if row is None else Base(row.base_id, int(row.through_sequence))


async def tip(connection: AsyncConnection, tenant: UUID) -> tuple[int, str]:
    """The highest number in sight, and a mark: once ``is_settled`` says so, nothing below it can still appear.

    Whoever posts has a transaction id before it gets its numbers, for it locked accounts. So every posting with a
    lower number has a lower id than this transaction, which takes its id after it looked.
    """
    highest = await connection.scalar(
        text("SELECT coalesce(max(sequence), 0) FROM ledger_transactions WHERE tenant_id = :tenant"), {"tenant": tenant}
    )
    mark = await connection.scalar(text("SELECT pg_current_xact_id()::text"))
    return int(highest or 0), str(mark)


async def is_settled(connection: AsyncConnection, mark: str) -> bool:
    """Whether every database transaction that began to write before ``mark`` has ended."""
    query = text("SELECT pg_snapshot_xmin(pg_current_snapshot()) > CAST(CAST(:mark AS text) AS xid8)")
    return bool(await connection.scalar(query, {"mark": mark}))


async def tail_length(connection: AsyncConnection, tenant: UUID, base: Base, *, limit: int) -> int:
    """How many transactions a book does not hold yet, counted up to ``limit``."""
    query = text(
        "SELECT count(*) FROM (SELECT FROM ledger_transactions WHERE tenant_id = :tenant AND sequence > :after"
        " LIMIT :limit) AS tail"
    )
    found = await connection.scalar(query, {"tenant": tenant, "after": base.through_sequence, "limit": limit})
    return int(found or 0)


async def count_between(connection: AsyncConnection, tenant: UUID, after: int, upto: int) -> int:
    """How many transactions have a number above ``after`` and up to ``upto``."""
    query = text(
        "SELECT count(*) FROM ledger_transactions WHERE tenant_id = :tenant AND sequence > :after AND sequence <= :upto"
    )
    return int(await connection.scalar(query, {"tenant": tenant, "after": after, "upto": upto}) or 0)


async def add_page(connection: AsyncConnection, tenant: UUID, base: Base, *, upto: int, limit: int) -> Added:
    """Add the next ``limit`` transactions, to number ``upto`` at most, to a book that the caller has locked."""
    await keys_only(connection)
    row = (
        await connection.execute(
            _ADD,
            {
                "tenant": tenant,
                "base": base.base_id,
                "after": base.through_sequence,
                "upto": upto,
                "limit": limit,
            },
        )
    ).one()
    wrong = [
        TransactionFigures(
            UUID(each["transaction_id"]),
            each["leg_count"],
            int(each["legs"]),
            {asset: int(total) for asset, total in (each["sums"] or {}).items()},
        )
        for each in row.wrong or ()
    ]
    return Added(int(row.checked), base.through_sequence if row.through is None else int(row.through), wrong)


async def complete_base(connection: AsyncConnection, tenant: UUID, base_id: UUID) -> None:
    """Let other runs compare with a book from now on."""
    await connection.execute(
        text(
            "UPDATE reconciliation_bases SET completed_at = clock_timestamp()"
            " WHERE tenant_id = :tenant AND base_id = :base"
        ),
        {"tenant": tenant, "base": base_id},
    )


async def delete_replaced(connection: AsyncConnection, tenant: UUID, *, limit: int) -> int:
    """Delete books that no run uses any more, and up to ``limit`` of each kind of sum of books that are gone.

    As the role that may delete. Returns how many sums went; less than ``limit`` when nothing is left.
    """
    await connection.execute(
        text(
            """
            DELETE FROM reconciliation_bases b WHERE b.tenant_id = :tenant AND b.base_id <> (
                SELECT c.base_id FROM reconciliation_bases c
                WHERE c.tenant_id = :tenant AND c.completed_at IS NOT NULL ORDER BY c.completed_at DESC LIMIT 1
            ) AND (b.completed_at IS NOT NULL OR NOT EXISTS (
                SELECT FROM reconciliation_runs r
                WHERE r.tenant_id = :tenant AND r.run_id = b.base_id AND r.status = 'running'
            ))
            """
        ),
        {"tenant": tenant},
    )
    deleted = [
        await connection.execute(
            text(
                f"DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT s.ctid FROM {table} s"
                " WHERE s.tenant_id = :tenant AND NOT EXISTS (SELECT FROM reconciliation_bases b"
                " WHERE b.tenant_id = :tenant AND b.base_id = s.base_id) LIMIT :limit))"
            ),
            {"tenant": tenant, "limit": limit},
        )
        for table in ("reconciliation_accounts", "reconciliation_holds")
    ]
    return max(int(getattr(done, "rowcount", 0)) for done in deleted)


async def keys_only(connection: AsyncConnection) -> None:
    """For the rest of the transaction: no plan that reads a whole table, however small it was when it was last looked
    at; a page is small whatever the ledger is."""
    await connection.execute(
        text(
            "SELECT set_config('enable_seqscan', 'off', true), set_config('enable_mergejoin', 'off', true),"
            " set_config('plan_cache_mode', 'force_custom_plan', true)"
        )
    )
