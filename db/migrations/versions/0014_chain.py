"""Chains: what is followed, blocks and events, how providers do, backfill jobs."""

from __future__ import annotations

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

FOLLOWED = """
CREATE TABLE chain_sources (
    source_id INTEGER GENERATED ALWAYS AS IDENTITY,
    tenant_id UUID NOT NULL,
    relayer_id TEXT NOT NULL,
    chain TEXT NOT NULL,
    kind TEXT NOT NULL,
    network TEXT NOT NULL,
    addresses JSONB NOT NULL,
    start_block BIGINT NOT NULL,
    sequenced BOOLEAN NOT NULL,
    settles BOOLEAN NOT NULL,
    status TEXT NOT NULL,
    status_reason TEXT,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT chain_sources_pkey PRIMARY KEY (source_id),
    CONSTRAINT chain_sources_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (tenant_id),
    CONSTRAINT chain_sources_relayer_id_key UNIQUE (relayer_id),
    CONSTRAINT chain_sources_source_id_tenant_id_key UNIQUE (source_id, tenant_id),
    CONSTRAINT chain_sources_kind_check CHECK (kind IN ('evm', 'utxo')),
    CONSTRAINT chain_sources_status_check CHECK (status IN ('following', 'paused', 'halted', 'observing')),
    CONSTRAINT chain_sources_start_block_check CHECK (start_block >= 0)
);
CREATE INDEX chain_sources_tenant_id_idx ON chain_sources (tenant_id);
COMMENT ON COLUMN chain_sources.tenant_id IS 'whose row this is';
COMMENT ON COLUMN chain_sources.relayer_id IS 'the chain''s name and the address';
COMMENT ON COLUMN chain_sources.chain IS 'as the configuration calls it';
COMMENT ON COLUMN chain_sources.network IS 'the chain''s own identity (CAIP-2)';
COMMENT ON COLUMN chain_sources.addresses IS 'hexadecimal: the contract, or output scripts';
COMMENT ON COLUMN chain_sources.start_block IS 'the first that can hold an event';
COMMENT ON COLUMN chain_sources.sequenced IS 'its events carry one contiguous number';
COMMENT ON COLUMN chain_sources.settles IS 'its events move escrows';
COMMENT ON COLUMN chain_sources.recorded_at IS 'database clock';

CREATE TABLE chain_cursors (
    source_id INTEGER NOT NULL,
    tenant_id UUID NOT NULL,
    block_number BIGINT NOT NULL,
    block_hash BYTEA,
    last_sequence BIGINT NOT NULL,
    head_number BIGINT,
    head_at TIMESTAMP WITH TIME ZONE,
    confirmed_number BIGINT NOT NULL,
    finalized_number BIGINT NOT NULL,
    asked_at TIMESTAMP WITH TIME ZONE,
    moved_at TIMESTAMP WITH TIME ZONE,
    settled_sequence BIGINT DEFAULT 0 NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT chain_cursors_pkey PRIMARY KEY (source_id),
    CONSTRAINT chain_cursors_source_id_tenant_id_fkey FOREIGN KEY(source_id, tenant_id)
        REFERENCES chain_sources (source_id, tenant_id),
    CONSTRAINT chain_cursors_watermarks_check
        CHECK (finalized_number <= confirmed_number AND confirmed_number <= block_number)
);
COMMENT ON TABLE chain_cursors
        IS 'where the live end of a source stands; rows, coverage, cursor and events move in one commit';
COMMENT ON COLUMN chain_cursors.tenant_id IS 'whose row this is';
COMMENT ON COLUMN chain_cursors.block_number IS 'the live end: everything new up to here is here';
COMMENT ON COLUMN chain_cursors.block_hash IS 'null until the first block';
COMMENT ON COLUMN chain_cursors.last_sequence IS 'of the last event up to there, 0 before the first';
COMMENT ON COLUMN chain_cursors.head_number IS 'of the chain, when it was last asked';
COMMENT ON COLUMN chain_cursors.head_at IS 'that block''s own time';
COMMENT ON COLUMN chain_cursors.confirmed_number IS 'this deep a reorganisation is not expected';
COMMENT ON COLUMN chain_cursors.finalized_number IS 'money moves on what is at or below';
COMMENT ON COLUMN chain_cursors.asked_at IS 'when the head was last heard of';
COMMENT ON COLUMN chain_cursors.moved_at IS 'when block_number last grew';
COMMENT ON COLUMN chain_cursors.settled_sequence IS 'settled up to here';
COMMENT ON COLUMN chain_cursors.recorded_at IS 'database clock';

CREATE TABLE chain_coverage (
    source_id INTEGER NOT NULL,
    tenant_id UUID NOT NULL,
    blocks INT8MULTIRANGE DEFAULT '{}' NOT NULL,
    CONSTRAINT chain_coverage_pkey PRIMARY KEY (source_id),
    CONSTRAINT chain_coverage_source_id_tenant_id_fkey FOREIGN KEY(source_id, tenant_id)
        REFERENCES chain_sources (source_id, tenant_id)
);
COMMENT ON COLUMN chain_coverage.tenant_id IS 'whose row this is';
COMMENT ON COLUMN chain_coverage.blocks IS 'whose events are all here';

CREATE TABLE chain_blocks (
    source_id INTEGER NOT NULL,
    tenant_id UUID NOT NULL,
    number BIGINT NOT NULL,
    hash BYTEA NOT NULL,
    parent_hash BYTEA NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    canonical BOOLEAN DEFAULT true NOT NULL,
    CONSTRAINT chain_blocks_pkey PRIMARY KEY (source_id, number, hash),
    CONSTRAINT chain_blocks_source_id_tenant_id_fkey FOREIGN KEY(source_id, tenant_id)
        REFERENCES chain_sources (source_id, tenant_id)
);
CREATE UNIQUE INDEX chain_blocks_canonical_key ON chain_blocks (source_id, number) WHERE canonical;
COMMENT ON TABLE chain_blocks
        IS 'every block of the live end; of what is filled in, the ends of ranges and blocks with events';
COMMENT ON COLUMN chain_blocks.tenant_id IS 'whose row this is';
COMMENT ON COLUMN chain_blocks.at IS 'the block''s own time';
COMMENT ON COLUMN chain_blocks.canonical IS 'false: it was left';

CREATE TABLE chain_events (
    source_id INTEGER NOT NULL,
    tenant_id UUID NOT NULL,
    block_number BIGINT NOT NULL,
    block_hash BYTEA NOT NULL,
    tx_hash BYTEA NOT NULL,
    tx_index INTEGER NOT NULL,
    log_index INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    consumer_id UUID NOT NULL,
    kind TEXT NOT NULL,
    sequence BIGINT,
    subject BYTEA,
    account BYTEA,
    token BYTEA,
    amount NUMERIC(78, 0),
    payload BYTEA NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    canonical BOOLEAN DEFAULT true NOT NULL,
    outcome TEXT,
    outcome_code TEXT,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT chain_events_pkey PRIMARY KEY (source_id, block_number, log_index, block_hash),
    CONSTRAINT chain_events_outcome_check CHECK (outcome IN ('settled', 'unsupported', 'disagrees')),
    CONSTRAINT chain_events_settled_check CHECK (canonical OR outcome IS NULL)
);
CREATE UNIQUE INDEX chain_events_sequence_key ON chain_events (source_id, sequence)
        WHERE canonical AND sequence IS NOT NULL;
CREATE INDEX chain_events_source_id_subject_block_number_idx ON chain_events (source_id, subject, block_number);
CREATE INDEX chain_events_source_id_tx_hash_idx ON chain_events (source_id, tx_hash);
COMMENT ON COLUMN chain_events.tenant_id IS 'whose row this is';
COMMENT ON COLUMN chain_events.log_index IS 'its place in the block; changes when it is mined again';
COMMENT ON COLUMN chain_events.ordinal IS 'its place among the source''s events of its transaction';
COMMENT ON COLUMN chain_events.consumer_id IS 'the same however often it is mined again';
COMMENT ON COLUMN chain_events.kind IS 'as the contract names it; received and spent on a UTXO chain';
COMMENT ON COLUMN chain_events.sequence IS 'its number in the contract''s one contiguous sequence';
COMMENT ON COLUMN chain_events.subject IS 'the escrow''s id on chain, or the output script';
COMMENT ON COLUMN chain_events.token IS 'zeros are the chain''s own coin';
COMMENT ON COLUMN chain_events.amount IS 'in the token''s smallest unit';
COMMENT ON COLUMN chain_events.payload IS 'all that the chain says of it';
COMMENT ON COLUMN chain_events.at IS 'the block''s own time';
COMMENT ON COLUMN chain_events.canonical IS 'false: it was left';
COMMENT ON COLUMN chain_events.outcome IS 'what settling it came to; null until it is final and settled';
COMMENT ON COLUMN chain_events.recorded_at IS 'database clock';

CREATE TABLE chain_reorgs (
    source_id INTEGER NOT NULL,
    tenant_id UUID NOT NULL,
    reorg_no BIGINT GENERATED ALWAYS AS IDENTITY,
    ancestor_number BIGINT NOT NULL,
    depth INTEGER NOT NULL,
    old_hash BYTEA NOT NULL,
    new_hash BYTEA NOT NULL,
    events_reverted INTEGER NOT NULL,
    below_finalized BOOLEAN NOT NULL,
    providers JSONB NOT NULL,
    found_at TIMESTAMP WITH TIME ZONE NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT chain_reorgs_pkey PRIMARY KEY (source_id, reorg_no),
    CONSTRAINT chain_reorgs_source_id_tenant_id_fkey FOREIGN KEY(source_id, tenant_id)
        REFERENCES chain_sources (source_id, tenant_id)
);
COMMENT ON COLUMN chain_reorgs.tenant_id IS 'whose row this is';
COMMENT ON COLUMN chain_reorgs.ancestor_number IS 'the last block that both histories have';
COMMENT ON COLUMN chain_reorgs.depth IS 'blocks that were left';
COMMENT ON COLUMN chain_reorgs.old_hash IS 'of the tip that was left';
COMMENT ON COLUMN chain_reorgs.new_hash IS 'of what stands at its height, or the new head';
COMMENT ON COLUMN chain_reorgs.below_finalized IS 'it would leave what is final';
COMMENT ON COLUMN chain_reorgs.providers IS 'who showed it';
COMMENT ON COLUMN chain_reorgs.recorded_at IS 'database clock';

CREATE TABLE chain_escrows (
    source_id INTEGER NOT NULL,
    tenant_id UUID NOT NULL,
    onchain_id BYTEA NOT NULL,
    escrow_id UUID NOT NULL,
    status TEXT NOT NULL,
    code TEXT,
    reason TEXT,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT chain_escrows_pkey PRIMARY KEY (source_id, onchain_id),
    CONSTRAINT chain_escrows_source_id_tenant_id_fkey FOREIGN KEY(source_id, tenant_id)
        REFERENCES chain_sources (source_id, tenant_id),
    CONSTRAINT chain_escrows_tenant_id_escrow_id_key UNIQUE (tenant_id, escrow_id),
    CONSTRAINT chain_escrows_status_check CHECK (status IN ('followed', 'unsupported', 'disagrees'))
);
COMMENT ON COLUMN chain_escrows.tenant_id IS 'whose row this is';
COMMENT ON COLUMN chain_escrows.code IS 'why it is not followed, or where it disagreed';
COMMENT ON COLUMN chain_escrows.recorded_at IS 'database clock';
"""

