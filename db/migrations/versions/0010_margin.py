"""Margin: what assets count for, accounts and positions, snapshots of health, events."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE margin_parameter_versions (
    version INTEGER GENERATED ALWAYS AS IDENTITY,
    effective_from TIMESTAMP WITH TIME ZONE NOT NULL,
    note TEXT NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT margin_parameter_versions_pkey PRIMARY KEY (version),
    CONSTRAINT margin_parameter_versions_effective_from_key UNIQUE (effective_from)
);
COMMENT ON COLUMN margin_parameter_versions.effective_from IS 'in force until the next version''s';
COMMENT ON COLUMN margin_parameter_versions.note IS 'who decided, and why';
COMMENT ON COLUMN margin_parameter_versions.recorded_at IS 'database clock';

CREATE TABLE margin_parameters (
    version INTEGER NOT NULL,
    asset TEXT NOT NULL,
    ltv_bps INTEGER NOT NULL,
    liquidation_threshold_bps INTEGER NOT NULL,
    liquidation_bonus_bps INTEGER NOT NULL,
    borrow_rate_bps INTEGER NOT NULL,
    CONSTRAINT margin_parameters_pkey PRIMARY KEY (version, asset),
    CONSTRAINT margin_parameters_version_fkey FOREIGN KEY(version) REFERENCES margin_parameter_versions (version),
    CONSTRAINT margin_parameters_asset_fkey FOREIGN KEY(asset) REFERENCES assets (symbol),
    CONSTRAINT margin_parameters_shares_check CHECK (0 <= ltv_bps AND ltv_bps <= liquidation_threshold_bps
        AND liquidation_threshold_bps <= 10000 AND liquidation_bonus_bps BETWEEN 0 AND 10000
        AND borrow_rate_bps BETWEEN 0 AND 100000)
);
COMMENT ON COLUMN margin_parameters.ltv_bps IS 'of the value, how much may be borrowed against it';
COMMENT ON COLUMN margin_parameters.liquidation_threshold_bps IS 'of the value, how much supports debt that exists';
COMMENT ON COLUMN margin_parameters.liquidation_bonus_bps IS 'what a liquidator gets on top';
COMMENT ON COLUMN margin_parameters.borrow_rate_bps IS 'a year''s interest on debt in it';

CREATE TABLE margin_settings (
    tenant_id UUID NOT NULL,
    escrow_collateral TEXT NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT margin_settings_pkey PRIMARY KEY (tenant_id),
    CONSTRAINT margin_settings_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (tenant_id),
    CONSTRAINT margin_settings_escrow_collateral_check CHECK (escrow_collateral IN ('none', 'buyer', 'seller'))
);
COMMENT ON COLUMN margin_settings.tenant_id IS 'whose row this is';
COMMENT ON COLUMN margin_settings.escrow_collateral IS 'whose collateral the money in funded escrows is';
COMMENT ON COLUMN margin_settings.recorded_at IS 'database clock';

CREATE TABLE margin_accounts (
    tenant_id UUID NOT NULL,
    user_id TEXT NOT NULL,
    account_no BIGINT GENERATED ALWAYS AS IDENTITY,
    shard SMALLINT GENERATED ALWAYS AS ((hashtextextended(tenant_id::text || ':' || user_id, 0) & 63)::smallint) STORED,
    warning_bps INTEGER DEFAULT 15000 NOT NULL,
    margin_call_bps INTEGER DEFAULT 12000 NOT NULL,
    imminent_bps INTEGER DEFAULT 10500 NOT NULL,
    told_level SMALLINT DEFAULT 0 NOT NULL,
    warning_told_at TIMESTAMP WITH TIME ZONE,
    margin_call_told_at TIMESTAMP WITH TIME ZONE,
    imminent_told_at TIMESTAMP WITH TIME ZONE,
    liquidation_told_at TIMESTAMP WITH TIME ZONE,
    health_score NUMERIC(78, 18),
    checked_at TIMESTAMP WITH TIME ZONE,
    version BIGINT DEFAULT 1 NOT NULL,
    changed_in BIGINT DEFAULT pg_current_xact_id()::text::bigint NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT margin_accounts_pkey PRIMARY KEY (tenant_id, user_id),
    CONSTRAINT margin_accounts_account_no_key UNIQUE (account_no),
    CONSTRAINT margin_accounts_tenant_id_account_no_key UNIQUE (tenant_id, account_no),
    CONSTRAINT margin_accounts_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (tenant_id),
    CONSTRAINT margin_accounts_levels_check CHECK (warning_bps >= margin_call_bps AND margin_call_bps >= imminent_bps
        AND warning_bps >= 15000 AND margin_call_bps >= 12000 AND imminent_bps >= 10500 AND warning_bps <= 1000000),
    CONSTRAINT margin_accounts_told_level_check CHECK (told_level BETWEEN 0 AND 4)
);
CREATE INDEX margin_accounts_changed_in_idx ON margin_accounts (changed_in);
COMMENT ON COLUMN margin_accounts.tenant_id IS 'whose row this is';
COMMENT ON COLUMN margin_accounts.account_no IS 'its name in the book';
COMMENT ON COLUMN margin_accounts.shard IS 'which part of the book it is in, of 64';
COMMENT ON COLUMN margin_accounts.warning_bps IS 'health factor below which there is a warning, in basis points';
COMMENT ON COLUMN margin_accounts.told_level IS
    'what its user was last told: 0 healthy, 1 warning, 2 margin call, 3 liquidation imminent, 4 liquidation due';
COMMENT ON COLUMN margin_accounts.warning_told_at IS 'since the last escalation beyond it; null: may be told at once';
COMMENT ON COLUMN margin_accounts.health_score IS 'as of the last snapshot; null without debt';
COMMENT ON COLUMN margin_accounts.checked_at IS 'of the last snapshot';
COMMENT ON COLUMN margin_accounts.version IS 'grows with every change of the account or of its positions';
COMMENT ON COLUMN margin_accounts.changed_in IS
    'the transaction that changed it or its positions last; the book follows it';
COMMENT ON COLUMN margin_accounts.recorded_at IS 'database clock';

CREATE TABLE margin_positions (
    tenant_id UUID NOT NULL,
    account_no BIGINT NOT NULL,
    side TEXT NOT NULL,
    asset TEXT NOT NULL,
    origin TEXT NOT NULL,
    amount_minor NUMERIC(78, 0) NOT NULL,
    CONSTRAINT margin_positions_pkey PRIMARY KEY (tenant_id, account_no, side, asset, origin),
    CONSTRAINT margin_positions_tenant_id_account_no_fkey FOREIGN KEY(tenant_id, account_no)
        REFERENCES margin_accounts (tenant_id, account_no),
    CONSTRAINT margin_positions_asset_fkey FOREIGN KEY(asset) REFERENCES assets (symbol),
    CONSTRAINT margin_positions_side_check CHECK (side IN ('collateral', 'borrow')),
    CONSTRAINT margin_positions_origin_check CHECK (origin IN ('declared', 'escrow')
        AND (origin = 'declared' OR side = 'collateral')),
    CONSTRAINT margin_positions_amount_check CHECK (amount_minor > 0)
);
COMMENT ON COLUMN margin_positions.tenant_id IS 'whose row this is';
COMMENT ON COLUMN margin_positions.side IS 'collateral or borrow';
COMMENT ON COLUMN margin_positions.origin IS 'declared by the tenant, or held by escrows';

CREATE TABLE margin_health_snapshots (
    tenant_id UUID NOT NULL,
    snapshot_id UUID NOT NULL,
    user_id TEXT NOT NULL,
    health_score NUMERIC(78, 18),
    previous_health_score NUMERIC(78, 18),
    status TEXT NOT NULL,
    total_collateral_usd NUMERIC(78, 8) NOT NULL,
    total_borrow_usd NUMERIC(78, 8) NOT NULL,
    collateral_breakdown JSON NOT NULL,
    borrow_breakdown JSON NOT NULL,
    liquidation_price_drop_percent NUMERIC,
    recommendations JSON NOT NULL,
    borrowing JSON NOT NULL,
    parameter_version INTEGER NOT NULL,
    price_tick BIGINT NOT NULL,
    cause TEXT NOT NULL,
    calculated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT margin_health_snapshots_pkey PRIMARY KEY (tenant_id, snapshot_id),
    CONSTRAINT margin_health_snapshots_tenant_id_user_id_fkey FOREIGN KEY(tenant_id, user_id)
        REFERENCES margin_accounts (tenant_id, user_id),
    CONSTRAINT margin_health_snapshots_parameter_version_fkey FOREIGN KEY(parameter_version)
        REFERENCES margin_parameter_versions (version),
    CONSTRAINT margin_health_snapshots_status_check
        CHECK (status IN ('HEALTHY', 'WARNING', 'MARGIN_CALL', 'LIQUIDATION'))
);
CREATE INDEX margin_health_snapshots_tenant_id_user_id_snapshot_id_idx
    ON margin_health_snapshots (tenant_id, user_id, snapshot_id);
COMMENT ON COLUMN margin_health_snapshots.tenant_id IS 'whose row this is';
COMMENT ON COLUMN margin_health_snapshots.snapshot_id IS 'UUIDv7: sorts by calculation';
COMMENT ON COLUMN margin_health_snapshots.health_score IS 'the health factor; null without debt';
COMMENT ON COLUMN margin_health_snapshots.previous_health_score IS 'of the snapshot before';
COMMENT ON COLUMN margin_health_snapshots.collateral_breakdown IS
    'each asset with its amount, price, value and threshold';
COMMENT ON COLUMN margin_health_snapshots.borrow_breakdown IS 'each asset with its amount, price and value';
COMMENT ON COLUMN margin_health_snapshots.liquidation_price_drop_percent IS
    'how far all collateral may fall together until liquidation; null without debt';
COMMENT ON COLUMN margin_health_snapshots.recommendations IS 'exact amounts that lead back to a target health';
COMMENT ON COLUMN margin_health_snapshots.borrowing IS 'what could be borrowed, and why not';
COMMENT ON COLUMN margin_health_snapshots.parameter_version IS 'what assets counted for';
COMMENT ON COLUMN margin_health_snapshots.price_tick IS 'the newest refresh that it knew of';
COMMENT ON COLUMN margin_health_snapshots.cause IS 'check, settlement, account or tick';
COMMENT ON COLUMN margin_health_snapshots.created_at IS 'database clock';

CREATE TABLE margin_events (
    tenant_id UUID NOT NULL,
    event_id UUID NOT NULL,
    snapshot_id UUID NOT NULL,
    user_id TEXT NOT NULL,
    event_type TEXT NOT NULL,
    severity TEXT NOT NULL,
    health_score NUMERIC(78, 18),
    previous_health_score NUMERIC(78, 18),
    threshold_breached NUMERIC(10, 4) NOT NULL,
    message TEXT NOT NULL,
    recommendations JSON NOT NULL,
    collateral_usd NUMERIC(78, 8) NOT NULL,
    borrow_usd NUMERIC(78, 8) NOT NULL,
    published_to_pubsub BOOLEAN DEFAULT false NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT margin_events_pkey PRIMARY KEY (tenant_id, event_id),
    CONSTRAINT margin_events_tenant_id_snapshot_id_fkey FOREIGN KEY(tenant_id, snapshot_id)
        REFERENCES margin_health_snapshots (tenant_id, snapshot_id),
    CONSTRAINT margin_events_event_type_check CHECK (event_type IN
        ('margin_warning', 'margin_call', 'liquidation_imminent', 'liquidation_due', 'margin_recovered')),
    CONSTRAINT margin_events_severity_check CHECK (severity IN ('low', 'medium', 'high', 'critical'))
);
CREATE INDEX margin_events_tenant_id_user_id_event_id_idx ON margin_events (tenant_id, user_id, event_id);
CREATE INDEX margin_events_unpublished_idx ON margin_events (event_id) WHERE NOT published_to_pubsub;
COMMENT ON COLUMN margin_events.tenant_id IS 'whose row this is';
COMMENT ON COLUMN margin_events.event_id IS 'UUIDv7: sorts by when it was raised; the same in the feed';
COMMENT ON COLUMN margin_events.threshold_breached IS 'the health factor that was crossed, down or up';
COMMENT ON COLUMN margin_events.recommendations IS 'exact amounts that lead back to a target health';
COMMENT ON COLUMN margin_events.published_to_pubsub IS
    'whether it has left: acknowledged by the broker where there is one, else in the feed';
COMMENT ON COLUMN margin_events.created_at IS 'database clock';
"""

