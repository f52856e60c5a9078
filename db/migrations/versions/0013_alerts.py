"""Alerts: contacts, wishes, policies, notifications, every attempt to deliver them, and the local mailbox."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE alert_contacts (
    tenant_id UUID NOT NULL,
    contact_id UUID NOT NULL,
    user_id TEXT NOT NULL,
    channel TEXT NOT NULL,
    address TEXT NOT NULL,
    secret BYTEA,
    code_hash BYTEA,
    code_expires_at TIMESTAMP WITH TIME ZONE,
    code_guesses SMALLINT DEFAULT 0 NOT NULL,
    verified_at TIMESTAMP WITH TIME ZONE,
    removed_at TIMESTAMP WITH TIME ZONE,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT alert_contacts_pkey PRIMARY KEY (tenant_id, contact_id),
    CONSTRAINT alert_contacts_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (tenant_id),
    CONSTRAINT alert_contacts_channel_check CHECK (channel IN ('email', 'sms', 'webhook')),
    CONSTRAINT alert_contacts_secret_check CHECK ((channel = 'webhook') = (secret IS NOT NULL))
);
CREATE UNIQUE INDEX alert_contacts_address_key ON alert_contacts (tenant_id, user_id, channel, address) WHERE
        removed_at IS NULL;
CREATE INDEX alert_contacts_number_idx ON alert_contacts (address) WHERE channel = 'sms' AND removed_at IS NULL AND
        verified_at IS NOT NULL;
COMMENT ON COLUMN alert_contacts.tenant_id IS 'whose row this is';
COMMENT ON COLUMN alert_contacts.address IS 'a mail address, a number (E.164) or a URL';
COMMENT ON COLUMN alert_contacts.secret IS 'signs callbacks; of a webhook contact alone';
COMMENT ON COLUMN alert_contacts.code_hash IS 'SHA-256 of the contact''s id and the code that was sent last';
COMMENT ON COLUMN alert_contacts.verified_at IS 'used from then on';
COMMENT ON COLUMN alert_contacts.recorded_at IS 'database clock';

CREATE TABLE alert_preferences (
    tenant_id UUID NOT NULL,
    user_id TEXT NOT NULL,
    locale TEXT NOT NULL,
    time_zone TEXT NOT NULL,
    quiet_from TIME WITHOUT TIME ZONE,
    quiet_to TIME WITHOUT TIME ZONE,
    minimum_severity TEXT NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT alert_preferences_pkey PRIMARY KEY (tenant_id, user_id),
    CONSTRAINT alert_preferences_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (tenant_id),
    CONSTRAINT alert_preferences_quiet_check CHECK ((quiet_from IS NULL) = (quiet_to IS NULL)),
    CONSTRAINT alert_preferences_minimum_severity_check CHECK (minimum_severity IN ('low', 'medium', 'high',
        'critical'))
);
COMMENT ON COLUMN alert_preferences.tenant_id IS 'whose row this is';
COMMENT ON COLUMN alert_preferences.time_zone IS 'as in the IANA database';
COMMENT ON COLUMN alert_preferences.quiet_from IS 'by the user''s clock';
COMMENT ON COLUMN alert_preferences.minimum_severity IS 'what is less urgent is not told';
COMMENT ON COLUMN alert_preferences.recorded_at IS 'database clock';

CREATE TABLE alert_policies (
    tenant_id UUID NOT NULL,
    alert_type TEXT NOT NULL,
    policy JSONB NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT alert_policies_pkey PRIMARY KEY (tenant_id, alert_type),
    CONSTRAINT alert_policies_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (tenant_id)
);
COMMENT ON COLUMN alert_policies.tenant_id IS 'whose row this is';
COMMENT ON COLUMN alert_policies.policy IS 'steps, pauses, who, repeats and the window of grouping';
COMMENT ON COLUMN alert_policies.recorded_at IS 'database clock';

CREATE TABLE alert_notifications (
    tenant_id UUID NOT NULL,
    notification_id UUID NOT NULL,
    user_id TEXT NOT NULL,
    alert_type TEXT NOT NULL,
    severity TEXT NOT NULL,
    channels JSONB DEFAULT '[]' NOT NULL,
    status TEXT DEFAULT 'PENDING' NOT NULL,
    delivery_details JSONB DEFAULT '[]' NOT NULL,
    margin_event_id UUID,
    message_body TEXT,
    failure_reason TEXT,
    facts JSONB NOT NULL,
    policy JSONB NOT NULL,
    occurrences INTEGER DEFAULT 1 NOT NULL,
    told INTEGER DEFAULT 0 NOT NULL,
    climbed INTEGER DEFAULT 0 NOT NULL,
    must_acknowledge BOOLEAN NOT NULL,
    link_key BYTEA NOT NULL,
    acknowledged_by TEXT,
    acknowledged_via TEXT,
    ended TEXT,
    raised_at TIMESTAMP WITH TIME ZONE NOT NULL,
    step_at TIMESTAMP WITH TIME ZONE,
    next_at TIMESTAMP WITH TIME ZONE,
    sent_at TIMESTAMP WITH TIME ZONE,
    delivered_at TIMESTAMP WITH TIME ZONE,
    failed_at TIMESTAMP WITH TIME ZONE,
    acknowledged_at TIMESTAMP WITH TIME ZONE,
    ended_at TIMESTAMP WITH TIME ZONE,
    passed_at TIMESTAMP WITH TIME ZONE,
    version INTEGER DEFAULT 1 NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT alert_notifications_pkey PRIMARY KEY (tenant_id, notification_id),
    CONSTRAINT alert_notifications_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (tenant_id),
    CONSTRAINT alert_notifications_notification_id_key UNIQUE (notification_id),
    CONSTRAINT alert_notifications_severity_check CHECK (severity IN ('low', 'medium', 'high', 'critical')),
    CONSTRAINT alert_notifications_status_check CHECK (status IN ('PENDING', 'UNKNOWN', 'SENT', 'PARTIALLY_SENT',
        'DELIVERED', 'PARTIALLY_DELIVERED', 'FAILED', 'ACKNOWLEDGED', 'SUPPRESSED')),
    CONSTRAINT alert_notifications_ended_check CHECK ((ended IS NULL) = (ended_at IS NULL) AND (acknowledged_at IS
        NULL) = (ended IS DISTINCT FROM 'acknowledged') AND (acknowledged_at IS NULL) = (acknowledged_by IS NULL))
);
CREATE INDEX alert_notifications_due_idx ON alert_notifications (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX alert_notifications_standing_idx ON alert_notifications (tenant_id, user_id) WHERE passed_at IS NULL;
CREATE INDEX alert_notifications_tenant_id_user_id_notification_id_idx ON alert_notifications (tenant_id, user_id,
        notification_id);
COMMENT ON COLUMN alert_notifications.tenant_id IS 'whose row this is';
COMMENT ON COLUMN alert_notifications.notification_id IS 'UUIDv7: sorts by when it was raised';
COMMENT ON COLUMN alert_notifications.channels IS 'those of its deliveries';
COMMENT ON COLUMN alert_notifications.status IS 'of all its deliveries together';
COMMENT ON COLUMN alert_notifications.delivery_details IS
    'one entry a message to a contact: where it stands, its attempts, what the vendor said';
COMMENT ON COLUMN alert_notifications.margin_event_id IS 'the event of margin that raised it';
COMMENT ON COLUMN alert_notifications.message_body IS 'what was told last, as text';
COMMENT ON COLUMN alert_notifications.facts IS 'what its texts are made of';
COMMENT ON COLUMN alert_notifications.policy IS 'as it was when the alert was raised';
COMMENT ON COLUMN alert_notifications.occurrences IS 'how often it has happened';
COMMENT ON COLUMN alert_notifications.told IS 'how many of them were in a message';
COMMENT ON COLUMN alert_notifications.climbed IS 'steps of the policy that were taken';
COMMENT ON COLUMN alert_notifications.link_key IS 'signs the links that acknowledge it';
COMMENT ON COLUMN alert_notifications.acknowledged_via IS 'api, link or sms';
COMMENT ON COLUMN alert_notifications.ended IS 'why it is over: acknowledged, recovered, superseded or suppressed';
COMMENT ON COLUMN alert_notifications.step_at IS 'when the next step of the policy is due';
COMMENT ON COLUMN alert_notifications.next_at IS
    'when its workflow looks next; null: the clock changes nothing';
COMMENT ON COLUMN alert_notifications.passed_at IS 'when what it tells of had passed, or a worse alert took its place';
COMMENT ON COLUMN alert_notifications.version IS 'grows with every change';
COMMENT ON COLUMN alert_notifications.created_at IS 'database clock';

CREATE TABLE alert_attempts (
    tenant_id UUID NOT NULL,
    entry_id UUID NOT NULL,
    sequence BIGINT GENERATED ALWAYS AS IDENTITY,
    notification_id UUID NOT NULL,
    attempt_id UUID,
    phase TEXT NOT NULL,
    delivery SMALLINT NOT NULL,
    channel TEXT,
    vendor TEXT,
    address TEXT,
    subject TEXT,
    body TEXT,
    html TEXT,
    outcome TEXT,
    reference TEXT,
    code TEXT,
    detail TEXT,
    provider_event TEXT,
    at TIMESTAMP WITH TIME ZONE NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT alert_attempts_pkey PRIMARY KEY (tenant_id, entry_id),
    CONSTRAINT alert_attempts_sequence_key UNIQUE (sequence),
    CONSTRAINT alert_attempts_tenant_id_notification_id_fkey FOREIGN KEY(tenant_id, notification_id) REFERENCES
        alert_notifications (tenant_id, notification_id),
    CONSTRAINT alert_attempts_phase_check CHECK (phase IN ('begun', 'ended', 'found', 'receipt', 'acknowledged'))
);
CREATE UNIQUE INDEX alert_attempts_begun_key ON alert_attempts (attempt_id) WHERE phase = 'begun';
CREATE UNIQUE INDEX alert_attempts_ended_key ON alert_attempts (tenant_id, attempt_id) WHERE phase = 'ended';
CREATE UNIQUE INDEX alert_attempts_receipt_key ON alert_attempts (tenant_id, provider_event) WHERE provider_event
        IS NOT NULL;
CREATE INDEX alert_attempts_reference_idx ON alert_attempts (reference) WHERE reference IS NOT NULL;
CREATE INDEX alert_attempts_tenant_id_notification_id_sequence_idx ON alert_attempts (tenant_id, notification_id,
        sequence);
COMMENT ON COLUMN alert_attempts.tenant_id IS 'whose row this is';
COMMENT ON COLUMN alert_attempts.sequence IS 'order of writing; sealed by it';
COMMENT ON COLUMN alert_attempts.attempt_id IS 'what the vendor was given; null for an acknowledgement';
COMMENT ON COLUMN alert_attempts.phase IS 'begun before the call, ended with its answer, and what came later';
COMMENT ON COLUMN alert_attempts.delivery IS 'which of the alert''s deliveries; 0 for the alert itself';
COMMENT ON COLUMN alert_attempts.vendor IS 'whom the message was handed to';
COMMENT ON COLUMN alert_attempts.address IS 'where it went';
COMMENT ON COLUMN alert_attempts.body IS 'the message as it was sent, as text';
COMMENT ON COLUMN alert_attempts.outcome IS 'what the answer, a look or a receipt said';
COMMENT ON COLUMN alert_attempts.reference IS 'the vendor''s name of the message';
COMMENT ON COLUMN alert_attempts.provider_event IS 'the vendor''s name of a receipt; a repeat is dropped by it';
COMMENT ON COLUMN alert_attempts.at IS 'when it happened, by our clock; of a receipt, by the vendor''s';
COMMENT ON COLUMN alert_attempts.recorded_at IS 'database clock';

CREATE TABLE mailbox_messages (
    tenant_id UUID NOT NULL,
    message_id UUID NOT NULL,
    channel TEXT NOT NULL,
    address TEXT NOT NULL,
    subject TEXT,
    body TEXT NOT NULL,
    html TEXT,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT mailbox_messages_pkey PRIMARY KEY (tenant_id, message_id)
);
COMMENT ON COLUMN mailbox_messages.tenant_id IS 'whose row this is';
COMMENT ON COLUMN mailbox_messages.message_id IS 'the attempt that brought it';
COMMENT ON COLUMN mailbox_messages.recorded_at IS 'database clock';
"""

