"""What the bench of the book loads, and the one statement that does a tick's job without a book."""

from __future__ import annotations

#: Four positions an account, three of them collateral; health spread so that each percent of ETH moves some thousands.
LOAD = """
INSERT INTO margin_accounts (tenant_id, user_id)
SELECT %(tenant)s, 'user-' || i FROM generate_series(1, %(count)s) AS i;
INSERT INTO margin_positions (tenant_id, account_no, side, asset, origin, amount_minor)
SELECT tenant_id, account_no, side, asset, 'declared', amount FROM (
    SELECT *, trunc((eth / 1e18 * 3000 * 0.83 + btc / 1e8 * 60000 * 0.78 + dai / 1e18 * 0.77)
        / (1.02 * exp(spread * 2.5)) * 1e6) + 1 AS debt
    FROM (
        SELECT tenant_id, account_no, spread, trunc(worth * 0.45 / 3000 * 1e18) + 1 AS eth,
            trunc(worth * 0.35 / 60000 * 1e8) + 1 AS btc, trunc(worth * 0.2 * 1e18) + 1 AS dai
        FROM (
            SELECT tenant_id, account_no,
                (1000 * exp(3 * (hashint8extended(account_no, 1) & 1048575) / 1048576.0))::numeric AS worth,
                ((hashint8extended(account_no, 2) & 1048575) / 1048576.0)::numeric AS spread
            FROM margin_accounts
        ) AS spread_out
    ) AS owned
) AS owing
CROSS JOIN LATERAL (VALUES ('collateral', 'ETH', eth), ('collateral', 'BTC', btc), ('collateral', 'DAI', dai),
    ('borrow', 'USDC', debt)) AS p (side, asset, amount)
"""

_JUDGED = """
market AS MATERIALIZED (
    SELECT p.asset, p.tick, p.mid, p.quality, s.scale, m.liquidation_threshold_bps AS threshold, m.version,
        p.mid * ('1e' || (8 - s.scale))::numeric AS each
    FROM prices p JOIN assets s ON s.symbol = p.asset JOIN margin_parameters m USING (asset)
), sums AS (
    SELECT p.account_no,
        coalesce(sum(floor(p.amount_minor * each) * threshold) FILTER (WHERE side = 'collateral'), 0) AS own,
        coalesce(sum(floor(p.amount_minor * each)) FILTER (WHERE side = 'collateral'), 0) AS worth,
        coalesce(sum(ceil(p.amount_minor * each)) FILTER (WHERE side = 'borrow'), 0) AS owed
    FROM margin_positions p JOIN market USING (asset) GROUP BY 1
), judged AS (
    SELECT a.tenant_id, a.user_id, a.told_level, a.health_score AS previous, s.*,
        CASE WHEN owed = 0 THEN 0 WHEN own < 10000 * owed THEN 4 WHEN own < imminent_bps * owed THEN 3
            WHEN own < margin_call_bps * owed THEN 2 WHEN own < warning_bps * owed THEN 1 ELSE 0 END AS strict,
        CASE WHEN owed = 0 THEN 0 WHEN own < 10200 * owed THEN 4 WHEN own * 100 < imminent_bps * 102 * owed THEN 3
            WHEN own * 100 < margin_call_bps * 102 * owed THEN 2 WHEN own * 100 < warning_bps * 102 * owed THEN 1
            ELSE 0 END AS rearmed
    FROM margin_accounts a JOIN sums s USING (account_no)
)
"""

#: Who is to be told something: the reading half of the job, as every start and every tick would do it.
LEVELS = f"""
WITH {_JUDGED}
SELECT count(*) FROM judged WHERE least(greatest(told_level, strict), rearmed) <> told_level
"""

#: Every account's level before anything is measured; each was told what it is.
SETTLE = f"""
WITH {_JUDGED}
UPDATE margin_accounts a SET told_level = strict FROM judged j WHERE a.account_no = j.account_no AND strict <> 0
"""