FUNCTIONS = """
CREATE FUNCTION margin_accounts_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.version := OLD.version + 1;
    NEW.changed_in := pg_current_xact_id()::text::bigint;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION margin_accounts_change() IS 'a change that the book does not know of cannot be written';
CREATE TRIGGER change BEFORE UPDATE ON margin_accounts FOR EACH ROW EXECUTE FUNCTION margin_accounts_change();

CREATE FUNCTION margin_positions_touch() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE margin_accounts a SET checked_at = a.checked_at
    FROM (SELECT DISTINCT tenant_id, account_no FROM changed) AS c
    WHERE a.tenant_id = c.tenant_id AND a.account_no = c.account_no
        AND a.changed_in <> pg_current_xact_id()::text::bigint;
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION margin_positions_touch() FROM PUBLIC;
COMMENT ON FUNCTION margin_positions_touch() IS 'whoever changes positions changes their account';
CREATE TRIGGER touch_inserted AFTER INSERT ON margin_positions REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION margin_positions_touch();
CREATE TRIGGER touch_updated AFTER UPDATE ON margin_positions REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION margin_positions_touch();
CREATE TRIGGER touch_deleted AFTER DELETE ON margin_positions REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION margin_positions_touch();
"""

SECURITY = """
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
ALTER TABLE {table} FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {table} USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
GRANT SELECT ON {table} TO holdfast_app, holdfast_engine;
"""

