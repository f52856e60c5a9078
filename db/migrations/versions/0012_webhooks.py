"""Webhooks: subscriptions and their keys, deliveries, attempts, replays."""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

SUBSCRIPTIONS = """
CREATE TABLE webhook_subscriptions (
    tenant_id UUID NOT NULL,
    subscription_id UUID NOT NULL,
    url TEXT NOT NULL,
    description TEXT,
    event_types JSONB NOT NULL,
    user_id TEXT,
    escrow_id UUID,
    headers JSONB NOT NULL,
    rate_per_second INTEGER,
    concurrency INTEGER NOT NULL,
    ordering TEXT NOT NULL,
    owner_user_id TEXT,
    status TEXT DEFAULT 'active' NOT NULL,
    disabled_reason TEXT,
    disabled_at TIMESTAMP WITH TIME ZONE,
    paused_until TIMESTAMP WITH TIME ZONE,
    failing_since TIMESTAMP WITH TIME ZONE,
    failed_at TIMESTAMP WITH TIME ZONE,
    succeeded_at TIMESTAMP WITH TIME ZONE,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT webhook_subscriptions_pkey PRIMARY KEY (tenant_id, subscription_id),
    CONSTRAINT webhook_subscriptions_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (tenant_id),
    CONSTRAINT webhook_subscriptions_status_check CHECK (status IN ('active', 'disabled', 'deleted')),
    CONSTRAINT webhook_subscriptions_disabled_check CHECK ((status = 'active') = (disabled_at IS NULL)
        AND (disabled_reason IS NULL OR disabled_reason IN ('asked', 'gone', 'failing'))),
    CONSTRAINT webhook_subscriptions_ordering_check CHECK (ordering IN ('none', 'subject')),
    CONSTRAINT webhook_subscriptions_pace_check CHECK (concurrency BETWEEN 1 AND 64
        AND (rate_per_second IS NULL OR rate_per_second BETWEEN 1 AND 10000))
);
CREATE INDEX webhook_subscriptions_active_idx ON webhook_subscriptions (tenant_id) WHERE status = 'active';
-- What it is doing changes with every group of attempts: such a change stays on its page.
ALTER TABLE webhook_subscriptions SET (fillfactor = 70);
COMMENT ON COLUMN webhook_subscriptions.tenant_id IS 'whose row this is';
COMMENT ON COLUMN webhook_subscriptions.subscription_id IS 'UUIDv7';
COMMENT ON COLUMN webhook_subscriptions.event_types IS 'a list; * at an end stands for any ending';
COMMENT ON COLUMN webhook_subscriptions.user_id IS 'only what concerns this user';
COMMENT ON COLUMN webhook_subscriptions.escrow_id IS 'only what concerns this escrow';
COMMENT ON COLUMN webhook_subscriptions.headers IS 'sent along; may hold credentials, and no answer shows them';
COMMENT ON COLUMN webhook_subscriptions.rate_per_second IS
    'requests begun in a second; null: as fast as it answers';
COMMENT ON COLUMN webhook_subscriptions.concurrency IS 'requests on their way at a time';
COMMENT ON COLUMN webhook_subscriptions.ordering IS 'subject: one after the other for each subject';
COMMENT ON COLUMN webhook_subscriptions.owner_user_id IS 'who is told when it is disabled';
COMMENT ON COLUMN webhook_subscriptions.paused_until IS 'it asked to be left alone until then';
COMMENT ON COLUMN webhook_subscriptions.failing_since IS 'the first failure behind the last success';
COMMENT ON COLUMN webhook_subscriptions.failed_at IS 'the last failure';
COMMENT ON COLUMN webhook_subscriptions.succeeded_at IS 'the last success';
COMMENT ON COLUMN webhook_subscriptions.recorded_at IS 'database clock';

CREATE TABLE webhook_secrets (
    tenant_id UUID NOT NULL,
    subscription_id UUID NOT NULL,
    secret_id UUID NOT NULL,
    shared_key BYTEA NOT NULL,
    private_seed BYTEA NOT NULL,
    public_key BYTEA NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT webhook_secrets_pkey PRIMARY KEY (tenant_id, subscription_id, secret_id),
    CONSTRAINT webhook_secrets_tenant_id_subscription_id_fkey FOREIGN KEY(tenant_id, subscription_id)
        REFERENCES webhook_subscriptions (tenant_id, subscription_id)
);
COMMENT ON COLUMN webhook_secrets.tenant_id IS 'whose row this is';
COMMENT ON COLUMN webhook_secrets.secret_id IS 'UUIDv7: the newest is the one in force';
COMMENT ON COLUMN webhook_secrets.shared_key IS 'signs v1; shown once, when it is made';
COMMENT ON COLUMN webhook_secrets.private_seed IS 'signs v1a; never shown';
COMMENT ON COLUMN webhook_secrets.public_key IS 'checks v1a; no secret';
COMMENT ON COLUMN webhook_secrets.expires_at IS 'signs until then beside the one that took its place';
COMMENT ON COLUMN webhook_secrets.recorded_at IS 'database clock';
"""

