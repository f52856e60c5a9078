"""The one way money is posted: lock the accounts in id order, decide, insert headers and legs in one statement."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.ledger import Balance, Leg, Posting, Pot, decide

#: All the accounts or, when one is not there yet, none: whoever opens accounts must not hold any that others wait for.
#: The column that SELECT … FOR UPDATE needs the right to change is ``version``; see the migration.
_LOCK = text(
    """
    WITH wanted AS (
        SELECT DISTINCT ref, asset FROM jsonb_to_recordset(CAST(:wanted AS jsonb)) AS w (ref text, asset text)
    )
    SELECT a.account_id, a.ref, a.asset, a.available_minor, a.held_minor
    FROM accounts a JOIN wanted w ON w.ref = a.ref AND w.asset = a.asset
    WHERE a.tenant_id = :tenant AND NOT EXISTS (
        SELECT FROM wanted m WHERE NOT EXISTS (
            SELECT FROM accounts e WHERE e.tenant_id = :tenant AND e.ref = m.ref AND e.asset = m.asset
        )
    )
    ORDER BY a.account_id FOR UPDATE OF a
    """
)

_OPEN = text(
    """
    INSERT INTO accounts (tenant_id, ref, asset)
    SELECT DISTINCT CAST(:tenant AS uuid), ref, asset
    FROM jsonb_to_recordset(CAST(:wanted AS jsonb)) AS w (ref text, asset text) ORDER BY ref, asset
    ON CONFLICT (tenant_id, ref, asset) DO NOTHING
    """
)

_INSERT = text(
    """
    WITH headers AS (
        INSERT INTO ledger_transactions
            (tenant_id, transaction_id, kind, reference, description, escrow_id, reverses_id, leg_count, effective_at)
        SELECT :tenant, transaction_id, kind, reference, description, escrow_id, reverses_id, leg_count, effective_at
        FROM jsonb_to_recordset(CAST(:headers AS jsonb)) AS h (n int, transaction_id uuid, kind text,
            reference text, description text, escrow_id uuid, reverses_id uuid, leg_count smallint,
            effective_at timestamptz)
        ORDER BY n
    ), opened AS (
        INSERT INTO holds (tenant_id, hold_id, account_id, asset, escrow_id)
        SELECT :tenant, hold_id, account_id, asset, escrow_id
        FROM jsonb_to_recordset(CAST(:holds AS jsonb)) AS o (hold_id uuid, account_id bigint, asset text,
            escrow_id uuid)
        ON CONFLICT (tenant_id, hold_id) DO NOTHING
    )
    INSERT INTO ledger_legs (tenant_id, transaction_id, leg_no, account_id, asset, pot, amount_minor, hold_id)
    SELECT :tenant, transaction_id, leg_no, account_id, asset, pot, amount_minor, hold_id
    FROM jsonb_to_recordset(CAST(:legs AS jsonb)) AS l (transaction_id uuid, leg_no smallint, account_id bigint,
        asset text, pot text, amount_minor numeric, hold_id uuid)
    """
)


async def post(connection: AsyncConnection, tenant: UUID, postings: Sequence[Posting]) -> None:
    """Book ``postings``, all or none, in the caller's transaction.

    Raises the first posting's ``Refusal`` (``insufficient_funds``, ``hold_exhausted``, …). Accounts are opened on
    first use, in the order of their names. Locks are taken in account order, so concurrent postings wait for one
    another and do not deadlock.
    """
    accounts, balances = await _lock(connection, tenant, (leg for posting in postings for leg in posting.legs))
    for posting in postings:
        decide(balances, posting)
        for leg in posting.legs:
            balances[leg.account, leg.asset] = _after(balances[leg.account, leg.asset], leg)
    await connection.execute(
        _INSERT,
        {
            "tenant": tenant,
            "headers": json.dumps([_header(n, posting) for n, posting in enumerate(postings)]),
            "legs": json.dumps([row for posting in postings for row in _legs(posting, accounts)]),
            "holds": json.dumps([row for posting in postings for row in _holds(posting, accounts)]),
        },
    )


async def _lock(
    connection: AsyncConnection, tenant: UUID, legs: Iterable[Leg]
) -> tuple[dict[tuple[str, str], int], dict[tuple[str, str], Balance]]:
    wanted = {(leg.account, leg.asset) for leg in legs}
    parameters = {"tenant": tenant, "wanted": json.dumps([{"ref": ref, "asset": asset} for ref, asset in wanted])}
    rows = (await connection.execute(_LOCK, parameters)).all()
    if len(rows) < len(wanted):
        await connection.execute(_OPEN, parameters)
        rows = (await connection.execute(_LOCK, parameters)).all()
    accounts = {(row.ref, row.asset): int(row.account_id) for row in rows}
    balances = {(row.ref, row.asset): Balance(int(row.available_minor), int(row.held_minor)) for row in rows}
    return accounts, balances


def _after(balance: Balance, leg: Leg) -> Balance:
    if leg.pot is Pot.HELD:
        return Balance(balance.available_minor, balance.held_minor + leg.amount_minor)
    return Balance(balance.available_minor + leg.amount_minor, balance.held_minor)


def _header(n: int, posting: Posting) -> dict[str, Any]:
    return {
        "n": n,
        "transaction_id": str(posting.transaction_id),
        "kind": posting.kind,
        "reference": posting.reference,
        "description": posting.description,
        "escrow_id": _text(posting.escrow_id),
        "reverses_id": _text(posting.reverses_id),
        "leg_count": len(posting.legs),
        "effective_at": posting.effective_at.isoformat(),
    }


def _legs(posting: Posting, accounts: dict[tuple[str, str], int]) -> list[dict[str, Any]]:
    return [
        {
            "transaction_id": str(posting.transaction_id),
            "leg_no": number,
            "account_id": accounts[leg.account, leg.asset],
            "asset": leg.asset,
            "pot": leg.pot,
            "amount_minor": leg.amount_minor,
            "hold_id": _text(leg.hold_id),
        }
        for number, leg in enumerate(posting.legs, start=1)
    ]


def _holds(posting: Posting, accounts: dict[tuple[str, str], int]) -> list[dict[str, Any]]:
    return [
        {
            "hold_id": str(leg.hold_id),
            "account_id": accounts[leg.account, leg.asset],
            "asset": leg.asset,
            "escrow_id": _text(posting.escrow_id),
        }
        for leg in posting.legs
        if leg.hold_id is not None and leg.amount_minor > 0
    ]


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)
