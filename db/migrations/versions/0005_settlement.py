"""Settlement commands: taken durably, worked off in two lanes in the order received, each to one final outcome."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE settlement_commands (
    tenant_id UUID NOT NULL,
    command_id TEXT NOT NULL,
    sequence BIGINT GENERATED ALWAYS AS IDENTITY,
    workflow_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    account_ref TEXT NOT NULL,
    counterparty_ref TEXT,
    asset_symbol TEXT NOT NULL,
    amount_numeric NUMERIC NOT NULL,
    amount_minor NUMERIC(78, 0) NOT NULL,
    escrow_id UUID,
    milestones SMALLINT[],
    description TEXT,
    fingerprint BYTEA NOT NULL,
    actor_user TEXT,
    actor_key_id UUID,
    request_id TEXT,
    transaction_id UUID,
    status TEXT DEFAULT 'RECEIVED' NOT NULL,
    code TEXT,
    reason TEXT,
    attempts INTEGER DEFAULT 0 NOT NULL,
    received_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    processing_at TIMESTAMP WITH TIME ZONE,
    finished_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT settlement_commands_pkey PRIMARY KEY (tenant_id, command_id),
    CONSTRAINT settlement_commands_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (tenant_id),
    CONSTRAINT settlement_commands_asset_symbol_fkey FOREIGN KEY(asset_symbol) REFERENCES assets (symbol),
    CONSTRAINT settlement_commands_tenant_id_sequence_key UNIQUE (tenant_id, sequence),
    CONSTRAINT settlement_commands_amount_check CHECK (amount_minor > 0 AND amount_numeric > 0),
    CONSTRAINT settlement_commands_fingerprint_check CHECK (octet_length(fingerprint) = 32),
    CONSTRAINT settlement_commands_kind_check CHECK (kind IN
        ('deposit', 'withdrawal', 'transfer', 'escrow_fund', 'escrow_release', 'escrow_refund')),
    CONSTRAINT settlement_commands_fields_check CHECK (
        (escrow_id IS NOT NULL) = (kind IN ('escrow_fund', 'escrow_release', 'escrow_refund'))
        AND (counterparty_ref IS NOT NULL) = (kind = 'transfer')
    ),
    CONSTRAINT settlement_commands_status_check CHECK (status IN
        ('RECEIVED', 'PROCESSING', 'SETTLED', 'REJECTED', 'FAILED')),
    CONSTRAINT settlement_commands_outcome_check CHECK (
        (status = 'RECEIVED') = (processing_at IS NULL)
        AND (status IN ('SETTLED', 'REJECTED', 'FAILED')) = (finished_at IS NOT NULL)
        AND (status IN ('REJECTED', 'FAILED')) = (code IS NOT NULL)
        AND (status <> 'SETTLED' OR transaction_id IS NOT NULL)
    )
);
-- The two lanes, in the order received; a row stands in one of them, and leaves it when it is finished.
CREATE INDEX settlement_commands_ledger_lane_idx ON settlement_commands (tenant_id, sequence)
    WHERE finished_at IS NULL AND escrow_id IS NULL;
CREATE INDEX settlement_commands_escrow_lane_idx ON settlement_commands (tenant_id, sequence)
    WHERE finished_at IS NULL AND escrow_id IS NOT NULL;
-- What one lane asks of the other: is there something earlier that names this account?
CREATE INDEX settlement_commands_ledger_account_idx ON settlement_commands (tenant_id, account_ref, sequence)
    WHERE finished_at IS NULL AND escrow_id IS NULL;
CREATE INDEX settlement_commands_ledger_counterparty_idx ON settlement_commands (tenant_id, counterparty_ref, sequence)
    WHERE finished_at IS NULL AND counterparty_ref IS NOT NULL;
CREATE INDEX settlement_commands_escrow_account_idx ON settlement_commands (tenant_id, account_ref, sequence)
    WHERE finished_at IS NULL AND escrow_id IS NOT NULL;
-- For readers.
CREATE INDEX settlement_commands_tenant_id_account_ref_sequence_idx ON settlement_commands
    (tenant_id, account_ref, sequence);
CREATE INDEX settlement_commands_escrow_idx ON settlement_commands (tenant_id, escrow_id, sequence)
    WHERE escrow_id IS NOT NULL;
CREATE INDEX settlement_commands_unsettled_idx ON settlement_commands (tenant_id, status, sequence)
    WHERE status IN ('REJECTED', 'FAILED');
CREATE INDEX settlement_commands_tenant_id_received_at_idx ON settlement_commands (tenant_id, received_at);
COMMENT ON COLUMN settlement_commands.tenant_id IS 'whose row this is';
COMMENT ON COLUMN settlement_commands.command_id IS 'the client''s own name for it';
COMMENT ON COLUMN settlement_commands.sequence IS 'order of receiving';
COMMENT ON COLUMN settlement_commands.workflow_id IS 'the workflow that carries it';
COMMENT ON COLUMN settlement_commands.account_ref IS 'whose money; for an escrow, the party that acts';
COMMENT ON COLUMN settlement_commands.counterparty_ref IS 'whom a transfer goes to';
COMMENT ON COLUMN settlement_commands.amount_numeric IS 'the decimal as it was sent, in units of the asset';
COMMENT ON COLUMN settlement_commands.amount_minor IS 'the same in minor units';
COMMENT ON COLUMN settlement_commands.milestones IS
    'positions in the escrow; null is all that the command can apply to';
COMMENT ON COLUMN settlement_commands.fingerprint IS 'SHA-256 of what was asked for under the id';
COMMENT ON COLUMN settlement_commands.actor_user IS 'the user that the key is bound to; null for a service key';
COMMENT ON COLUMN settlement_commands.actor_key_id IS 'the API key that asked';
COMMENT ON COLUMN settlement_commands.transaction_id IS
    'the ledger transaction that it becomes; for an escrow, known when it is settled';
COMMENT ON COLUMN settlement_commands.code IS 'why it was rejected or failed';
COMMENT ON COLUMN settlement_commands.attempts IS 'how often it was taken up';
COMMENT ON COLUMN settlement_commands.received_at IS 'database clock';
"""

