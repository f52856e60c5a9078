"""Double entry: assets, accounts, holds, transactions and legs; the database keeps the books balanced."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TABLES = """
CREATE TABLE assets (
    symbol TEXT NOT NULL,
    scale SMALLINT NOT NULL,
    chain TEXT,
    contract TEXT,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT assets_pkey PRIMARY KEY (symbol),
    CONSTRAINT assets_chain_contract_key UNIQUE (chain, contract),
    CONSTRAINT assets_scale_check CHECK (scale BETWEEN 0 AND 36)
);
COMMENT ON TABLE assets IS 'platform-wide; every tenant reads it';
COMMENT ON COLUMN assets.scale IS 'decimal places of the minor unit';
COMMENT ON COLUMN assets.chain IS 'where it lives; null for money that is on no chain';
COMMENT ON COLUMN assets.contract IS 'the token''s contract; null for a chain''s own coin';
COMMENT ON COLUMN assets.recorded_at IS 'database clock';

CREATE TABLE accounts (
    tenant_id UUID NOT NULL,
    account_id BIGINT GENERATED ALWAYS AS IDENTITY,
    ref TEXT NOT NULL,
    asset TEXT NOT NULL,
    available_minor NUMERIC(78, 0) DEFAULT 0 NOT NULL,
    held_minor NUMERIC(78, 0) DEFAULT 0 NOT NULL,
    version BIGINT DEFAULT 0 NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT accounts_pkey PRIMARY KEY (tenant_id, account_id),
    CONSTRAINT accounts_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (tenant_id),
    CONSTRAINT accounts_asset_fkey FOREIGN KEY(asset) REFERENCES assets (symbol),
    CONSTRAINT accounts_tenant_id_ref_asset_key UNIQUE (tenant_id, ref, asset),
    CONSTRAINT accounts_tenant_id_account_id_asset_key UNIQUE (tenant_id, account_id, asset),
    CONSTRAINT accounts_overdraft_check CHECK (available_minor >= 0 OR ref = 'system:external'),
    CONSTRAINT accounts_held_check CHECK (held_minor >= 0)
);
COMMENT ON COLUMN accounts.tenant_id IS 'whose row this is';
COMMENT ON COLUMN accounts.ref IS 'a user''s id, or system:external and system:fees';
COMMENT ON COLUMN accounts.available_minor IS 'what the party may use';
COMMENT ON COLUMN accounts.held_minor IS 'what holds keep for escrows';
COMMENT ON COLUMN accounts.version IS 'postings so far';
COMMENT ON COLUMN accounts.recorded_at IS 'database clock';

CREATE TABLE holds (
    tenant_id UUID NOT NULL,
    hold_id UUID NOT NULL,
    account_id BIGINT NOT NULL,
    asset TEXT NOT NULL,
    escrow_id UUID,
    placed_minor NUMERIC(78, 0) DEFAULT 0 NOT NULL,
    remaining_minor NUMERIC(78, 0) DEFAULT 0 NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT holds_pkey PRIMARY KEY (tenant_id, hold_id),
    CONSTRAINT holds_tenant_id_account_id_asset_fkey FOREIGN KEY(tenant_id, account_id, asset)
        REFERENCES accounts (tenant_id, account_id, asset),
    CONSTRAINT holds_tenant_id_hold_id_account_id_key UNIQUE (tenant_id, hold_id, account_id),
    CONSTRAINT holds_remaining_check CHECK (remaining_minor >= 0 AND remaining_minor <= placed_minor)
);
CREATE INDEX holds_tenant_id_escrow_id_idx ON holds (tenant_id, escrow_id);
COMMENT ON COLUMN holds.tenant_id IS 'whose row this is';
COMMENT ON COLUMN holds.hold_id IS 'an escrow''s milestone_id';
COMMENT ON COLUMN holds.recorded_at IS 'database clock';

CREATE TABLE ledger_transactions (
    tenant_id UUID NOT NULL,
    transaction_id UUID NOT NULL,
    sequence BIGINT GENERATED ALWAYS AS IDENTITY,
    kind TEXT NOT NULL,
    reference TEXT,
    description TEXT,
    escrow_id UUID,
    reverses_id UUID,
    leg_count SMALLINT NOT NULL,
    effective_at TIMESTAMP WITH TIME ZONE NOT NULL,
    recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT ledger_transactions_pkey PRIMARY KEY (tenant_id, transaction_id),
    CONSTRAINT ledger_transactions_tenant_id_fkey FOREIGN KEY(tenant_id) REFERENCES tenants (tenant_id),
    CONSTRAINT ledger_transactions_tenant_id_reverses_id_fkey FOREIGN KEY(tenant_id, reverses_id)
        REFERENCES ledger_transactions (tenant_id, transaction_id),
    CONSTRAINT ledger_transactions_tenant_id_kind_reference_key UNIQUE (tenant_id, kind, reference),
    CONSTRAINT ledger_transactions_tenant_id_reverses_id_key UNIQUE (tenant_id, reverses_id),
    CONSTRAINT ledger_transactions_sequence_key UNIQUE (sequence),
    CONSTRAINT ledger_transactions_leg_count_check CHECK (leg_count >= 2)
);
CREATE INDEX ledger_transactions_tenant_id_escrow_id_sequence_idx ON ledger_transactions (tenant_id,
    escrow_id, sequence);
