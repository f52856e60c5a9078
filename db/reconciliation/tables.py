"""Tables of reconciliation: runs, what they found, and the sums of the ledger that they compare with.

The sums are a second book: the ledger's legs added up by account and by hold, from the first transaction to
``reconciliation_bases.through_sequence``, independently of the trigger that keeps the balances.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import UUID as PgUUID

from db.columns import METADATA, instant, recorded_at, tenant_id

reconciliation_runs = Table(
    "reconciliation_runs",
    METADATA,
    tenant_id(),
    Column("run_id", PgUUID(as_uuid=True), nullable=False, comment="UUIDv7: sorts by start"),
    Column("is_full", Boolean, nullable=False, comment="whether it read the ledger from its first transaction"),
    Column("status", Text, nullable=False, comment="running, finished or failed"),
    instant("started_at"),
    instant("finished_at", nullable=True),
    Column("through_sequence", BigInteger, comment="the last transaction that was added up"),
    Column("checked", BigInteger, nullable=False, server_default=text("0"), comment="subjects that were compared"),
    Column("explained", BigInteger, nullable=False, server_default=text("0"), comment="subjects that differ, and why"),
    Column("unexplained", BigInteger, nullable=False, server_default=text("0"), comment="subjects that just differ"),
    Column("share_explained_ppm", Integer, comment="subjects that agree or are explained, per million, rounded down"),
    Column("areas", JSONB, nullable=False, server_default=text("'{}'"), comment="the same figures by area"),
    Column("failure", Text, comment="why it did not come to its end"),
    recorded_at(),
    PrimaryKeyConstraint("tenant_id", "run_id"),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),
    CheckConstraint("status IN ('running', 'finished', 'failed')", name="status"),
)

reconciliation_findings = Table(
    "reconciliation_findings",
    METADATA,
    tenant_id(),
    Column("finding_id", PgUUID(as_uuid=True), nullable=False, comment="UUIDv7: sorts by when it was first seen"),
    Column("area", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("subject", Text, nullable=False, comment="what differs, as account:<ref> or escrow:<id>"),
    Column("part", Text, nullable=False, comment="which part of it; empty for the whole"),
    Column("asset", Text, comment="what the amounts are counted in; null where they are counts"),
    Column("expected", Numeric, comment="minor units, or a count"),
    Column("actual", Numeric, comment="minor units, or a count"),
    Column("detail", Text, nullable=False),
    Column("explanation", Text, comment="null: nobody knows why"),
    Column("first_run_id", PgUUID(as_uuid=True), nullable=False),
    Column("last_run_id", PgUUID(as_uuid=True), nullable=False, comment="the last run that found it"),
    instant("last_seen_at", comment="database clock"),
    instant("told_at", nullable=True, comment="when its event was written; explained ones have none"),
    instant("resolved_at", nullable=True, comment="when a run no longer found it"),
    recorded_at(),
    PrimaryKeyConstraint("tenant_id", "finding_id"),
    ForeignKeyConstraint(
        ["tenant_id", "first_run_id"], ["reconciliation_runs.tenant_id", "reconciliation_runs.run_id"]
    ),
    Index(
        "reconciliation_findings_open_key",
        "tenant_id",
        "code",
        "subject",
        "part",
        unique=True,
        postgresql_where=text("resolved_at IS NULL"),
    ),
    Index(None, "tenant_id", "last_run_id"),
)

reconciliation_bases = Table(
    "reconciliation_bases",
    METADATA,
    tenant_id(),
    Column("base_id", PgUUID(as_uuid=True), nullable=False, comment="the run that began it"),
    Column("through_sequence", BigInteger, nullable=False, comment="added up so far; what is below never changes"),
    instant("completed_at", nullable=True, comment="null while the run that began it works on it"),
    recorded_at(),
    PrimaryKeyConstraint("tenant_id", "base_id"),
    ForeignKeyConstraint(["tenant_id", "base_id"], ["reconciliation_runs.tenant_id", "reconciliation_runs.run_id"]),
)

reconciliation_accounts = Table(
    "reconciliation_accounts",
    METADATA,
    tenant_id(),
    Column("base_id", PgUUID(as_uuid=True), nullable=False),
    Column("account_id", BigInteger, nullable=False),
    Column("available", Numeric, nullable=False, comment="minor units: the sum of its legs"),
    Column("held", Numeric, nullable=False, comment="minor units: the sum of its legs"),
    PrimaryKeyConstraint("tenant_id", "base_id", "account_id"),
)

reconciliation_holds = Table(
    "reconciliation_holds",
    METADATA,
    tenant_id(),
    Column("base_id", PgUUID(as_uuid=True), nullable=False),
    Column("hold_id", PgUUID(as_uuid=True), nullable=False),
    Column("placed", Numeric, nullable=False, comment="minor units: the sum of the legs into it"),
    Column("remaining", Numeric, nullable=False, comment="minor units: the sum of all its legs"),
    PrimaryKeyConstraint("tenant_id", "base_id", "hold_id"),
)
