"""Seals: batches of what was written, and the signed checkpoints over them. The platform's, not a tenant's."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE seal_batches (
    stream TEXT NOT NULL,
    batch_no BIGINT NOT NULL,
    first_key BIGINT NOT NULL,
    last_key BIGINT NOT NULL,
    entry_count INTEGER NOT NULL,
    total_count BIGINT NOT NULL,
    root BYTEA NOT NULL,
    nodes BYTEA NOT NULL,
    entries BYTEA NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT seal_batches_pkey PRIMARY KEY (stream, batch_no),
    CONSTRAINT seal_batches_stream_last_key_key UNIQUE (stream, last_key),
    CONSTRAINT seal_batches_keys_check CHECK (batch_no > 0 AND entry_count > 0 AND first_key <= last_key),
    CONSTRAINT seal_batches_lengths_check
        CHECK (length(root) = 32 AND length(nodes) % 32 = 0 AND length(entries) = 72 * entry_count)
);
COMMENT ON COLUMN seal_batches.stream IS 'what is sealed: ledger';
COMMENT ON COLUMN seal_batches.batch_no IS 'counted from 1 without gaps';
COMMENT ON COLUMN seal_batches.first_key IS 'the stream''s order key of the first entry; the ledger''s is sequence';
COMMENT ON COLUMN seal_batches.total_count IS 'entries of the stream up to the end of this batch';
COMMENT ON COLUMN seal_batches.root IS 'RFC 6962 over the entries';
COMMENT ON COLUMN seal_batches.nodes IS
    'this batch''s leaf in the tree over batches, and the inner nodes that it completes, upwards; 32 bytes each';
COMMENT ON COLUMN seal_batches.entries IS 'for each row its key (8 bytes), tenant (16), id (16) and leaf hash (32)';
COMMENT ON COLUMN seal_batches.recorded_at IS 'database clock';
-- Hashes do not compress.
ALTER TABLE seal_batches ALTER COLUMN entries SET STORAGE EXTERNAL;

CREATE TABLE seal_checkpoints (
    stream TEXT NOT NULL,
    tree_size BIGINT NOT NULL,
    root BYTEA NOT NULL,
    note TEXT NOT NULL,
    verifier_key TEXT NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT seal_checkpoints_pkey PRIMARY KEY (stream, tree_size),
    CONSTRAINT seal_checkpoints_size_check CHECK (tree_size > 0 AND length(root) = 32)
);
COMMENT ON COLUMN seal_checkpoints.tree_size IS 'how many batches it covers';
COMMENT ON COLUMN seal_checkpoints.root IS 'RFC 6962 over the batches';
COMMENT ON COLUMN seal_checkpoints.note IS 'the signed checkpoint (C2SP tlog-checkpoint)';
COMMENT ON COLUMN seal_checkpoints.verifier_key IS 'the key that signed it; believe the copy that you were given';
COMMENT ON COLUMN seal_checkpoints.recorded_at IS 'database clock';
"""

FUNCTIONS = """
CREATE FUNCTION seal_leaves(sealed_stream text, sealed_key bigint, sealed_id uuid)
    RETURNS TABLE (batch_no bigint, first_key bigint, last_key bigint, entry_count integer, total_count bigint,
                   root bytea, place integer, leaves bytea)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    -- An entry is 72 bytes: key, tenant, id, leaf hash. The batch is shown to whose entry stands there, without names.
    SELECT b.batch_no, b.first_key, b.last_key, b.entry_count, b.total_count, b.root, found.n, (
        SELECT string_agg(substr(b.entries, 72 * n + 41, 32), ''::bytea ORDER BY n)
        FROM generate_series(0, b.entry_count - 1) AS n
    )
    FROM (
        SELECT * FROM seal_batches WHERE stream = sealed_stream AND last_key >= sealed_key ORDER BY last_key LIMIT 1
    ) AS b, LATERAL (
        SELECT n FROM generate_series(0, b.entry_count - 1) AS n
        WHERE substr(b.entries, 72 * n + 1, 40)
            = int8send(sealed_key) || uuid_send(current_tenant()) || uuid_send(sealed_id)
    ) AS found
$$;
COMMENT ON FUNCTION seal_leaves(text, bigint, uuid) IS
    'the batch that seals a row of this transaction''s tenant: its head, the row''s place, and all its hashes';
"""

SECURITY = """
REVOKE ALL ON FUNCTION seal_leaves(text, bigint, uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION seal_leaves(text, bigint, uuid) TO holdfast_app, holdfast_engine;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON seal_batches
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON seal_checkpoints
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Entries tell of every tenant, so the app reads what is signed in public and, of batches, hashes alone.
GRANT SELECT ON seal_batches TO holdfast_engine;
GRANT SELECT (stream, batch_no, nodes) ON seal_batches TO holdfast_app;
GRANT INSERT (stream, batch_no, first_key, last_key, entry_count, total_count, root, nodes, entries)
    ON seal_batches TO holdfast_engine;
GRANT SELECT ON seal_checkpoints TO holdfast_app, holdfast_engine;
GRANT INSERT (stream, tree_size, root, note, verifier_key) ON seal_checkpoints TO holdfast_engine;
"""

DOWN = """
DROP FUNCTION seal_leaves(text, bigint, uuid);
DROP TABLE seal_checkpoints, seal_batches;
"""


def upgrade() -> None:
    for script in (TABLES, FUNCTIONS, SECURITY):
        op.execute(script)


def downgrade() -> None:
    op.execute(DOWN)
