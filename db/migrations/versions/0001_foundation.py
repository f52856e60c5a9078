"""Tenants and keys, idempotency, receipts, audit and outbox; every table under row-level security."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE tenants (
    tenant_id UUID NOT NULL,
    name TEXT NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT tenants_pkey PRIMARY KEY (tenant_id),
    CONSTRAINT tenants_name_key UNIQUE (name)
);
COMMENT ON COLUMN tenants.tenant_id IS 'whose row this is';
COMMENT ON COLUMN tenants.recorded_at IS 'database clock';

CREATE TABLE api_keys (
    tenant_id UUID NOT NULL,
    key_id UUID NOT NULL,
    key_hash BYTEA NOT NULL,
    prefix TEXT NOT NULL,
    last_four TEXT NOT NULL,
    name TEXT NOT NULL,
    scopes TEXT[] NOT NULL,
    user_id TEXT,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    expires_at TIMESTAMP WITH TIME ZONE,
    revoked_at TIMESTAMP WITH TIME ZONE,
    use_count BIGINT DEFAULT 0 NOT NULL,
    last_used_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT api_keys_pkey PRIMARY KEY (tenant_id, key_id),
    CONSTRAINT api_keys_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (tenant_id),
    CONSTRAINT api_keys_key_hash_key UNIQUE (key_hash),
    CONSTRAINT api_keys_key_id_key UNIQUE (key_id),
    CONSTRAINT api_keys_hash_length_check CHECK (octet_length(key_hash) = 32)
);
COMMENT ON COLUMN api_keys.tenant_id IS 'whose row this is';
COMMENT ON COLUMN api_keys.key_hash IS 'SHA-256 of the whole key';
COMMENT ON COLUMN api_keys.prefix IS 'the key''s first characters, to recognise it by';
COMMENT ON COLUMN api_keys.user_id IS 'the only user this key can act as; null for a service key';
COMMENT ON COLUMN api_keys.recorded_at IS 'database clock';

CREATE TABLE idempotency_keys (
    tenant_id UUID NOT NULL,
    caller TEXT NOT NULL,
    key TEXT NOT NULL,
    fingerprint BYTEA NOT NULL,
    operation_id UUID NOT NULL,
    locked_until TIMESTAMP WITH TIME ZONE NOT NULL,
    status SMALLINT,
    headers JSONB,
    body BYTEA,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (tenant_id, caller, key),
    CONSTRAINT idempotency_keys_answer_whole_check CHECK ((status IS NULL) = (body IS NULL))
);
COMMENT ON COLUMN idempotency_keys.tenant_id IS 'whose row this is';
COMMENT ON COLUMN idempotency_keys.caller IS 'the user a key is bound to; empty for service keys';
COMMENT ON COLUMN idempotency_keys.fingerprint IS 'SHA-256 over method, path and body';
COMMENT ON COLUMN idempotency_keys.operation_id IS 'names the effect; kept when taken over';
COMMENT ON COLUMN idempotency_keys.locked_until IS 'until when the request counts as in flight';
COMMENT ON COLUMN idempotency_keys.recorded_at IS 'database clock';

CREATE INDEX idempotency_keys_recorded_at_idx ON idempotency_keys (recorded_at);

CREATE TABLE receipts (
    tenant_id UUID NOT NULL,
    step_id TEXT NOT NULL,
    result JSONB NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT receipts_pkey PRIMARY KEY (tenant_id, step_id)
);
COMMENT ON COLUMN receipts.tenant_id IS 'whose row this is';
COMMENT ON COLUMN receipts.step_id IS 'what was done, the same for every attempt';
COMMENT ON COLUMN receipts.result IS 'what the first attempt answered';
COMMENT ON COLUMN receipts.recorded_at IS 'database clock';

CREATE TABLE audit_log (
    tenant_id UUID NOT NULL,
    audit_id BIGINT GENERATED ALWAYS AS IDENTITY,
    subject TEXT NOT NULL,
    action TEXT NOT NULL,
    actor_user TEXT,
    actor_key_id UUID,
    request_id TEXT,
    workflow_id TEXT,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    details JSONB NOT NULL,
    CONSTRAINT audit_log_pkey PRIMARY KEY (tenant_id, audit_id)
);
CREATE INDEX audit_log_tenant_id_subject_audit_id_idx ON audit_log (tenant_id, subject, audit_id);
COMMENT ON COLUMN audit_log.tenant_id IS 'whose row this is';
COMMENT ON COLUMN audit_log.subject IS 'what was acted on, as escrow:<id>';
COMMENT ON COLUMN audit_log.action IS 'what was done, past tense';
COMMENT ON COLUMN audit_log.actor_user IS 'the party that the act was done for; null for the clock';
COMMENT ON COLUMN audit_log.actor_key_id IS 'the API key that asked';
COMMENT ON COLUMN audit_log.at IS 'when it took effect';
COMMENT ON COLUMN audit_log.recorded_at IS 'database clock';

CREATE TABLE outbox (
    tenant_id UUID NOT NULL,
    event_id UUID NOT NULL,
    outbox_id BIGINT GENERATED ALWAYS AS IDENTITY,
    topic TEXT NOT NULL,
    type TEXT NOT NULL,
    subject TEXT NOT NULL,
    data JSONB NOT NULL,
    occurred_at TIMESTAMP WITH TIME ZONE NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    position BIGINT,
    CONSTRAINT outbox_pkey PRIMARY KEY (tenant_id, event_id),
    CONSTRAINT outbox_outbox_id_key UNIQUE (outbox_id),
    CONSTRAINT outbox_position_key UNIQUE (position)
);
CREATE INDEX outbox_tenant_id_position_idx ON outbox (tenant_id, position);
CREATE INDEX outbox_tenant_id_topic_position_idx ON outbox (tenant_id, topic, position);
CREATE INDEX outbox_unnumbered_idx ON outbox (outbox_id) WHERE position IS NULL;
COMMENT ON COLUMN outbox.tenant_id IS 'whose row this is';
COMMENT ON COLUMN outbox.event_id IS 'stable; consumers drop repeats by it';
COMMENT ON COLUMN outbox.outbox_id IS 'order of writing';
COMMENT ON COLUMN outbox.type IS 'what happened, past tense';
COMMENT ON COLUMN outbox.subject IS 'what it happened to; order is kept per subject';
COMMENT ON COLUMN outbox.recorded_at IS 'database clock';
COMMENT ON COLUMN outbox.position IS 'order in the feed; null until the relay saw the commit';
"""

