"""Reconciliation: its runs, its findings, and a second book of sums to compare the balances with."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE reconciliation_runs (
    tenant_id UUID NOT NULL,
    run_id UUID NOT NULL,
    is_full BOOLEAN NOT NULL,
    status TEXT NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE NOT NULL,
    finished_at TIMESTAMP WITH TIME ZONE,
    through_sequence BIGINT,
    checked BIGINT DEFAULT 0 NOT NULL,
    explained BIGINT DEFAULT 0 NOT NULL,
    unexplained BIGINT DEFAULT 0 NOT NULL,
    share_explained_ppm INTEGER,
    areas JSONB DEFAULT '{}' NOT NULL,
    failure TEXT,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT reconciliation_runs_pkey PRIMARY KEY (tenant_id, run_id),
    CONSTRAINT reconciliation_runs_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (tenant_id),
    CONSTRAINT reconciliation_runs_status_check CHECK (status IN ('running', 'finished', 'failed'))
);
COMMENT ON COLUMN reconciliation_runs.tenant_id IS 'whose row this is';
COMMENT ON COLUMN reconciliation_runs.run_id IS 'UUIDv7: sorts by start';
COMMENT ON COLUMN reconciliation_runs.is_full IS 'whether it read the ledger from its first transaction';
COMMENT ON COLUMN reconciliation_runs.status IS 'running, finished or failed';
COMMENT ON COLUMN reconciliation_runs.through_sequence IS 'the last transaction that was added up';
COMMENT ON COLUMN reconciliation_runs.checked IS 'subjects that were compared';
COMMENT ON COLUMN reconciliation_runs.explained IS 'subjects that differ, and why';
COMMENT ON COLUMN reconciliation_runs.unexplained IS 'subjects that just differ';
COMMENT ON COLUMN reconciliation_runs.share_explained_ppm IS
    'subjects that agree or are explained, per million, rounded down';
COMMENT ON COLUMN reconciliation_runs.areas IS 'the same figures by area';
COMMENT ON COLUMN reconciliation_runs.failure IS 'why it did not come to its end';
COMMENT ON COLUMN reconciliation_runs.recorded_at IS 'database clock';

CREATE TABLE reconciliation_findings (
    tenant_id UUID NOT NULL,
    finding_id UUID NOT NULL,
    area TEXT NOT NULL,
    code TEXT NOT NULL,
    subject TEXT NOT NULL,
    part TEXT NOT NULL,
    asset TEXT,
    expected NUMERIC,
    actual NUMERIC,
    detail TEXT NOT NULL,
    explanation TEXT,
    first_run_id UUID NOT NULL,
    last_run_id UUID NOT NULL,
    last_seen_at TIMESTAMP WITH TIME ZONE NOT NULL,
    told_at TIMESTAMP WITH TIME ZONE,
    resolved_at TIMESTAMP WITH TIME ZONE,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT reconciliation_findings_pkey PRIMARY KEY (tenant_id, finding_id),
    CONSTRAINT reconciliation_findings_tenant_id_first_run_id_fkey FOREIGN KEY(tenant_id, first_run_id)
        REFERENCES reconciliation_runs (tenant_id, run_id)
);
CREATE UNIQUE INDEX reconciliation_findings_open_key ON reconciliation_findings (tenant_id, code, subject, part)
    WHERE resolved_at IS NULL;
CREATE INDEX reconciliation_findings_tenant_id_last_run_id_idx ON reconciliation_findings (tenant_id, last_run_id);
COMMENT ON COLUMN reconciliation_findings.tenant_id IS 'whose row this is';
COMMENT ON COLUMN reconciliation_findings.finding_id IS 'UUIDv7: sorts by when it was first seen';
COMMENT ON COLUMN reconciliation_findings.subject IS 'what differs, as account:<ref> or escrow:<id>';
COMMENT ON COLUMN reconciliation_findings.part IS 'which part of it; empty for the whole';
COMMENT ON COLUMN reconciliation_findings.asset IS 'what the amounts are counted in; null where they are counts';
COMMENT ON COLUMN reconciliation_findings.expected IS 'minor units, or a count';
COMMENT ON COLUMN reconciliation_findings.actual IS 'minor units, or a count';
COMMENT ON COLUMN reconciliation_findings.explanation IS 'null: nobody knows why';
COMMENT ON COLUMN reconciliation_findings.last_run_id IS 'the last run that found it';
COMMENT ON COLUMN reconciliation_findings.last_seen_at IS 'database clock';
COMMENT ON COLUMN reconciliation_findings.told_at IS 'when its event was written; explained ones have none';
COMMENT ON COLUMN reconciliation_findings.resolved_at IS 'when a run no longer found it';
COMMENT ON COLUMN reconciliation_findings.recorded_at IS 'database clock';

CREATE TABLE reconciliation_bases (
    tenant_id UUID NOT NULL,
    base_id UUID NOT NULL,
    through_sequence BIGINT NOT NULL,
    completed_at TIMESTAMP WITH TIME ZONE,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT reconciliation_bases_pkey PRIMARY KEY (tenant_id, base_id),
    CONSTRAINT reconciliation_bases_tenant_id_base_id_fkey FOREIGN KEY(tenant_id, base_id)
        REFERENCES reconciliation_runs (tenant_id, run_id)
);
COMMENT ON COLUMN reconciliation_bases.tenant_id IS 'whose row this is';
COMMENT ON COLUMN reconciliation_bases.base_id IS 'the run that began it';
COMMENT ON COLUMN reconciliation_bases.through_sequence IS 'added up so far; what is below never changes';
COMMENT ON COLUMN reconciliation_bases.completed_at IS 'null while the run that began it works on it';
COMMENT ON COLUMN reconciliation_bases.recorded_at IS 'database clock';

CREATE TABLE reconciliation_accounts (
    tenant_id UUID NOT NULL,
    base_id UUID NOT NULL,
    account_id BIGINT NOT NULL,
    available NUMERIC NOT NULL,
    held NUMERIC NOT NULL,
    CONSTRAINT reconciliation_accounts_pkey PRIMARY KEY (tenant_id, base_id, account_id)
);
COMMENT ON COLUMN reconciliation_accounts.tenant_id IS 'whose row this is';
COMMENT ON COLUMN reconciliation_accounts.available IS 'minor units: the sum of its legs';
COMMENT ON COLUMN reconciliation_accounts.held IS 'minor units: the sum of its legs';

CREATE TABLE reconciliation_holds (
    tenant_id UUID NOT NULL,
    base_id UUID NOT NULL,
    hold_id UUID NOT NULL,
    placed NUMERIC NOT NULL,
    remaining NUMERIC NOT NULL,
    CONSTRAINT reconciliation_holds_pkey PRIMARY KEY (tenant_id, base_id, hold_id)
);
COMMENT ON COLUMN reconciliation_holds.tenant_id IS 'whose row this is';
COMMENT ON COLUMN reconciliation_holds.placed IS 'minor units: the sum of the legs into it';
COMMENT ON COLUMN reconciliation_holds.remaining IS 'minor units: the sum of all its legs';

-- Whether a movement of an escrow was told is asked by the escrow. Of its events alone: they are few among all.
CREATE INDEX outbox_escrow_idx ON outbox (tenant_id, subject) WHERE starts_with(subject, 'escrow:');
"""

