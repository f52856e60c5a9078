"""The column types and names that every table shares."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, DateTime, MetaData, Numeric, func, text
from sqlalchemy.dialects.postgresql import UUID

#: Constraint names are fixed, so that migrations can name what they drop and errors can be told apart.
METADATA = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    }
)


def tenant_id() -> Column[Any]:
    """The tenant that a row belongs to; row-level security compares it with the transaction's ``app.tenant``."""
    return Column("tenant_id", UUID(as_uuid=True), nullable=False, comment="whose row this is")


def minor(name: str, *, nullable: bool = False, default: int | None = None, comment: str | None = None) -> Column[Any]:
    """An amount in minor units; 78 digits hold a uint256."""
    server_default = None if default is None else text(str(default))
    return Column(name, Numeric(78, 0), nullable=nullable, server_default=server_default, comment=comment)


def instant(name: str, *, nullable: bool = False, comment: str | None = None) -> Column[Any]:
    """An instant that a caller decides (effective time)."""
    return Column(name, DateTime(timezone=True), nullable=nullable, comment=comment)


def recorded_at() -> Column[Any]:
    """When the database wrote the row, by the database's own clock; no role of ours may set it."""
    return Column(
        "recorded_at",
        DateTime(timezone=True),
        nullable=False,
        server_default=func.clock_timestamp(),
        comment="database clock",
    )