#: Both lanes are read through their indexes, planned anew for each batch: a plan that is kept chose while the table was
#: empty, when all indexes are alike. One reader of a lane at a time: who waited for the lock reads what the one before
#: committed, since each statement has its own snapshot.
FUNCTIONS = """
CREATE FUNCTION settlement_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a command only goes forward, and a finished one never moves again' USING ERRCODE = 'HF003';
END $$;

CREATE FUNCTION settlement_ledger_lane(tenant uuid, behind bigint, row_limit integer)
    RETURNS TABLE (sequence bigint, command_id text, kind text, account_ref text, counterparty_ref text,
        asset_symbol text, amount_minor text, description text, transaction_id uuid, waits boolean)
    LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET enable_sort = off SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('settlement-ledger:' || tenant::text, 0));
    RETURN QUERY
    SELECT c.sequence, c.command_id, c.kind, c.account_ref, c.counterparty_ref, c.asset_symbol, c.amount_minor::text,
           c.description, c.transaction_id,
           (SELECT true FROM settlement_commands e
            WHERE e.tenant_id = tenant AND e.finished_at IS NULL AND e.escrow_id IS NOT NULL
              AND e.account_ref = c.account_ref AND e.sequence < c.sequence LIMIT 1) IS NOT NULL
           OR c.counterparty_ref IS NOT NULL AND
           (SELECT true FROM settlement_commands e
            WHERE e.tenant_id = tenant AND e.finished_at IS NULL AND e.escrow_id IS NOT NULL
              AND e.account_ref = c.counterparty_ref AND e.sequence < c.sequence LIMIT 1) IS NOT NULL
    FROM settlement_commands c
    WHERE c.tenant_id = tenant AND c.finished_at IS NULL AND c.escrow_id IS NULL AND c.sequence > behind
    ORDER BY c.sequence LIMIT row_limit;
END $$;

CREATE FUNCTION settlement_escrow_lane(tenant uuid, behind bigint, row_limit integer)
    RETURNS TABLE (sequence bigint, escrow_id uuid, waits boolean)
    LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET enable_sort = off SET plan_cache_mode = force_custom_plan AS $$
#variable_conflict use_column
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('settlement-escrow:' || tenant::text, 0));
    RETURN QUERY
    SELECT c.sequence, c.escrow_id,
           (SELECT true FROM settlement_commands l
            WHERE l.tenant_id = tenant AND l.finished_at IS NULL AND l.escrow_id IS NULL
              AND l.account_ref = c.account_ref AND l.sequence < c.sequence LIMIT 1) IS NOT NULL
           OR
           (SELECT true FROM settlement_commands l
            WHERE l.tenant_id = tenant AND l.finished_at IS NULL AND l.counterparty_ref = c.account_ref
              AND l.sequence < c.sequence LIMIT 1) IS NOT NULL
    FROM settlement_commands c
    WHERE c.tenant_id = tenant AND c.finished_at IS NULL AND c.escrow_id IS NOT NULL AND c.sequence > behind
    ORDER BY c.sequence LIMIT row_limit;
END $$;

CREATE FUNCTION settlement_take_up(tenant uuid, sequences bigint[]) RETURNS SETOF bigint
    LANGUAGE sql SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_custom_plan
    AS $$
    UPDATE settlement_commands
    SET status = 'PROCESSING', attempts = attempts + 1, processing_at = coalesce(processing_at, clock_timestamp())
    WHERE tenant_id = tenant AND sequence = ANY (sequences) AND finished_at IS NULL
    RETURNING sequence
    $$;

CREATE FUNCTION settlement_finish(tenant uuid, sequences bigint[], statuses text[], codes text[], reasons text[],
        transactions uuid[]) RETURNS SETOF bigint
    LANGUAGE sql
    SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_custom_plan AS $$
    -- By the keys: joined with a list, the rows could be gone through once for every entry of it. One that is received
    -- and finished in one commit was taken up in it.
    UPDATE settlement_commands
    SET status = statuses[array_position(sequences, sequence)], code = codes[array_position(sequences, sequence)],
        reason = reasons[array_position(sequences, sequence)],
        transaction_id = coalesce(transaction_id, transactions[array_position(sequences, sequence)]),
        attempts = greatest(attempts, 1), processing_at = coalesce(processing_at, clock_timestamp()),
        finished_at = clock_timestamp()
    WHERE tenant_id = tenant AND sequence = ANY (sequences) AND finished_at IS NULL
    RETURNING sequence
    $$;
"""

