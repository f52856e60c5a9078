"""What a tenant's database says, in the words of the reference model; and what must be true of it by itself."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_READ = text(
    """
    SELECT jsonb_build_object(
        'accounts', (SELECT jsonb_agg(jsonb_build_array(ref, asset, available_minor, held_minor)) FROM accounts),
        'holds', (SELECT jsonb_agg(jsonb_build_array(m.escrow_id, m.position, h.placed_minor, h.remaining_minor))
                  FROM holds h LEFT JOIN escrow_milestones m
                  ON m.tenant_id = h.tenant_id AND m.milestone_id = h.hold_id AND m.escrow_id = h.escrow_id),
        'escrows', (SELECT jsonb_agg(to_jsonb(e)) FROM escrows e),
        'milestones', (SELECT jsonb_agg(to_jsonb(m)) FROM escrow_milestones m),
        'receipts', (SELECT jsonb_agg(step_id) FROM receipts),
        'postings', (SELECT jsonb_agg(jsonb_build_array(kind, n))
                     FROM (SELECT kind, count(*) AS n FROM ledger_transactions GROUP BY kind) AS k),
        'events', (SELECT jsonb_agg(jsonb_build_array(subject, type, data->'milestone', data->'amount')
                   ORDER BY outbox_id) FROM outbox)
    )::text
    """
)

#: Each part answers rows only where something is wrong; the first column says what.
_WRONG = text(
    """
    WITH legs AS (
        SELECT tenant_id, account_id, pot, hold_id, l.asset, sum(amount_minor) AS total,
               sum(greatest(amount_minor, 0)) AS placed
        FROM ledger_legs l GROUP BY 1, 2, 3, 4, 5
    ), pots AS (
        SELECT account_id, coalesce(sum(total) FILTER (WHERE pot = 'available'), 0) AS available,
               coalesce(sum(total) FILTER (WHERE pot = 'held'), 0) AS held
        FROM legs GROUP BY 1
    )
    SELECT 'an asset that does not sum to zero', asset FROM accounts
    GROUP BY asset HAVING sum(available_minor + held_minor) <> 0
    UNION ALL SELECT 'a transaction that does not sum to zero', transaction_id::text FROM ledger_legs
    GROUP BY transaction_id, asset HAVING sum(amount_minor) <> 0
    UNION ALL SELECT 'a negative balance', ref FROM accounts
    WHERE (available_minor < 0 AND ref <> 'system:external') OR held_minor < 0
    UNION ALL SELECT 'a balance that is not the sum of its legs', ref FROM accounts LEFT JOIN pots USING (account_id)
    WHERE (available_minor, held_minor) IS DISTINCT FROM (coalesce(available, 0), coalesce(held, 0))
    UNION ALL SELECT 'a balance on hold that is not the sum of its holds', ref FROM accounts
    WHERE held_minor <> (SELECT coalesce(sum(remaining_minor), 0) FROM holds
                         WHERE holds.account_id = accounts.account_id)
    UNION ALL SELECT 'a hold that is not the sum of its legs', h.hold_id::text FROM holds h
    LEFT JOIN legs USING (tenant_id, account_id, hold_id)
    WHERE (placed_minor, remaining_minor) IS DISTINCT FROM (coalesce(legs.placed, 0), coalesce(total, 0))
    UNION ALL SELECT 'a closed milestone with money on hold', m.milestone_id::text FROM escrow_milestones m
    JOIN holds h ON h.tenant_id = m.tenant_id AND h.hold_id = m.milestone_id
    WHERE m.closed_at IS NOT NULL AND h.remaining_minor <> 0
    UNION ALL SELECT 'more or fewer receipts than records', count(*)::text FROM receipts
    HAVING count(*) <> (SELECT count(*) FROM audit_log)
    """
)


async def wrong(connection: AsyncConnection) -> list[tuple[str, str]]:
    """What is not as it must be in any ledger, whatever happened."""
    return [(row[0], row[1]) for row in await connection.execute(_WRONG)]


async def read(connection: AsyncConnection) -> dict[str, dict[Any, Any]]:
    """The tenant's state, keyed and shaped as ``World.describe`` answers it."""
    rows = json.loads(await connection.scalar(_READ) or "{}")
    rows = {table: entries or [] for table, entries in rows.items()}
    events: dict[str, list[Any]] = {}
    for subject, kind, milestone, amount in rows["events"]:
        events.setdefault(subject, []).append((kind, milestone, None if amount is None else minor(amount)))
    return {
        "accounts": {(ref, asset): (free, held) for ref, asset, free, held in rows["accounts"] if free or held},
        "holds": {(escrow, position): (placed, left) for escrow, position, placed, left in rows["holds"]},
        "escrows": {
            row["escrow_id"]: (row["status"], row["version"], instant(row["updated_at"]), instant(row["closed_at"]))
            for row in rows["escrows"]
        },
        "milestones": {(row["escrow_id"], row["position"]): _milestone(row) for row in rows["milestones"]},
        "receipts": {step: rows["receipts"].count(step) for step in rows["receipts"]},
        "postings": dict(rows["postings"]),
        "events": events,
    }


def _milestone(row: dict[str, Any]) -> tuple[Any, ...]:
    disputed_by = (row["dispute"] or {}).get("role")
    clocks = ("funded_at", "approved_at", "auto_release_at", "closed_at")
    return (
        (row["status"], row["amount_minor"], row["released_minor"], row["refunded_minor"]),
        (tuple(given["role"] for given in row["approvals"]), disputed_by),
        tuple(instant(row[clock]) for clock in clocks),
    )


def minor(amount: str) -> int:
    """Minor units from text that has every decimal place of its asset."""
    return int(amount.replace(".", ""))


def instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def differences(model: dict[str, dict[Any, Any]], database: dict[str, dict[Any, Any]]) -> list[str]:
    """Where the two disagree, in words that a person can read."""
    return [
        f"{table} {key}: the model says {model[table].get(key)}, the database {database[table].get(key)}"
        for table in model
        for key in sorted(model[table].keys() | database[table].keys(), key=str)
        if model[table].get(key) != database[table].get(key)
    ]