PROVIDERS = """
CREATE TABLE chain_providers (
    chain TEXT NOT NULL,
    provider TEXT NOT NULL,
    status TEXT NOT NULL,
    reason TEXT,
    head_number BIGINT,
    latency_ms INTEGER,
    requests BIGINT DEFAULT 0 NOT NULL,
    failures BIGINT DEFAULT 0 NOT NULL,
    range_blocks INTEGER,
    status_at TIMESTAMP WITH TIME ZONE NOT NULL,
    seen_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT chain_providers_pkey PRIMARY KEY (chain, provider),
    CONSTRAINT chain_providers_status_check CHECK (status IN ('ok', 'lagging', 'down', 'accused', 'wrong_chain'))
);
COMMENT ON COLUMN chain_providers.reason IS 'of its status, without any key or address';
COMMENT ON COLUMN chain_providers.range_blocks IS 'how many blocks it is asked for at once, as was learned';
COMMENT ON COLUMN chain_providers.status_at IS 'since when it is so';
COMMENT ON COLUMN chain_providers.seen_at IS 'when it was last looked at';

CREATE TABLE chain_budgets (
    chain TEXT NOT NULL,
    provider TEXT NOT NULL,
    tokens DOUBLE PRECISION NOT NULL,
    filled_at TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT chain_budgets_pkey PRIMARY KEY (chain, provider)
);
COMMENT ON TABLE chain_budgets IS 'one budget of requests a provider, for every process';
COMMENT ON COLUMN chain_budgets.tokens IS 'requests that may be made now';
"""