#: The whole job in one statement: levels of all accounts, and the same rows for those that change. Without advice.
TICK = f"""
WITH {_JUDGED}, moving AS MATERIALIZED (
    SELECT *, uuidv7() AS snapshot_id, uuidv7() AS event_id, trunc(own / nullif(owed * 10000, 0), 18) AS health,
        (ARRAY['HEALTHY', 'WARNING', 'MARGIN_CALL', 'MARGIN_CALL', 'LIQUIDATION'])[strict + 1] AS status,
        CASE WHEN level < told_level THEN 'margin_recovered' ELSE
            (ARRAY['margin_warning', 'margin_call', 'liquidation_imminent', 'liquidation_due'])[level] END AS type,
        CASE WHEN level < told_level THEN 'low'
            ELSE (ARRAY['medium', 'high', 'critical', 'critical'])[level] END AS severity
    FROM (SELECT *, least(greatest(told_level, strict), rearmed) AS level FROM judged) AS j WHERE level <> told_level
), moved AS (
    UPDATE margin_accounts a SET told_level = m.level, health_score = m.health, checked_at = now(),
        warning_told_at = CASE WHEN m.level = 1 THEN now() END,
        margin_call_told_at = CASE WHEN m.level = 2 THEN now() END,
        imminent_told_at = CASE WHEN m.level = 3 THEN now() END,
        liquidation_told_at = CASE WHEN m.level = 4 THEN now() END
    FROM moving m WHERE a.account_no = m.account_no
), snapshots AS (
    INSERT INTO margin_health_snapshots (tenant_id, snapshot_id, user_id, health_score, previous_health_score, status,
        total_collateral_usd, total_borrow_usd, collateral_breakdown, borrow_breakdown, recommendations, borrowing,
        parameter_version, price_tick, cause, calculated_at)
    SELECT m.tenant_id, snapshot_id, user_id, health, previous, status, worth / 1e8, owed / 1e8, b.owns, b.owes,
        '[]', '{{}}', (SELECT max(version) FROM market), (SELECT max(tick) FROM market), 'tick', now()
    FROM moving m CROSS JOIN LATERAL (
        SELECT jsonb_agg(part) FILTER (WHERE side = 'collateral') AS owns,
            jsonb_agg(part) FILTER (WHERE side = 'borrow') AS owes
        FROM (
            SELECT side, jsonb_build_object('asset', p.asset, 'origin', p.origin, 'price_usd', mid::text,
                'price_quality', quality, 'liquidation_threshold', (threshold / 1e4)::text,
                'amount', (p.amount_minor * ('1e-' || scale)::numeric)::text,
                'value_usd', (floor(p.amount_minor * each) / 1e8)::text) AS part
            FROM margin_positions p JOIN market USING (asset)
            WHERE p.tenant_id = m.tenant_id AND p.account_no = m.account_no
        ) AS parts
    ) AS b
), events AS (
    INSERT INTO margin_events (tenant_id, event_id, snapshot_id, user_id, event_type, severity, health_score,
        previous_health_score, threshold_breached, message, recommendations, collateral_usd, borrow_usd)
    SELECT tenant_id, event_id, snapshot_id, user_id, type, severity, health, previous, 1, 'by one statement', '[]',
        worth / 1e8, owed / 1e8
    FROM moving
), told AS (
    INSERT INTO outbox (tenant_id, event_id, topic, type, subject, occurred_at, data)
    SELECT tenant_id, event_id, 'margin.events.v1', type, 'margin:' || user_id, now(), jsonb_build_object(
        'user_id', user_id, 'severity', severity, 'status', status, 'health_score', health::text,
        'previous_health_score', previous::text, 'collateral_usd', (worth / 1e8)::text,
        'borrow_usd', (owed / 1e8)::text, 'snapshot_id', snapshot_id)
    FROM moving
)
INSERT INTO audit_log (tenant_id, subject, action, at, details)
SELECT tenant_id, 'margin:book', 'margin.revalued', now(), jsonb_build_object('told', count(*)) FROM moving GROUP BY 1
"""