CREATE INDEX ledger_transactions_tenant_id_sequence_idx ON ledger_transactions (tenant_id, sequence);
COMMENT ON COLUMN ledger_transactions.tenant_id IS 'whose row this is';
COMMENT ON COLUMN ledger_transactions.sequence IS 'order of recording';
COMMENT ON COLUMN ledger_transactions.reference IS 'the outside''s name for it; unique per kind';
COMMENT ON COLUMN ledger_transactions.reverses_id IS 'the transaction that this one takes back';
COMMENT ON COLUMN ledger_transactions.leg_count IS 'how many legs it has; all come in one statement';
COMMENT ON COLUMN ledger_transactions.effective_at IS 'when it counts';
COMMENT ON COLUMN ledger_transactions.recorded_at IS 'database clock';

CREATE TABLE ledger_legs (
    tenant_id UUID NOT NULL,
    transaction_id UUID NOT NULL,
    leg_no SMALLINT NOT NULL,
    account_id BIGINT NOT NULL,
    asset TEXT NOT NULL,
    pot TEXT NOT NULL,
    amount_minor NUMERIC(78, 0) NOT NULL,
    hold_id UUID,
    CONSTRAINT ledger_legs_pkey PRIMARY KEY (tenant_id, transaction_id, leg_no),
    CONSTRAINT ledger_legs_tenant_id_transaction_id_fkey FOREIGN KEY(tenant_id, transaction_id)
        REFERENCES ledger_transactions (tenant_id, transaction_id),
    CONSTRAINT ledger_legs_tenant_id_account_id_asset_fkey FOREIGN KEY(tenant_id, account_id, asset)
        REFERENCES accounts (tenant_id, account_id, asset),
    CONSTRAINT ledger_legs_tenant_id_hold_id_account_id_fkey FOREIGN KEY(tenant_id, hold_id, account_id)
        REFERENCES holds (tenant_id, hold_id, account_id),
    CONSTRAINT ledger_legs_amount_check CHECK (amount_minor <> 0),
    CONSTRAINT ledger_legs_pot_check CHECK (pot IN ('available', 'held')),
    CONSTRAINT ledger_legs_hold_check CHECK ((pot = 'held') = (hold_id IS NOT NULL))
);
CREATE INDEX ledger_legs_tenant_id_account_id_transaction_id_idx ON ledger_legs (tenant_id, account_id, transaction_id);
COMMENT ON COLUMN ledger_legs.tenant_id IS 'whose row this is';
COMMENT ON COLUMN ledger_legs.pot IS 'which part of the account: available or held';
COMMENT ON COLUMN ledger_legs.amount_minor IS 'positive into the pot, negative out of it';
COMMENT ON COLUMN ledger_legs.hold_id IS 'the hold that a held leg feeds or draws on';
"""

FUNCTIONS = """
INSERT INTO assets (symbol, scale, chain, contract) VALUES
    ('ETH', 18, 'ethereum', NULL),
    ('BTC', 8, 'bitcoin', NULL),
    ('USDC', 6, 'ethereum', '0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48'),
    ('USDT', 6, 'ethereum', '0xdac17f958d2ee523a2206206994597c13d831ec7'),
    ('DAI', 18, 'ethereum', '0x6b175474e89094c44da98b954eedeac495271d0f');

CREATE FUNCTION ledger_legs_apply() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    wanted bigint;
    changed bigint;
