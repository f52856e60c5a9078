"""Reading the ledger: assets, balances at any instant of either clock, transactions with their legs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.errors import Refusal
from domain.ledger import SYSTEM_FEES, Balance, Leg, Posting, Pot, TransactionKind
from domain.money import Asset


@dataclass(frozen=True, slots=True)
class AccountBalance:
    """What an account has of one asset, in minor units."""

    asset: Asset
    balance: Balance


@dataclass(frozen=True, slots=True)
class LedgerTransaction:
    """A posting as it was recorded. ``sequence`` is the order of recording; ``recorded_at`` the database's clock."""

    posting: Posting
    sequence: int
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class TransactionFilter:
    """Which transactions; None asks for all."""

    account: str | None = None
    asset: str | None = None
    kind: TransactionKind | None = None
    escrow_id: UUID | None = None
    reference: str | None = None
    effective_from: datetime | None = None
    effective_to: datetime | None = None


async def list_assets(connection: AsyncConnection) -> list[Asset]:
    """Every asset of the platform, by symbol."""
    rows = await connection.execute(text("SELECT symbol, scale, chain, contract FROM assets ORDER BY symbol"))
    return [Asset(**row) for row in rows.mappings()]


async def find_asset(connection: AsyncConnection, symbol: str) -> Asset | None:
    """The asset with this symbol, case and all."""
    rows = await connection.execute(
        text("SELECT symbol, scale, chain, contract FROM assets WHERE symbol = :symbol"), {"symbol": symbol}
    )
    row = rows.mappings().one_or_none()
    return None if row is None else Asset(**row)


async def get_asset(connection: AsyncConnection, symbol: str, *, field: str = "asset") -> Asset:
    """The asset with this symbol; refuses ``asset_unknown``."""
    found = await find_asset(connection, symbol)
    if found is None:
        raise Refusal("asset_unknown", f"there is no asset {symbol[:40]!r}; GET /api/v1/assets lists them", field=field)
    return found


async def balances(
    connection: AsyncConnection,
    ref: str,
    *,
    asset: str | None = None,
    at: datetime | None = None,
    recorded_at: datetime | None = None,
) -> list[AccountBalance]:
    """The balances of an account of the transaction's tenant, one per asset that ever moved in it.

    ``at`` asks for the balance that was effective at an instant, ``recorded_at`` for what the books said then; both
    may be given. Without either it is the balance now, read from one row.
    """
    source = _BALANCE_NOW if at is None and recorded_at is None else _BALANCE_AT
    conditions = "AND a.asset = :asset" if asset is not None else ""
    rows = await connection.execute(
        text(source.format(conditions=conditions)),
        {"ref": ref}
        | ({"asset": asset} if asset is not None else {})
        | ({"at": at, "recorded_at": recorded_at} if source is _BALANCE_AT else {}),
    )
    return [
        AccountBalance(
            Asset(row.symbol, row.scale, row.chain, row.contract), Balance(int(row.available), int(row.held))
        )
        for row in rows
    ]


_BALANCE_NOW = """
    SELECT s.symbol, s.scale, s.chain, s.contract, a.available_minor AS available, a.held_minor AS held
    FROM accounts a JOIN assets s ON s.symbol = a.asset
    WHERE a.ref = :ref AND a.version > 0 {conditions} ORDER BY s.symbol
"""

_BALANCE_AT = """
    SELECT s.symbol, s.scale, s.chain, s.contract,
           coalesce(sum(l.amount_minor) FILTER (WHERE l.pot = 'available'), 0) AS available,
           coalesce(sum(l.amount_minor) FILTER (WHERE l.pot = 'held'), 0) AS held
    FROM accounts a
    JOIN assets s ON s.symbol = a.asset
    JOIN ledger_legs l ON l.tenant_id = a.tenant_id AND l.account_id = a.account_id
    JOIN ledger_transactions t ON t.tenant_id = l.tenant_id AND t.transaction_id = l.transaction_id
    WHERE a.ref = :ref {conditions}
      AND (CAST(:at AS timestamptz) IS NULL OR t.effective_at <= :at)
      AND (CAST(:recorded_at AS timestamptz) IS NULL OR t.recorded_at <= :recorded_at)
    GROUP BY s.symbol, s.scale, s.chain, s.contract ORDER BY s.symbol
"""

# The page is cut before the legs are looked up: otherwise every match pays for its legs, and most are thrown away.
_TRANSACTIONS = """
    SELECT t.transaction_id, t.sequence, t.kind, t.reference, t.description, t.escrow_id, t.reverses_id,
           t.effective_at, t.recorded_at, legs.legs
    FROM (SELECT * FROM ledger_transactions t WHERE {conditions} {page}) AS t
    CROSS JOIN LATERAL (
        SELECT jsonb_agg(jsonb_build_object('account', a.ref, 'asset', l.asset, 'pot', l.pot,
                   'amount_minor', l.amount_minor::text, 'hold_id', l.hold_id) ORDER BY l.leg_no) AS legs
        FROM ledger_legs l JOIN accounts a ON a.tenant_id = l.tenant_id AND a.account_id = l.account_id
        WHERE l.tenant_id = t.tenant_id AND l.transaction_id = t.transaction_id
    ) AS legs
    ORDER BY t.sequence DESC
"""

_CONDITIONS = {
    "kind": "t.kind = :kind",
    "escrow_id": "t.escrow_id = :escrow_id",
    "reference": "t.reference = :reference",
    "effective_from": "t.effective_at >= :effective_from",
    "effective_to": "t.effective_at < :effective_to",
}

