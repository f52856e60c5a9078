"""The memory of transfers in two phases. Their table stands with the ledger's; their money is in holds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.money import Asset
from domain.transfers import PendingTransfer, TransferStatus

_SELECT = """
    SELECT p.transfer_id, p.debit_ref, p.credit_ref, p.amount_minor, p.status, p.posted_minor, p.reference,
           p.description, p.expires_at, p.created_at, p.resolved_at, p.hold_transaction_id,
           p.resolution_transaction_id, s.symbol, s.scale, s.chain, s.contract
    FROM pending_transfers p JOIN assets s ON s.symbol = p.asset
"""

_INSERT = text(
    """
    INSERT INTO pending_transfers (tenant_id, transfer_id, debit_ref, credit_ref, asset, amount_minor, status,
        reference, description, expires_at, created_at, hold_transaction_id)
    VALUES (:tenant, :transfer_id, :source, :target, :asset, :amount_minor, :status,
        :reference, :description, :expires_at, :created_at, :hold_transaction_id)
    """
)

_UPDATE = text(
    """
    UPDATE pending_transfers SET status = :status, posted_minor = :posted_minor, resolved_at = :resolved_at,
        resolution_transaction_id = :transaction_id
    WHERE transfer_id = :transfer_id AND status = 'PENDING'
    """
)


@dataclass(frozen=True, slots=True)
class TransferRecord:
    """A transfer in two phases with the transactions that carried it."""

    transfer: PendingTransfer
    hold_transaction_id: UUID
    resolution_transaction_id: UUID | None

    @property
    def transfer_id(self) -> UUID:
        """The position in lists."""
        return self.transfer.transfer_id


@dataclass(frozen=True, slots=True)
class TransferFilter:
    """Which transfers; None asks for all. ``account`` is on either side."""

    status: TransferStatus | None = None
    account: str | None = None
    asset: str | None = None
    reference: str | None = None


async def insert(
    connection: AsyncConnection, tenant: UUID, transfer: PendingTransfer, *, hold_transaction_id: UUID
) -> None:
    """Write a new one, after its hold; refuses ``reference_taken``."""
    await connection.execute(
        _INSERT,
        {
            "tenant": tenant,
            "transfer_id": transfer.transfer_id,
            "source": transfer.source,
            "target": transfer.target,
            "asset": transfer.asset.symbol,
            "amount_minor": transfer.amount_minor,
            "status": transfer.status,
            "reference": transfer.reference,
            "description": transfer.description,
            "expires_at": transfer.expires_at,
            "created_at": transfer.created_at,
            "hold_transaction_id": hold_transaction_id,
        },
    )


async def update(connection: AsyncConnection, resolved: PendingTransfer, *, transaction_id: UUID) -> None:
    """Write how a locked one was resolved."""
    done = await connection.execute(
        _UPDATE,
        {
            "transfer_id": resolved.transfer_id,
            "status": resolved.status,
            "posted_minor": resolved.posted_minor,
            "resolved_at": resolved.resolved_at,
            "transaction_id": transaction_id,
        },
    )
    if getattr(done, "rowcount", 0) != 1:
        raise RuntimeError(f"transfer {resolved.transfer_id} was not pending")


async def find(connection: AsyncConnection, transfer_id: UUID) -> TransferRecord | None:
    """The transfer with this id, if the transaction's tenant has it."""
    query = text(_SELECT + "WHERE p.transfer_id = :transfer_id")
    row = (await connection.execute(query, {"transfer_id": transfer_id})).one_or_none()
    return None if row is None else _record(row)


async def lock(connection: AsyncConnection, transfer_id: UUID) -> PendingTransfer | None:
    """The transfer with this id, its row locked until the transaction ends."""
    query = text(_SELECT + "WHERE p.transfer_id = :transfer_id FOR UPDATE OF p")
    row = (await connection.execute(query, {"transfer_id": transfer_id})).one_or_none()
    return None if row is None else _record(row).transfer


async def find_by_reference(connection: AsyncConnection, reference: str) -> TransferRecord | None:
    """The transfer that carries the client's ``reference``."""
    row = (
        await connection.execute(text(_SELECT + "WHERE p.reference = :reference"), {"reference": reference})
    ).one_or_none()
    return None if row is None else _record(row)


async def list_(
    connection: AsyncConnection, wanted: TransferFilter, *, before: UUID | None, limit: int
) -> list[TransferRecord]:
    """Up to ``limit`` transfers with an id below ``before``, newest first.

    An account is asked for on each side by an index of its own.
    """
    tests = {"status": "p.status = :status", "asset": "p.asset = :asset", "reference": "p.reference = :reference"}
    parameters: dict[str, Any] = {name: getattr(wanted, name) for name in tests if getattr(wanted, name) is not None}
    conditions = [tests[name] for name in parameters]
    if before is not None:
        conditions.append("p.transfer_id < :before")
        parameters["before"] = before
    parameters["limit"] = limit
    order = "ORDER BY p.transfer_id DESC LIMIT :limit"
    if wanted.account is None:
        query = f"{_SELECT} WHERE {' AND '.join(conditions) or 'true'} {order}"
    else:
        parameters["account"] = wanted.account
        where = " AND ".join(["", *conditions])
        sides = [
            f"(SELECT p.transfer_id FROM pending_transfers p WHERE p.{side} = :account{where} {order})"
            for side in ("debit_ref", "credit_ref")
        ]
        query = f"{_SELECT} WHERE p.transfer_id IN ({' UNION '.join(sides)}) {order}"
    return [_record(row) for row in await connection.execute(text(query), parameters)]


async def list_overdue(
    connection: AsyncConnection, margin: timedelta, *, after: UUID | None, limit: int
) -> list[tuple[UUID, UUID]]:
    """Tenant and id of pending transfers, of any tenant, whose expiry passed longer ago than ``margin``; by id."""
    rows = await connection.execute(
        text(
            """
            SELECT tenant_id, transfer_id FROM pending_transfers
            WHERE status = 'PENDING' AND expires_at < clock_timestamp() - CAST(:margin AS interval)
              AND (CAST(:after AS uuid) IS NULL OR transfer_id > :after)
            ORDER BY transfer_id LIMIT :limit
            """
        ),
        {"margin": margin, "after": after, "limit": limit},
    )
    return [(row.tenant_id, row.transfer_id) for row in rows]


def _record(row: Any) -> TransferRecord:
    transfer = PendingTransfer(
        transfer_id=row.transfer_id,
        source=row.debit_ref,
        target=row.credit_ref,
        asset=Asset(row.symbol, row.scale, row.chain, row.contract),
        amount_minor=int(row.amount_minor),
        expires_at=row.expires_at,
        created_at=row.created_at,
        status=TransferStatus(row.status),
        posted_minor=None if row.posted_minor is None else int(row.posted_minor),
        resolved_at=row.resolved_at,
        reference=row.reference,
        description=row.description,
    )
    return TransferRecord(transfer, row.hold_transaction_id, row.resolution_transaction_id)
