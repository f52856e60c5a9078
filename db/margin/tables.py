"""Tables of margin: what assets count for, accounts and their positions, snapshots of health, and events.

``margin_accounts`` has triggers: every change of an account or of its positions raises its ``version`` and notes the
transaction in ``changed_in``, so that the book, which follows it, misses none.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    Numeric,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.dialects.postgresql import UUID as PgUUID

from db.columns import METADATA, instant, minor, recorded_at, tenant_id

#: How many parts an account's shard is one of; see the computed column.
SHARDS = 64


def _ratio(name: str, comment: str | None = None) -> Column[Any]:
    return Column(name, Numeric(78, 18), comment=comment)


def _usd(name: str) -> Column[Any]:
    return Column(name, Numeric(78, 8), nullable=False)


def _bps(name: str, *, default: int | None = None, comment: str | None = None) -> Column[Any]:
    server_default = None if default is None else text(str(default))
    return Column(name, Integer, nullable=False, server_default=server_default, comment=comment)


def _created_at() -> Column[Any]:
    return Column(
        "created_at",
        DateTime(timezone=True),
        nullable=False,
        server_default=func.clock_timestamp(),
        comment="database clock",
    )


margin_parameter_versions = Table(
    "margin_parameter_versions",
    METADATA,
    Column("version", Integer, Identity(always=True), nullable=False),
    instant("effective_from", comment="in force until the next version's"),
    Column("note", Text, nullable=False, comment="who decided, and why"),
    recorded_at(),
    PrimaryKeyConstraint("version"),
    UniqueConstraint("effective_from"),
)

margin_parameters = Table(
    "margin_parameters",
    METADATA,
    Column("version", Integer, nullable=False),
    Column("asset", Text, nullable=False),
    _bps("ltv_bps", comment="of the value, how much may be borrowed against it"),
    _bps("liquidation_threshold_bps", comment="of the value, how much supports debt that exists"),
    _bps("liquidation_bonus_bps", comment="what a liquidator gets on top"),
    _bps("borrow_rate_bps", comment="a year's interest on debt in it"),
    PrimaryKeyConstraint("version", "asset"),
    ForeignKeyConstraint(["version"], ["margin_parameter_versions.version"]),
    ForeignKeyConstraint(["asset"], ["assets.symbol"]),
    CheckConstraint(
        "0 <= ltv_bps AND ltv_bps <= liquidation_threshold_bps AND liquidation_threshold_bps <= 10000"
        " AND liquidation_bonus_bps BETWEEN 0 AND 10000 AND borrow_rate_bps BETWEEN 0 AND 100000",
        name="shares",
    ),
)

margin_settings = Table(
    "margin_settings",
    METADATA,
    tenant_id(),
    Column("escrow_collateral", Text, nullable=False, comment="whose collateral the money in funded escrows is"),
    recorded_at(),
    PrimaryKeyConstraint("tenant_id"),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),
    CheckConstraint("escrow_collateral IN ('none', 'buyer', 'seller')", name="escrow_collateral"),
)

margin_accounts = Table(
    "margin_accounts",
    METADATA,
    tenant_id(),
    Column("user_id", Text, nullable=False),
    Column("account_no", BigInteger, Identity(always=True), nullable=False, comment="its name in the book"),
    Column(
        "shard",
        SmallInteger,
        Computed("((hashtextextended(tenant_id::text || ':' || user_id, 0) & 63)::smallint)", persisted=True),
        comment="which part of the book it is in, of 64",
    ),
    _bps("warning_bps", default=15_000, comment="health factor below which there is a warning, in basis points"),
    _bps("margin_call_bps", default=12_000),
    _bps("imminent_bps", default=10_500),
    Column(
        "told_level",
        SmallInteger,
        nullable=False,
        server_default=text("0"),
        comment="what its user was last told: 0 healthy, 1 warning, 2 margin call, 3 liquidation imminent,"
        " 4 liquidation due",
    ),
    instant("warning_told_at", nullable=True, comment="since the last escalation beyond it; null: may be told at once"),
    instant("margin_call_told_at", nullable=True),
    instant("imminent_told_at", nullable=True),
    instant("liquidation_told_at", nullable=True),
    _ratio("health_score", "as of the last snapshot; null without debt"),
    instant("checked_at", nullable=True, comment="of the last snapshot"),
    Column(
        "version",
        BigInteger,
        nullable=False,
        server_default=text("1"),
        comment="grows with every change of the account or of its positions",
    ),
    Column(
        "changed_in",
        BigInteger,
        nullable=False,
        server_default=text("((pg_current_xact_id())::text)::bigint"),
        comment="the transaction that changed it or its positions last; the book follows it",
    ),
    recorded_at(),
    PrimaryKeyConstraint("tenant_id", "user_id"),
    UniqueConstraint("account_no"),
    UniqueConstraint("tenant_id", "account_no"),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),
    # A change of an account stays on its page, and touches no other index.
    Index(None, "changed_in", postgresql_using="brin", postgresql_with={"pages_per_range": 1}),
    CheckConstraint(
        "warning_bps >= margin_call_bps AND margin_call_bps >= imminent_bps AND warning_bps >= 15000"
        " AND margin_call_bps >= 12000 AND imminent_bps >= 10500 AND warning_bps <= 1000000",
        name="levels",
    ),
    CheckConstraint("told_level BETWEEN 0 AND 4", name="told_level"),
)

margin_positions = Table(
    "margin_positions",
    METADATA,
    tenant_id(),
    Column("account_no", BigInteger, nullable=False),
    Column("side", Text, nullable=False, comment="collateral or borrow"),
    Column("asset", Text, nullable=False),
    Column("origin", Text, nullable=False, comment="declared by the tenant, or held by escrows"),
    minor("amount_minor"),
    PrimaryKeyConstraint("tenant_id", "account_no", "side", "asset", "origin"),
    ForeignKeyConstraint(["tenant_id", "account_no"], ["margin_accounts.tenant_id", "margin_accounts.account_no"]),
    ForeignKeyConstraint(["asset"], ["assets.symbol"]),
    CheckConstraint("side IN ('collateral', 'borrow')", name="side"),
    CheckConstraint("origin IN ('declared', 'escrow') AND (origin = 'declared' OR side = 'collateral')", name="origin"),
    CheckConstraint("amount_minor > 0", name="amount"),
)

margin_health_snapshots = Table(
    "margin_health_snapshots",
    METADATA,
    tenant_id(),
    Column("snapshot_id", PgUUID(as_uuid=True), nullable=False, comment="UUIDv7: sorts by calculation"),
    Column("user_id", Text, nullable=False),
    _ratio("health_score", "the health factor; null without debt"),
    _ratio("previous_health_score", "of the snapshot before"),
    Column("status", Text, nullable=False),
    _usd("total_collateral_usd"),
    _usd("total_borrow_usd"),
    Column(
        "collateral_breakdown",
        JSON,
        nullable=False,
        comment="each asset with its amount, price, value and threshold",
    ),
    Column("borrow_breakdown", JSON, nullable=False, comment="each asset with its amount, price and value"),
    Column(
        "liquidation_price_drop_percent",
        Numeric,
        comment="how far all collateral may fall together until liquidation; null without debt",
    ),
    Column("recommendations", JSON, nullable=False, comment="exact amounts that lead back to a target health"),
    Column("borrowing", JSON, nullable=False, comment="what could be borrowed, and why not"),
    Column("parameter_version", Integer, nullable=False, comment="what assets counted for"),
    Column("price_tick", BigInteger, nullable=False, comment="the newest refresh that it knew of"),
    Column("cause", Text, nullable=False, comment="check, settlement, account or tick"),
    instant("calculated_at"),
    _created_at(),
    PrimaryKeyConstraint("tenant_id", "snapshot_id"),
    # Stated and not enforced, as those of the events: whoever writes holds the account's row.
    ForeignKeyConstraint(["tenant_id", "user_id"], ["margin_accounts.tenant_id", "margin_accounts.user_id"]),
    ForeignKeyConstraint(["parameter_version"], ["margin_parameter_versions.version"]),
    Index(None, "tenant_id", "user_id", "snapshot_id"),
    CheckConstraint("status IN ('HEALTHY', 'WARNING', 'MARGIN_CALL', 'LIQUIDATION')", name="status"),
)

margin_events = Table(
    "margin_events",
    METADATA,
    tenant_id(),
    Column(
        "event_id",
        PgUUID(as_uuid=True),
        nullable=False,
        comment="UUIDv7: sorts by when it was raised; the same in the feed",
    ),
    Column("snapshot_id", PgUUID(as_uuid=True), nullable=False),
    Column("user_id", Text, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("severity", Text, nullable=False),
    _ratio("health_score"),
    _ratio("previous_health_score"),
    Column(
        "threshold_breached",
        Numeric(10, 4),
        nullable=False,
        comment="the health factor that was crossed, down or up",
    ),
    Column("message", Text, nullable=False),
    Column("recommendations", JSON, nullable=False, comment="exact amounts that lead back to a target health"),
    _usd("collateral_usd"),
    _usd("borrow_usd"),
    Column(
        "published_to_pubsub",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="whether it has left: acknowledged by the broker where there is one, else in the feed",
    ),
    _created_at(),
    PrimaryKeyConstraint("tenant_id", "event_id"),
    ForeignKeyConstraint(
        ["tenant_id", "snapshot_id"],
        ["margin_health_snapshots.tenant_id", "margin_health_snapshots.snapshot_id"],
    ),
    Index(None, "tenant_id", "user_id", "event_id"),
    Index("margin_events_unpublished_idx", "event_id", postgresql_where=text("NOT published_to_pubsub")),
    CheckConstraint(
        "event_type IN ('margin_warning', 'margin_call', 'liquidation_imminent', 'liquidation_due',"
        " 'margin_recovered')",
        name="event_type",
    ),
    CheckConstraint("severity IN ('low', 'medium', 'high', 'critical')", name="severity"),
)
