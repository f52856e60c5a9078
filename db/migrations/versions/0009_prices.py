"""Prices: the current one of each asset, and its history by month; and events that every tenant sees."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE price_ticks (
    tick BIGINT GENERATED ALWAYS AS IDENTITY,
    refresh_id TEXT NOT NULL,
    refreshed_at TIMESTAMP WITH TIME ZONE NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT price_ticks_pkey PRIMARY KEY (tick),
    CONSTRAINT price_ticks_refresh_id_key UNIQUE (refresh_id)
);
COMMENT ON COLUMN price_ticks.tick IS 'a refresh that changed some price; later ones are greater';
COMMENT ON COLUMN price_ticks.refresh_id IS 'the run that refreshed; each makes one tick at most';
COMMENT ON COLUMN price_ticks.recorded_at IS 'database clock';

CREATE TABLE prices (
    asset TEXT NOT NULL,
    tick BIGINT NOT NULL,
    mid NUMERIC(78, 18) NOT NULL,
    low NUMERIC(78, 18) NOT NULL,
    high NUMERIC(78, 18) NOT NULL,
    quality TEXT NOT NULL,
    confirmed BOOLEAN NOT NULL,
    as_of TIMESTAMP WITH TIME ZONE NOT NULL,
    sources JSONB NOT NULL,
    reason TEXT,
    refreshed_at TIMESTAMP WITH TIME ZONE NOT NULL,
    fresh_until TIMESTAMP WITH TIME ZONE,
    ttl_seconds INTEGER NOT NULL,
    state JSONB DEFAULT '{}' NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT prices_pkey PRIMARY KEY (asset),
    CONSTRAINT prices_asset_fkey FOREIGN KEY(asset) REFERENCES assets (symbol),
    CONSTRAINT prices_tick_fkey FOREIGN KEY(tick) REFERENCES price_ticks (tick),
    CONSTRAINT prices_band_check CHECK (low > 0 AND low <= mid AND mid <= high),
    CONSTRAINT prices_quality_check CHECK (quality IN ('good', 'degraded', 'stale'))
);
COMMENT ON COLUMN prices.tick IS 'the refresh that last changed it';
COMMENT ON COLUMN prices.mid IS 'US dollars per whole unit';
COMMENT ON COLUMN prices.low IS 'what collateral counts for where somebody borrows';
COMMENT ON COLUMN prices.high IS 'what debt counts for where somebody borrows';
COMMENT ON COLUMN prices.quality IS 'good, degraded (a source is missing or was left out) or stale (no quorum)';
COMMENT ON COLUMN prices.confirmed IS 'fresh, with quorum, persistent: fit for what is automatic';
COMMENT ON COLUMN prices.as_of IS 'when the sources observed it';
COMMENT ON COLUMN prices.sources IS 'what each source said, and why it was left out where it was';
COMMENT ON COLUMN prices.reason IS 'why it is not better';
COMMENT ON COLUMN prices.refreshed_at IS 'when somebody last looked, changed or not';
COMMENT ON COLUMN prices.fresh_until IS 'when it is stale if nobody looks again; null: it is already';
COMMENT ON COLUMN prices.ttl_seconds IS 'how long a reader may keep it';
COMMENT ON COLUMN prices.state IS 'what the next refresh needs to know: the jump that waits for confirmation';
COMMENT ON COLUMN prices.recorded_at IS 'database clock';

CREATE TABLE price_history (
    asset TEXT NOT NULL,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    tick BIGINT NOT NULL,
    mid NUMERIC(78, 18) NOT NULL,
    low NUMERIC(78, 18) NOT NULL,
    high NUMERIC(78, 18) NOT NULL,
    quality TEXT NOT NULL,
    confirmed BOOLEAN NOT NULL,
    as_of TIMESTAMP WITH TIME ZONE NOT NULL,
    sources JSONB NOT NULL,
    CONSTRAINT price_history_pkey PRIMARY KEY (asset, at, tick)
) PARTITION BY RANGE (at);
COMMENT ON COLUMN price_history.at IS 'when it was refreshed; partitions are months of it, in UTC';
"""

FUNCTIONS = """
CREATE FUNCTION ensure_price_partition(month date) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    first date := date_trunc('month', month)::date;
    name text := 'price_history_' || to_char(first, 'YYYYMM');
BEGIN
    IF to_regclass('public.' || name) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format(
        'CREATE TABLE %I PARTITION OF price_history FOR VALUES FROM (%L) TO (%L)',
        name, first || ' 00:00:00+00', (first + interval '1 month')::date || ' 00:00:00+00');
    RETURN true;
EXCEPTION WHEN duplicate_table OR unique_violation THEN
    RETURN false;
END $$;
COMMENT ON FUNCTION ensure_price_partition(date) IS
    'makes the partition of a month, and says whether it was missing; partitions carry no grants of their own';
"""

#: The platform's own events, under the nil UUID: every tenant reads them, none writes them, and none is called so.
PLATFORM = """
ALTER TABLE tenants ADD CONSTRAINT tenants_platform_check
    CHECK (tenant_id <> '00000000-0000-0000-0000-000000000000'::uuid);
CREATE POLICY platform ON outbox FOR SELECT
    USING (tenant_id = '00000000-0000-0000-0000-000000000000'::uuid AND current_tenant() IS NOT NULL);
CREATE POLICY platform_writes ON outbox AS RESTRICTIVE FOR INSERT
    WITH CHECK (tenant_id <> '00000000-0000-0000-0000-000000000000'::uuid);
"""

SECURITY = """
REVOKE ALL ON FUNCTION ensure_price_partition(date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION ensure_price_partition(date) TO holdfast_engine;
GRANT SELECT ON price_ticks, prices, price_history TO holdfast_app, holdfast_engine;
GRANT INSERT (refresh_id, refreshed_at) ON price_ticks TO holdfast_engine;
GRANT INSERT (asset, tick, mid, low, high, quality, confirmed, as_of, sources, reason, refreshed_at,
        fresh_until, ttl_seconds, state),
    UPDATE (tick, mid, low, high, quality, confirmed, as_of, sources, reason, refreshed_at, fresh_until, ttl_seconds,
        state)
    ON prices TO holdfast_engine;
GRANT INSERT ON price_history TO holdfast_engine;
"""


def upgrade() -> None:
    for script in (TABLES, FUNCTIONS, PLATFORM, SECURITY):
        op.execute(script)


def downgrade() -> None:
    op.execute(
        "DROP POLICY platform_writes ON outbox; DROP POLICY platform ON outbox;"
        " ALTER TABLE tenants DROP CONSTRAINT tenants_platform_check;"
        " DROP FUNCTION ensure_price_partition(date);"
        " DROP TABLE price_history; DROP TABLE prices; DROP TABLE price_ticks;"
    )
