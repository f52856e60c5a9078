"""Whose collateral the money in escrows is."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

NOBODY = "none"
#: The column of the party, by the setting.
_PARTIES: Mapping[str, str] = {"buyer": "buyer_user_id", "seller": "seller_user_id"}
_HELD = {
    party: text(
        "SELECT h.asset, sum(h.remaining_minor) AS amount_minor FROM escrows e"
        " JOIN holds h ON h.tenant_id = e.tenant_id AND h.escrow_id = e.escrow_id"
        f" WHERE e.tenant_id = :tenant AND e.{column} = :user AND e.closed_at IS NULL AND h.remaining_minor > 0"
        " GROUP BY h.asset ORDER BY h.asset"
    )
    for party, column in _PARTIES.items()
}


async def setting(connection: AsyncConnection, tenant: UUID) -> str:
    """Whose collateral the money in the tenant's escrows is: none, buyer or seller."""
    found = await connection.scalar(
        text("SELECT escrow_collateral FROM margin_settings WHERE tenant_id = :tenant"), {"tenant": tenant}
    )
    return found or NOBODY


async def set_setting(connection: AsyncConnection, tenant: UUID, escrow_collateral: str) -> None:
    """Decide whose it is. Accounts follow at their next check, which an event of the caller's starts."""
    await connection.execute(
        text(
            "INSERT INTO margin_settings (tenant_id, escrow_collateral) VALUES (:tenant, :whose)"
            " ON CONFLICT (tenant_id) DO UPDATE SET escrow_collateral = excluded.escrow_collateral"
        ),
        {"tenant": tenant, "whose": escrow_collateral},
    )


async def held_for(connection: AsyncConnection, tenant: UUID, user: str, party: str) -> dict[str, int]:
    """What open escrows hold, in minor units by asset, where the user is the ``party`` (buyer or seller)."""
    if party == NOBODY:
        return {}
    rows = await connection.execute(_HELD[party], {"tenant": tenant, "user": user})
    return {row.asset: int(row.amount_minor) for row in rows}
