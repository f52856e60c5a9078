"""CoinGecko, in the shapes that its documentation shows."""

from __future__ import annotations

import time
from typing import Any

import pytest

from activities.vendors.coingecko import CoinGeckoPrices
from activities.vendors.guard import Circuit, Limits
from kit.pricing import CoinGecko
from tests.domain.prices import dollars
from tests.vendors.server import Vendor

NOW = int(time.time())
FEEDS: Any = {"ETH": {"id": "ethereum"}, "BTC": {"id": "bitcoin", "max_age_seconds": 90}}


def source(served: Vendor, **changes: Any) -> CoinGeckoPrices:
    config = CoinGecko(**({"kind": "coingecko", "base_url": served.url, "feeds": FEEDS} | changes))
    return CoinGeckoPrices("gecko", config, Limits(timeout_seconds=2), "CG-key")


async def test_prices_are_read_as_they_were_written(served: Vendor) -> None:
    served.say(
        f'{{"bitcoin": {{"usd": 67187.33589365664, "last_updated_at": {NOW}}},'
        f' "ethereum": {{"usd": 2345.123456789012345678, "last_updated_at": {NOW - 60}}}}}'
    )
    gecko = source(served)
    eth, btc = await gecko.read()
    assert (eth.price, btc.price) == (dollars("2345.123456789012345678"), dollars("67187.33589365664"))
    assert eth.observed_at is not None
    assert (eth.observed_at.timestamp(), eth.max_age_seconds, btc.max_age_seconds) == (NOW - 60, 300, 90)
    assert (eth.feed, eth.unit) == ("coingecko:ethereum:USD", "USD")
    [asked] = served.asked
    assert asked.path == "/simple/price"
    assert dict(asked.query) == {
        "ids": "bitcoin,ethereum",
        "vs_currencies": "usd",
        "include_last_updated_at": "true",
        "precision": "full",
    }
    assert asked.headers["x-cg-demo-api-key"] == "CG-key"
    await gecko.close()


async def test_one_coin_at_fault_leaves_the_other_alone(served: Vendor) -> None:
    for coin in ({"usd": None, "last_updated_at": NOW}, {}, None, {"usd": "many"}, {"usd": -1}, {"usd": True}):
        served.say({"bitcoin": {"usd": 1, "last_updated_at": NOW}} | ({} if coin is None else {"ethereum": coin}))
        gecko = source(served)
        eth, btc = await gecko.read()
        assert (btc.fault, btc.price) == (None, dollars("1"))
        assert eth.fault is not None
        await gecko.close()


@pytest.mark.parametrize(
    "body", ["", "<html>all is well</html>", "[]", '"fine"', "1e999", '{"ethereum": NaN}', "[" * 50_000]
)
async def test_200_with_nonsense_is_a_reason_and_no_price(served: Vendor, body: str) -> None:
    served.say(body)
    gecko = source(served)
    found = await gecko.read()
    assert [each.asset for each in found] == ["ETH", "BTC"]
    assert all(each.fault is not None and each.fault.startswith("HTTP 200 with") for each in found)
    await gecko.close()


ERRORS = [
    (429, {"status": {"error_code": 429, "error_message": "You've exceeded the Rate Limit."}}, "HTTP 429"),
    (403, "<html><title>Access denied | api.coingecko.com used Cloudflare</title> Error 1020", "CoinGecko 1020"),
    (401, {"status": {"error_code": 10002, "error_message": "API Key Missing"}}, "CoinGecko 10002"),
    (401, {"error": {"status": {"error_code": 10002}}}, "HTTP 401"),
    (401, {"error_code": 10005, "status": {"error_message": "This request is limited to Pro"}}, "CoinGecko 10005"),
    (400, {"status": {"error_code": 10010, "error_message": "change your root URL"}}, "CoinGecko 10010"),
    (400, {"status": {"error_code": 10011, "error_message": "change your root URL"}}, "CoinGecko 10011"),
    (200, {"status": {"error_code": 10011, "error_message": "change your root URL"}}, "CoinGecko 10011"),
    (500, "oops", "HTTP 500"),
    (503, "oops", "HTTP 503"),
]


@pytest.mark.parametrize(("status", "body", "why"), ERRORS)
async def test_errors_are_told_apart(served: Vendor, status: int, body: Any, why: str) -> None:
    served.say(body, status)
    gecko = source(served)
    found = await gecko.read()
    assert all((each.fault or "").startswith(why) for each in found), found
    passes = why in {"HTTP 500", "HTTP 503"}
    assert gecko.circuit is (Circuit.CLOSED if passes else Circuit.OPEN)
    await gecko.close()


@pytest.mark.parametrize("after", ["30", "Thu, 01 Jan 2099 00:00:00 GMT", "soon"])
async def test_it_is_left_alone_for_as_long_as_it_asks(served: Vendor, after: str) -> None:
    served.say({}, 429, headers={"Retry-After": after})
    gecko = source(served)
    await gecko.read()
    assert [each.fault for each in await gecko.read()] == ["its circuit breaker is open"] * 2
    assert len(served.asked) == 1
    await gecko.close()