JOBS = """
CREATE TABLE backfill_jobs (
    tenant_id UUID NOT NULL,
    job_id UUID NOT NULL,
    source_id INTEGER,
    name TEXT NOT NULL,
    from_block BIGINT NOT NULL,
    to_block BIGINT NOT NULL,
    chunk_blocks INTEGER NOT NULL,
    status TEXT NOT NULL,
    error TEXT,
    total_blocks BIGINT NOT NULL,
    covered_blocks BIGINT DEFAULT 0 NOT NULL,
    known_blocks BIGINT DEFAULT 0 NOT NULL,
    events_written BIGINT DEFAULT 0 NOT NULL,
    blocks_per_second DOUBLE PRECISION,
    events_per_second DOUBLE PRECISION,
    eta_at TIMESTAMP WITH TIME ZONE,
    verification JSONB,
    attempt INTEGER DEFAULT 1 NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE,
    finished_at TIMESTAMP WITH TIME ZONE,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT backfill_jobs_pkey PRIMARY KEY (tenant_id, job_id),
    CONSTRAINT backfill_jobs_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (tenant_id),
    CONSTRAINT backfill_jobs_source_id_tenant_id_fkey FOREIGN KEY(source_id, tenant_id)
        REFERENCES chain_sources (source_id, tenant_id),
    CONSTRAINT backfill_jobs_range_check CHECK (from_block >= 0 AND from_block <= to_block AND chunk_blocks > 0),
    CONSTRAINT backfill_jobs_status_check
        CHECK (status IN ('pending', 'running', 'paused', 'verifying', 'completed', 'failed', 'cancelled')),
    CONSTRAINT backfill_jobs_progress_check CHECK (covered_blocks BETWEEN 0 AND total_blocks)
);
CREATE INDEX backfill_jobs_tenant_id_status_recorded_at_idx ON backfill_jobs (tenant_id, status, recorded_at);
COMMENT ON COLUMN backfill_jobs.tenant_id IS 'whose row this is';
COMMENT ON COLUMN backfill_jobs.source_id IS 'null: it runs elsewhere';
COMMENT ON COLUMN backfill_jobs.name IS 'the relayer''s id, or what a job elsewhere calls itself';
COMMENT ON COLUMN backfill_jobs.total_blocks IS 'of the range';
COMMENT ON COLUMN backfill_jobs.known_blocks IS 'of these, covered before it';
COMMENT ON COLUMN backfill_jobs.eta_at IS 'when it will end at this pace';
COMMENT ON COLUMN backfill_jobs.verification IS 'coverage, sequence and counter, as found at the end';
COMMENT ON COLUMN backfill_jobs.attempt IS 'a retry is another';
COMMENT ON COLUMN backfill_jobs.recorded_at IS 'database clock';

CREATE TABLE backfill_chunks (
    tenant_id UUID NOT NULL,
    job_id UUID NOT NULL,
    chunk_no INTEGER NOT NULL,
    first_block BIGINT NOT NULL,
    last_block BIGINT NOT NULL,
    done_to BIGINT NOT NULL,
    events_written BIGINT DEFAULT 0 NOT NULL,
    leased_to TEXT,
    leased_until TIMESTAMP WITH TIME ZONE,
    CONSTRAINT backfill_chunks_pkey PRIMARY KEY (tenant_id, job_id, chunk_no),
    CONSTRAINT backfill_chunks_tenant_id_job_id_fkey FOREIGN KEY(tenant_id, job_id)
        REFERENCES backfill_jobs (tenant_id, job_id),
    CONSTRAINT backfill_chunks_range_check
        CHECK (first_block <= last_block AND done_to BETWEEN first_block - 1 AND last_block)
);
COMMENT ON COLUMN backfill_chunks.tenant_id IS 'whose row this is';
COMMENT ON COLUMN backfill_chunks.chunk_no IS 'from 0, in the order of blocks, which is that of commits';
COMMENT ON COLUMN backfill_chunks.done_to IS 'committed up to here; first_block - 1 at first';
COMMENT ON COLUMN backfill_chunks.leased_to IS 'the worker that is at it';
"""