FUNCTIONS = """
CREATE FUNCTION current_tenant() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ SELECT nullif(current_setting('app.tenant', true), '')::uuid $$;
COMMENT ON FUNCTION current_tenant() IS 'the tenant of this transaction, or null; after one it reads as empty text';

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP USING ERRCODE = 'HF003';
END $$;

CREATE FUNCTION step_begin(tenant uuid, step text) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('app.tenant', tenant::text, true);
    -- Attempts of one step queue here; each statement below then sees what the one before committed.
    PERFORM pg_advisory_xact_lock(hashtextextended(tenant::text || step, 0));
    RETURN (SELECT r.result FROM receipts r WHERE r.tenant_id = tenant AND r.step_id = step);
END $$;

CREATE FUNCTION find_api_key(wanted bytea) RETURNS SETOF api_keys LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path = public, pg_temp
    AS $$ SELECT * FROM api_keys WHERE key_hash = wanted $$;

CREATE FUNCTION count_api_key_uses(keys uuid[], counts bigint[], used_at timestamptz) RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp
    AS $$
    -- Locked in one order first: several processes flush their counts at once.
    SELECT FROM api_keys WHERE key_id = ANY (keys) ORDER BY key_id FOR UPDATE;
    UPDATE api_keys k
    SET use_count = k.use_count + u.n, last_used_at = greatest(k.last_used_at, used_at)
    FROM unnest(keys, counts) AS u (key_id, n) WHERE k.key_id = u.key_id
    $$;

CREATE FUNCTION create_tenant(new_tenant uuid, tenant_name text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM set_config('app.tenant', new_tenant::text, true);
    INSERT INTO tenants (tenant_id, name) VALUES (new_tenant, tenant_name) ON CONFLICT DO NOTHING;
    RETURN FOUND;
END $$;
"""

