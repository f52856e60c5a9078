"""What is known of every table, function and column by name: whose it is, and who may not touch it."""

from __future__ import annotations

#: Tables that are the platform's: every tenant reads the first, the second tells the revision.
PLATFORM_TABLES = {
    "assets",
    "alembic_version",
    "chain_budgets",
    "chain_providers",
    "feed_consumers",
    "feed_faults",
    "seal_batches",
    "seal_checkpoints",
    "margin_book",
    "margin_parameter_versions",
    "margin_parameters",
    "prices",
    "price_history",
    "price_ticks",
}
#: Tables whose rows come and go: the app may delete its tenant's.
DELETABLE = {"alert_policies", "margin_positions"}
#: What runs with the owner's rights, and so past row-level security. Each one is a door that was thought about.
DEFINER_FUNCTIONS = {
    "count_api_key_uses",
    "create_tenant",
    "feed_head",
    "find_alert",
    "find_alert_attempt",
    "find_alert_number",
    "feed_news",
    "find_api_key",
    "ledger_legs_apply",
    "ledger_transactions_complete",
    "ensure_price_partition",
    "margin_positions_touch",
    "seal_leaves",
}
#: What no process of ours may write, because the database does or because it is what was agreed on.
NEVER_WRITTEN = [
    ("accounts", "available_minor"),
    ("accounts", "held_minor"),
    ("holds", "remaining_minor"),
    ("holds", "placed_minor"),
    ("api_keys", "use_count"),
    ("api_keys", "key_hash"),
    ("api_keys", "scopes"),
    ("api_keys", "user_id"),
    ("escrows", "amount_minor"),
    ("escrows", "buyer_user_id"),
    ("escrows", "seller_user_id"),
    ("escrows", "policy_required"),
    ("escrow_milestones", "amount_minor"),
    ("idempotency_keys", "fingerprint"),
    ("idempotency_keys", "operation_id"),
    ("settlement_commands", "amount_minor"),
    ("settlement_commands", "fingerprint"),
    ("settlement_commands", "received_at"),
    ("margin_accounts", "version"),
    ("margin_accounts", "changed_in"),
    ("margin_health_snapshots", "health_score"),
    ("margin_events", "message"),
    ("margin_parameters", "ltv_bps"),
    ("alert_contacts", "address"),
    ("alert_contacts", "user_id"),
    ("alert_notifications", "user_id"),
    ("alert_notifications", "raised_at"),
    ("alert_notifications", "link_key"),
    ("chain_sources", "network"),
    ("chain_sources", "addresses"),
    ("chain_events", "payload"),
    ("chain_events", "amount"),
    ("chain_blocks", "parent_hash"),
    ("chain_reorgs", "depth"),
    ("webhook_secrets", "shared_key"),
    ("webhook_deliveries", "body"),
    ("webhook_attempts", "started_at"),
]
#: Tables of which no row is ever changed.
UNCHANGING = [
    "ledger_transactions",
    "ledger_legs",
    "audit_log",
    "receipts",
    "tenants",
    "assets",
    "alembic_version",
    "margin_parameter_versions",
    "margin_parameters",
    "margin_health_snapshots",
    "alert_attempts",
    "mailbox_messages",
]