GRANTS = """
GRANT SELECT ON margin_parameter_versions, margin_parameters TO holdfast_app, holdfast_engine;
GRANT INSERT (effective_from, note) ON margin_parameter_versions TO holdfast_app, holdfast_engine;
GRANT INSERT ON margin_parameters TO holdfast_app, holdfast_engine;
GRANT INSERT (tenant_id, escrow_collateral), UPDATE (escrow_collateral) ON margin_settings
    TO holdfast_app, holdfast_engine;
GRANT INSERT (tenant_id, user_id, warning_bps, margin_call_bps, imminent_bps),
    UPDATE (warning_bps, margin_call_bps, imminent_bps, told_level, warning_told_at, margin_call_told_at,
        imminent_told_at, liquidation_told_at, health_score, checked_at)
    ON margin_accounts TO holdfast_app, holdfast_engine;
GRANT INSERT, UPDATE (amount_minor), DELETE ON margin_positions TO holdfast_app, holdfast_engine;
GRANT INSERT (tenant_id, snapshot_id, user_id, health_score, previous_health_score, status, total_collateral_usd,
    total_borrow_usd, collateral_breakdown, borrow_breakdown, liquidation_price_drop_percent, recommendations,
    borrowing, parameter_version, price_tick, cause, calculated_at) ON margin_health_snapshots
    TO holdfast_app, holdfast_engine;
GRANT INSERT (tenant_id, event_id, snapshot_id, user_id, event_type, severity, health_score, previous_health_score,
    threshold_breached, message, recommendations, collateral_usd, borrow_usd) ON margin_events
    TO holdfast_app, holdfast_engine;
GRANT UPDATE (published_to_pubsub) ON margin_events TO holdfast_engine;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON margin_parameter_versions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON margin_parameters
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
"""

