"""The margin book: how far each shard is, and what its auditor found."""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE margin_book (
    shard SMALLINT NOT NULL,
    tick BIGINT NOT NULL,
    parameters_from TIMESTAMP WITH TIME ZONE NOT NULL,
    done_tick BIGINT NOT NULL,
    done_parameters_from TIMESTAMP WITH TIME ZONE NOT NULL,
    due_at TIMESTAMP WITH TIME ZONE,
    revalued_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT margin_book_pkey PRIMARY KEY (shard)
);
COMMENT ON COLUMN margin_book.tick IS 'the newest tick that was begun; older ones write no more';
COMMENT ON COLUMN margin_book.parameters_from IS 'when the parameters that it was begun with took effect';
COMMENT ON COLUMN margin_book.done_tick IS 'the newest tick at which every account was looked at';
COMMENT ON COLUMN margin_book.due_at IS 'when the first account may be told what a cooldown holds back';
COMMENT ON COLUMN margin_book.revalued_at IS 'when the last revaluation ended';
INSERT INTO margin_book (shard, tick, parameters_from, done_tick, done_parameters_from)
SELECT shard, 0, '-infinity', 0, '-infinity' FROM generate_series(0, 63) AS shard;

CREATE TABLE margin_audit_findings (
    tenant_id UUID NOT NULL,
    finding_id UUID NOT NULL,
    user_id TEXT NOT NULL,
    account_version BIGINT NOT NULL,
    told_level SMALLINT NOT NULL,
    strict_level SMALLINT NOT NULL,
    rearmed_level SMALLINT NOT NULL,
    price_tick BIGINT NOT NULL,
    parameter_version INTEGER NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT margin_audit_findings_pkey PRIMARY KEY (tenant_id, finding_id),
    CONSTRAINT margin_audit_findings_tenant_id_user_id_account_version_key
        UNIQUE (tenant_id, user_id, account_version),
    CONSTRAINT margin_audit_findings_tenant_id_user_id_fkey FOREIGN KEY(tenant_id, user_id)
        REFERENCES margin_accounts (tenant_id, user_id)
);
CREATE INDEX margin_audit_findings_tenant_id_user_id_finding_id_idx
    ON margin_audit_findings (tenant_id, user_id, finding_id);
COMMENT ON COLUMN margin_audit_findings.tenant_id IS 'whose row this is';
COMMENT ON COLUMN margin_audit_findings.finding_id IS 'UUIDv7; also the event''s id in the feed';
COMMENT ON COLUMN margin_audit_findings.account_version IS 'of the account as it was found; told once for each';
COMMENT ON COLUMN margin_audit_findings.told_level IS 'what its user was told';
COMMENT ON COLUMN margin_audit_findings.strict_level IS 'the level of its health';
COMMENT ON COLUMN margin_audit_findings.rearmed_level IS 'the level with every threshold 2 % higher';
COMMENT ON COLUMN margin_audit_findings.recorded_at IS 'database clock';
"""

#: A crash updates many accounts at once: with room on the page, and a summarising index instead of a tree, updates
#: are made in place and touch no other index.
ROOM = """
DROP INDEX margin_accounts_changed_in_idx;
CREATE INDEX margin_accounts_changed_in_idx ON margin_accounts USING brin (changed_in) WITH (pages_per_range = 1);
ALTER TABLE margin_accounts SET (fillfactor = 70);
-- A snapshot is some two kilobytes: to compress it costs more than it saves.
ALTER TABLE margin_health_snapshots SET (toast_tuple_target = 8160);
ALTER TABLE margin_events SET (toast_tuple_target = 8160);
"""

#: Who writes snapshots holds their account's row, and writes an event with its snapshot in one commit; accounts,
#: snapshots and versions are never deleted. Looked up row by row, the keys took a third of a snapshot's time.
LIGHTER = """
ALTER TABLE margin_health_snapshots ALTER CONSTRAINT margin_health_snapshots_tenant_id_user_id_fkey NOT ENFORCED;
ALTER TABLE margin_health_snapshots ALTER CONSTRAINT margin_health_snapshots_parameter_version_fkey NOT ENFORCED;
ALTER TABLE margin_events ALTER CONSTRAINT margin_events_tenant_id_snapshot_id_fkey NOT ENFORCED;
"""

SECURITY = """
ALTER TABLE margin_audit_findings ENABLE ROW LEVEL SECURITY;
ALTER TABLE margin_audit_findings FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON margin_audit_findings
    USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
GRANT SELECT ON margin_audit_findings TO holdfast_app, holdfast_engine;
GRANT INSERT (tenant_id, finding_id, user_id, account_version, told_level, strict_level, rearmed_level, price_tick,
    parameter_version) ON margin_audit_findings TO holdfast_engine;
GRANT SELECT ON margin_book TO holdfast_app, holdfast_engine;
GRANT UPDATE (tick, parameters_from, done_tick, done_parameters_from, due_at, revalued_at) ON margin_book
    TO holdfast_engine;
"""


def upgrade() -> None:
    op.execute(TABLES)
    op.execute(ROOM)
    op.execute(LIGHTER)
    op.execute(SECURITY)


def downgrade() -> None:
    op.execute(
        "DROP TABLE margin_audit_findings; DROP TABLE margin_book; ALTER TABLE margin_accounts RESET (fillfactor);"
        " DROP INDEX margin_accounts_changed_in_idx;"
        " CREATE INDEX margin_accounts_changed_in_idx ON margin_accounts (changed_in);"
        " ALTER TABLE margin_events RESET (toast_tuple_target);"
        " ALTER TABLE margin_health_snapshots RESET (toast_tuple_target);"
        " ALTER TABLE margin_events ALTER CONSTRAINT margin_events_tenant_id_snapshot_id_fkey ENFORCED;"
        " ALTER TABLE margin_health_snapshots"
        " ALTER CONSTRAINT margin_health_snapshots_tenant_id_user_id_fkey ENFORCED;"
        " ALTER TABLE margin_health_snapshots"
        " ALTER CONSTRAINT margin_health_snapshots_parameter_version_fkey ENFORCED;"
    )