BEGIN
    -- Sees every row of the statement, whatever tenant is set now or later: nothing can blind it.
    IF EXISTS (SELECT FROM new_legs GROUP BY tenant_id, transaction_id, asset HAVING sum(amount_minor) <> 0) THEN
        RAISE EXCEPTION 'the legs of a transaction do not sum to zero' USING ERRCODE = 'HF001';
    END IF;
    -- Numbered 1 to leg_count: a second set of legs for the same transaction would repeat its keys.
    IF EXISTS (
        SELECT FROM (
            SELECT tenant_id, transaction_id, count(*) AS n, min(leg_no) AS first, max(leg_no) AS last
            FROM new_legs GROUP BY 1, 2
        ) AS legs
        LEFT JOIN ledger_transactions AS t USING (tenant_id, transaction_id)
        WHERE (t.leg_count, 1, t.leg_count) IS DISTINCT FROM (legs.n, legs.first, legs.last)
    ) THEN
        RAISE EXCEPTION 'a transaction has all its legs, numbered from 1, in one statement' USING ERRCODE = 'HF002';
    END IF;

    SELECT count(DISTINCT (tenant_id, account_id)) INTO wanted FROM new_legs;
    UPDATE accounts AS a
    SET available_minor = a.available_minor + d.available, held_minor = a.held_minor + d.held, version = a.version + 1
    FROM (
        SELECT tenant_id, account_id,
               coalesce(sum(amount_minor) FILTER (WHERE pot = 'available'), 0) AS available,
               coalesce(sum(amount_minor) FILTER (WHERE pot = 'held'), 0) AS held
        FROM new_legs GROUP BY tenant_id, account_id
    ) AS d
    WHERE a.tenant_id = d.tenant_id AND a.account_id = d.account_id;
    GET DIAGNOSTICS changed = ROW_COUNT;
    IF changed <> wanted THEN
        RAISE EXCEPTION 'a leg names an account that does not exist' USING ERRCODE = 'HF002';
    END IF;

    UPDATE holds AS h
    SET placed_minor = h.placed_minor + d.placed, remaining_minor = h.remaining_minor + d.change
    FROM (
        SELECT tenant_id, hold_id, sum(amount_minor) AS change, sum(greatest(amount_minor, 0)) AS placed
        FROM new_legs WHERE hold_id IS NOT NULL GROUP BY tenant_id, hold_id
    ) AS d
    WHERE h.tenant_id = d.tenant_id AND h.hold_id = d.hold_id;
    RETURN NULL;
END $$;

CREATE FUNCTION ledger_transactions_complete() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    -- At the end of the statement, which has inserted the legs as well.
    IF EXISTS (
        SELECT FROM new_transactions AS t
        WHERE t.leg_count <> (
            SELECT count(*) FROM ledger_legs AS l
            WHERE l.tenant_id = t.tenant_id AND l.transaction_id = t.transaction_id
        )
    ) THEN
        RAISE EXCEPTION 'a transaction comes with all its legs, in one statement' USING ERRCODE = 'HF002';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER complete AFTER INSERT ON ledger_transactions REFERENCING NEW TABLE AS new_transactions
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_transactions_complete();

CREATE TRIGGER apply AFTER INSERT ON ledger_legs REFERENCING NEW TABLE AS new_legs
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_legs_apply();
"""

SECURITY = """
ALTER TABLE accounts ENABLE ROW LEVEL SECURITY;
ALTER TABLE accounts FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON accounts USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
ALTER TABLE holds ENABLE ROW LEVEL SECURITY;
ALTER TABLE holds FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON holds USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());
ALTER TABLE ledger_transactions ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger_transactions FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON ledger_transactions USING (tenant_id = current_tenant())
    WITH CHECK (tenant_id = current_tenant());
ALTER TABLE ledger_legs ENABLE ROW LEVEL SECURITY;
ALTER TABLE ledger_legs FORCE ROW LEVEL SECURITY;
CREATE POLICY tenant ON ledger_legs USING (tenant_id = current_tenant()) WITH CHECK (tenant_id = current_tenant());

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_transactions
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_legs
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER no_delete BEFORE DELETE OR TRUNCATE ON accounts
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER no_delete BEFORE DELETE OR TRUNCATE ON holds
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

REVOKE ALL ON FUNCTION ledger_legs_apply(), ledger_transactions_complete() FROM PUBLIC;
GRANT SELECT ON assets TO holdfast_app, holdfast_engine;
-- Balances are the trigger's alone. SELECT ... FOR UPDATE asks for the right to update some column: the counter.
GRANT SELECT ON accounts TO holdfast_app, holdfast_engine;
GRANT INSERT (tenant_id, ref, asset), UPDATE (version) ON accounts TO holdfast_app, holdfast_engine;
GRANT SELECT ON holds TO holdfast_app, holdfast_engine;
GRANT INSERT (tenant_id, hold_id, account_id, asset, escrow_id) ON holds TO holdfast_app, holdfast_engine;
GRANT SELECT ON ledger_transactions TO holdfast_app, holdfast_engine;
GRANT INSERT (tenant_id, transaction_id, kind, reference, description, escrow_id, reverses_id, leg_count,
    effective_at) ON ledger_transactions TO holdfast_app, holdfast_engine;
GRANT SELECT ON ledger_legs TO holdfast_app, holdfast_engine;
GRANT INSERT (tenant_id, transaction_id, leg_no, account_id, asset, pot, amount_minor, hold_id)
    ON ledger_legs TO holdfast_app, holdfast_engine;
"""

DOWN = """
DROP TABLE ledger_legs, ledger_transactions, holds, accounts, assets;
DROP FUNCTION ledger_legs_apply(), ledger_transactions_complete();
"""


def upgrade() -> None:
    for script in (TABLES, FUNCTIONS, SECURITY):
        op.execute(script)


def downgrade() -> None:
    op.execute(DOWN)
