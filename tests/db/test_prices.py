"""A refresh in one commit: what it writes, that it writes it once, in order, and nothing where nothing changed."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest
from sqlalchemy import text
from temporalio.testing import ActivityEnvironment

from activities.prices.steps import PartitionMissing, keep_partitions
from db import migrate
from db import prices as db_prices
from db.engine import tenant_transaction, transaction
from db.prices import writing
from domain.ids import PLATFORM_TENANT
from domain.prices.model import Policy, Quality
from kit.clock import now
from tests.db.feeds import Feeds
from tests.domain.prices import dollars
from tests.pricing import PriceSteps, Told

EVENTS = "SELECT type, subject, data FROM outbox ORDER BY outbox_id"


def steps(feeds: Feeds, **prices: str) -> PriceSteps:
    """Three sources that agree."""
    said = prices or {"ETH": "2345.67", "USDC": "1"}
    return PriceSteps(feeds.engine, *(Told(name, said) for name in ("a", "b", "c")))


async def test_a_refresh_writes_prices_history_tick_and_events_in_one_commit(feeds: Feeds) -> None:
    prices = steps(feeds)
    done = await prices.refresh()
    assert (done.tick, done.changed, done.superseded) == (1, ("ETH", "USDC"), False)
    assert {(each.source, each.price, each.left_out) for each in done.verdicts if each.asset == "ETH"} == {
        (name, "2345.67", None) for name in "abc"
    }
    async with tenant_transaction(feeds.app, feeds.tenant) as connection:
        found = await db_prices.current(connection)
    eth = found["ETH"]
    assert (eth.mid, eth.low, eth.high, eth.tick, eth.confirmed) == (*[dollars("2345.67")] * 3, 1, True)
    assert (eth.sources, eth.as_of, eth.quality) == (("a", "b", "c"), prices.at, Quality.GOOD)
    events = await prices.sql(EVENTS)
    assert [(each.type, each.subject) for each in events] == [
        ("price.changed", "price:ETH"),
        ("price.changed", "price:USDC"),
        ("prices.ticked", "prices"),
    ]
    assert events[-1].data == {"tick": 1, "assets": ["ETH", "USDC"]}
    assert (events[0].data["mid"], events[0].data["tick"]) == ("2345.67", 1)
    assert {each.tenant_id for each in await prices.sql("SELECT tenant_id FROM outbox")} == {PLATFORM_TENANT}
    history = await prices.sql("SELECT asset, at, tick, mid, sources FROM price_history ORDER BY asset")
    assert [(each.asset, each.at, each.tick) for each in history] == [("ETH", prices.at, 1), ("USDC", prices.at, 1)]
    assert [each["source"] for each in history[0].sources] == ["a", "b", "c"]


async def test_a_retry_does_nothing_twice(feeds: Feeds) -> None:
    prices = steps(feeds)
    first = await prices.refresh(refresh_id="run-1")
    again = await prices.refresh(refresh_id="run-1", at=prices.at)
    assert (again.tick, again.changed) == (first.tick, first.changed)
    assert len(await prices.sql(EVENTS)) == 3
    assert len(await prices.sql("SELECT 1 FROM price_history")) == 2


async def test_what_changed_nothing_leaves_nothing_but_that_somebody_looked(feeds: Feeds) -> None:
    prices = steps(feeds)
    await prices.refresh()
    done = await prices.refresh()
    assert (done.tick, done.changed) == (None, ())
    assert len(await prices.sql(EVENTS)) == 3
    [eth, _] = await prices.sql("SELECT * FROM prices ORDER BY asset")
    assert (eth.refreshed_at, eth.as_of, eth.tick) == (prices.at, prices.at, 1)
    prices.sources[0].prices["ETH"] = prices.sources[1].prices["ETH"] = "2346"
    done = await prices.refresh()
    assert (done.tick, done.changed) == (2, ("ETH",))
    assert [(await prices.current())[asset].tick for asset in ("ETH", "USDC")] == [2, 1]


async def test_a_refresh_that_lost_the_race_changes_nothing(feeds: Feeds) -> None:
    prices = steps(feeds)
    await prices.refresh()
    late = prices.at - timedelta(seconds=1)
    prices.sources[0].prices["ETH"] = prices.sources[1].prices["ETH"] = "1"
    done = await prices.refresh(at=late)
    assert (done.superseded, done.tick) == (True, None)
    assert (await prices.current())["ETH"].mid == dollars("2345.67")


async def test_refreshes_at_once_end_with_the_one_that_began_last(feeds: Feeds) -> None:
    prices = steps(feeds, ETH="100")
    await prices.refresh()
    began, orders = prices.at, list(range(1, 13))
    random.Random(7).shuffle(orders)

    async def one(number: int) -> bool:
        said = f"100.{number:02d}"
        mine = PriceSteps(feeds.engine, *(Told(name, {"ETH": said}) for name in "abc"))
        return (await mine.refresh(at=began + timedelta(seconds=number), refresh_id=f"run-{number}")).superseded

    await asyncio.gather(*(one(number) for number in orders))
    assert (await prices.current())["ETH"].mid == dollars("100.12")
    rows = await prices.sql("SELECT at, tick, mid FROM price_history ORDER BY tick")
    assert [row.at for row in rows] == sorted(row.at for row in rows), "no tick goes back in time"


async def test_a_source_that_is_silent_is_missed_by_name(feeds: Feeds) -> None:
    prices = steps(feeds)
    await prices.refresh()
    await prices.refresh(silent=["c"])
    eth = (await prices.current())["ETH"]
    assert (eth.quality, eth.confirmed, eth.sources) == (Quality.DEGRADED, True, ("a", "b"))
    [row] = await prices.sql("SELECT sources FROM prices WHERE asset = 'ETH'")
    assert [each["left_out"] for each in row.sources] == [None, None, "asking it did not end in time"]
    await prices.refresh(silent=["b", "c"])
    eth = (await prices.current())["ETH"]
    assert (eth.quality, eth.confirmed, eth.mid) == (Quality.STALE, False, dollars("2345.67"))
    assert eth.reason == "no quorum: 1 of 2 sources agree"
    [row] = await prices.sql("SELECT fresh_until FROM prices WHERE asset = 'ETH'")
    assert row.fresh_until is None


async def test_a_price_that_nobody_looks_after_is_stale_to_who_reads_it(feeds: Feeds) -> None:
    prices = steps(feeds)
    await prices.refresh(at=now() - timedelta(seconds=301))
    eth = (await prices.current())["ETH"]
    assert (eth.quality, eth.confirmed, eth.mid) == (Quality.STALE, False, dollars("2345.67"))
    assert eth.reason is not None
    assert eth.reason.startswith("nobody has looked since ")


async def test_an_asset_that_nobody_knows_is_left_out(feeds: Feeds, caplog: pytest.LogCaptureFixture) -> None:
    prices = steps(feeds, ETH="1", DOGE="2")
    assert (await prices.refresh()).changed == ("ETH",)
    assert any(getattr(record, "assets", None) == ["DOGE"] for record in caplog.records)


async def test_what_waits_for_confirmation_survives_between_refreshes(feeds: Feeds) -> None:
    prices = steps(feeds, ETH="100")
    await prices.refresh()
    for source in prices.sources:
        source.prices["ETH"] = "50.000000000000000001"
    await prices.refresh()
    eth = (await prices.current())["ETH"]
    assert (eth.confirmed, eth.high) == (False, dollars("100"))
    await prices.refresh()
    eth = (await prices.current())["ETH"]
    assert (eth.confirmed, eth.high) == (True, dollars("50.000000000000000001"))


async def test_an_operator_accepts_what_other_feeds_say(feeds: Feeds) -> None:
    await PriceSteps(feeds.engine, Told("a", {"ETH": "100"}), policy=Policy()).refresh(at=now() - timedelta(seconds=90))
    other = PriceSteps(feeds.engine, Told("z", {"ETH": "5"}), policy=Policy())
    for _ in range(3):
        await other.refresh()
    assert not (await other.current())["ETH"].confirmed
    async with transaction(feeds.engine) as connection:
        assert await writing.accept(connection, "ETH")
        assert not await writing.accept(connection, "BTC")
    await other.refresh()
    assert (await other.current())["ETH"].confirmed


async def test_history_in_equal_intervals(feeds: Feeds) -> None:
    day = datetime(2026, 3, 1, tzinfo=UTC)
    minutes = [(3, "100"), (4, "104"), (9, "90"), (9, "95"), (31, "97"), (61, "99")]
    async with transaction(feeds.engine) as connection:
        await writing.ensure_partition(connection, day.date())
        rows = [
            ("ETH", day + timedelta(minutes=minute, seconds=n), dollars(price))
            for n, (minute, price) in enumerate(minutes)
        ]
        assert await writing.import_history(connection, rows) == 6
        assert await writing.import_history(connection, rows) == 0, "the same again is nothing new"
    until, width = day + timedelta(minutes=50), timedelta(minutes=10)
    async with tenant_transaction(feeds.app, feeds.tenant) as connection:
        found = await db_prices.buckets(connection, "ETH", since=day - width, until=until, width=width)
        later = await db_prices.buckets(connection, "ETH", since=day + width, until=day + 2 * width, width=width)
        assert await db_prices.buckets(connection, "BTC", since=day, until=until, width=width) == []
        plan = await connection.execute(
            text("EXPLAIN SELECT mid FROM price_history WHERE asset = 'ETH' AND at >= :since AND at < :until"),
            {"since": day, "until": until},
        )
        assert "price_history_202603" in str(list(plan))
    first, *_ = found
    bounds = [each // 10**18 for each in (first.open, first.high, first.low, first.close)]
    assert (bounds, first.ticks, first.began_at) == ([100, 104, 90, 95], 4, day)
    assert [(each.close // 10**18, each.ticks) for each in found] == [(95, 4), (95, 0), (95, 0), (97, 1), (97, 0)]
    assert [(each.open // 10**18, each.ticks) for each in later] == [(95, 0)]


async def test_months_are_made_ahead_and_the_models_know_their_parent(feeds: Feeds) -> None:
    async with transaction(feeds.engine) as connection:
        kept = await keep_partitions(connection, date(2026, 11, 26))
        assert kept.made == kept.ahead == ("2026-11", "2026-12", "2027-01")
        again = await keep_partitions(connection, date(2026, 11, 26))
        assert (again.made, again.ahead) == ((), ("2026-11", "2026-12", "2027-01"))
        grants = await connection.execute(
            text(
                "SELECT 1 FROM information_schema.role_table_grants WHERE table_name LIKE 'price_history_%'"
                " AND grantee LIKE 'holdfast_%' AND grantee <> 'holdfast_owner'"
            )
        )
        assert grants.all() == []
    await asyncio.to_thread(migrate.check, feeds.url)


async def test_racers_make_a_month_once(feeds: Feeds) -> None:
    async def one() -> bool:
        async with transaction(feeds.engine) as connection:
            return await writing.ensure_partition(connection, date(2030, 5, 17))

    assert sorted(await asyncio.gather(*(one() for _ in range(4)))) == [False, False, False, True]


async def test_a_month_that_cannot_be_made_is_an_alarm(feeds: Feeds, caplog: pytest.LogCaptureFixture) -> None:
    with psycopg.connect(feeds.url, autocommit=True) as connection:
        connection.execute(
            "CREATE OR REPLACE FUNCTION ensure_price_partition(month date) RETURNS boolean LANGUAGE sql"
            " AS 'SELECT false'"
        )
    prices = steps(feeds)
    with pytest.raises(PartitionMissing):
        await ActivityEnvironment().run(prices.activities.keep_partitions)
    assert any("has no partition" in record.message for record in caplog.records)


async def test_a_refresh_that_dies_leaves_nothing(feeds: Feeds) -> None:
    prices = steps(feeds)
    with psycopg.connect(feeds.url, autocommit=True) as connection:
        connection.execute("ALTER TABLE outbox ADD CONSTRAINT never CHECK (topic <> 'market.prices.v1')")
    with pytest.raises(Exception, match="never"):
        await prices.refresh(refresh_id="run-1")
    assert await prices.current() == {}
    assert await prices.sql("SELECT 1 FROM price_ticks") == []
    with psycopg.connect(feeds.url, autocommit=True) as connection:
        connection.execute("ALTER TABLE outbox DROP CONSTRAINT never")
    assert (await prices.refresh(refresh_id="run-1", at=prices.at)).changed == ("ETH", "USDC")
