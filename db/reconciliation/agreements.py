"""Pages of escrows, transfers in two phases and settlement commands, each with what the ledger says of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from db.reconciliation.figures import FIRST, OLD, Cursor, Page, read_page
from domain.reconciliation import CommandFigures, EscrowFigures, MilestoneFigures, TransferFigures

#: A page that skips what is closed looks at so many at most for each that it wants.
_SCANNED_PER_SUBJECT = 50
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
                   'due_at', CASE WHEN p.custody_relayer_id IS NULL THEN CASE m.status
                       WHEN 'pending' THEN coalesce(p.funding_deadline, p.expires_at)
                       WHEN 'funded' THEN p.expires_at WHEN 'approved' THEN m.auto_release_at END END
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
               p.buyer_fee_basis_points, p.seller_fee_basis_points, p.custody_relayer_id, parts.milestones,
               moved.moved, untold.untold,
               {_FROZEN.format(asset="p.asset", accounts="p.buyer_user_id, p.seller_user_id, p.fee_account")} AS frozen
        FROM page p LEFT JOIN parts USING (escrow_id) LEFT JOIN moved USING (escrow_id)
        LEFT JOIN untold USING (escrow_id)
    )
    SELECT 1 AS bases, (SELECT count(*) FROM page) AS checked, clock_timestamp() AS clock,
           CASE WHEN (SELECT count(*) FROM page) = :limit THEN (SELECT max(escrow_id::text) FROM page WHERE {OLD})
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
           (SELECT max(transfer_id::text) FROM page WHERE {OLD}) AS last,
           (SELECT jsonb_agg(to_jsonb(f)) FROM figures f) AS found
    """
)


_COMMANDS = text(
    """
    WITH seen AS MATERIALIZED (
        SELECT * FROM settlement_commands WHERE tenant_id = :tenant AND sequence > CAST(:after AS bigint)
        ORDER BY sequence LIMIT :scan
    ), page AS MATERIALIZED (
        SELECT * FROM seen c
        WHERE CAST(:since AS timestamptz) IS NULL OR c.finished_at IS NULL OR c.finished_at > :since
           OR 'command:' || c.command_id IN (
                SELECT subject FROM reconciliation_findings f
                WHERE f.tenant_id = :tenant AND f.resolved_at IS NULL AND f.area = 'commands')
        ORDER BY c.sequence LIMIT :limit
    ), figures AS (
        SELECT p.command_id, p.status, p.kind, p.asset_symbol, p.amount_minor, p.received_at,
               coalesce((SELECT true FROM ledger_transactions t
                   WHERE t.tenant_id = :tenant AND t.transaction_id = p.transaction_id), false) AS posted,
               coalesce((SELECT sum(l.amount_minor) FROM ledger_legs l
                   JOIN accounts a ON a.tenant_id = :tenant AND a.account_id = l.account_id
                   WHERE l.tenant_id = :tenant AND l.transaction_id = p.transaction_id
                     AND a.ref = p.account_ref AND l.asset = p.asset_symbol AND l.pot = 'available'), 0) AS account
        FROM page p
    )
    SELECT 1 AS bases, (SELECT count(*) FROM page) AS checked, clock_timestamp() AS clock,
           CASE WHEN NOT EXISTS (SELECT FROM seen WHERE received_at <= :began) THEN NULL
                WHEN (SELECT count(*) FROM page) = :limit THEN (SELECT max(sequence)::text FROM page)
                ELSE (SELECT max(sequence)::text FROM seen) END AS last,
           (SELECT jsonb_agg(to_jsonb(f)) FROM figures f) AS found
    """
)


async def escrows_page(
    connection: AsyncConnection, tenant: UUID, since: datetime | None, at: Cursor
) -> Page[EscrowFigures]:
    """Escrows behind the cursor: all, or those that are open, were closed after ``since``, or differed before."""
    given = {"since": since, "scan": at.limit * _SCANNED_PER_SUBJECT}
    row = await read_page(connection, _ESCROWS, tenant, at, UUID(at.after or FIRST), **given)
    return Page(int(row.checked), row.last, [_escrow(each) for each in row.found or ()], row.clock)


async def transfers_page(connection: AsyncConnection, tenant: UUID, at: Cursor) -> Page[TransferFigures]:
    """Transfers in two phases behind the cursor, each with its hold and what it paid."""
    row = await read_page(connection, _TRANSFERS, tenant, at, UUID(at.after or FIRST))
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


async def commands_page(
    connection: AsyncConnection, tenant: UUID, since: datetime | None, at: Cursor
) -> Page[CommandFigures]:
    """Commands behind the cursor: all, or those that are open, were finished after ``since``, or differed before."""
    given = {"since": since, "scan": at.limit * _SCANNED_PER_SUBJECT}
    row = await read_page(connection, _COMMANDS, tenant, at, int(at.after or 0), **given)
    found = [
        CommandFigures(
            each["command_id"],
            each["status"],
            each["kind"],
            each["asset_symbol"],
            int(each["amount_minor"]),
            datetime.fromisoformat(each["received_at"]),
            each["posted"],
            int(each["account"]),
        )
        for each in row.found or ()
    ]
    return Page(int(row.checked), row.last, found, row.clock)


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
        relayer_id=each["custody_relayer_id"],
    )


def _instant(value: str | None) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value)
