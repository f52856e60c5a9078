"""What contracts owe to accounts until these withdraw it there: each a hold, and whose it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, slots=True)
class Credit:
    """A hold of what a contract owes to an account in one token; addresses are hexadecimal with 0x."""

    hold_id: UUID
    relayer_id: str
    token: str
    account: str


async def put(connection: AsyncConnection, tenant: UUID, fresh: Sequence[Credit]) -> None:
    """Note whose these holds are; those that are known stay as they are."""
    if fresh:
        rows: list[dict[str, Any]] = [
            {
                "tenant": tenant,
                "hold": credit.hold_id,
                "relayer": credit.relayer_id,
                "token": credit.token,
                "account": credit.account,
            }
            for credit in fresh
        ]
        await connection.execute(
            text(
                "INSERT INTO chain_credits (tenant_id, hold_id, relayer_id, token, account)"
                " VALUES (:tenant, :hold, :relayer, :token, :account) ON CONFLICT (tenant_id, hold_id) DO NOTHING"
            ),
            rows,
        )


async def remaining(connection: AsyncConnection, tenant: UUID, hold_ids: Sequence[UUID]) -> Mapping[UUID, int]:
    """What is left on these holds, in minor units; one that is not there is none."""
    rows = await connection.execute(
        text("SELECT hold_id, remaining_minor FROM holds WHERE tenant_id = :tenant AND hold_id = ANY (:ids)"),
        {"tenant": tenant, "ids": list(hold_ids)},
    )
    return {row.hold_id: int(row.remaining_minor) for row in rows}
