"""What is known of chains. A followed contract is one tenant's, and so is every row about it; how providers do is the
platform's.

Keys begin with the source and the block's number, so that a range of blocks is one stretch of every index.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import INT8MULTIRANGE, JSONB
from sqlalchemy.dialects.postgresql import UUID as PgUUID

from db.columns import METADATA, instant, minor, recorded_at, tenant_id

chain_sources = Table(
    "chain_sources",
    METADATA,
    Column("source_id", Integer, Identity(always=True), nullable=False),
    tenant_id(),
    Column("relayer_id", Text, nullable=False, comment="the chain's name and the address"),
    Column("chain", Text, nullable=False, comment="as the configuration calls it"),
    Column("kind", Text, nullable=False),
    Column("network", Text, nullable=False, comment="the chain's own identity (CAIP-2)"),
    Column("addresses", JSONB, nullable=False, comment="hexadecimal: the contract, or output scripts"),
    Column("start_block", BigInteger, nullable=False, comment="the first that can hold an event"),
    Column("sequenced", Boolean, nullable=False, comment="its events carry one contiguous number"),
    Column("settles", Boolean, nullable=False, comment="its events move escrows"),
    Column("status", Text, nullable=False),
    Column("status_reason", Text),
    recorded_at(),
    PrimaryKeyConstraint("source_id"),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),
    UniqueConstraint("relayer_id"),
    UniqueConstraint("source_id", "tenant_id"),
    Index(None, "tenant_id"),
    CheckConstraint("kind IN ('evm', 'utxo')", name="kind"),
    CheckConstraint("status IN ('following', 'paused', 'halted', 'observing')", name="status"),
    CheckConstraint("start_block >= 0", name="start_block"),
)

chain_cursors = Table(
    "chain_cursors",
    METADATA,
    Column("source_id", Integer, nullable=False),
    tenant_id(),
    Column("block_number", BigInteger, nullable=False, comment="the live end: everything new up to here is here"),
    Column("block_hash", LargeBinary, comment="null until the first block"),
    Column("last_sequence", BigInteger, nullable=False, comment="of the last event up to there, 0 before the first"),
    Column("head_number", BigInteger, comment="of the chain, when it was last asked"),
    instant("head_at", nullable=True, comment="that block's own time"),
    Column("confirmed_number", BigInteger, nullable=False, comment="this deep a reorganisation is not expected"),
    Column("finalized_number", BigInteger, nullable=False, comment="money moves on what is at or below"),
    instant("asked_at", nullable=True, comment="when the head was last heard of"),
    instant("moved_at", nullable=True, comment="when block_number last grew"),
    Column("settled_sequence", BigInteger, nullable=False, server_default=text("0"), comment="settled up to here"),
    recorded_at(),
    PrimaryKeyConstraint("source_id"),
    ForeignKeyConstraint(["source_id", "tenant_id"], ["chain_sources.source_id", "chain_sources.tenant_id"]),
    CheckConstraint(
        "finalized_number <= confirmed_number AND confirmed_number <= block_number",
        name="watermarks",
    ),
    comment="where the live end of a source stands; rows, coverage, cursor and events move in one commit",
)

chain_coverage = Table(
    "chain_coverage",
    METADATA,
    Column("source_id", Integer, nullable=False),
    tenant_id(),
    Column("blocks", INT8MULTIRANGE, nullable=False, server_default=text("'{}'"), comment="whose events are all here"),
    PrimaryKeyConstraint("source_id"),
    ForeignKeyConstraint(["source_id", "tenant_id"], ["chain_sources.source_id", "chain_sources.tenant_id"]),
)

chain_blocks = Table(
    "chain_blocks",
    METADATA,
    Column("source_id", Integer, nullable=False),
    tenant_id(),
    Column("number", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("parent_hash", LargeBinary, nullable=False),
    instant("at", comment="the block's own time"),
    Column("canonical", Boolean, nullable=False, server_default=text("true"), comment="false: it was left"),
    PrimaryKeyConstraint("source_id", "number", "hash"),
    ForeignKeyConstraint(["source_id", "tenant_id"], ["chain_sources.source_id", "chain_sources.tenant_id"]),
    Index("chain_blocks_canonical_key", "source_id", "number", unique=True, postgresql_where=text("canonical")),
    comment="every block of the live end; of what is filled in, the ends of ranges and blocks with events",
)

chain_events = Table(
    "chain_events",
    METADATA,
    Column("source_id", Integer, nullable=False),
    tenant_id(),
    Column("block_number", BigInteger, nullable=False),
    Column("block_hash", LargeBinary, nullable=False),
    Column("tx_hash", LargeBinary, nullable=False),
    Column("tx_index", Integer, nullable=False),
    Column("log_index", Integer, nullable=False, comment="its place in the block; changes when it is mined again"),
    Column("ordinal", Integer, nullable=False, comment="its place among the source's events of its transaction"),
    Column("consumer_id", PgUUID(as_uuid=True), nullable=False, comment="the same however often it is mined again"),
    Column("kind", Text, nullable=False, comment="as the contract names it; received and spent on a UTXO chain"),
    Column("sequence", BigInteger, comment="its number in the contract's one contiguous sequence"),
    Column("subject", LargeBinary, comment="the escrow's id on chain, or the output script"),
    Column("account", LargeBinary),
    Column("token", LargeBinary, comment="zeros are the chain's own coin"),
    minor("amount", nullable=True, comment="in the token's smallest unit"),
    Column("payload", LargeBinary, nullable=False, comment="all that the chain says of it"),
    instant("at", comment="the block's own time"),
    Column("canonical", Boolean, nullable=False, server_default=text("true"), comment="false: it was left"),
    Column("outcome", Text, comment="what settling it came to; null until it is final and settled"),
    Column("outcome_code", Text),
    recorded_at(),
    # No foreign key: its check would cost more than the row does, and one writer makes them.
    PrimaryKeyConstraint("source_id", "block_number", "log_index", "block_hash"),
    Index(
        "chain_events_sequence_key",
        "source_id",
        "sequence",
        unique=True,
        postgresql_where=text("canonical AND sequence IS NOT NULL"),
    ),
    Index(None, "source_id", "subject", "block_number"),
    Index(None, "source_id", "tx_hash"),
    CheckConstraint("outcome IN ('settled', 'unsupported', 'disagrees')", name="outcome"),
    CheckConstraint("canonical OR outcome IS NULL", name="settled"),
)

chain_reorgs = Table(
    "chain_reorgs",
    METADATA,
    Column("source_id", Integer, nullable=False),
    tenant_id(),
    Column("reorg_no", BigInteger, Identity(always=True), nullable=False),
    Column("ancestor_number", BigInteger, nullable=False, comment="the last block that both histories have"),
    Column("depth", Integer, nullable=False, comment="blocks that were left"),
    Column("old_hash", LargeBinary, nullable=False, comment="of the tip that was left"),
    Column("new_hash", LargeBinary, nullable=False, comment="of what stands at its height, or the new head"),
    Column("events_reverted", Integer, nullable=False),
    Column("below_finalized", Boolean, nullable=False, comment="it would leave what is final"),
    Column("providers", JSONB, nullable=False, comment="who showed it"),
    instant("found_at"),
    recorded_at(),
    PrimaryKeyConstraint("source_id", "reorg_no"),
    ForeignKeyConstraint(["source_id", "tenant_id"], ["chain_sources.source_id", "chain_sources.tenant_id"]),
)

chain_escrows = Table(
    "chain_escrows",
    METADATA,
    Column("source_id", Integer, nullable=False),
    tenant_id(),
    Column("onchain_id", LargeBinary, nullable=False),
    Column("escrow_id", PgUUID(as_uuid=True), nullable=False),
    Column("status", Text, nullable=False),
    Column("code", Text, comment="why it is not followed, or where it disagreed"),
    Column("reason", Text),
    recorded_at(),
    PrimaryKeyConstraint("source_id", "onchain_id"),
    ForeignKeyConstraint(["source_id", "tenant_id"], ["chain_sources.source_id", "chain_sources.tenant_id"]),
    UniqueConstraint("tenant_id", "escrow_id"),
    CheckConstraint("status IN ('followed', 'unsupported', 'disagrees')", name="status"),
)

chain_providers = Table(
    "chain_providers",
    METADATA,
    Column("chain", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text, comment="of its status, without any key or address"),
    Column("head_number", BigInteger),
    Column("latency_ms", Integer),
    Column("requests", BigInteger, nullable=False, server_default=text("0")),
    Column("failures", BigInteger, nullable=False, server_default=text("0")),
    Column("range_blocks", Integer, comment="how many blocks it is asked for at once, as was learned"),
    instant("status_at", comment="since when it is so"),
    instant("seen_at", comment="when it was last looked at"),
    PrimaryKeyConstraint("chain", "provider"),
    CheckConstraint("status IN ('ok', 'lagging', 'down', 'accused', 'wrong_chain')", name="status"),
)

chain_budgets = Table(
    "chain_budgets",
    METADATA,
    Column("chain", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("tokens", Double, nullable=False, comment="requests that may be made now"),
    instant("filled_at"),
    PrimaryKeyConstraint("chain", "provider"),
    comment="one budget of requests a provider, for every process",
)

chain_credits = Table(
    "chain_credits",
    METADATA,
    tenant_id(),
    Column("hold_id", PgUUID(as_uuid=True), nullable=False),
    Column("relayer_id", Text, nullable=False),
    Column("token", Text, nullable=False, comment="zeros are the chain's own coin"),
    Column("account", Text, nullable=False),
    recorded_at(),
    PrimaryKeyConstraint("tenant_id", "hold_id"),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),
    Index("chain_credits_account_key", "tenant_id", "relayer_id", "token", "account", unique=True),
    comment="holds of what a contract owes to an account until it is withdrawn there",
)

chain_books = Table(
    "chain_books",
    METADATA,
    Column("source_id", Integer, nullable=False),
    tenant_id(),
    Column("token", LargeBinary, nullable=False, comment="zeros are the chain's own coin"),
    Column("block_number", BigInteger, nullable=False, comment="a final one; the contract's figures are as of its end"),
    Column("sequence", BigInteger, nullable=False),
    minor("balance", comment="in the token's smallest unit, as the next ones"),
    minor("held"),
    minor("owed"),
    minor("ledger_held"),
    minor("ledger_owed"),
    Column(
        "parts", JSONB, nullable=False, comment="of the difference: code, what, amount, and whether it is explained"
    ),
    Column(
        "compared_at",
        DateTime(timezone=True),
        nullable=False,
        server_default=text("clock_timestamp()"),
        comment="database clock",
    ),
    PrimaryKeyConstraint("source_id", "token", "block_number"),
    ForeignKeyConstraint(["source_id", "tenant_id"], ["chain_sources.source_id", "chain_sources.tenant_id"]),
    comment="what contracts say of their money, beside the ledger that mirrors it",
)

backfill_jobs = Table(
    "backfill_jobs",
    METADATA,
    tenant_id(),
    Column("job_id", PgUUID(as_uuid=True), nullable=False),
    Column("source_id", Integer, comment="null: it runs elsewhere"),
    Column("name", Text, nullable=False, comment="the relayer's id, or what a job elsewhere calls itself"),
    Column("from_block", BigInteger, nullable=False),
    Column("to_block", BigInteger, nullable=False),
    Column("chunk_blocks", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("error", Text),
    Column("total_blocks", BigInteger, nullable=False, comment="of the range"),
    Column("covered_blocks", BigInteger, nullable=False, server_default=text("0")),
    Column("known_blocks", BigInteger, nullable=False, server_default=text("0"), comment="of these, covered before it"),
    Column("events_written", BigInteger, nullable=False, server_default=text("0")),
    Column("blocks_per_second", Double),
    Column("events_per_second", Double),
    instant("eta_at", nullable=True, comment="when it will end at this pace"),
    Column("verification", JSONB, comment="coverage, sequence and counter, as found at the end"),
    Column("attempt", Integer, nullable=False, server_default=text("1"), comment="a retry is another"),
    instant("started_at", nullable=True),
    instant("finished_at", nullable=True),
    instant("updated_at"),
    recorded_at(),
    PrimaryKeyConstraint("tenant_id", "job_id"),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),
    ForeignKeyConstraint(["source_id", "tenant_id"], ["chain_sources.source_id", "chain_sources.tenant_id"]),
    Index(None, "tenant_id", "status", "recorded_at"),
    CheckConstraint("from_block >= 0 AND from_block <= to_block AND chunk_blocks > 0", name="range"),
    CheckConstraint(
        "status IN ('pending', 'running', 'paused', 'verifying', 'completed', 'failed', 'cancelled')", name="status"
    ),
    CheckConstraint("covered_blocks BETWEEN 0 AND total_blocks", name="progress"),
)

backfill_chunks = Table(
    "backfill_chunks",
    METADATA,
    tenant_id(),
    Column("job_id", PgUUID(as_uuid=True), nullable=False),
    Column("chunk_no", Integer, nullable=False, comment="from 0, in the order of blocks, which is that of commits"),
    Column("first_block", BigInteger, nullable=False),
    Column("last_block", BigInteger, nullable=False),
    Column("done_to", BigInteger, nullable=False, comment="committed up to here; first_block - 1 at first"),
    Column("events_written", BigInteger, nullable=False, server_default=text("0")),
    Column("leased_to", Text, comment="the worker that is at it"),
    instant("leased_until", nullable=True),
    PrimaryKeyConstraint("tenant_id", "job_id", "chunk_no"),
    ForeignKeyConstraint(["tenant_id", "job_id"], ["backfill_jobs.tenant_id", "backfill_jobs.job_id"]),
    CheckConstraint("first_block <= last_block AND done_to BETWEEN first_block - 1 AND last_block", name="range"),
)