FUNCTIONS = """
CREATE FUNCTION find_alert(wanted uuid) RETURNS uuid LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path = public, pg_temp
    AS $$ SELECT tenant_id FROM alert_notifications WHERE notification_id = wanted $$;
COMMENT ON FUNCTION find_alert(uuid) IS 'whose alert a signed link names; the link is checked before anything is shown';

CREATE FUNCTION find_alert_attempt(wanted uuid, wanted_reference text)
    RETURNS TABLE (tenant_id uuid, notification_id uuid, attempt_id uuid) LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path = public, pg_temp AS $$
    (SELECT a.tenant_id, a.notification_id, a.attempt_id FROM alert_attempts a
        WHERE a.attempt_id = wanted AND a.phase = 'begun')
    UNION ALL
    (SELECT a.tenant_id, a.notification_id, a.attempt_id FROM alert_attempts a
        WHERE a.reference = wanted_reference AND a.phase IN ('ended', 'found') ORDER BY a.sequence LIMIT 1)
    LIMIT 1
$$;
COMMENT ON FUNCTION find_alert_attempt(uuid, text) IS 'what a vendor''s receipt, whose signature was checked, is about';

CREATE FUNCTION find_alert_number(number text) RETURNS TABLE (tenant_id uuid, contact_id uuid)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT c.tenant_id, c.contact_id FROM alert_contacts c
    WHERE c.address = number AND c.channel = 'sms' AND c.removed_at IS NULL AND c.verified_at IS NOT NULL
    ORDER BY c.verified_at DESC LIMIT 20
$$;
COMMENT ON FUNCTION find_alert_number(text) IS 'whose number a text message came from, whose signature was checked';
"""

