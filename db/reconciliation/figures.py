"""Pages of figures to compare: each is one statement, so that all its figures are of one snapshot.

Pages follow the key of what is compared. A page of accounts or holds sends only those that differ; the second book
answers for the settled part of the ledger, and what was posted since is added in the same snapshot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.reconciliation.sums import BASE, keys_only
from domain.reconciliation import AccountFigures, HoldFigures

FiguresT = TypeVar("FiguresT")

#: The key before all others of a table whose keys are UUIDs.
FIRST = str(UUID(int=0))

#: Whether a page has anything that was there when the run began; behind a page of younger rows there are only more of
#: them, and a run that followed would never end on a busy desk.
OLD = "EXISTS (SELECT FROM page WHERE recorded_at <= :began)"

#: Legs of the transactions that the book does not hold yet. They and the sums are brought together with the page by
#: grouping, never by a join: whatever a plan takes their number to be, each is read once.
_TAIL = f"""
    base AS MATERIALIZED ({BASE}),
    tail AS MATERIALIZED (
        SELECT l.account_id, l.hold_id, l.pot, l.amount_minor
        FROM base CROSS JOIN LATERAL (
            SELECT transaction_id FROM ledger_transactions
            WHERE tenant_id = :tenant AND sequence > base.through_sequence OFFSET 0
        ) AS t CROSS JOIN LATERAL (
            SELECT account_id, hold_id, pot, amount_minor FROM ledger_legs
            WHERE tenant_id = :tenant AND transaction_id = t.transaction_id OFFSET 0
        ) AS l
    )