#: A contract on a chain keeps the money of some escrows; the ledger mirrors it.
CUSTODY = """
ALTER TABLE escrows
    ADD COLUMN custody_relayer_id TEXT,
    ADD COLUMN custody_onchain_id TEXT,
    ADD COLUMN custody_token TEXT,
    ADD CONSTRAINT escrows_custody_check CHECK (
        (custody_relayer_id IS NULL) = (custody_onchain_id IS NULL)
        AND (custody_relayer_id IS NULL) = (custody_token IS NULL)
    );
CREATE UNIQUE INDEX escrows_custody_key ON escrows (tenant_id, custody_relayer_id, custody_onchain_id)
        WHERE custody_relayer_id IS NOT NULL;
COMMENT ON COLUMN escrows.custody_relayer_id IS
        'who follows the contract that keeps the money; null: the desk keeps it';
COMMENT ON COLUMN escrows.custody_onchain_id IS 'the escrow''s id there';
COMMENT ON COLUMN escrows.custody_token IS 'what it is paid in there; zeros are the chain''s own coin';
GRANT INSERT (custody_relayer_id, custody_onchain_id, custody_token) ON escrows TO holdfast_app, holdfast_engine;

ALTER TABLE accounts DROP CONSTRAINT accounts_overdraft_check;
ALTER TABLE accounts ADD CONSTRAINT accounts_overdraft_check
        CHECK (available_minor >= 0 OR ref = 'system:external' OR starts_with(ref, 'system:chain:'));
COMMENT ON COLUMN accounts.ref IS 'a user''s id, or system:external, system:fees and system:chain:<relayer>';

CREATE TABLE chain_credits (
    tenant_id UUID NOT NULL,
    hold_id UUID NOT NULL,
    relayer_id TEXT NOT NULL,
    token TEXT NOT NULL,
    account TEXT NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT chain_credits_pkey PRIMARY KEY (tenant_id, hold_id),
    CONSTRAINT chain_credits_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (tenant_id)
);
CREATE UNIQUE INDEX chain_credits_account_key ON chain_credits (tenant_id, relayer_id, token, account);
COMMENT ON TABLE chain_credits IS 'holds of what a contract owes to an account until it is withdrawn there';
COMMENT ON COLUMN chain_credits.tenant_id IS 'whose row this is';
COMMENT ON COLUMN chain_credits.token IS 'zeros are the chain''s own coin';
COMMENT ON COLUMN chain_credits.recorded_at IS 'database clock';

CREATE TABLE chain_books (
    source_id INTEGER NOT NULL,
    tenant_id UUID NOT NULL,
    token BYTEA NOT NULL,
    block_number BIGINT NOT NULL,
    sequence BIGINT NOT NULL,
    balance NUMERIC(78, 0) NOT NULL,
    held NUMERIC(78, 0) NOT NULL,
    owed NUMERIC(78, 0) NOT NULL,
    ledger_held NUMERIC(78, 0) NOT NULL,
    ledger_owed NUMERIC(78, 0) NOT NULL,
    parts JSONB NOT NULL,
    compared_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT chain_books_pkey PRIMARY KEY (source_id, token, block_number),
    CONSTRAINT chain_books_source_id_tenant_id_fkey FOREIGN KEY(source_id, tenant_id)
        REFERENCES chain_sources (source_id, tenant_id)
);
COMMENT ON TABLE chain_books IS 'what contracts say of their money, beside the ledger that mirrors it';
COMMENT ON COLUMN chain_books.tenant_id IS 'whose row this is';
COMMENT ON COLUMN chain_books.token IS 'zeros are the chain''s own coin';
COMMENT ON COLUMN chain_books.block_number IS 'a final one; the contract''s figures are as of its end';
COMMENT ON COLUMN chain_books.balance IS 'in the token''s smallest unit, as the next ones';
COMMENT ON COLUMN chain_books.parts IS 'of the difference: code, what, amount, and whether it is explained';
COMMENT ON COLUMN chain_books.compared_at IS 'database clock';
"""

