"""How many requests each provider may still be sent, by all processes together: one bucket of tokens each."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

#: What is in a bucket now, before anything is taken out of it.
_FILLED = (
    "least(CAST(:most AS float), tokens"
    " + :per_second * greatest(0, CAST(extract(epoch FROM clock_timestamp() - filled_at) AS float)))"
)
_TAKE = (
    f"UPDATE chain_budgets SET tokens = {_FILLED} - CAST(:wanted AS float), filled_at = clock_timestamp()"
    " WHERE chain = :chain AND provider = :provider"
)


@dataclass(frozen=True, slots=True)
class Bucket:
    """Whose requests these are, how many come in each second, and how many it holds when it is full."""

    chain: str
    provider: str
    per_second: float
    most: float


async def owe(connection: AsyncConnection, bucket: Bucket, wanted: float) -> float:
    """Take so many, also those that are still to come; answers in how many seconds they will have."""
    left = await connection.scalar(text(f"{_TAKE} RETURNING tokens"), _values(bucket) | {"wanted": wanted})
    if left is None:
        await _make(connection, bucket)
        return await owe(connection, bucket, wanted)
    return max(0.0, -float(left) / bucket.per_second)


async def draw(connection: AsyncConnection, bucket: Bucket, wanted: float, leave: float) -> float:
    """Take so many if ``leave`` stay in it, and answer 0; else nothing, and answer in how many seconds it may be so."""
    values = _values(bucket) | {"wanted": wanted}
    enough = f" AND {_FILLED} - CAST(:wanted AS float) >= CAST(:leave AS float) RETURNING tokens"
    if await connection.scalar(text(_TAKE + enough), values | {"leave": leave}) is not None:
        return 0.0
    filled = await connection.scalar(
        text(f"SELECT {_FILLED} FROM chain_budgets WHERE chain = :chain AND provider = :provider"), _values(bucket)
    )
    if filled is None:
        await _make(connection, bucket)
        return await draw(connection, bucket, wanted, leave)
    return max(0.001, (wanted + leave - float(filled)) / bucket.per_second)


async def _make(connection: AsyncConnection, bucket: Bucket) -> None:
    await connection.execute(
        text(
            "INSERT INTO chain_budgets (chain, provider, tokens, filled_at)"
            " VALUES (:chain, :provider, :most, clock_timestamp()) ON CONFLICT DO NOTHING"
        ),
        {"chain": bucket.chain, "provider": bucket.provider, "most": bucket.most},
    )


def _values(bucket: Bucket) -> dict[str, object]:
    return {
        "chain": bucket.chain,
        "provider": bucket.provider,
        "per_second": bucket.per_second,
        "most": bucket.most,
    }
