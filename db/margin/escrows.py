"""Whose collateral the money in escrows is."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from domain.margin.market import ParameterSet
from domain.margin.model import Origin, Position, Side, most_minor

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


async def counted(
    connection: AsyncConnection, tenant: UUID, user: str, party: str, in_force: ParameterSet
) -> list[Position]:
    """What open escrows hold where the user is the ``party`` (none, buyer or seller), as positions.

    An asset that does not count, does not; of one that does, as much counts as a position may have.
    """
    held = await held_for(connection, tenant, user, party)
    return [
        Position(Side.COLLATERAL, asset, min(amount, most_minor(in_force.assets[asset].scale)), Origin.ESCROW)
        for asset, amount in held.items()
        if asset in in_force.assets
    ]


async def held_for(connection: AsyncConnection, tenant: UUID, user: str, party: str) -> dict[str, int]:
    """What open escrows hold, in minor units by asset, where the user is the ``party`` (buyer or seller)."""
    if party == NOBODY:
        return {}
    rows = await connection.execute(_HELD[party], {"tenant": tenant, "user": user})
    return {row.asset: int(row.amount_minor) for row in rows}
