"""Whether balances are what the legs add up to: recomputed from every leg."""

from __future__ import annotations

from typing import Any

import psycopg

from tools.seals.findings import Finding

_ORPHANS = """
SELECT l.tenant_id, l.transaction_id, l.leg_no FROM ledger_legs l
WHERE NOT EXISTS (
    SELECT FROM ledger_transactions t WHERE t.tenant_id = l.tenant_id AND t.transaction_id = l.transaction_id
) ORDER BY 1, 2, 3 LIMIT 1
"""
_ACCOUNTS = """
SELECT tenant_id, account_id, a.ref, a.available_minor, a.held_minor, l.available, l.held
FROM accounts a FULL JOIN (
    SELECT tenant_id, account_id, coalesce(sum(amount_minor) FILTER (WHERE pot = 'available'), 0) AS available,
           coalesce(sum(amount_minor) FILTER (WHERE pot = 'held'), 0) AS held
    FROM ledger_legs GROUP BY tenant_id, account_id
) AS l USING (tenant_id, account_id)
WHERE (a.available_minor, a.held_minor) IS DISTINCT FROM (coalesce(l.available, 0), coalesce(l.held, 0))
ORDER BY tenant_id, account_id LIMIT 1
"""
_HOLDS = """
SELECT tenant_id, hold_id, h.remaining_minor, l.remaining
FROM holds h FULL JOIN (
    SELECT tenant_id, hold_id, sum(amount_minor) AS remaining FROM ledger_legs WHERE hold_id IS NOT NULL
    GROUP BY tenant_id, hold_id
) AS l USING (tenant_id, hold_id)
WHERE h.remaining_minor IS DISTINCT FROM coalesce(l.remaining, 0)
ORDER BY tenant_id, hold_id LIMIT 1
"""
_TRIAL = """
SELECT tenant_id, asset, sum(available_minor + held_minor) FROM accounts
GROUP BY tenant_id, asset HAVING sum(available_minor + held_minor) <> 0 ORDER BY tenant_id, asset LIMIT 1
"""


def check(connection: psycopg.Connection[Any]) -> tuple[int, int]:
    """How many accounts and holds there are, all of them right; raises ``Finding`` for the first that is not."""
    row = connection.execute(_ORPHANS).fetchone()
    if row is not None:
        raise Finding(f"leg {row[2]} of transaction {row[1]} of tenant {row[0]}: its transaction is not there")
    row = connection.execute(_ACCOUNTS).fetchone()
    if row is not None:
        tenant, account, ref, available, held, available_legs, held_legs = row
        raise Finding(
            f"account {account} ({ref}) of tenant {tenant}: its balance is {available} available and {held} held,"
            f" its legs add up to {available_legs or 0} and {held_legs or 0}"
        )
    row = connection.execute(_HOLDS).fetchone()
    if row is not None:
        raise Finding(f"hold {row[1]} of tenant {row[0]}: {row[2]} remain, its legs add up to {row[3] or 0}")
    row = connection.execute(_TRIAL).fetchone()
    if row is not None:
        raise Finding(f"{row[1]} of tenant {row[0]}: all accounts together have {row[2]}, not nothing")
    counted = connection.execute("SELECT (SELECT count(*) FROM accounts), (SELECT count(*) FROM holds)").fetchone()
    assert counted is not None
    return int(counted[0]), int(counted[1])