DELIVERIES = """
CREATE TABLE webhook_deliveries (
    tenant_id UUID NOT NULL,
    subscription_id UUID NOT NULL,
    message_id UUID NOT NULL,
    sequence BIGINT GENERATED ALWAYS AS IDENTITY,
    position BIGINT,
    event_type TEXT NOT NULL,
    subject TEXT NOT NULL,
    body TEXT NOT NULL,
    origin TEXT NOT NULL,
    status TEXT DEFAULT 'waiting' NOT NULL,
    attempts INTEGER DEFAULT 0 NOT NULL,
    failures INTEGER DEFAULT 0 NOT NULL,
    next_attempt_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp(),
    finished_at TIMESTAMP WITH TIME ZONE,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT webhook_deliveries_pkey PRIMARY KEY (tenant_id, message_id, subscription_id),
    CONSTRAINT webhook_deliveries_tenant_id_subscription_id_fkey FOREIGN KEY(tenant_id, subscription_id)
        REFERENCES webhook_subscriptions (tenant_id, subscription_id) NOT ENFORCED,
    CONSTRAINT webhook_deliveries_status_check CHECK (status IN ('waiting', 'delivered', 'failed', 'cancelled')),
    CONSTRAINT webhook_deliveries_waiting_check CHECK ((status = 'waiting') = (next_attempt_at IS NOT NULL)
        AND (status = 'waiting') = (finished_at IS NULL)),
    CONSTRAINT webhook_deliveries_origin_check CHECK (origin IN ('event', 'replay', 'retry', 'test'))
);
CREATE INDEX webhook_deliveries_tenant_id_subscription_id_sequence_idx
    ON webhook_deliveries (tenant_id, subscription_id, sequence);
CREATE INDEX webhook_deliveries_due_idx ON webhook_deliveries (tenant_id, subscription_id, next_attempt_at)
    WHERE status = 'waiting';
CREATE INDEX webhook_deliveries_turn_idx ON webhook_deliveries (tenant_id, subscription_id, sequence)
    WHERE status = 'waiting';
CREATE INDEX webhook_deliveries_subject_idx ON webhook_deliveries (tenant_id, subscription_id, subject, sequence)
    WHERE status = 'waiting';
-- A queue: most rows are changed twice within a second, and what they were is in the way until it is cleared.
ALTER TABLE webhook_deliveries SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000);
COMMENT ON COLUMN webhook_deliveries.tenant_id IS 'whose row this is';
COMMENT ON COLUMN webhook_deliveries.message_id IS 'the event''s id; the header webhook-id';
COMMENT ON COLUMN webhook_deliveries.sequence IS 'order of writing';
COMMENT ON COLUMN webhook_deliveries.position IS 'the event''s place in the feed; null for a test';
COMMENT ON COLUMN webhook_deliveries.body IS 'what is sent, the same bytes at every attempt';
COMMENT ON COLUMN webhook_deliveries.origin IS 'why it was written last: event, replay, retry or test';
COMMENT ON COLUMN webhook_deliveries.attempts IS 'that were begun';
COMMENT ON COLUMN webhook_deliveries.failures IS 'since it was last begun anew';
COMMENT ON COLUMN webhook_deliveries.next_attempt_at IS 'while an attempt is under way: when it counts as lost';
COMMENT ON COLUMN webhook_deliveries.recorded_at IS 'database clock';

CREATE TABLE webhook_attempts (
    tenant_id UUID NOT NULL,
    subscription_id UUID NOT NULL,
    message_id UUID NOT NULL,
    number INTEGER NOT NULL,
    url TEXT NOT NULL,
    started_at TIMESTAMP WITH TIME ZONE NOT NULL,
    finished_at TIMESTAMP WITH TIME ZONE,
    result TEXT,
    request_headers JSON,
    status_code INTEGER,
    response_headers JSON,
    response_body TEXT,
    response_truncated BOOLEAN,
    duration_ms INTEGER,
    error TEXT,
    CONSTRAINT webhook_attempts_pkey PRIMARY KEY (tenant_id, message_id, subscription_id, number),
    CONSTRAINT webhook_attempts_tenant_id_message_id_subscription_id_fkey
        FOREIGN KEY(tenant_id, message_id, subscription_id)
        REFERENCES webhook_deliveries (tenant_id, message_id, subscription_id) NOT ENFORCED,
    CONSTRAINT webhook_attempts_finished_check CHECK ((finished_at IS NULL) = (result IS NULL)),
    CONSTRAINT webhook_attempts_result_check CHECK (result IN
        ('delivered', 'rejected', 'no_answer', 'not_sent', 'blocked', 'released', 'interrupted'))
);
-- An outcome joins its intent, on the same page.
ALTER TABLE webhook_attempts SET (fillfactor = 40);
COMMENT ON COLUMN webhook_attempts.tenant_id IS 'whose row this is';
COMMENT ON COLUMN webhook_attempts.started_at IS
    'written before the request; also its timestamp; database clock';
COMMENT ON COLUMN webhook_attempts.finished_at IS 'null: under way, or lost with its process';
COMMENT ON COLUMN webhook_attempts.request_headers IS 'of the owner''s own headers only the names';
COMMENT ON COLUMN webhook_attempts.response_body IS 'its beginning';
COMMENT ON COLUMN webhook_attempts.error IS 'why there is no answer';

CREATE TABLE webhook_replays (
    tenant_id UUID NOT NULL,
    subscription_id UUID NOT NULL,
    replay_id UUID NOT NULL,
    from_at TIMESTAMP WITH TIME ZONE NOT NULL,
    to_at TIMESTAMP WITH TIME ZONE NOT NULL,
    undelivered_only BOOLEAN NOT NULL,
    position BIGINT,
    upto BIGINT NOT NULL,
    queued INTEGER DEFAULT 0 NOT NULL,
    finished_at TIMESTAMP WITH TIME ZONE,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT webhook_replays_pkey PRIMARY KEY (tenant_id, subscription_id, replay_id),
    CONSTRAINT webhook_replays_tenant_id_subscription_id_fkey FOREIGN KEY(tenant_id, subscription_id)
        REFERENCES webhook_subscriptions (tenant_id, subscription_id)
);
CREATE INDEX webhook_replays_open_idx ON webhook_replays (tenant_id, subscription_id) WHERE finished_at IS NULL;
COMMENT ON COLUMN webhook_replays.tenant_id IS 'whose row this is';
COMMENT ON COLUMN webhook_replays.replay_id IS 'UUIDv7';
COMMENT ON COLUMN webhook_replays.from_at IS 'events recorded then or later';
COMMENT ON COLUMN webhook_replays.to_at IS 'events recorded before';
COMMENT ON COLUMN webhook_replays.position IS 'events up to here were looked at; null: not begun';
COMMENT ON COLUMN webhook_replays.upto IS 'the end of the feed when it was asked for';
COMMENT ON COLUMN webhook_replays.queued IS 'deliveries that it began';
COMMENT ON COLUMN webhook_replays.recorded_at IS 'database clock';
"""