SECURITY = """
ALTER TABLE settlement_commands ENABLE ROW LEVEL SECURITY;
ALTER TABLE settlement_commands FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON settlement_commands USING (tenant_id = current_tenant())
    WITH CHECK (tenant_id = current_tenant());

CREATE TRIGGER forward_only BEFORE UPDATE ON settlement_commands FOR EACH ROW
    WHEN (OLD.finished_at IS NOT NULL OR NEW.status = 'RECEIVED' AND OLD.status <> 'RECEIVED'
          OR OLD.transaction_id IS NOT NULL AND NEW.transaction_id IS DISTINCT FROM OLD.transaction_id)
    EXECUTE FUNCTION settlement_keep();
CREATE TRIGGER no_delete BEFORE DELETE OR TRUNCATE ON settlement_commands
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

GRANT SELECT ON settlement_commands TO holdfast_app, holdfast_engine;
GRANT INSERT (tenant_id, command_id, workflow_id, kind, account_ref, counterparty_ref, asset_symbol, amount_numeric,
    amount_minor, escrow_id, milestones, description, fingerprint, actor_user, actor_key_id, request_id, transaction_id)
    ON settlement_commands TO holdfast_app, holdfast_engine;
GRANT UPDATE (status, code, reason, attempts, processing_at, finished_at, transaction_id)
    ON settlement_commands TO holdfast_app, holdfast_engine;
"""

DOWN = """
DROP TABLE settlement_commands;
DROP FUNCTION settlement_ledger_lane(uuid, bigint, integer), settlement_escrow_lane(uuid, bigint, integer),
    settlement_take_up(uuid, bigint[]), settlement_finish(uuid, bigint[], text[], text[], text[], uuid[]),
    settlement_keep();
"""


def upgrade() -> None:
    for script in (TABLES, FUNCTIONS, SECURITY):
        op.execute(script)


def downgrade() -> None:
    op.execute(DOWN)
