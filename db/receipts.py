"""Receipts: the proof that a step already happened, with the result it had."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, PrimaryKeyConstraint, Table, Text, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from db.columns import METADATA, recorded_at, tenant_id

receipts = Table(
    "receipts",
    METADATA,
    tenant_id(),
    Column("step_id", Text, nullable=False, comment="what was done, the same for every attempt"),
    Column("result", JSONB, nullable=False, comment="what the first attempt answered"),
    recorded_at(),
    PrimaryKeyConstraint("tenant_id", "step_id"),
)


async def find(connection: AsyncConnection, step_id: str) -> Any | None:
    """The stored result of a step of the transaction's tenant, or None when it never happened."""
    found = await connection.execute(text("SELECT result FROM receipts WHERE step_id = :step"), {"step": step_id})
    return found.scalar_one_or_none()
