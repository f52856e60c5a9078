"""The table of settlement commands: what was asked for, which no role may update, and where it stands."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    Numeric,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql import UUID as PgUUID

from db.columns import METADATA, instant, minor, tenant_id

_LEDGER_LANE = text("finished_at IS NULL AND escrow_id IS NULL")
_ESCROW_LANE = text("finished_at IS NULL AND escrow_id IS NOT NULL")

settlement_commands = Table(
    "settlement_commands",
    METADATA,
    tenant_id(),
    Column("command_id", Text, nullable=False, comment="the client's own name for it"),
    Column("sequence", BigInteger, Identity(always=True), nullable=False, comment="order of receiving"),
    Column("workflow_id", Text, nullable=False, comment="the workflow that carries it"),
    Column("kind", Text, nullable=False),
    Column("account_ref", Text, nullable=False, comment="whose money; for an escrow, the party that acts"),
    Column("counterparty_ref", Text, comment="whom a transfer goes to"),
    Column("asset_symbol", Text, nullable=False),
    Column("amount_numeric", Numeric, nullable=False, comment="the decimal as it was sent, in units of the asset"),
    minor("amount_minor", comment="the same in minor units"),
    Column("escrow_id", PgUUID(as_uuid=True)),
    Column(
        "milestones", ARRAY(SmallInteger), comment="positions in the escrow; null is all that the command can apply to"
    ),
    Column("description", Text),
    Column("fingerprint", LargeBinary, nullable=False, comment="SHA-256 of what was asked for under the id"),
    Column("actor_user", Text, comment="the user that the key is bound to; null for a service key"),
    Column("actor_key_id", PgUUID(as_uuid=True), comment="the API key that asked"),
    Column("request_id", Text),
    Column(
        "transaction_id",
        PgUUID(as_uuid=True),
        comment="the ledger transaction that it becomes; for an escrow, known when it is settled",
    ),
    Column("status", Text, nullable=False, server_default=text("'RECEIVED'")),
    Column("code", Text, comment="why it was rejected or failed"),
    Column("reason", Text),
    Column("attempts", Integer, nullable=False, server_default=text("0"), comment="how often it was taken up"),
    Column(
        "received_at",
        DateTime(timezone=True),
        nullable=False,
        server_default=func.clock_timestamp(),
        comment="database clock",
    ),
    instant("processing_at", nullable=True),
    instant("finished_at", nullable=True),
    PrimaryKeyConstraint("tenant_id", "command_id"),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),
    ForeignKeyConstraint(["asset_symbol"], ["assets.symbol"]),
    UniqueConstraint("tenant_id", "sequence"),
    CheckConstraint("amount_minor > 0 AND amount_numeric > 0", name="amount"),
    CheckConstraint("octet_length(fingerprint) = 32", name="fingerprint"),
    CheckConstraint(
        "kind IN ('deposit', 'withdrawal', 'transfer', 'escrow_fund', 'escrow_release', 'escrow_refund')", name="kind"
    ),
    CheckConstraint(
        "(escrow_id IS NOT NULL) = (kind IN ('escrow_fund', 'escrow_release', 'escrow_refund'))"
        " AND (counterparty_ref IS NOT NULL) = (kind = 'transfer')",
        name="fields",
    ),
    CheckConstraint("status IN ('RECEIVED', 'PROCESSING', 'SETTLED', 'REJECTED', 'FAILED')", name="status"),
    CheckConstraint(
        "(status = 'RECEIVED') = (processing_at IS NULL)"
        " AND (status IN ('SETTLED', 'REJECTED', 'FAILED')) = (finished_at IS NOT NULL)"
        " AND (status IN ('REJECTED', 'FAILED')) = (code IS NOT NULL)"
        " AND (status <> 'SETTLED' OR transaction_id IS NOT NULL)",
        name="outcome",
    ),
    Index("settlement_commands_ledger_lane_idx", "tenant_id", "sequence", postgresql_where=_LEDGER_LANE),
    Index("settlement_commands_escrow_lane_idx", "tenant_id", "sequence", postgresql_where=_ESCROW_LANE),
    Index(
        "settlement_commands_ledger_account_idx", "tenant_id", "account_ref", "sequence", postgresql_where=_LEDGER_LANE
    ),
    Index(
        "settlement_commands_ledger_counterparty_idx",
        "tenant_id",
        "counterparty_ref",
        "sequence",
        postgresql_where=text("finished_at IS NULL AND counterparty_ref IS NOT NULL"),
    ),
    Index(
        "settlement_commands_escrow_account_idx", "tenant_id", "account_ref", "sequence", postgresql_where=_ESCROW_LANE
    ),
    Index(None, "tenant_id", "account_ref", "sequence"),
    Index(
        "settlement_commands_escrow_idx",
        "tenant_id",
        "escrow_id",
        "sequence",
        postgresql_where=text("escrow_id IS NOT NULL"),
    ),
    Index(
        "settlement_commands_unsettled_idx",
        "tenant_id",
        "status",
        "sequence",
        postgresql_where=text("status IN ('REJECTED', 'FAILED')"),
    ),
    Index(None, "tenant_id", "received_at"),
)
