"""Data that is there before anything is measured, loaded set by set, with every trigger and constraint at work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg

from tools.local.process import wait_until

BUYERS = 100
WIDE = 10_000
HOT = 10
ASSET = "USDC"
#: Enough in each account that no posting of a run is refused for want of money.
PLENTY_MINOR = 10**15
#: One statement; the accounts that it moves are written once per statement.
CHUNK = 50_000
CATCH_UP_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Scale:
    """How much there is; ``factor`` 1 is the base."""

    factor: int

    @property
    def escrows(self) -> int:
        """Open escrows as rows, each with its audit record, event and receipt."""
        return 1_000 * self.factor

    @property
    def workflows(self) -> int:
        """How many of them have a running workflow."""
        return 200 * self.factor

    @property
    def transactions(self) -> int:
        """Of two legs each."""
        return 100_000 * self.factor


_ACCOUNTS = """
INSERT INTO accounts (tenant_id, ref, asset)
SELECT %(tenant)s, ref, %(asset)s FROM (
    SELECT 'system:external' AS ref
    UNION ALL SELECT format('buyer-%%s', lpad(i::text, 3, '0')) FROM generate_series(0, %(buyers)s - 1) AS i
    UNION ALL SELECT format('seller-%%s', lpad(i::text, 3, '0')) FROM generate_series(0, %(buyers)s - 1) AS i
    UNION ALL SELECT format('wide-%%s', i) FROM generate_series(0, %(wide)s - 1) AS i
    UNION ALL SELECT format('hot-%%s', i) FROM generate_series(0, %(hot)s - 1) AS i
) AS wanted
ON CONFLICT (tenant_id, ref, asset) DO NOTHING
"""

_DEPOSITS = """
WITH outside AS (
    SELECT account_id FROM accounts WHERE tenant_id = %(tenant)s AND asset = %(asset)s AND ref = 'system:external'
), wanted AS MATERIALIZED (
    SELECT uuidv7() AS transaction_id, account_id FROM accounts, generate_series(1, %(each)s)
    WHERE tenant_id = %(tenant)s AND asset = %(asset)s AND ref ~ %(refs)s
), headers AS (
    INSERT INTO ledger_transactions (tenant_id, transaction_id, kind, description, leg_count, effective_at)
    SELECT %(tenant)s, transaction_id, 'deposit', 'loaded before the bench', 2, clock_timestamp() FROM wanted
)
INSERT INTO ledger_legs (tenant_id, transaction_id, leg_no, account_id, asset, pot, amount_minor)
SELECT %(tenant)s, transaction_id, 1, outside.account_id, %(asset)s, 'available', -%(amount)s::numeric
FROM wanted, outside
UNION ALL
SELECT %(tenant)s, transaction_id, 2, account_id, %(asset)s, 'available', %(amount)s::numeric FROM wanted
"""

_ESCROWS = """
WITH wanted AS MATERIALIZED (
    SELECT uuidv7() AS escrow_id, i, lpad((i %% %(buyers)s)::text, 3, '0') AS who
    FROM generate_series(1, %(count)s) AS i
), made AS (
    INSERT INTO escrows (tenant_id, content_hash, escrow_id, reference, status, version, asset, amount_minor,
        buyer_user_id, seller_user_id, policy_roles, policy_required, buyer_fee_basis_points,
        seller_fee_basis_points, fee_account, expires_at, created_at, updated_at)
    SELECT %(tenant)s, sha256(uuid_send(escrow_id)), escrow_id, format('loaded-%%s', escrow_id), 'created', 1,
        %(asset)s, 1000000, 'buyer-' || who, 'seller-' || who, '{buyer}', 1, 0, 0, 'system:fees',
        clock_timestamp() + interval '60 days', clock_timestamp(), clock_timestamp()
    FROM wanted RETURNING tenant_id, escrow_id
), parts AS (
    INSERT INTO escrow_milestones (tenant_id, escrow_id, position, milestone_id, title, amount_minor, status,
        released_minor, refunded_minor, approvals)
    SELECT %(tenant)s, escrow_id, 1, uuidv7(), 'Full amount', 1000000, 'pending', 0, 0, '[]' FROM wanted
), told AS (
    INSERT INTO audit_log (tenant_id, subject, action, workflow_id, at, details)
    SELECT %(tenant)s, 'escrow:' || escrow_id, 'escrow.open', 'escrow:' || escrow_id, clock_timestamp(), '{}'
    FROM wanted
), events AS (
    INSERT INTO outbox (tenant_id, event_id, topic, type, subject, occurred_at, data)
    SELECT %(tenant)s, uuidv7(), 'settlement.events.v1', 'escrow.created', 'escrow:' || escrow_id,
        clock_timestamp(), jsonb_build_object('escrow_id', escrow_id, 'asset', %(asset)s, 'status', 'created')
    FROM wanted
), done AS (
    INSERT INTO receipts (tenant_id, step_id, result)
    SELECT %(tenant)s, format('escrow:%%s:open', escrow_id), '{"version": 1}' FROM wanted
)
SELECT escrow_id FROM made
"""

_UNSEALED = """
SELECT (SELECT coalesce(max(sequence), 0) FROM ledger_transactions)
     - (SELECT coalesce(max(last_key), 0) FROM seal_batches WHERE stream = 'ledger')
