"""The memory of what operators set: freezes, and the limits of accounts. Their tables stand with the ledger's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.controls import Freeze, FreezeScope
from domain.money import Asset

#: Who did it stands in the audit log, under the freeze's subject.
_SELECT = """
    SELECT f.freeze_id, f.scope, f.ref, f.reason, f.frozen_at, f.lift_reason, f.lifted_at,
           placed.actor_user AS frozen_by, lifted.actor_user AS lifted_by
    FROM freezes f
    LEFT JOIN audit_log placed ON placed.tenant_id = f.tenant_id
        AND placed.subject = 'freeze:' || f.freeze_id AND placed.action = 'freeze.placed'
    LEFT JOIN audit_log lifted ON lifted.tenant_id = f.tenant_id
        AND lifted.subject = 'freeze:' || f.freeze_id AND lifted.action = 'freeze.lifted'
"""


@dataclass(frozen=True, slots=True)
class FreezeRecord:
    """A freeze, with the users for whom it was placed and lifted where the requests named any."""

    freeze: Freeze
    frozen_by: str | None
    lifted_by: str | None

    @property
    def position(self) -> str:
        """The position in lists: what stands comes first, then the newest."""
        return f"{self.freeze.active:d}:{self.freeze.freeze_id}"


@dataclass(frozen=True, slots=True)
class FreezeFilter:
    """Which freezes; None asks for all."""

    active: bool | None = None
    scope: FreezeScope | None = None
    ref: str | None = None


async def halt(connection: AsyncConnection, tenant: UUID) -> None:
    """Wait until no movement of the tenant is under way, and let none begin before the transaction ends."""
    await connection.execute(text("SELECT ledger_halt(:tenant)"), {"tenant": tenant})


async def is_tenant_frozen(connection: AsyncConnection, tenant: UUID) -> bool:
    """Whether the whole tenant stands still; no freeze or lift of it is answered before the transaction ends."""
    standing = await connection.scalar(text("SELECT ledger_enter(:tenant)"), {"tenant": tenant})
    return any(scope == FreezeScope.TENANT for scope, _ in standing or ())


async def find_active(connection: AsyncConnection, scope: FreezeScope, ref: str | None) -> Freeze | None:
    """The freeze that stands on this account, asset or tenant."""
    query = _SELECT + "WHERE f.lifted_at IS NULL AND f.scope = :scope AND coalesce(f.ref, '') = :ref"
    row = (await connection.execute(text(query), {"scope": scope, "ref": ref or ""})).one_or_none()
    return None if row is None else _record(row).freeze


async def place(connection: AsyncConnection, tenant: UUID, freeze: Freeze) -> None:
    """Write a new freeze; the gate was halted before, or movements that are under way commit behind it."""
    await connection.execute(
        text(
            "INSERT INTO freezes (tenant_id, freeze_id, scope, ref, reason, frozen_at)"
            " VALUES (:tenant, :freeze_id, :scope, :ref, :reason, :frozen_at)"
        ),
        {
            "tenant": tenant,
            "freeze_id": freeze.freeze_id,
            "scope": freeze.scope,
            "ref": freeze.ref,
            "reason": freeze.reason,
            "frozen_at": freeze.frozen_at,
        },
    )


async def lift(connection: AsyncConnection, freeze_id: UUID, *, reason: str, at: datetime) -> None:
    """Let what the freeze stopped move again, from the commit on."""
    await connection.execute(
        text("UPDATE freezes SET lift_reason = :reason, lifted_at = :at WHERE freeze_id = :freeze_id"),
        {"freeze_id": freeze_id, "reason": reason, "at": at},
    )


async def find(connection: AsyncConnection, freeze_id: UUID) -> FreezeRecord | None:
    """The freeze with this id, if the transaction's tenant has it."""
    query = text(_SELECT + "WHERE f.freeze_id = :freeze_id")
    row = (await connection.execute(query, {"freeze_id": freeze_id})).one_or_none()
    return None if row is None else _record(row)


