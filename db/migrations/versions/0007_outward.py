"""Consumers of the feed: where each stands, what it could not take, and what the broker acknowledged."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE feed_consumers (
    name TEXT NOT NULL,
    position BIGINT DEFAULT 0 NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT feed_consumers_pkey PRIMARY KEY (name)
);
COMMENT ON COLUMN feed_consumers.position IS 'it is done with every event up to this one';
COMMENT ON COLUMN feed_consumers.updated_at IS 'when it last moved; database clock';

CREATE TABLE feed_faults (
    consumer TEXT NOT NULL,
    position BIGINT NOT NULL,
    event_id UUID NOT NULL,
    error TEXT NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT feed_faults_pkey PRIMARY KEY (consumer, position)
);
COMMENT ON COLUMN feed_faults.error IS 'what the last attempt ended with';
COMMENT ON COLUMN feed_faults.recorded_at IS 'database clock';

CREATE TABLE publications (
    tenant_id UUID NOT NULL,
    event_id UUID NOT NULL,
    stream TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    published_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT publications_pkey PRIMARY KEY (tenant_id, event_id, stream)
);
COMMENT ON COLUMN publications.tenant_id IS 'whose row this is';
COMMENT ON COLUMN publications.stream IS 'the stream of the broker that has the event';
COMMENT ON COLUMN publications.sequence IS 'its place in that stream, from the broker''s acknowledgement';
COMMENT ON COLUMN publications.published_at IS 'when the acknowledgement was recorded; database clock';
"""

FUNCTIONS = """
CREATE FUNCTION feed_head() RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path = public, pg_temp
    AS $$ SELECT coalesce(max(position), 0) FROM outbox $$;
COMMENT ON FUNCTION feed_head() IS 'the last position of the feed, over all tenants';

CREATE FUNCTION feed_news(after bigint, most integer) RETURNS TABLE (tenant_id uuid, latest bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp
    AS $$
    SELECT o.tenant_id, max(o.position)
    FROM (SELECT tenant_id, position FROM outbox WHERE position > after ORDER BY position LIMIT most) AS o
    GROUP BY o.tenant_id
    $$;
COMMENT ON FUNCTION feed_news(bigint, integer) IS 'of the first events behind a position: whose, and up to where';
"""

SECURITY = """
ALTER TABLE publications ENABLE ROW LEVEL SECURITY;
ALTER TABLE publications FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON publications USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());

REVOKE ALL ON FUNCTION feed_head(), feed_news(bigint, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION feed_head(), feed_news(bigint, integer) TO holdfast_app, holdfast_engine;
GRANT SELECT ON feed_consumers, feed_faults TO holdfast_engine;
GRANT INSERT (name) ON feed_consumers TO holdfast_engine;
GRANT UPDATE (position, updated_at) ON feed_consumers TO holdfast_engine;
GRANT INSERT (consumer, position, event_id, error) ON feed_faults TO holdfast_engine;
GRANT SELECT ON publications TO holdfast_app, holdfast_engine;
GRANT INSERT (tenant_id, event_id, stream, sequence) ON publications TO holdfast_engine;
"""


def upgrade() -> None:
    for script in (TABLES, FUNCTIONS, SECURITY):
        op.execute(script)


def downgrade() -> None:
    op.execute(
        "DROP FUNCTION feed_news(bigint, integer); DROP FUNCTION feed_head();"
        " DROP TABLE publications, feed_faults, feed_consumers;"
    )
