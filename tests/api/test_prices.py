"""Prices over HTTP, refreshed by the real workflow: what they are, how they were, and how fresh a reader gets them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from temporalio.client import Client

from api.pricebook import PriceBook
from db.engine import transaction
from db.ids import new_id
from domain.identity import Scope
from kit.clock import now
from tests.api.caller import BUYER, Caller, ok, refused
from tests.polling import eventually
from tests.pricing import PriceHouse, price_house
from tools.local.postgres import EmbeddedPostgres
from tools.local.temporal import TemporalDevServer
from workflows.client import PriceClient
from workflows.prices import REFRESH_LIMIT, PriceRefreshWorkflow, RefreshPrices
from workflows.schedules import schedules


@pytest.fixture(scope="module")
async def house(
    postgres: EmbeddedPostgres, temporal: Client, temporal_server: TemporalDevServer
) -> AsyncIterator[PriceHouse]:
    async with price_house(postgres, temporal, temporal_server.address, "a", "b", "c") as made:
        yield made


@pytest.fixture
async def service(house: PriceHouse) -> Caller:
    return house.service


async def refresh(service: Caller, **how: Any) -> dict[str, Any]:
    done: dict[str, Any] = ok(await service.post("prices/refresh", **how))
    return done


async def test_a_refresh_on_demand_answers_with_prices_and_what_each_source_said(
    house: PriceHouse, service: Caller
) -> None:
    await house.set(ETH="2345.67", USDC="0.9999")
    house.sources["c"].prices["ETH"] = "9999"
    done = await refresh(service)
    assert done["changed"] == ["ETH", "USDC"]
    assert not done["superseded"]
    eth = next(each for each in done["prices"] if each["asset"] == "ETH")
    assert (eth["mid"], eth["low"], eth["high"]) == ("2345.67", "2345.67", "2345.67")
    assert (eth["quality"], eth["confirmed"], eth["tick"]) == ("degraded", True, done["tick"])
    assert eth["age_seconds"] < 30
    assert [each["left_out"] for each in eth["sources"]] == [None, None, "an outlier: 9999, the median is 2345.67"]
    assert {(each["source"], each["asset"]) for each in done["sources"]} == {
        (source, asset) for source in "abc" for asset in ("ETH", "USDC")
    }
    await house.set(ETH="2345.67")
    done = await refresh(service)
    assert done["changed"] == ["ETH"], "its quality changed"
    assert (await refresh(service))["tick"] is None


async def test_prices_are_read_by_every_key_that_may(house: PriceHouse, service: Caller) -> None:
    await house.set(ETH="2345.67", USDC="0.9999")
    await refresh(service)
    user = await service.key_for(user_id=BUYER, scopes=(Scope.PRICES_READ,))
    items = ok(await user.get("prices"))["items"]
    assert [each["asset"] for each in items] == ["ETH", "USDC"]
    assert ok(await user.get("prices/ETH")).keys() == items[0].keys()
    refused(await user.post("prices/refresh"), 403, "scope_missing")
    bound = await service.key_for(user_id=BUYER)
    refused(await bound.post("prices/refresh"), 403, "service_key_required")
    stranger = await service.key_for(scopes=(Scope.LEDGER_READ,))
    refused(await stranger.get("prices"), 403, "scope_missing")
    refused(await service.get("prices/GOLD"), 404, "asset_not_found")
    refused(await service.get("prices/BTC"), 404, "price_unknown")
    refused(await service.get("prices/BTC!"), 422, "input_invalid", "asset")


async def test_a_repeated_request_is_one_refresh(house: PriceHouse, service: Caller) -> None:
    await house.set(ETH="2345.67")
    asked = house.sources["a"].asked
    first = await service.post("prices/refresh", key="once")
    again = await service.post("prices/refresh", key="once")
    assert again.content == first.content
    assert house.sources["a"].asked == asked + 1


async def test_a_newer_tick_goes_before_the_cache(house: PriceHouse, service: Caller) -> None:
    """Its time to live is a minute here; another process refreshes."""
    await house.set(ETH="2345.67")
    await refresh(service)
    assert ok(await service.get("prices/ETH"))["mid"] == "2345.67"
    await house.set(ETH="2346")
    await PriceClient(house.client, house.queue).refresh(new_id(), RefreshPrices(), summary="somebody else's")

    async def told() -> bool:
        return bool(ok(await service.get("prices/ETH"))["mid"] == "2346")

    await eventually(told, limit_seconds=10)


async def test_what_is_kept_is_kept_as_long_as_its_asset_allows(house: PriceHouse, service: Caller) -> None:
    await house.set(ETH="2345.67", USDC="1")
    await refresh(service)
    async with transaction(house.engine) as connection:
        await connection.execute(text("UPDATE prices SET ttl_seconds = 5 WHERE asset = 'USDC'"))
    at = [1_000.0]
    book = PriceBook(house.engine, clock=lambda: at[0])
    first = await book.find("ETH")
    assert await book.find("BTC") is None
    assert await book.find("ETH") is first
    at[0] += 6
    assert await book.find("ETH") is first, "its own time is not over"
    assert await book.all() is not None
    assert await book.find("ETH") is not first, "all were read together when one had to be"
    again = await book.find("ETH")
    book.forget()
    assert await book.find("ETH") is not again


async def test_history_is_open_high_low_close(house: PriceHouse, service: Caller) -> None:
    for price in ("100", "101", "99", "100.5"):
        await house.set(BTC=price)
        await refresh(service)
    await house.set(BTC=None)
    begin = (now() - timedelta(minutes=10)).isoformat()
    found = ok(await service.get("prices/BTC/history", **{"from": begin, "interval": "1d"}))
    assert (found["asset"], found["interval"]) == ("BTC", "1d")
    [day] = found["items"][-1:]
    assert (day["high"], day["low"]) == ("101", "99")
    assert day["ticks"] >= 4
    minutes = ok(await service.get("prices/BTC/history", **{"from": begin, "interval": "1m"}))["items"]
    assert minutes[0]["open"] == "100"
    assert ok(await service.get("prices/DAI/history"))["items"] == []


@pytest.mark.parametrize(
    ("query", "code", "field"),
    [
        ({"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "range_invalid", "from"),
        ({"from": "2026-01-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}, "range_invalid", "from"),
        ({"from": "1970-01-01T00:00:00Z", "interval": "1m"}, "range_too_long", "from"),
        ({"from": "2026-01-01T00:00:00Z", "to": "9998-12-31T23:59:59Z", "interval": "1m"}, "range_too_long", "from"),
        ({"from": "2024-01-01T00:00:00Z", "to": "2025-01-03T00:00:00Z", "interval": "1d"}, "range_too_long", "from"),
        ({"from": "yesterday"}, "input_invalid", "from"),
        ({"from": "2026-01-01T00:00:00"}, "input_invalid", "from"),
        ({"to": "1"}, "input_invalid", "to"),
        ({"interval": "2m"}, "input_invalid", "interval"),
        ({"since": "2026-01-01T00:00:00Z"}, "unknown_parameter", "since"),
    ],
)
async def test_a_range_at_fault_is_named(service: Caller, query: dict[str, str], code: str, field: str) -> None:
    refused(await service.get("prices/ETH/history", **query), 422, code, field)


async def test_a_range_to_come_is_empty(service: Caller) -> None:
    query = {"from": "9998-01-01T00:00:00Z", "to": "9998-12-31T23:59:59Z", "interval": "1m"}
    assert ok(await service.get("prices/ETH/history", **query))["items"] == []


async def test_a_price_that_nobody_looks_after_says_so(house: PriceHouse, service: Caller) -> None:
    await house.set(USDT="1")
    await refresh(service)
    async with transaction(house.engine) as connection:
        await connection.execute(
            text("UPDATE prices SET fresh_until = now() - interval '1 second' WHERE asset = 'USDT'")
        )
    house.app.state.services.price_book.forget()
    found = ok(await service.get("prices/USDT"))
    assert (found["quality"], found["confirmed"], found["mid"]) == ("stale", False, "1")
    assert found["reason"].startswith("nobody has looked since ")


async def test_every_tenants_feed_has_the_tick(house: PriceHouse, service: Caller) -> None:
    await house.set(ETH="2345.67", DAI="1.0001")
    done = await refresh(service)
    await house.number()
    found = ok(await service.get("events", topic="market.prices.v1", limit=200))["items"]
    ticked = [each for each in found if each["type"] == "prices.ticked" and each["data"]["tick"] == done["tick"]]
    assert [each["data"]["assets"] for each in ticked] == [done["changed"]]
    assert "DAI" in done["changed"]


async def test_a_source_that_breaks_its_promise_does_not_end_a_refresh(house: PriceHouse, service: Caller) -> None:
    await house.set(ETH="2345.67")

    async def broken() -> Any:
        raise RuntimeError("a bug of this source")

    source = house.sources["c"]
    source.read = broken  # type: ignore[method-assign]
    done = await refresh(service)
    del source.read
    said = {each["source"]: each["left_out"] for each in done["sources"] if each["asset"] == "ETH"}
    assert said == {"a": None, "b": None, "c": "asking it did not end in time"}


async def test_refreshes_at_once_are_recorded_in_order(house: PriceHouse) -> None:
    await house.set(ETH="2345.67")
    client = PriceClient(house.client, house.queue)
    done = await asyncio.gather(*(client.refresh(new_id(), RefreshPrices(), summary="a racer") for _ in range(8)))
    assert len([each for each in done if each.tick is not None]) <= 1
    async with transaction(house.engine) as connection:
        rows = await connection.execute(text("SELECT tick, refreshed_at FROM price_ticks ORDER BY tick"))
        at = [row.refreshed_at for row in rows]
    assert at == sorted(at)


def test_the_schedule_never_runs_two_at_once_and_gives_up_on_one_that_is_stuck() -> None:
    declared = schedules("a-queue", price_refresh_seconds=7)["holdfast:price-refresh"]
    action: Any = declared.action
    assert declared.policy.overlap.name == "SKIP"
    assert declared.spec.intervals[0].every == timedelta(seconds=7)
    assert (action.workflow, action.execution_timeout) == (PriceRefreshWorkflow.__name__, REFRESH_LIMIT)
    assert schedules("a-queue")["holdfast:price-refresh"].spec.intervals[0].every == timedelta(seconds=15)
