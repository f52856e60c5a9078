"""Tables of webhooks: subscriptions and their keys, deliveries, attempts, replays."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSON, JSONB
from sqlalchemy.dialects.postgresql import UUID as PgUUID

from db.columns import METADATA, instant, recorded_at, tenant_id

_WAITING = text("status = 'waiting'")

webhook_subscriptions = Table(
    "webhook_subscriptions",
    METADATA,
    tenant_id(),
    Column("subscription_id", PgUUID(as_uuid=True), nullable=False, comment="UUIDv7"),
    Column("url", Text, nullable=False),
    Column("description", Text),
    Column("event_types", JSONB, nullable=False, comment="a list; * at an end stands for any ending"),
    Column("user_id", Text, comment="only what concerns this user"),
    Column("escrow_id", PgUUID(as_uuid=True), comment="only what concerns this escrow"),
    Column("headers", JSONB, nullable=False, comment="sent along; may hold credentials, and no answer shows them"),
    Column("rate_per_second", Integer, comment="requests begun in a second; null: as fast as it answers"),
    Column("concurrency", Integer, nullable=False, comment="requests on their way at a time"),
    Column("ordering", Text, nullable=False, comment="subject: one after the other for each subject"),
    Column("owner_user_id", Text, comment="who is told when it is disabled"),
    Column("status", Text, nullable=False, server_default=text("'active'")),
    Column("disabled_reason", Text),
    instant("disabled_at", nullable=True),
    instant("paused_until", nullable=True, comment="it asked to be left alone until then"),
    instant("failing_since", nullable=True, comment="the first failure behind the last success"),
    instant("failed_at", nullable=True, comment="the last failure"),
    instant("succeeded_at", nullable=True, comment="the last success"),
    recorded_at(),
    PrimaryKeyConstraint("tenant_id", "subscription_id"),
    ForeignKeyConstraint(["tenant_id"], ["tenants.tenant_id"]),
    Index("webhook_subscriptions_active_idx", "tenant_id", postgresql_where=text("status = 'active'")),
    CheckConstraint("status IN ('active', 'disabled', 'deleted')", name="status"),
    CheckConstraint(
        "(status = 'active') = (disabled_at IS NULL)"
        " AND (disabled_reason IS NULL OR disabled_reason IN ('asked', 'gone', 'failing'))",
        name="disabled",
    ),
    CheckConstraint("ordering IN ('none', 'subject')", name="ordering"),
    CheckConstraint(
        "concurrency BETWEEN 1 AND 64 AND (rate_per_second IS NULL OR rate_per_second BETWEEN 1 AND 10000)",
        name="pace",
    ),
)

webhook_secrets = Table(
    "webhook_secrets",
    METADATA,
    tenant_id(),
    Column("subscription_id", PgUUID(as_uuid=True), nullable=False),
    Column("secret_id", PgUUID(as_uuid=True), nullable=False, comment="UUIDv7: the newest is the one in force"),
    Column("shared_key", LargeBinary, nullable=False, comment="signs v1; shown once, when it is made"),
    Column("private_seed", LargeBinary, nullable=False, comment="signs v1a; never shown"),
    Column("public_key", LargeBinary, nullable=False, comment="checks v1a; no secret"),
    instant("expires_at", nullable=True, comment="signs until then beside the one that took its place"),
    recorded_at(),
    PrimaryKeyConstraint("tenant_id", "subscription_id", "secret_id"),
    ForeignKeyConstraint(
        ["tenant_id", "subscription_id"],
        ["webhook_subscriptions.tenant_id", "webhook_subscriptions.subscription_id"],
    ),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    METADATA,
    tenant_id(),
    Column("subscription_id", PgUUID(as_uuid=True), nullable=False),
    Column("message_id", PgUUID(as_uuid=True), nullable=False, comment="the event's id; the header webhook-id"),
    Column("sequence", BigInteger, Identity(always=True), nullable=False, comment="order of writing"),
    Column("position", BigInteger, comment="the event's place in the feed; null for a test"),
    Column("event_type", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("body", Text, nullable=False, comment="what is sent, the same bytes at every attempt"),
    Column("origin", Text, nullable=False, comment="why it was written last: event, replay, retry or test"),
    Column("status", Text, nullable=False, server_default=text("'waiting'")),
    Column("attempts", Integer, nullable=False, server_default=text("0"), comment="that were begun"),
    Column("failures", Integer, nullable=False, server_default=text("0"), comment="since it was last begun anew"),
    Column(
        "next_attempt_at",
        DateTime(timezone=True),
        server_default=text("clock_timestamp()"),
        comment="while an attempt is under way: when it counts as lost",
    ),
    instant("finished_at", nullable=True),
    recorded_at(),
    PrimaryKeyConstraint("tenant_id", "message_id", "subscription_id"),
    # Stated and not enforced: subscriptions are never deleted, and deliveries come by the hundred.
    ForeignKeyConstraint(
        ["tenant_id", "subscription_id"],
        ["webhook_subscriptions.tenant_id", "webhook_subscriptions.subscription_id"],
    ),
    Index(None, "tenant_id", "subscription_id", "sequence"),
    Index("webhook_deliveries_due_idx", "tenant_id", "subscription_id", "next_attempt_at", postgresql_where=_WAITING),
    Index("webhook_deliveries_turn_idx", "tenant_id", "subscription_id", "sequence", postgresql_where=_WAITING),
    Index(
        "webhook_deliveries_subject_idx",
        "tenant_id",
        "subscription_id",
        "subject",
        "sequence",
        postgresql_where=_WAITING,
    ),
    CheckConstraint("status IN ('waiting', 'delivered', 'failed', 'cancelled')", name="status"),
    CheckConstraint(
        "(status = 'waiting') = (next_attempt_at IS NOT NULL) AND (status = 'waiting') = (finished_at IS NULL)",
        name="waiting",
    ),
    CheckConstraint("origin IN ('event', 'replay', 'retry', 'test')", name="origin"),
)

webhook_attempts = Table(
    "webhook_attempts",
    METADATA,
    tenant_id(),
    Column("subscription_id", PgUUID(as_uuid=True), nullable=False),
    Column("message_id", PgUUID(as_uuid=True), nullable=False),
    Column("number", Integer, nullable=False),
    Column("url", Text, nullable=False),
    instant("started_at", comment="written before the request; also its timestamp; database clock"),
    instant("finished_at", nullable=True, comment="null: under way, or lost with its process"),
    Column("result", Text),
    Column("request_headers", JSON, comment="of the owner's own headers only the names"),
    Column("status_code", Integer),
    Column("response_headers", JSON),
    Column("response_body", Text, comment="its beginning"),
    Column("response_truncated", Boolean),
    Column("duration_ms", Integer),
    Column("error", Text, comment="why there is no answer"),
    PrimaryKeyConstraint("tenant_id", "message_id", "subscription_id", "number"),
    ForeignKeyConstraint(
        ["tenant_id", "message_id", "subscription_id"],
        ["webhook_deliveries.tenant_id", "webhook_deliveries.message_id", "webhook_deliveries.subscription_id"],
    ),
    CheckConstraint("(finished_at IS NULL) = (result IS NULL)", name="finished"),
    CheckConstraint(
        "result IN ('delivered', 'rejected', 'no_answer', 'not_sent', 'blocked', 'released', 'interrupted')",
        name="result",
    ),
)

webhook_replays = Table(
    "webhook_replays",
    METADATA,
    tenant_id(),
    Column("subscription_id", PgUUID(as_uuid=True), nullable=False),
    Column("replay_id", PgUUID(as_uuid=True), nullable=False, comment="UUIDv7"),
    instant("from_at", comment="events recorded then or later"),
    instant("to_at", comment="events recorded before"),
    Column("undelivered_only", Boolean, nullable=False),
    Column("position", BigInteger, comment="events up to here were looked at; null: not begun"),
    Column("upto", BigInteger, nullable=False, comment="the end of the feed when it was asked for"),
    Column("queued", Integer, nullable=False, server_default=text("0"), comment="deliveries that it began"),
    instant("finished_at", nullable=True),
    recorded_at(),
    PrimaryKeyConstraint("tenant_id", "subscription_id", "replay_id"),
    ForeignKeyConstraint(
        ["tenant_id", "subscription_id"],
        ["webhook_subscriptions.tenant_id", "webhook_subscriptions.subscription_id"],
    ),
    Index("webhook_replays_open_idx", "tenant_id", "subscription_id", postgresql_where=text("finished_at IS NULL")),
)