SECURITY = """
ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
ALTER TABLE {table} FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON {table} USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
GRANT SELECT ON {table} TO holdfast_app, holdfast_engine;
"""

GRANTS = """
REVOKE ALL ON FUNCTION find_alert(uuid), find_alert_attempt(uuid, text), find_alert_number(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION find_alert(uuid), find_alert_attempt(uuid, text), find_alert_number(text)
    TO holdfast_app, holdfast_engine;
GRANT INSERT (tenant_id, contact_id, user_id, channel, address, secret, code_hash, code_expires_at),
    UPDATE (code_hash, code_expires_at, code_guesses, verified_at, removed_at) ON alert_contacts
    TO holdfast_app, holdfast_engine;
GRANT INSERT (tenant_id, user_id, locale, time_zone, quiet_from, quiet_to, minimum_severity),
    UPDATE (locale, time_zone, quiet_from, quiet_to, minimum_severity) ON alert_preferences
    TO holdfast_app, holdfast_engine;
GRANT INSERT (tenant_id, alert_type, policy), UPDATE (policy), DELETE ON alert_policies
    TO holdfast_app, holdfast_engine;
GRANT INSERT (tenant_id, notification_id, user_id, alert_type, severity, channels, status, delivery_details,
        margin_event_id, message_body, failure_reason, facts, policy, occurrences, told, climbed, must_acknowledge,
        link_key, acknowledged_by, acknowledged_via, ended, raised_at, step_at, next_at, sent_at, delivered_at,
        failed_at, acknowledged_at, ended_at, passed_at, version),
    UPDATE (severity, channels, status, delivery_details, message_body, failure_reason, facts, occurrences, told,
        climbed, acknowledged_by, acknowledged_via, ended, step_at, next_at, sent_at, delivered_at, failed_at,
        acknowledged_at, ended_at, passed_at, version)
    ON alert_notifications TO holdfast_app, holdfast_engine;
GRANT INSERT (tenant_id, entry_id, notification_id, attempt_id, phase, delivery, channel, vendor, address, subject,
    body, html, outcome, reference, code, detail, provider_event, at) ON alert_attempts
    TO holdfast_app, holdfast_engine;
GRANT INSERT (tenant_id, message_id, channel, address, subject, body, html) ON mailbox_messages TO holdfast_engine;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON alert_attempts
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
"""

#: What happened before there were alerts is told to nobody.
ENLIST = """
INSERT INTO feed_consumers (name, position)
SELECT 'alerts', coalesce(max(position), 0) FROM outbox WHERE position IS NOT NULL;
"""

_TENANTS_TABLES = (
    "alert_contacts",
    "alert_preferences",
    "alert_policies",
    "alert_notifications",
    "alert_attempts",
    "mailbox_messages",
)


def upgrade() -> None:
    for script in (TABLES, FUNCTIONS):
        op.execute(script)
    for table in _TENANTS_TABLES:
        op.execute(SECURITY.format(table=table))
    op.execute(GRANTS)
    op.execute(ENLIST)


def downgrade() -> None:
    op.execute(
        "DELETE FROM feed_consumers WHERE name = 'alerts'; DROP FUNCTION find_alert(uuid);"
        " DROP FUNCTION find_alert_attempt(uuid, text); DROP FUNCTION find_alert_number(text);"
    )
    for table in reversed(_TENANTS_TABLES):
        op.execute(f"DROP TABLE {table}")
