"""The tables of seals. They are the platform's: batches tell of every tenant, so only the engine reads them whole."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)

from db.columns import METADATA, recorded_at

seal_batches = Table(
    "seal_batches",
    METADATA,
    Column("stream", Text, nullable=False, comment="what is sealed: ledger"),
    Column("batch_no", BigInteger, nullable=False, comment="counted from 1 without gaps"),
    Column(
        "first_key",
        BigInteger,
        nullable=False,
        comment="the stream's order key of the first entry; the ledger's is sequence",
    ),
    Column("last_key", BigInteger, nullable=False),
    Column("entry_count", Integer, nullable=False),
    Column("total_count", BigInteger, nullable=False, comment="entries of the stream up to the end of this batch"),
    Column("root", LargeBinary, nullable=False, comment="RFC 6962 over the entries"),
    Column(
        "nodes",
        LargeBinary,
        nullable=False,
        comment="this batch's leaf in the tree over batches, and the inner nodes that it completes, upwards;"
        " 32 bytes each",
    ),
    Column(
        "entries",
        LargeBinary,
        nullable=False,
        comment="for each row its key (8 bytes), tenant (16), id (16) and leaf hash (32)",
    ),
    recorded_at(),
    PrimaryKeyConstraint("stream", "batch_no"),
    UniqueConstraint("stream", "last_key"),
    CheckConstraint("batch_no > 0 AND entry_count > 0 AND first_key <= last_key", name="keys"),
    CheckConstraint(
        "length(root) = 32 AND length(nodes) % 32 = 0 AND length(entries) = 72 * entry_count", name="lengths"
    ),
)

seal_checkpoints = Table(
    "seal_checkpoints",
    METADATA,
    Column("stream", Text, nullable=False),
    Column("tree_size", BigInteger, nullable=False, comment="how many batches it covers"),
    Column("root", LargeBinary, nullable=False, comment="RFC 6962 over the batches"),
    Column("note", Text, nullable=False, comment="the signed checkpoint (C2SP tlog-checkpoint)"),
    Column(
        "verifier_key", Text, nullable=False, comment="the key that signed it; believe the copy that you were given"
    ),
    recorded_at(),
    PrimaryKeyConstraint("stream", "tree_size"),
    CheckConstraint("tree_size > 0 AND length(root) = 32", name="size"),
)