SECURITY = """
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
ALTER TABLE {table} FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {table} USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
GRANT SELECT ON {table} TO holdfast_app, holdfast_engine;
"""

GRANTS = """
GRANT INSERT (tenant_id, run_id, is_full, status, started_at) ON reconciliation_runs TO holdfast_app, holdfast_engine;
GRANT UPDATE (status, finished_at, through_sequence, checked, explained, unexplained, share_explained_ppm, areas,
    failure) ON reconciliation_runs TO holdfast_app, holdfast_engine;
GRANT INSERT (tenant_id, finding_id, area, code, subject, part, asset, expected, actual, detail, explanation,
    first_run_id, last_run_id, last_seen_at) ON reconciliation_findings TO holdfast_app, holdfast_engine;
GRANT UPDATE (asset, expected, actual, detail, explanation, last_run_id, last_seen_at, told_at, resolved_at)
    ON reconciliation_findings TO holdfast_app, holdfast_engine;
GRANT INSERT (tenant_id, base_id, through_sequence), UPDATE (through_sequence, completed_at)
    ON reconciliation_bases TO holdfast_app, holdfast_engine;
GRANT INSERT, UPDATE (available, held) ON reconciliation_accounts TO holdfast_app, holdfast_engine;
GRANT INSERT, UPDATE (placed, remaining) ON reconciliation_holds TO holdfast_app, holdfast_engine;
-- Sums that a newer full run replaced; the app's role deletes nothing.
GRANT DELETE ON reconciliation_bases, reconciliation_accounts, reconciliation_holds TO holdfast_engine;
CREATE TRIGGER no_delete BEFORE DELETE OR TRUNCATE ON reconciliation_runs
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER no_delete BEFORE DELETE OR TRUNCATE ON reconciliation_findings
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
"""

_NAMES = ("runs", "findings", "bases", "accounts", "holds")


def upgrade() -> None:
    op.execute(TABLES)
    for name in _NAMES:
        op.execute(SECURITY.format(table=f"reconciliation_{name}"))
    op.execute(GRANTS)


def downgrade() -> None:
    op.execute("DROP INDEX outbox_escrow_idx")
    for name in reversed(_NAMES):
        op.execute(f"DROP TABLE reconciliation_{name}")
