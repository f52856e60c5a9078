"""The independent auditor: levels recomputed from positions by Postgres itself, in ``numeric``.

It shares no arithmetic with the book. What an account was told is right when no rule would tell it anything else now;
what a cooldown holds back, and a shard whose revaluation is still under way, is no disagreement.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import UUID as PgUUID
from sqlalchemy.ext.asyncio import AsyncConnection

from db.columns import METADATA, recorded_at, tenant_id

margin_audit_findings = Table(
    "margin_audit_findings",
    METADATA,
    tenant_id(),
    Column("finding_id", PgUUID(as_uuid=True), nullable=False, comment="UUIDv7; also the event's id in the feed"),
    Column("user_id", Text, nullable=False),
    Column("account_version", BigInteger, nullable=False, comment="of the account as it was found; told once for each"),
    Column("told_level", SmallInteger, nullable=False, comment="what its user was told"),
    Column("strict_level", SmallInteger, nullable=False, comment="the level of its health"),
    Column("rearmed_level", SmallInteger, nullable=False, comment="the level with every threshold 2 % higher"),
    Column("price_tick", BigInteger, nullable=False),
    Column("parameter_version", Integer, nullable=False),
    recorded_at(),
    PrimaryKeyConstraint("tenant_id", "finding_id"),
    UniqueConstraint("tenant_id", "user_id", "account_version"),
    ForeignKeyConstraint(["tenant_id", "user_id"], ["margin_accounts.tenant_id", "margin_accounts.user_id"]),
    Index(None, "tenant_id", "user_id", "finding_id"),
)

#: A value in 1e-8 USD is the amount times the price, times 1e8 over the asset's scale: written as a power of ten, for a
#: division would round. Cooldowns are those of ``domain.margin.telling``, with a minute in which the book may be late.
_DISAGREEING = text(
    """
    WITH version AS (
        SELECT version, effective_from FROM margin_parameter_versions WHERE effective_from <= now()
        ORDER BY effective_from DESC LIMIT 1
    ), market AS MATERIALIZED (
        SELECT p.asset, p.tick, p.confirmed AND (p.fresh_until IS NULL OR p.quality = 'stale'
            OR p.fresh_until >= clock_timestamp()) AS confirmed, m.liquidation_threshold_bps AS threshold, m.version,
            p.mid * ('1e' || (8 - s.scale))::numeric AS each
        FROM prices p JOIN assets s ON s.symbol = p.asset JOIN margin_parameters m USING (asset)
            JOIN version USING (version)
        WHERE p.as_of >= clock_timestamp() - interval '1 day'
    ), tip AS (
        SELECT (SELECT max(tick) FROM prices) AS tick, version, effective_from FROM version
    ), page AS MATERIALIZED (
        SELECT * FROM margin_accounts WHERE account_no > :after AND account_no <= :upto
            AND (CAST(:accounts AS bigint[]) IS NULL OR account_no = ANY (CAST(:accounts AS bigint[])))
    ), sums AS (
        SELECT a.account_no,
            coalesce(sum(floor(p.amount_minor * m.each) * m.threshold) FILTER (WHERE p.side = 'collateral'), 0) AS own,
            coalesce(sum(ceil(p.amount_minor * m.each)) FILTER (WHERE p.side = 'borrow'), 0) AS owed,
            coalesce(bool_and(m.confirmed), true) AS confirmed, count(*) = count(m.asset) AS known
        FROM page a JOIN margin_positions p USING (tenant_id, account_no) LEFT JOIN market m ON m.asset = p.asset
        GROUP BY a.account_no
    ), judged AS (
        SELECT a.*, s.confirmed,
            CASE WHEN s.owed IS NULL OR s.owed = 0 THEN 0
                WHEN s.own < 10000 * s.owed THEN 4 WHEN s.own < a.imminent_bps * s.owed THEN 3
                WHEN s.own < a.margin_call_bps * s.owed THEN 2 WHEN s.own < a.warning_bps * s.owed THEN 1
                ELSE 0 END AS strict,
            CASE WHEN s.owed IS NULL OR s.owed = 0 THEN 0
                WHEN s.own < 10200 * s.owed THEN 4 WHEN s.own * 100 < a.imminent_bps * 102 * s.owed THEN 3
                WHEN s.own * 100 < a.margin_call_bps * 102 * s.owed THEN 2
                WHEN s.own * 100 < a.warning_bps * 102 * s.owed THEN 1 ELSE 0 END AS rearmed
        FROM page a LEFT JOIN sums s USING (account_no) WHERE s.known IS NOT FALSE
    ), wanted AS (
        SELECT j.*, CASE WHEN least(greatest(told_level, strict), rearmed) = 4 AND told_level < 4 AND NOT confirmed
            THEN greatest(told_level, 3) ELSE least(greatest(told_level, strict), rearmed) END AS wanted
        FROM judged j
    )
    SELECT w.tenant_id, w.user_id, w.account_no, w.version, w.told_level, w.strict, w.rearmed, tip.tick,
        tip.version AS parameters
    FROM wanted w CROSS JOIN tip JOIN margin_book b ON b.shard = w.shard
    WHERE w.wanted <> w.told_level AND b.done_tick >= tip.tick AND b.done_parameters_from >= tip.effective_from
        AND (w.wanted < w.told_level OR coalesce(
            (ARRAY[w.warning_told_at, w.margin_call_told_at, w.imminent_told_at, w.liquidation_told_at])[w.wanted]
            + (ARRAY[interval '31 min', interval '11 min', interval '3 min', interval '3 min'])[w.wanted],
            '-infinity') < clock_timestamp())
    ORDER BY w.account_no
    """
)
_LAST = text("SELECT coalesce(max(account_no), 0) FROM margin_accounts")
_KEEP = text(
    """
    INSERT INTO margin_audit_findings (tenant_id, finding_id, user_id, account_version, told_level, strict_level,
        rearmed_level, price_tick, parameter_version)
    VALUES (:tenant_id, :finding_id, :user_id, :version, :told, :strict, :rearmed, :tick, :parameters)
    ON CONFLICT (tenant_id, user_id, account_version) DO NOTHING RETURNING recorded_at
    """
)


class Disagreement(NamedTuple):
    """An account that was told what no rule explains."""

    tenant_id: UUID
    user_id: str
    account: int
    version: int
    told: int
    strict: int
    rearmed: int
    tick: int
    parameters: int


async def last_account(connection: AsyncConnection) -> int:
    """The highest account number."""
    return int(await connection.scalar(_LAST) or 0)


async def disagreeing(
    connection: AsyncConnection, *, after: int, upto: int, accounts: Sequence[int] | None = None
) -> list[Disagreement]:
    """The accounts numbered beyond ``after`` up to ``upto`` (of ``accounts``, where given) that were told wrong."""
    asked = {"after": after, "upto": upto, "accounts": None if accounts is None else list(accounts)}
    return [Disagreement(*row) for row in await connection.execute(_DISAGREEING, asked)]


async def keep(connection: AsyncConnection, finding_id: UUID, found: Disagreement) -> datetime | None:
    """Keep a row of it; None when it was kept before."""
    recorded: datetime | None = await connection.scalar(
        _KEEP,
        {
            "tenant_id": found.tenant_id,
            "finding_id": finding_id,
            "user_id": found.user_id,
            "version": found.version,
            "told": found.told,
            "strict": found.strict,
            "rearmed": found.rearmed,
            "tick": found.tick,
            "parameters": found.parameters,
        },
    )
    return recorded
