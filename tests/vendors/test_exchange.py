"""An exchange through ccxt: Kraken's public endpoints, in the shape that it documents."""

from __future__ import annotations

from typing import Any

import pytest

from activities.vendors.exchange import ExchangePrices
from activities.vendors.guard import Limits
from kit.pricing import Exchange
from tests.domain.prices import dollars
from tests.vendors.server import Asked, Reply, Vendor

ASSETS = {
    name: {"aclass": "currency", "altname": altname, "decimals": 10, "display_decimals": 5, "status": "enabled"}
    for name, altname in (("XETH", "ETH"), ("ZUSD", "USD"), ("USDT", "USDT"), ("XXBT", "XBT"))
}


def pair(altname: str, base: str, quote: str) -> dict[str, Any]:
    return {
        "altname": altname,
        "wsname": f"{altname[:3]}/{altname[3:]}",
        "aclass_base": "currency",
        "base": base,
        "aclass_quote": "currency",
        "quote": quote,
        "lot": "unit",
        "cost_decimals": 5,
        "pair_decimals": 2,
        "lot_decimals": 8,
        "lot_multiplier": 1,
        "leverage_buy": [],
        "leverage_sell": [],
        "fees": [[0, 0.4]],
        "fees_maker": [[0, 0.25]],
        "fee_volume_currency": "ZUSD",
        "margin_call": 80,
        "margin_stop": 40,
        "ordermin": "0.002",
        "costmin": "0.5",
        "tick_size": "0.01",
        "status": "online",
    }


PAIRS = {"XETHZUSD": pair("ETHUSD", "XETH", "ZUSD"), "ETHUSDT": pair("ETHUSDT", "XETH", "USDT")}
TICKER = {
    "a": ["2345.70000", "1", "1.000"],
    "b": ["2345.64000", "2", "2.000"],
    "c": ["2300.00000", "0.1"],
    "v": ["100.0", "200.0"],
    "p": ["2340.0", "2341.0"],
    "t": [10, 20],
    "l": ["2300.0", "2290.0"],
    "h": ["2400.0", "2410.0"],
    "o": "2320.0",
}


class Kraken:
    def __init__(self, served: Vendor) -> None:
        self.tickers: dict[str, Any] = {"XETHZUSD": dict(TICKER), "ETHUSDT": dict(TICKER)}
        self.instead: Reply | None = None
        served.answer = self.answer

    def answer(self, asked: Asked) -> Reply:
        if self.instead is not None:
            return self.instead
        found: dict[str, Any] = {
            "/0/public/Assets": ASSETS,
            "/0/public/AssetPairs": PAIRS,
            "/0/public/Ticker": self.tickers,
        }
        return Reply({"error": [], "result": found[asked.path]})


def source(served: Vendor, **feeds: str) -> ExchangePrices:
    named: Any = {asset: {"id": market} for asset, market in (feeds or {"ETH": "ETH/USD"}).items()}
    config = Exchange(kind="exchange", exchange="kraken", base_url=served.url, feeds=named, max_body_bytes=100_000)
    return ExchangePrices("kraken", config, Limits(timeout_seconds=5))


async def test_the_middle_of_what_it_buys_and_sells_for(served: Vendor) -> None:
    """Not what somebody paid last: one trade in an empty book would be a price."""
    Kraken(served)
    kraken = source(served)
    [eth] = await kraken.read()
    assert (eth.fault, eth.price, eth.confidence) == (None, dollars("2345.67"), dollars("0.03"))
    assert (eth.unit, eth.feed) == ("USD", "exchange:kraken:ETH/USD")
    assert eth.observed_at is not None
    await kraken.close()


async def test_the_quote_is_the_unit(served: Vendor) -> None:
    Kraken(served)
    kraken = source(served, ETH="ETH/USDT", SOL="SOL/USD")
    eth, sol = await kraken.read()
    assert eth.unit == "USDT", "a dollar of Tether's is worth what Tether's is worth"
    assert sol.fault == "it has no market SOL/USD"
    await kraken.close()


async def test_a_last_price_without_its_time_is_none_that_the_rules_take(served: Vendor) -> None:
    told = Kraken(served)
    told.tickers["XETHZUSD"] |= {"a": ["0", "0", "0"], "b": ["0", "0", "0"]}
    kraken = source(served)
    [eth] = await kraken.read()
    assert (eth.price, eth.observed_at) == (dollars("2300"), None)
    await kraken.close()


async def test_a_book_that_is_crossed(served: Vendor) -> None:
    told = Kraken(served)
    told.tickers["XETHZUSD"] |= {"b": ["2400.0", "1", "1"]}
    kraken = source(served)
    [eth] = await kraken.read()
    assert (eth.fault or "").startswith("it buys for 2400.0 and sells for 2345.70000")
    await kraken.close()


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (Reply("", 429), "HTTP 429: too many calls"),
        (Reply({"error": ["EAPI:Rate limit exceeded"]}), "too many calls (DDoSProtection)"),
        (Reply({"error": ["EService:Unavailable"]}), "it does not answer (ExchangeNotAvailable)"),
        (Reply({"error": ["EGeneral:Unknown"]}), "it refused ("),
        (Reply("", 403), "HTTP 403: the key"),
        (Reply("oops", 500), "it does not answer (ExchangeNotAvailable)"),
        (Reply("<html>fine</html>"), "HTTP 200 with a body that is no JSON"),
        (Reply("[]"), ""),
        (Reply(b"[" + b"1," * 60_000 + b"1]"), "a body of more than 100000 bytes"),
    ],
)
async def test_errors(served: Vendor, reply: Reply, why: str) -> None:
    told = Kraken(served)
    told.instead = reply
    kraken = source(served)
    [eth] = await kraken.read()
    assert eth.fault is not None
    assert eth.fault.startswith(why)
    assert served.url not in eth.fault
    await kraken.close()
