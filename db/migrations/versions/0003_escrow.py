"""Escrows and their milestones; what was agreed cannot be updated, only where it stands."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE escrows (
    tenant_id UUID NOT NULL,
    escrow_id UUID NOT NULL,
    reference TEXT,
    content_hash BYTEA NOT NULL,
    status TEXT NOT NULL,
    version BIGINT NOT NULL,
    asset TEXT NOT NULL,
    amount_minor NUMERIC(78, 0) NOT NULL,
    buyer_user_id TEXT NOT NULL,
    buyer_address TEXT,
    seller_user_id TEXT NOT NULL,
    seller_address TEXT,
    arbiter_user_id TEXT,
    arbiter_address TEXT,
    policy_roles TEXT[] NOT NULL,
    policy_required SMALLINT NOT NULL,
    buyer_fee_basis_points SMALLINT NOT NULL,
    seller_fee_basis_points SMALLINT NOT NULL,
    fee_account TEXT NOT NULL,
    funding_deadline TIMESTAMP WITH TIME ZONE,
    inspection_period_seconds INTEGER,
    expires_at TIMESTAMP WITH TIME ZONE,
    description TEXT,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP WITH TIME ZONE NOT NULL,
    closed_at TIMESTAMP WITH TIME ZONE,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT escrows_pkey PRIMARY KEY (tenant_id, escrow_id),
    CONSTRAINT escrows_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (tenant_id),
    CONSTRAINT escrows_asset_fkey FOREIGN KEY(asset) REFERENCES assets (symbol),
    CONSTRAINT escrows_tenant_id_reference_key UNIQUE (tenant_id, reference),
    CONSTRAINT escrows_amount_check CHECK (amount_minor > 0),
    CONSTRAINT escrows_content_hash_check CHECK (octet_length(content_hash) = 32)
);
CREATE INDEX escrows_tenant_id_arbiter_address_escrow_id_idx ON escrows (tenant_id, arbiter_address, escrow_id);
CREATE INDEX escrows_tenant_id_arbiter_user_id_escrow_id_idx ON escrows (tenant_id, arbiter_user_id, escrow_id);
CREATE INDEX escrows_open_idx ON escrows (escrow_id) WHERE closed_at IS NULL;
CREATE INDEX escrows_tenant_id_created_at_idx ON escrows (tenant_id, created_at);
CREATE INDEX escrows_tenant_id_asset_escrow_id_idx ON escrows (tenant_id, asset, escrow_id);
CREATE INDEX escrows_tenant_id_buyer_address_escrow_id_idx ON escrows (tenant_id, buyer_address, escrow_id);
CREATE INDEX escrows_tenant_id_buyer_user_id_escrow_id_idx ON escrows (tenant_id, buyer_user_id, escrow_id);
CREATE INDEX escrows_tenant_id_seller_address_escrow_id_idx ON escrows (tenant_id, seller_address, escrow_id);
CREATE INDEX escrows_tenant_id_seller_user_id_escrow_id_idx ON escrows (tenant_id, seller_user_id, escrow_id);
CREATE INDEX escrows_tenant_id_status_escrow_id_idx ON escrows (tenant_id, status, escrow_id);
COMMENT ON COLUMN escrows.tenant_id IS 'whose row this is';
COMMENT ON COLUMN escrows.escrow_id IS 'UUIDv7: sorts by creation';
COMMENT ON COLUMN escrows.reference IS 'the client''s own name for it; unique';
COMMENT ON COLUMN escrows.content_hash IS 'SHA-256 of what was asked for under the reference';
COMMENT ON COLUMN escrows.version IS 'commands that changed it; creation is 1';
COMMENT ON COLUMN escrows.amount_minor IS 'all milestones together, without fees';
COMMENT ON COLUMN escrows.policy_roles IS 'who may approve';
COMMENT ON COLUMN escrows.policy_required IS 'how many of them must';
COMMENT ON COLUMN escrows.recorded_at IS 'database clock';

CREATE TABLE escrow_milestones (
    tenant_id UUID NOT NULL,
    escrow_id UUID NOT NULL,
    position SMALLINT NOT NULL,
    milestone_id UUID NOT NULL,
    title TEXT NOT NULL,
    amount_minor NUMERIC(78, 0) NOT NULL,
    status TEXT NOT NULL,
    released_minor NUMERIC(78, 0) NOT NULL,
    refunded_minor NUMERIC(78, 0) NOT NULL,
    approvals JSONB NOT NULL,
    dispute JSONB,
    funded_at TIMESTAMP WITH TIME ZONE,
    approved_at TIMESTAMP WITH TIME ZONE,
    auto_release_at TIMESTAMP WITH TIME ZONE,
    closed_at TIMESTAMP WITH TIME ZONE,
    CONSTRAINT escrow_milestones_pkey PRIMARY KEY (tenant_id, escrow_id, position),
    CONSTRAINT escrow_milestones_tenant_id_escrow_id_fkey FOREIGN KEY(tenant_id, escrow_id)
        REFERENCES escrows (tenant_id, escrow_id),
    CONSTRAINT escrow_milestones_tenant_id_milestone_id_key UNIQUE (tenant_id, milestone_id),
    CONSTRAINT escrow_milestones_amount_check CHECK (amount_minor > 0),
    CONSTRAINT escrow_milestones_conserved_check CHECK (
        released_minor >= 0 AND refunded_minor >= 0 AND released_minor + refunded_minor <= amount_minor
    )
);
COMMENT ON COLUMN escrow_milestones.tenant_id IS 'whose row this is';
COMMENT ON COLUMN escrow_milestones.position IS 'counted from 1';
COMMENT ON COLUMN escrow_milestones.milestone_id IS 'also the id of its hold';
COMMENT ON COLUMN escrow_milestones.approvals IS 'role, user_id and instant of each approval';
COMMENT ON COLUMN escrow_milestones.dispute IS 'role, user_id, reason and instant';
"""