SECURITY = """
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
ALTER TABLE {table} FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {table} USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
GRANT SELECT ON {table} TO holdfast_app, holdfast_engine;
"""

GRANTS = """
GRANT INSERT (tenant_id, relayer_id, chain, kind, network, addresses, start_block, sequenced, settles, status,
        status_reason), UPDATE (status, status_reason) ON chain_sources TO holdfast_app, holdfast_engine;
GRANT INSERT (source_id, tenant_id, block_number, block_hash, last_sequence, confirmed_number, finalized_number)
    ON chain_cursors TO holdfast_app, holdfast_engine;
GRANT UPDATE (block_number, block_hash, last_sequence, head_number, head_at, confirmed_number, finalized_number,
        asked_at, moved_at, settled_sequence) ON chain_cursors TO holdfast_engine;
GRANT INSERT (source_id, tenant_id, blocks), UPDATE (blocks) ON chain_coverage TO holdfast_engine;
GRANT INSERT (source_id, tenant_id) ON chain_coverage TO holdfast_app;
GRANT INSERT (source_id, tenant_id, number, hash, parent_hash, at, canonical), UPDATE (canonical), DELETE
    ON chain_blocks TO holdfast_engine;
GRANT INSERT (source_id, tenant_id, block_number, block_hash, tx_hash, tx_index, log_index, ordinal, consumer_id, kind,
        sequence, subject, account, token, amount, payload, at, canonical),
    UPDATE (canonical, outcome, outcome_code), DELETE ON chain_events TO holdfast_engine;
GRANT INSERT (source_id, tenant_id, ancestor_number, depth, old_hash, new_hash, events_reverted, below_finalized,
        providers, found_at) ON chain_reorgs TO holdfast_engine;
GRANT INSERT (source_id, tenant_id, onchain_id, escrow_id, status, code, reason), UPDATE (status, code, reason)
    ON chain_escrows TO holdfast_app, holdfast_engine;
GRANT INSERT (tenant_id, hold_id, relayer_id, token, account) ON chain_credits TO holdfast_app, holdfast_engine;
GRANT INSERT (source_id, tenant_id, token, block_number, sequence, balance, held, owed, ledger_held, ledger_owed,
        parts), UPDATE (balance, ledger_held, ledger_owed, parts, compared_at) ON chain_books TO holdfast_app;
GRANT UPDATE (settled_sequence) ON chain_cursors TO holdfast_app;
GRANT UPDATE (outcome, outcome_code) ON chain_events TO holdfast_app;
GRANT SELECT ON chain_providers TO holdfast_app;
GRANT SELECT, INSERT, UPDATE ON chain_providers, chain_budgets TO holdfast_engine;
GRANT INSERT (tenant_id, job_id, source_id, name, from_block, to_block, chunk_blocks, status, total_blocks, started_at,
        updated_at),
    UPDATE (status, error, covered_blocks, events_written, blocks_per_second, events_per_second, eta_at, attempt,
        started_at, finished_at, updated_at) ON backfill_jobs TO holdfast_app;
GRANT UPDATE (status, error, covered_blocks, known_blocks, events_written, blocks_per_second, events_per_second, eta_at,
        verification, attempt, started_at, finished_at, updated_at), DELETE ON backfill_jobs TO holdfast_engine;
GRANT INSERT (tenant_id, job_id, chunk_no, first_block, last_block, done_to),
    UPDATE (done_to, events_written, leased_to, leased_until), DELETE ON backfill_chunks TO holdfast_engine;
"""