_TOUCHES = """EXISTS (
    SELECT FROM ledger_legs l JOIN accounts a ON a.tenant_id = l.tenant_id AND a.account_id = l.account_id
    WHERE l.tenant_id = t.tenant_id AND l.transaction_id = t.transaction_id AND {which})"""


async def list_transactions(
    connection: AsyncConnection, wanted: TransactionFilter, *, before: int | None, limit: int
) -> list[LedgerTransaction]:
    """Up to ``limit`` transactions with a sequence below ``before``, newest first."""
    parameters: dict[str, Any] = {name: getattr(wanted, name) for name in _CONDITIONS}
    parameters = {name: value for name, value in parameters.items() if value is not None}
    conditions = ["true", *(_CONDITIONS[name] for name in parameters)]
    touched = {"a.ref": ("account", wanted.account), "a.asset": ("leg_asset", wanted.asset)}
    which = [f"{column} = :{name}" for column, (name, value) in touched.items() if value is not None]
    if which:
        conditions.append(_TOUCHES.format(which=" AND ".join(which)))
        parameters |= {name: value for name, value in touched.values() if value is not None}
    if before is not None:
        conditions.append("t.sequence < :before")
        parameters["before"] = before
    query = _TRANSACTIONS.format(
        conditions=" AND ".join(conditions), page="ORDER BY t.sequence DESC LIMIT CAST(:limit AS bigint)"
    )
    rows = await connection.execute(text(query), parameters | {"limit": limit})
    return [_transaction(row) for row in rows]


async def find_transaction(connection: AsyncConnection, transaction_id: UUID) -> LedgerTransaction | None:
    """The transaction with this id."""
    query = _TRANSACTIONS.format(conditions="t.transaction_id = :transaction_id", page="")
    row = (await connection.execute(text(query), {"transaction_id": transaction_id})).one_or_none()
    return None if row is None else _transaction(row)


async def find_transactions(connection: AsyncConnection, transaction_ids: Sequence[UUID]) -> list[LedgerTransaction]:
    """Those of the transactions that there are, in the order of recording."""
    query = _TRANSACTIONS.format(conditions="t.transaction_id = ANY(CAST(:ids AS uuid[]))", page="")
    rows = await connection.execute(text(query), {"ids": list(transaction_ids)})
    return [_transaction(row) for row in rows][::-1]


async def find_by_reference(
    connection: AsyncConnection, kind: TransactionKind, reference: str
) -> LedgerTransaction | None:
    """The transaction of this kind that carries the outside's ``reference``."""
    query = _TRANSACTIONS.format(conditions="t.kind = :kind AND t.reference = :reference", page="")
    row = (await connection.execute(text(query), {"kind": kind, "reference": reference})).one_or_none()
    return None if row is None else _transaction(row)


async def find_reversal(connection: AsyncConnection, transaction_id: UUID) -> LedgerTransaction | None:
    """The transaction that takes this one back."""
    query = _TRANSACTIONS.format(conditions="t.reverses_id = :transaction_id", page="")
    row = (await connection.execute(text(query), {"transaction_id": transaction_id})).one_or_none()
    return None if row is None else _transaction(row)


@dataclass(frozen=True, slots=True)
class TrialBalance:
    """One asset over all accounts of a tenant, in minor units. Together the four are zero, or the books are broken."""

    asset: Asset
    available_minor: int
    held_minor: int
    fees_minor: int
    external_minor: int

    @property
    def sum_minor(self) -> int:
        """What does not add up."""
        return self.available_minor + self.held_minor + self.fees_minor + self.external_minor


async def trial_balances(connection: AsyncConnection) -> list[TrialBalance]:
    """The trial balance of each asset that the transaction's tenant ever had, by symbol."""
    rows = await connection.execute(
        text(
            """
            SELECT s.symbol, s.scale, s.chain, s.contract,
                   coalesce(sum(a.available_minor) FILTER (WHERE a.ref NOT LIKE 'system:%'), 0) AS available,
                   sum(a.held_minor) AS held,
                   coalesce(sum(a.available_minor) FILTER (WHERE a.ref = :fees), 0) AS fees,
                   coalesce(sum(a.available_minor) FILTER (WHERE a.ref LIKE 'system:%' AND a.ref <> :fees), 0)
                       AS external
            FROM accounts a JOIN assets s ON s.symbol = a.asset WHERE a.version > 0
            GROUP BY s.symbol, s.scale, s.chain, s.contract ORDER BY s.symbol
            """
        ),
        {"fees": SYSTEM_FEES},
    )
    return [
        TrialBalance(
            Asset(row.symbol, row.scale, row.chain, row.contract),
            int(row.available),
            int(row.held),
            int(row.fees),
            int(row.external),
        )
        for row in rows
    ]


async def trial_balance(connection: AsyncConnection) -> dict[str, int]:
    """What does not add up, per asset: zero each, or the books are broken."""
    return {entry.asset.symbol: entry.sum_minor for entry in await trial_balances(connection)}


def _transaction(row: Any) -> LedgerTransaction:
    legs = tuple(
        Leg(
            leg["account"],
            leg["asset"],
            Pot(leg["pot"]),
            int(leg["amount_minor"]),
            None if leg["hold_id"] is None else UUID(leg["hold_id"]),
        )
        for leg in row.legs
    )
    posting = Posting(
        row.transaction_id,
        TransactionKind(row.kind),
        legs,
        row.effective_at,
        row.reference,
        row.description,
        row.escrow_id,
        row.reverses_id,
    )
    return LedgerTransaction(posting, row.sequence, row.recorded_at)
