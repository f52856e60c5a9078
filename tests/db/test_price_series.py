"""Daily closes out of the history of prices."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db.engine import Role, create_engine, transaction
from db.prices.series import MAX_DAYS, daily_closes
from domain.fixed import PRICE_ONE

FIRST = date(2026, 1, 30)


def at(day: int, clock: str = "12:00:00") -> datetime:
    """An instant ``day`` days after the first, UTC."""
    return datetime.fromisoformat(f"{FIRST + timedelta(days=day)}T{clock}+00:00").astimezone(UTC)


@pytest.fixture
async def connection(migrated_url: str) -> AsyncIterator[AsyncConnection]:
    """A transaction of the engine on a database of its own, with the months that the tests write to."""
    engine: AsyncEngine = create_engine(migrated_url, Role.ENGINE, pool_size=1)
    async with transaction(engine) as made:
        for month in ("2026-01-01", "2026-02-01"):
            await made.execute(text(f"SELECT ensure_price_partition('{month}')"))
        yield made
    await engine.dispose()


async def tell(
    connection: AsyncConnection, asset: str, when: datetime, dollars: str, *, tick: int = 1, quality: str = "good"
) -> None:
    """A price as a refresh writes it."""
    await connection.execute(
        text(
            "INSERT INTO price_history (asset, at, tick, mid, low, high, quality, confirmed, as_of, sources)"
            " VALUES (:asset, :at, :tick, CAST(:mid AS numeric), CAST(:mid AS numeric), CAST(:mid AS numeric),"
            " :quality, true, :at, '[]')"
        ),
        {"asset": asset, "at": when, "tick": tick, "mid": dollars, "quality": quality},
    )


async def test_the_last_price_of_each_utc_day(connection: AsyncConnection) -> None:
    await tell(connection, "ETH", at(0, "00:00:00"), "1")
    await tell(connection, "ETH", at(0, "23:59:59.999999"), "2000.000000000000000001")
    await tell(connection, "ETH", at(1, "00:00:00"), "2100", tick=2)
    await tell(connection, "ETH", at(1, "00:00:00"), "2101", tick=3)
    await tell(connection, "ETH", at(2, "08:00:00"), "2200")  # the first of February: another partition
    await tell(connection, "BTC", at(1), "60000")
    found = await daily_closes(connection, ["ETH", "BTC", "DAI", "ETH"], first=FIRST, days=3)
    assert list(found) == ["BTC", "DAI", "ETH"]
    assert found["ETH"].closes == {
        FIRST: 2_000 * PRICE_ONE + 1,
        FIRST + timedelta(days=1): 2_101 * PRICE_ONE,
        FIRST + timedelta(days=2): 2_200 * PRICE_ONE,
    }
    assert found["ETH"].carried == 0
    assert (found["DAI"].closes, found["DAI"].carried) == ({}, 0)
    assert (len(found["BTC"].closes), found["BTC"].carried) == (2, 1)
    later = await daily_closes(connection, ["ETH"], first=FIRST + timedelta(days=1), days=1)
    assert later["ETH"].closes == {FIRST + timedelta(days=1): 2_101 * PRICE_ONE}


async def test_a_day_without_a_change_has_the_close_before_it_and_no_more_than_one_has(
    connection: AsyncConnection,
) -> None:
    await tell(connection, "USDC", at(0), "0.9999")
    await tell(connection, "USDC", at(5), "1.0001")
    found = (await daily_closes(connection, ["USDC"], first=FIRST, days=8))["USDC"]
    assert [(day - FIRST).days for day in sorted(found.closes)] == [0, 1, 5, 6]
    assert found.carried == 2


async def test_a_stale_price_is_no_close(connection: AsyncConnection) -> None:
    await tell(connection, "ETH", at(0), "2000")
    await tell(connection, "ETH", at(1, "09:00:00"), "2050", quality="degraded")
    await tell(connection, "ETH", at(1, "10:00:00"), "2050", quality="stale")
    await tell(connection, "ETH", at(3), "2050", quality="stale")
    found = (await daily_closes(connection, ["ETH"], first=FIRST, days=4))["ETH"]
    assert {(day - FIRST).days: price // PRICE_ONE for day, price in found.closes.items()} == {
        0: 2_000,
        1: 2_050,
        2: 2_050,
    }


async def test_a_window_has_an_end(connection: AsyncConnection) -> None:
    assert (await daily_closes(connection, [], first=FIRST, days=MAX_DAYS)) == {}
    with pytest.raises(AssertionError, match="bounded"):
        await daily_closes(connection, ["ETH"], first=FIRST, days=MAX_DAYS + 1)