"""

_ACCOUNTS = text(
    f"""
    WITH {_TAIL}, page AS MATERIALIZED (
        SELECT account_id, ref, asset, available_minor, held_minor, recorded_at FROM accounts
        WHERE tenant_id = :tenant AND account_id > CAST(:after AS bigint) ORDER BY account_id LIMIT :limit
    ), pieces AS (
        SELECT account_id, ref, asset, available_minor, held_minor, 0 AS available, 0 AS held FROM page
        UNION ALL
        SELECT p.account_id, NULL, NULL, 0, 0, s.available, s.held FROM page p CROSS JOIN base b CROSS JOIN LATERAL (
            SELECT available, held FROM reconciliation_accounts
            WHERE tenant_id = :tenant AND base_id = b.base_id AND account_id = p.account_id OFFSET 0
        ) AS s
        UNION ALL
        SELECT account_id, NULL, NULL, 0, 0, CASE pot WHEN 'available' THEN amount_minor ELSE 0 END,
               CASE pot WHEN 'held' THEN amount_minor ELSE 0 END FROM tail
    ), compared AS (
        SELECT account_id, max(ref) AS ref, max(asset) AS asset, sum(available_minor) AS available_minor,
               sum(held_minor) AS held_minor, sum(available) AS available_legs, sum(held) AS held_legs
        FROM pieces GROUP BY account_id HAVING max(ref) IS NOT NULL
    )
    SELECT (SELECT count(*) FROM base) AS bases, (SELECT count(*) FROM page) AS checked, clock_timestamp() AS clock,
           (SELECT max(account_id)::text FROM page WHERE {OLD}) AS last,
           (SELECT jsonb_agg(to_jsonb(c)) FROM compared c
            WHERE c.available_minor <> c.available_legs OR c.held_minor <> c.held_legs) AS found
    """
)

_HOLDS = text(
    f"""
    WITH {_TAIL}, page AS MATERIALIZED (
        SELECT hold_id, asset, escrow_id, placed_minor, remaining_minor, recorded_at FROM holds
        WHERE tenant_id = :tenant AND hold_id > CAST(:after AS uuid) ORDER BY hold_id LIMIT :limit
    ), pieces AS (
        SELECT hold_id, asset, placed_minor, remaining_minor, 0 AS placed, 0 AS remaining, CASE
                   WHEN escrow_id IS NULL THEN EXISTS (
                       SELECT FROM pending_transfers t WHERE t.tenant_id = :tenant AND t.transfer_id = p.hold_id)
                    OR EXISTS (SELECT FROM chain_credits c WHERE c.tenant_id = :tenant AND c.hold_id = p.hold_id)
                   ELSE EXISTS (
                       SELECT FROM escrow_milestones m WHERE m.tenant_id = :tenant AND m.milestone_id = p.hold_id
                         AND m.escrow_id = p.escrow_id)
               END AS owned
        FROM page p
        UNION ALL
        SELECT p.hold_id, NULL, 0, 0, s.placed, s.remaining, NULL FROM page p CROSS JOIN base b CROSS JOIN LATERAL (
            SELECT placed, remaining FROM reconciliation_holds
            WHERE tenant_id = :tenant AND base_id = b.base_id AND hold_id = p.hold_id OFFSET 0
        ) AS s
        UNION ALL
        SELECT hold_id, NULL, 0, 0, greatest(amount_minor, 0), amount_minor, NULL FROM tail WHERE hold_id IS NOT NULL
    ), compared AS (
        SELECT hold_id, max(asset) AS asset, bool_or(owned) AS owned, sum(placed_minor) AS placed_minor,
               sum(remaining_minor) AS remaining_minor, sum(placed) AS placed_legs, sum(remaining) AS remaining_legs
        FROM pieces GROUP BY hold_id HAVING max(asset) IS NOT NULL
    )
    SELECT (SELECT count(*) FROM base) AS bases, (SELECT count(*) FROM page) AS checked, clock_timestamp() AS clock,
           (SELECT max(hold_id::text) FROM page WHERE {OLD}) AS last,
           (SELECT jsonb_agg(to_jsonb(c)) FROM compared c
            WHERE c.placed_minor <> c.placed_legs OR c.remaining_minor <> c.remaining_legs
               OR (c.remaining_minor <> 0 AND NOT c.owned)) AS found
    """
)


@dataclass(frozen=True, slots=True)
class Page(Generic[FiguresT]):
    """How many subjects were compared, the key of the last one (None: there are no more), what is to be judged, and
    the database's clock."""

    checked: int
    last: str | None
    found: Sequence[FiguresT]
    clock: datetime


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page starts (behind the key ``after``, empty at the start), when the run began, how much it may hold."""

    after: str
    began: datetime
    limit: int


class BaseMissing(RuntimeError):
    """There is no book to compare with. A bug: a run begins one when there is none."""


async def accounts_page(
    connection: AsyncConnection, tenant: UUID, own: UUID | None, at: Cursor
) -> Page[AccountFigures]:
    """Accounts behind the cursor whose balances are not the sums of their legs."""
    row = await read_page(connection, _ACCOUNTS, tenant, at, int(at.after or 0), own=own)
    found = [
        AccountFigures(
            each["ref"],
            each["asset"],
            int(each["available_minor"]),
            int(each["held_minor"]),
            int(each["available_legs"]),
            int(each["held_legs"]),
        )
        for each in row.found or ()
    ]
    return Page(int(row.checked), row.last, found, row.clock)


async def holds_page(connection: AsyncConnection, tenant: UUID, own: UUID | None, at: Cursor) -> Page[HoldFigures]:
    """Holds behind the cursor that are not the sums of their legs, or hold money for nobody."""
    row = await read_page(connection, _HOLDS, tenant, at, UUID(at.after or FIRST), own=own)
    found = [
        HoldFigures(
            UUID(each["hold_id"]),
            each["asset"],
            int(each["placed_minor"]),
            int(each["remaining_minor"]),
            int(each["placed_legs"]),
            int(each["remaining_legs"]),
            each["owned"],
        )
        for each in row.found or ()
    ]
    return Page(int(row.checked), row.last, found, row.clock)


async def asset_sums(connection: AsyncConnection, tenant: UUID) -> dict[str, int]:
    """The sum of all balances, per asset that the tenant ever had."""
    query = text(
        "SELECT asset, sum(available_minor + held_minor) FROM accounts WHERE tenant_id = :tenant GROUP BY asset"
    )
    return {row[0]: int(row[1]) for row in await connection.execute(query, {"tenant": tenant})}


async def read_page(
    connection: AsyncConnection, query: Any, tenant: UUID, at: Cursor, after: int | UUID, **more: Any
) -> Any:
    """The one row that a page's statement answers; ``after`` is the cursor's key as what it is."""
    await keys_only(connection)
    given = {"tenant": tenant, "after": after, "began": at.began, "limit": at.limit, **more}
    row = (await connection.execute(query, given)).one()
    if not row.bases:
        raise BaseMissing(f"tenant {tenant}, run {more.get('own')}")
    return row
