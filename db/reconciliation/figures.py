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
from domain.reconciliation import AccountFigures, EscrowFigures, HoldFigures, MilestoneFigures, TransferFigures

FiguresT = TypeVar("FiguresT")

#: Whether a page has anything that was there when the run began; behind a page of younger rows there are only more of
#: them, and a run that followed would never end on a busy desk.
_OLD = "EXISTS (SELECT FROM page WHERE recorded_at <= :began)"

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
           (SELECT max(account_id)::text FROM page WHERE {_OLD}) AS last,
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
           (SELECT max(hold_id::text) FROM page WHERE {_OLD}) AS last,
           (SELECT jsonb_agg(to_jsonb(c)) FROM compared c
            WHERE c.placed_minor <> c.placed_legs OR c.remaining_minor <> c.remaining_legs
               OR (c.remaining_minor <> 0 AND NOT c.owned)) AS found
    """
)

_SEEN = "EXISTS (SELECT FROM seen WHERE recorded_at <= :began)"
_FROZEN = """EXISTS (
    SELECT FROM freezes f WHERE f.tenant_id = :tenant AND f.lifted_at IS NULL AND CASE f.scope
        WHEN 'tenant' THEN true WHEN 'asset' THEN f.ref = {asset} ELSE f.ref IN ({accounts}) END
)"""

_ESCROWS = text(
    f"""
    WITH seen AS MATERIALIZED (
        SELECT * FROM escrows WHERE tenant_id = :tenant AND escrow_id > CAST(:after AS uuid)
        ORDER BY escrow_id LIMIT :scan
    ), page AS MATERIALIZED (
        SELECT * FROM seen e
        WHERE CAST(:since AS timestamptz) IS NULL OR e.closed_at IS NULL OR e.closed_at > :since
           OR 'escrow:' || e.escrow_id IN (
                SELECT subject FROM reconciliation_findings f
                WHERE f.tenant_id = :tenant AND f.resolved_at IS NULL AND f.area = 'escrows')
        ORDER BY e.escrow_id LIMIT :limit
    ), parts AS MATERIALIZED (
        SELECT p.escrow_id, jsonb_agg(jsonb_build_object('position', m.position, 'status', m.status,
                   'amount', m.amount_minor, 'released', m.released_minor, 'refunded', m.refunded_minor,
                   'funded', m.funded_at IS NOT NULL, 'placed', h.placed_minor, 'remaining', h.remaining_minor,
                   'due_at', CASE m.status WHEN 'pending' THEN coalesce(p.funding_deadline, p.expires_at)
                       WHEN 'funded' THEN p.expires_at WHEN 'approved' THEN m.auto_release_at END
               ) ORDER BY m.position) AS milestones
        FROM page p CROSS JOIN LATERAL (
            SELECT * FROM escrow_milestones WHERE tenant_id = :tenant AND escrow_id = p.escrow_id OFFSET 0
        ) AS m LEFT JOIN LATERAL (
            SELECT placed_minor, remaining_minor FROM holds
            WHERE tenant_id = :tenant AND hold_id = m.milestone_id OFFSET 0
        ) AS h ON true
        GROUP BY p.escrow_id
    ), postings AS MATERIALIZED (
        SELECT p.escrow_id, t.transaction_id FROM page p CROSS JOIN LATERAL (
            SELECT transaction_id FROM ledger_transactions
            WHERE tenant_id = :tenant AND escrow_id = p.escrow_id OFFSET 0
        ) AS t
    ), moves AS (
        SELECT t.escrow_id, a.ref, l.asset, l.pot, sum(l.amount_minor) AS amount
        FROM postings t CROSS JOIN LATERAL (
            SELECT account_id, asset, pot, amount_minor FROM ledger_legs
            WHERE tenant_id = :tenant AND transaction_id = t.transaction_id OFFSET 0
        ) AS l CROSS JOIN LATERAL (
            SELECT ref FROM accounts WHERE tenant_id = :tenant AND account_id = l.account_id OFFSET 0
        ) AS a
        GROUP BY t.escrow_id, a.ref, l.asset, l.pot
    ), moved AS MATERIALIZED (
        SELECT escrow_id, jsonb_agg(jsonb_build_array(ref, asset, pot, amount)) AS moved FROM moves GROUP BY escrow_id
    ), traces AS (
        SELECT escrow_id, transaction_id, 'posting' AS what FROM postings
        UNION ALL
        SELECT p.escrow_id, CAST(named.value AS uuid), 'event'
        FROM page p CROSS JOIN LATERAL (
            SELECT data FROM outbox WHERE tenant_id = :tenant AND subject = 'escrow:' || p.escrow_id
              AND starts_with(subject, 'escrow:') OFFSET 0
        ) AS o CROSS JOIN LATERAL jsonb_each_text(o.data -> 'transactions') AS named
        UNION ALL
        SELECT p.escrow_id, CAST(named.value AS uuid), 'audit record'
        FROM page p CROSS JOIN LATERAL (
            SELECT details FROM audit_log WHERE tenant_id = :tenant AND subject = 'escrow:' || p.escrow_id OFFSET 0
        ) AS o CROSS JOIN LATERAL jsonb_each_text(o.details -> 'transactions') AS named
    ), told AS (
        SELECT escrow_id, transaction_id, array_agg(what) AS whats FROM traces
        GROUP BY escrow_id, transaction_id HAVING bool_or(what = 'posting')
    ), untold AS MATERIALIZED (
        SELECT t.escrow_id, jsonb_agg(jsonb_build_array(t.transaction_id, needed.what)) AS untold
        FROM told t CROSS JOIN unnest(ARRAY['event', 'audit record']) AS needed (what)
        WHERE needed.what <> ALL (t.whats) GROUP BY t.escrow_id
    ), figures AS (
        SELECT p.escrow_id, p.status, p.asset, p.buyer_user_id, p.seller_user_id, p.fee_account,
               p.buyer_fee_basis_points, p.seller_fee_basis_points, parts.milestones, moved.moved, untold.untold,
               {_FROZEN.format(asset="p.asset", accounts="p.buyer_user_id, p.seller_user_id, p.fee_account")} AS frozen
        FROM page p LEFT JOIN parts USING (escrow_id) LEFT JOIN moved USING (escrow_id)
        LEFT JOIN untold USING (escrow_id)
    )
    SELECT 1 AS bases, (SELECT count(*) FROM page) AS checked, clock_timestamp() AS clock,
           CASE WHEN (SELECT count(*) FROM page) = :limit THEN (SELECT max(escrow_id::text) FROM page WHERE {_OLD})
                ELSE (SELECT max(escrow_id::text) FROM seen WHERE {_SEEN}) END AS last,
           (SELECT jsonb_agg(to_jsonb(f)) FROM figures f) AS found
    """
)

_TRANSFERS = text(
    f"""
    WITH page AS MATERIALIZED (
        SELECT * FROM pending_transfers WHERE tenant_id = :tenant AND transfer_id > CAST(:after AS uuid)
        ORDER BY transfer_id LIMIT :limit
    ), figures AS (
        SELECT p.transfer_id, p.status, p.asset, p.amount_minor, coalesce(p.posted_minor, 0) AS posted, p.expires_at,
               coalesce(h.placed_minor, 0) AS placed, coalesce(h.remaining_minor, 0) AS remaining,
               coalesce((SELECT sum(l.amount_minor) FROM ledger_legs l
                   JOIN accounts a ON a.tenant_id = :tenant AND a.account_id = l.account_id
                   WHERE l.tenant_id = :tenant AND l.transaction_id = p.resolution_transaction_id
                     AND a.ref = p.credit_ref AND l.asset = p.asset AND l.pot = 'available'), 0) AS credited,
               {_FROZEN.format(asset="p.asset", accounts="p.debit_ref, p.credit_ref")} AS frozen
        FROM page p LEFT JOIN holds h ON h.tenant_id = :tenant AND h.hold_id = p.transfer_id
    )
    SELECT 1 AS bases, (SELECT count(*) FROM page) AS checked, clock_timestamp() AS clock,
           (SELECT max(transfer_id::text) FROM page WHERE {_OLD}) AS last,
           (SELECT jsonb_agg(to_jsonb(f)) FROM figures f) AS found
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
    row = await _page(connection, _ACCOUNTS, tenant, at, own=own)
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
    row = await _page(connection, _HOLDS, tenant, at, own=own)
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


