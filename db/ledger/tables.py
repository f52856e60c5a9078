"""The ledger's tables: accounts, holds, and the transactions with their legs, which are written once and never changed.

Balances are not written by anyone: a trigger on ``ledger_legs`` derives them, in the statement that inserts the legs.
It also checks, for all legs at once, that their transactions and accounts exist; keys would look that up leg by leg.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Identity,
    Index,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import UUID as PgUUID

from db.columns import METADATA, instant, minor, recorded_at, tenant_id

assets = Table(
    "assets",
    METADATA,
    Column("symbol", Text, nullable=False),
    Column("scale", SmallInteger, nullable=False, comment="decimal places of the minor unit"),
    Column("chain", Text, comment="where it lives; null for money that is on no chain"),
    Column("contract", Text, comment="the token's contract; null for a chain's own coin"),
    recorded_at(),
    PrimaryKeyConstraint("symbol"),
    UniqueConstraint("chain", "contract"),
    CheckConstraint("scale BETWEEN 0 AND 36", name="scale"),
    comment="platform-wide; every tenant reads it",
)

accounts = Table(
    "accounts",
    METADATA,
    tenant_id(),
    Column("account_id", BigInteger, Identity(always=True), nullable=False),
    Column(
        "ref", Text, nullable=False, comment="a user's id, or system:external, system:fees and system:chain:<relayer>"
    ),
    Column("asset", Text, nullable=False),
    minor("available_minor", default=0, comment="what the party may use"),
    minor("held_minor", default=0, comment="what holds keep for escrows"),
    Column("version", BigInteger, nullable=False, server_default=text("0"), comment="postings so far"),
    recorded_at(),
    PrimaryKeyConstraint("tenant_id", "account_id"),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),
    ForeignKeyConstraint(["asset"], ["assets.symbol"]),
    minor("min_available_minor", nullable=True, comment="a debit leaves this much available; null is no limit"),
    minor("max_balance_minor", nullable=True, comment="a credit brings available and held together to this at most"),
    minor("max_debit_minor", nullable=True, comment="one posting takes at most this from what is available"),
    UniqueConstraint("tenant_id", "ref", "asset"),
    UniqueConstraint("tenant_id", "account_id", "asset"),
    CheckConstraint(
        "available_minor >= 0 OR ref = 'system:external' OR starts_with(ref, 'system:chain:')", name="overdraft"
    ),
    CheckConstraint("held_minor >= 0", name="held"),
    CheckConstraint("min_available_minor >= 0 AND max_balance_minor >= 0 AND max_debit_minor >= 0", name="limits"),
)

holds = Table(
    "holds",
    METADATA,
    tenant_id(),
    Column("hold_id", PgUUID(as_uuid=True), nullable=False, comment="an escrow's milestone_id"),
    Column("account_id", BigInteger, nullable=False),
    Column("asset", Text, nullable=False),
    Column("escrow_id", PgUUID(as_uuid=True)),
    minor("placed_minor", default=0),
    minor("remaining_minor", default=0),
    recorded_at(),
    PrimaryKeyConstraint("tenant_id", "hold_id"),
    ForeignKeyConstraint(
        ["tenant_id", "account_id", "asset"], ["accounts.tenant_id", "accounts.account_id", "accounts.asset"]
    ),
    UniqueConstraint("tenant_id", "hold_id", "account_id"),
    Index(None, "tenant_id", "escrow_id"),
    CheckConstraint("remaining_minor >= 0 AND remaining_minor <= placed_minor", name="remaining"),
)

ledger_transactions = Table(
    "ledger_transactions",
    METADATA,
    tenant_id(),
    Column("transaction_id", PgUUID(as_uuid=True), nullable=False),
    Column("sequence", BigInteger, Identity(always=True), nullable=False, comment="order of recording"),
    Column("kind", Text, nullable=False),
    Column("reference", Text, comment="the outside's name for it; unique per kind"),
    Column("description", Text),
    Column("escrow_id", PgUUID(as_uuid=True)),
    Column("reverses_id", PgUUID(as_uuid=True), comment="the transaction that this one takes back"),
    Column("leg_count", SmallInteger, nullable=False, comment="how many legs it has; all come in one statement"),
    instant("effective_at", comment="when it counts"),
    recorded_at(),
    PrimaryKeyConstraint("tenant_id", "transaction_id"),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),
    ForeignKeyConstraint(
        ["tenant_id", "reverses_id"], ["ledger_transactions.tenant_id", "ledger_transactions.transaction_id"]
    ),
    Index(
        "ledger_transactions_tenant_id_kind_reference_key",
        "tenant_id",
        "kind",
        "reference",
        unique=True,
        postgresql_where=text("reference IS NOT NULL"),
    ),
    Index(
        "ledger_transactions_tenant_id_reverses_id_key",
        "tenant_id",
        "reverses_id",
        unique=True,
        postgresql_where=text("reverses_id IS NOT NULL"),
    ),
    UniqueConstraint("sequence"),
    Index(None, "tenant_id", "sequence"),
    Index(None, "tenant_id", "escrow_id", "sequence", postgresql_where=text("escrow_id IS NOT NULL")),
    CheckConstraint("leg_count >= 2", name="leg_count"),
)

ledger_legs = Table(
    "ledger_legs",
    METADATA,
    tenant_id(),
    Column("transaction_id", PgUUID(as_uuid=True), nullable=False),
    Column("leg_no", SmallInteger, nullable=False),
    Column("account_id", BigInteger, nullable=False),
    Column("asset", Text, nullable=False),
    Column("pot", Text, nullable=False, comment="which part of the account: available or held"),
    minor("amount_minor", comment="positive into the pot, negative out of it"),
    Column("hold_id", PgUUID(as_uuid=True), comment="the hold that a held leg feeds or draws on"),
    PrimaryKeyConstraint("tenant_id", "transaction_id", "leg_no"),
    # Stated and not enforced: the trigger checks both for all legs of a statement at once.
    ForeignKeyConstraint(
        ["tenant_id", "transaction_id"], ["ledger_transactions.tenant_id", "ledger_transactions.transaction_id"]
    ),
    ForeignKeyConstraint(
        ["tenant_id", "account_id", "asset"], ["accounts.tenant_id", "accounts.account_id", "accounts.asset"]
    ),
    ForeignKeyConstraint(
        ["tenant_id", "hold_id", "account_id"], ["holds.tenant_id", "holds.hold_id", "holds.account_id"]
    ),
    Index(None, "tenant_id", "account_id", "transaction_id"),
    CheckConstraint("amount_minor <> 0", name="amount"),
    CheckConstraint("pot IN ('available', 'held')", name="pot"),
    CheckConstraint("(pot = 'held') = (hold_id IS NOT NULL)", name="hold"),
)

freezes = Table(
    "freezes",
    METADATA,
    tenant_id(),
    Column("freeze_id", PgUUID(as_uuid=True), nullable=False),
    Column("scope", Text, nullable=False, comment="account, asset or tenant"),
    Column("ref", Text, comment="the account or the asset's symbol; null for the tenant"),
    Column("reason", Text, nullable=False),
    instant("frozen_at"),
    Column("lift_reason", Text),
    instant("lifted_at", nullable=True, comment="null while it stands"),
    recorded_at(),
    PrimaryKeyConstraint("tenant_id", "freeze_id"),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),
    Index(
        "freezes_active_key",
        "tenant_id",
        "scope",
        text("coalesce(ref, '')"),
        unique=True,
        postgresql_where=text("lifted_at IS NULL"),
    ),
    CheckConstraint("scope IN ('account', 'asset', 'tenant')", name="scope"),
    CheckConstraint("(scope = 'tenant') = (ref IS NULL)", name="ref"),
    CheckConstraint("(lifted_at IS NULL) = (lift_reason IS NULL)", name="lifted"),
)

pending_transfers = Table(
    "pending_transfers",
    METADATA,
    tenant_id(),
    Column("transfer_id", PgUUID(as_uuid=True), nullable=False, comment="also the id of its hold"),
    Column("debit_ref", Text, nullable=False),
    Column("credit_ref", Text, nullable=False),
    Column("asset", Text, nullable=False),
    minor("amount_minor"),
    Column("status", Text, nullable=False),
    minor("posted_minor", nullable=True, comment="what went to the other account; the rest went back"),
    Column("reference", Text),
    Column("description", Text),
    instant("expires_at", nullable=True, comment="from then on it is not posted any more; null waits for ever"),
    instant("created_at"),
    instant("resolved_at", nullable=True),
    Column("hold_transaction_id", PgUUID(as_uuid=True), nullable=False),
    Column("resolution_transaction_id", PgUUID(as_uuid=True)),
    recorded_at(),
    PrimaryKeyConstraint("tenant_id", "transfer_id"),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),
    ForeignKeyConstraint(["asset"], ["assets.symbol"]),
    ForeignKeyConstraint(["tenant_id", "transfer_id"], ["holds.tenant_id", "holds.hold_id"]),
    Index(
        "pending_transfers_tenant_id_reference_key",
        "tenant_id",
        "reference",
        unique=True,
        postgresql_where=text("reference IS NOT NULL"),
    ),
    Index("pending_transfers_overdue_idx", "expires_at", postgresql_where=text("status = 'PENDING'")),
    Index(None, "tenant_id", "debit_ref"),
    Index(None, "tenant_id", "credit_ref"),
    CheckConstraint("amount_minor > 0", name="amount"),
    CheckConstraint("status IN ('PENDING', 'POSTED', 'VOIDED', 'EXPIRED')", name="status"),
    CheckConstraint(
        "(status = 'PENDING') = (resolved_at IS NULL)"
        " AND (status = 'PENDING') = (resolution_transaction_id IS NULL)"
        " AND (status = 'POSTED') = (posted_minor IS NOT NULL)",
        name="resolved",
    ),
    CheckConstraint("posted_minor > 0 AND posted_minor <= amount_minor", name="posted"),
)