"""


def accounts(url: str, tenant: UUID) -> None:
    """The parties' accounts, and money in each; there already is fine."""
    with psycopg.connect(url, autocommit=True) as connection:
        common = {"tenant": tenant, "asset": ASSET, "buyers": BUYERS, "wide": WIDE, "hot": HOT}
        connection.execute(_ACCOUNTS, common)
        connection.execute("ANALYZE accounts")
        _deposit(connection, tenant, "^(buyer|wide|hot)-", 1, PLENTY_MINOR)


def transactions(url: str, tenant: UUID, count: int) -> None:
    """``count`` more deposits, as many in each of the wide accounts."""
    with psycopg.connect(url, autocommit=True) as connection:
        while count > 0:
            _deposit(connection, tenant, "^wide-", min(CHUNK, count) // WIDE, 1_000)
            count -= CHUNK


def escrows(url: str, tenant: UUID, count: int) -> list[UUID]:
    """``count`` more open escrows; their ids."""
    with psycopg.connect(url, autocommit=True) as connection:
        parameters = {"tenant": tenant, "asset": ASSET, "buyers": BUYERS, "count": count}
        return [row[0] for row in connection.execute(_ESCROWS, parameters)]


def settle(url: str) -> None:
    """Statistics and visibility as a database has them that has lived a while, and a fresh checkpoint."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE)")
        connection.execute("CHECKPOINT")


def caught_up(url: str) -> bool:
    """Wait until the relay has numbered and the sealer sealed what was loaded; False when the limit passed first."""
    with psycopg.connect(url, autocommit=True) as connection:
        return wait_until(lambda: _behind(connection) == 0, limit_seconds=CATCH_UP_SECONDS, pause_seconds=0.5)


def _behind(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute("SELECT count(*) FROM outbox WHERE position IS NULL").fetchone()
    return (0 if row is None else int(row[0])) + unsealed(connection)


def unsealed(connection: psycopg.Connection[Any]) -> int:
    """Transactions behind the last seal."""
    row = connection.execute(_UNSEALED).fetchone()
    return 0 if row is None else int(row[0])


def counts(url: str) -> dict[str, int]:
    """Rows by table, for the report."""
    with psycopg.connect(url, autocommit=True) as connection:
        tables = ("escrows", "ledger_transactions", "ledger_legs", "outbox", "audit_log")
        found = {}
        for table in tables:
            row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
            found[table] = 0 if row is None else int(row[0])
        return found


def tenant_named(url: str, name: str) -> UUID:
    """The tenant's id."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute("SELECT tenant_id FROM tenants WHERE name = %s", [name]).fetchone()
        assert row is not None, f"no tenant {name}"
        return UUID(str(row[0]))


def _deposit(connection: psycopg.Connection[Any], tenant: UUID, refs: str, each: int, amount: int) -> None:
    connection.execute(_DEPOSITS, {"tenant": tenant, "asset": ASSET, "refs": refs, "each": each, "amount": amount})