SECURITY = """
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenants FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON tenants USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
ALTER TABLE api_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE api_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON api_keys USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
ALTER TABLE idempotency_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE idempotency_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON idempotency_keys USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
ALTER TABLE receipts ENABLE ROW LEVEL SECURITY;
ALTER TABLE receipts FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON receipts USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
ALTER TABLE audit_log ENABLE ROW LEVEL SECURITY;
ALTER TABLE audit_log FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON audit_log USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
ALTER TABLE outbox ENABLE ROW LEVEL SECURITY;
ALTER TABLE outbox FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON outbox USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

REVOKE ALL ON FUNCTION find_api_key(bytea), count_api_key_uses(uuid[], bigint[], timestamptz),
    create_tenant(uuid, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION find_api_key(bytea), count_api_key_uses(uuid[], bigint[], timestamptz),
    create_tenant(uuid, text) TO holdfast_app, holdfast_engine;
GRANT SELECT ON alembic_version TO holdfast_app, holdfast_engine;
GRANT SELECT ON tenants TO holdfast_app, holdfast_engine;
GRANT SELECT ON api_keys TO holdfast_app, holdfast_engine;
GRANT INSERT (tenant_id, key_id, key_hash, prefix, last_four, name, scopes, user_id, expires_at)
    ON api_keys TO holdfast_app, holdfast_engine;
GRANT UPDATE (revoked_at) ON api_keys TO holdfast_app, holdfast_engine;
GRANT SELECT ON idempotency_keys TO holdfast_app, holdfast_engine;
GRANT INSERT (tenant_id, caller, key, fingerprint, operation_id, locked_until, status, headers, body)
    ON idempotency_keys TO holdfast_app, holdfast_engine;
GRANT UPDATE (locked_until, status, headers, body) ON idempotency_keys TO holdfast_app, holdfast_engine;
GRANT DELETE ON idempotency_keys TO holdfast_engine;
GRANT SELECT ON receipts TO holdfast_app, holdfast_engine;
GRANT INSERT (tenant_id, step_id, result) ON receipts TO holdfast_app, holdfast_engine;
GRANT SELECT ON audit_log TO holdfast_app, holdfast_engine;
GRANT INSERT (tenant_id, subject, action, actor_user, actor_key_id, request_id, workflow_id, at, details)
    ON audit_log TO holdfast_app, holdfast_engine;
GRANT SELECT ON outbox TO holdfast_app, holdfast_engine;
GRANT INSERT (tenant_id, event_id, topic, type, subject, data, occurred_at) ON outbox TO holdfast_app, holdfast_engine;
GRANT UPDATE (position) ON outbox TO holdfast_engine;
"""

DOWN = """
DROP FUNCTION create_tenant(uuid, text);
DROP FUNCTION count_api_key_uses(uuid[], bigint[], timestamptz);
DROP FUNCTION find_api_key(bytea);
DROP FUNCTION step_begin(uuid, text);
DROP TABLE outbox, audit_log, receipts, idempotency_keys, api_keys, tenants;
DROP FUNCTION refuse_change();
DROP FUNCTION current_tenant();
"""


def upgrade() -> None:
    for script in (TABLES, FUNCTIONS, SECURITY):
        op.execute(script)


def downgrade() -> None:
    op.execute(DOWN)
