"""Tables of prices. They are the platform's: every tenant reads them, the engine writes them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Identity,
    Integer,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from db.columns import METADATA, instant, recorded_at


def _dollars(name: str, comment: str | None = None) -> Column[Any]:
    return Column(name, Numeric(78, 18), nullable=False, comment=comment)


price_ticks = Table(
    "price_ticks",
    METADATA,
    Column(
        "tick",
        BigInteger,
        Identity(always=True),
        nullable=False,
        comment="a refresh that changed some price; later ones are greater",
    ),
    Column("refresh_id", Text, nullable=False, comment="the run that refreshed; each makes one tick at most"),
    instant("refreshed_at"),
    recorded_at(),
    PrimaryKeyConstraint("tick"),
    UniqueConstraint("refresh_id"),
)

prices = Table(
    "prices",
    METADATA,
    Column("asset", Text, nullable=False),
    Column("tick", BigInteger, nullable=False, comment="the refresh that last changed it"),
    _dollars("mid", "US dollars per whole unit"),
    _dollars("low", "what collateral counts for where somebody borrows"),
    _dollars("high", "what debt counts for where somebody borrows"),
    Column(
        "quality",
        Text,
        nullable=False,
        comment="good, degraded (a source is missing or was left out) or stale (no quorum)",
    ),
    Column("confirmed", Boolean, nullable=False, comment="fresh, with quorum, persistent: fit for what is automatic"),
    instant("as_of", comment="when the sources observed it"),
    Column("sources", JSONB, nullable=False, comment="what each source said, and why it was left out where it was"),
    Column("reason", Text, comment="why it is not better"),
    instant("refreshed_at", comment="when somebody last looked, changed or not"),
    instant("fresh_until", nullable=True, comment="when it is stale if nobody looks again; null: it is already"),
    Column("ttl_seconds", Integer, nullable=False, comment="how long a reader may keep it"),
    Column(
        "state",
        JSONB,
        nullable=False,
        server_default=text("'{}'"),
        comment="what the next refresh needs to know: the jump that waits for confirmation",
    ),
    recorded_at(),
    PrimaryKeyConstraint("asset"),
    ForeignKeyConstraint(["asset"], ["assets.symbol"]),
    ForeignKeyConstraint(["tick"], ["price_ticks.tick"]),
    CheckConstraint("low > 0 AND low <= mid AND mid <= high", name="band"),
    CheckConstraint("quality IN ('good', 'degraded', 'stale')", name="quality"),
)

price_history = Table(
    "price_history",
    METADATA,
    Column("asset", Text, nullable=False),
    instant("at", comment="when it was refreshed; partitions are months of it, in UTC"),
    Column("tick", BigInteger, nullable=False),
    _dollars("mid"),
    _dollars("low"),
    _dollars("high"),
    Column("quality", Text, nullable=False),
    Column("confirmed", Boolean, nullable=False),
    instant("as_of"),
    Column("sources", JSONB, nullable=False),
    PrimaryKeyConstraint("asset", "at", "tick"),
    postgresql_partition_by="RANGE (at)",
)