SECURITY = """
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
ALTER TABLE {table} FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {table} USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
GRANT SELECT ON {table} TO holdfast_app, holdfast_engine;
"""

GRANTS = """
GRANT INSERT (tenant_id, subscription_id, url, description, event_types, user_id, escrow_id, headers, rate_per_second,
        concurrency, ordering, owner_user_id, status, disabled_reason, disabled_at),
    UPDATE (url, description, event_types, user_id, escrow_id, headers, rate_per_second, concurrency, ordering,
        owner_user_id, status, disabled_reason, disabled_at, paused_until, failing_since)
    ON webhook_subscriptions TO holdfast_app;
GRANT UPDATE (status, disabled_reason, disabled_at, paused_until, failing_since, failed_at, succeeded_at)
    ON webhook_subscriptions TO holdfast_engine;
GRANT INSERT (tenant_id, subscription_id, secret_id, shared_key, private_seed, public_key, expires_at),
    UPDATE (expires_at) ON webhook_secrets TO holdfast_app;
GRANT INSERT (tenant_id, subscription_id, message_id, position, event_type, subject, body, origin)
    ON webhook_deliveries TO holdfast_app, holdfast_engine;
GRANT UPDATE (origin, status, failures, next_attempt_at, finished_at) ON webhook_deliveries TO holdfast_app;
GRANT UPDATE (origin, status, attempts, failures, next_attempt_at, finished_at) ON webhook_deliveries
    TO holdfast_engine;
GRANT INSERT (tenant_id, subscription_id, message_id, number, url, started_at),
    UPDATE (finished_at, result, request_headers, status_code, response_headers, response_body, response_truncated,
        duration_ms, error) ON webhook_attempts TO holdfast_engine;
GRANT INSERT (tenant_id, subscription_id, replay_id, from_at, to_at, undelivered_only, upto) ON webhook_replays
    TO holdfast_app;
GRANT UPDATE (position, queued, finished_at) ON webhook_replays TO holdfast_engine;
"""

_TABLES = (
    "webhook_subscriptions",
    "webhook_secrets",
    "webhook_deliveries",
    "webhook_attempts",
    "webhook_replays",
)


def upgrade() -> None:
    op.execute(SUBSCRIPTIONS)
    op.execute(DELIVERIES)
    for table in _TABLES:
        op.execute(SECURITY.format(table=table))
    op.execute(GRANTS)


def downgrade() -> None:
    for table in reversed(_TABLES):
        op.execute(f"DROP TABLE {table}")