# The shares of Aave v3's Ethereum core market as of 2026-08-22; the rates are of this house and start at 5 % a year.
SEED = """
WITH version AS (
    INSERT INTO margin_parameter_versions (effective_from, note)
    VALUES ('1970-01-01T00:00:00Z', 'the shares of Aave v3''s Ethereum core market on 2026-08-22')
    RETURNING version
)
INSERT INTO margin_parameters
    (version, asset, ltv_bps, liquidation_threshold_bps, liquidation_bonus_bps, borrow_rate_bps)
SELECT version.version, seed.asset, seed.ltv, seed.threshold, seed.bonus, 500
FROM version, (VALUES
    ('ETH', 8050, 8300, 500),
    ('BTC', 7300, 7800, 500),
    ('USDC', 7500, 7800, 450),
    ('USDT', 7500, 7800, 450),
    ('DAI', 0, 7700, 500)
) AS seed (asset, ltv, threshold, bonus);
"""

_TENANTS_TABLES = ("margin_settings", "margin_accounts", "margin_positions", "margin_health_snapshots", "margin_events")


def upgrade() -> None:
    for script in (TABLES, FUNCTIONS):
        op.execute(script)
    for table in _TENANTS_TABLES:
        op.execute(SECURITY.format(table=table))
    op.execute(GRANTS)
    op.execute(SEED)


def downgrade() -> None:
    for table in reversed(_TENANTS_TABLES):
        op.execute(f"DROP TABLE {table}")
    op.execute(
        "DROP FUNCTION margin_positions_touch(); DROP FUNCTION margin_accounts_change();"
        " DROP TABLE margin_parameters; DROP TABLE margin_parameter_versions;"
    )