SECURITY = """
ALTER TABLE escrows ENABLE ROW LEVEL SECURITY;
ALTER TABLE escrows FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON escrows USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
ALTER TABLE escrow_milestones ENABLE ROW LEVEL SECURITY;
ALTER TABLE escrow_milestones FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON escrow_milestones USING (tenant_id = current_tenant())
    WITH CHECK (tenant_id = current_tenant());

GRANT SELECT ON escrows TO holdfast_app, holdfast_engine;
GRANT INSERT (tenant_id, escrow_id, reference, content_hash, status, version, asset, amount_minor, buyer_user_id,
    buyer_address, seller_user_id, seller_address, arbiter_user_id, arbiter_address, policy_roles,
    policy_required, buyer_fee_basis_points, seller_fee_basis_points, fee_account, funding_deadline,
    inspection_period_seconds, expires_at, description, created_at, updated_at, closed_at)
    ON escrows TO holdfast_app, holdfast_engine;
GRANT UPDATE (status, version, updated_at, closed_at) ON escrows TO holdfast_app, holdfast_engine;
GRANT SELECT ON escrow_milestones TO holdfast_app, holdfast_engine;
GRANT INSERT (tenant_id, escrow_id, position, milestone_id, title, amount_minor, status, released_minor,
    refunded_minor, approvals, dispute, funded_at, approved_at, auto_release_at, closed_at)
    ON escrow_milestones TO holdfast_app, holdfast_engine;
GRANT UPDATE (status, released_minor, refunded_minor, approvals, dispute, funded_at, approved_at,
    auto_release_at, closed_at) ON escrow_milestones
    TO holdfast_app, holdfast_engine;
"""

DOWN = """
DROP TABLE escrow_milestones, escrows;
"""


def upgrade() -> None:
    for script in (TABLES, SECURITY):
        op.execute(script)


def downgrade() -> None:
    op.execute(DOWN)