_TENANTS = (
    "chain_sources",
    "chain_cursors",
    "chain_coverage",
    "chain_blocks",
    "chain_events",
    "chain_reorgs",
    "chain_escrows",
    "chain_credits",
    "chain_books",
    "backfill_jobs",
    "backfill_chunks",
)
_PLATFORMS = ("chain_providers", "chain_budgets")


def upgrade() -> None:
    op.execute(FOLLOWED)
    op.execute(PROVIDERS)
    op.execute(JOBS)
    op.execute(CUSTODY)
    for table in _TENANTS:
        op.execute(SECURITY.format(table=table))
    op.execute(GRANTS)


def downgrade() -> None:
    for table in (*_PLATFORMS, *reversed(_TENANTS)):
        op.execute(f"DROP TABLE {table}")
    op.execute(
        "ALTER TABLE accounts DROP CONSTRAINT accounts_overdraft_check;"
        " ALTER TABLE accounts ADD CONSTRAINT accounts_overdraft_check"
        " CHECK (available_minor >= 0 OR ref = 'system:external');"
        " COMMENT ON COLUMN accounts.ref IS 'a user''s id, or system:external and system:fees';"
        " ALTER TABLE escrows DROP COLUMN custody_relayer_id, DROP COLUMN custody_onchain_id, DROP COLUMN custody_token"
    )