async def escrows_page(
    connection: AsyncConnection, tenant: UUID, since: datetime | None, at: Cursor
) -> Page[EscrowFigures]:
    """Escrows behind the cursor: all, or those that are open, were closed after ``since``, or differed before."""
    given = {"since": since, "scan": at.limit * _SCANNED_PER_ESCROW}
    row = await _page(connection, _ESCROWS, tenant, at, **given)
    return Page(int(row.checked), row.last, [_escrow(each) for each in row.found or ()], row.clock)


async def transfers_page(connection: AsyncConnection, tenant: UUID, at: Cursor) -> Page[TransferFigures]:
    """Transfers in two phases behind the cursor, each with its hold and what it paid."""
    row = await _page(connection, _TRANSFERS, tenant, at)
    found = [
        TransferFigures(
            UUID(each["transfer_id"]),
            each["status"],
            each["asset"],
            int(each["amount_minor"]),
            int(each["posted"]),
            int(each["credited"]),
            int(each["placed"]),
            int(each["remaining"]),
            _instant(each["expires_at"]),
            each["frozen"],
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


_FIRST = str(UUID(int=0))
#: A page that skips closed escrows looks at so many at most for each that it wants.
_SCANNED_PER_ESCROW = 50


async def _page(connection: AsyncConnection, query: Any, tenant: UUID, at: Cursor, **more: Any) -> Any:
    await keys_only(connection)
    key = int(at.after or 0) if query is _ACCOUNTS else UUID(at.after or _FIRST)
    given = {"tenant": tenant, "after": key, "began": at.began, "limit": at.limit, **more}
    row = (await connection.execute(query, given)).one()
    if not row.bases:
        raise BaseMissing(f"tenant {tenant}, run {more.get('own')}")
    return row


def _escrow(each: dict[str, Any]) -> EscrowFigures:
    return EscrowFigures(
        escrow_id=UUID(each["escrow_id"]),
        status=each["status"],
        asset=each["asset"],
        buyer=each["buyer_user_id"],
        seller=each["seller_user_id"],
        fee_account=each["fee_account"],
        buyer_fee_basis_points=each["buyer_fee_basis_points"],
        seller_fee_basis_points=each["seller_fee_basis_points"],
        milestones=tuple(
            MilestoneFigures(
                position=part["position"],
                status=part["status"],
                amount_minor=int(part["amount"]),
                released_minor=int(part["released"]),
                refunded_minor=int(part["refunded"]),
                funded=part["funded"],
                due_at=_instant(part["due_at"]),
                hold_placed_minor=None if part["placed"] is None else int(part["placed"]),
                hold_remaining_minor=None if part["remaining"] is None else int(part["remaining"]),
            )
            for part in each["milestones"] or ()
        ),
        moved={(ref, asset, pot): int(amount) for ref, asset, pot, amount in each["moved"] or ()},
        untold=tuple((UUID(transaction_id), what) for transaction_id, what in each["untold"] or ()),
        frozen=each["frozen"],
    )


def _instant(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value)