async def list_(
    connection: AsyncConnection, wanted: FreezeFilter, *, before: tuple[bool, UUID] | None, limit: int
) -> list[FreezeRecord]:
    """Up to ``limit`` freezes behind ``before`` (active, id): those that stand first, each kind newest first."""
    tests = {
        "active": "(f.lifted_at IS NULL) = :active",
        "scope": "f.scope = :scope",
        "ref": "f.ref = :ref",
    }
    parameters: dict[str, Any] = {name: getattr(wanted, name) for name in tests if getattr(wanted, name) is not None}
    conditions = ["true", *(tests[name] for name in parameters)]
    if before is not None:
        conditions.append("((f.lifted_at IS NULL), f.freeze_id) < (:before_active, :before_id)")
        parameters |= {"before_active": before[0], "before_id": before[1]}
    query = f"{_SELECT} WHERE {' AND '.join(conditions)} ORDER BY (f.lifted_at IS NULL) DESC, f.freeze_id DESC"
    rows = await connection.execute(text(f"{query} LIMIT :limit"), parameters | {"limit": limit})
    return [_record(row) for row in rows]


@dataclass(frozen=True, slots=True)
class AccountLimits:
    """What bounds an account, in minor units of its asset; None is no limit."""

    asset: Asset
    min_available_minor: int | None = None
    max_balance_minor: int | None = None
    max_debit_minor: int | None = None

    @property
    def any(self) -> bool:
        """Whether there is a limit at all."""
        return any(
            limit is not None for limit in (self.min_available_minor, self.max_balance_minor, self.max_debit_minor)
        )


_LIMITS = """
    SELECT s.symbol, s.scale, s.chain, s.contract, a.min_available_minor, a.max_balance_minor, a.max_debit_minor
    FROM accounts a JOIN assets s ON s.symbol = a.asset WHERE a.ref = :ref
"""


async def list_limits(connection: AsyncConnection, ref: str) -> list[AccountLimits]:
    """The limits of an account, for each asset in which it has any."""
    rows = await connection.execute(text(f"{_LIMITS} ORDER BY s.symbol"), {"ref": ref})
    return [limits for row in rows if (limits := _limits(row)).any]


async def lock_limits(connection: AsyncConnection, tenant: UUID, ref: str, asset: Asset) -> AccountLimits:
    """The limits of an account in one asset, its row locked; an account that never was is opened."""
    named = {"ref": ref, "asset": asset.symbol}
    query = text(f"{_LIMITS} AND a.asset = :asset FOR UPDATE OF a")
    row = (await connection.execute(query, named)).one_or_none()
    if row is None:
        await connection.execute(
            text(
                "INSERT INTO accounts (tenant_id, ref, asset) VALUES (:tenant, :ref, :asset)"
                " ON CONFLICT (tenant_id, ref, asset) DO NOTHING"
            ),
            named | {"tenant": tenant},
        )
        row = (await connection.execute(query, named)).one()
    return _limits(row)


async def set_limits(connection: AsyncConnection, ref: str, limits: AccountLimits) -> None:
    """Replace the limits of a locked account."""
    await connection.execute(
        text(
            "UPDATE accounts SET min_available_minor = :min_available, max_balance_minor = :max_balance,"
            " max_debit_minor = :max_debit WHERE ref = :ref AND asset = :asset"
        ),
        {
            "ref": ref,
            "asset": limits.asset.symbol,
            "min_available": limits.min_available_minor,
            "max_balance": limits.max_balance_minor,
            "max_debit": limits.max_debit_minor,
        },
    )


def _record(row: Any) -> FreezeRecord:
    freeze = Freeze(
        row.freeze_id, FreezeScope(row.scope), row.ref, row.reason, row.frozen_at, row.lift_reason, row.lifted_at
    )
    return FreezeRecord(freeze, row.frozen_by, row.lifted_by)


def _limits(row: Any) -> AccountLimits:
    def minor(value: Any) -> int | None:
        return None if value is None else int(value)

    return AccountLimits(
        Asset(row.symbol, row.scale, row.chain, row.contract),
        minor(row.min_available_minor),
        minor(row.max_balance_minor),
        minor(row.max_debit_minor),
    )
