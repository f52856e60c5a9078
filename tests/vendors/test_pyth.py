"""Pyth's Hermes, in the shape that its documentation shows."""

from __future__ import annotations

import time
from typing import Any

import pytest

from activities.vendors.guard import Limits
from activities.vendors.pyth import PythPrices
from kit.pricing import Pyth
from tests.domain.prices import dollars
from tests.vendors.server import Vendor

ETH = "ff61491a931112ddf1bd8147cd1b641375f79f5825126d665480874634fd0ace"
BTC = "e62df6c8b4a85fe1a67db44dc12de5db330f7ac66b72dc658afedf0f4a415b43"
NOW = int(time.time())
FINE = {"price": "184136023127", "conf": "177166324", "expo": -8, "publish_time": NOW}


def update(price: Any, feed: str = ETH) -> dict[str, Any]:
    return {
        "binary": {"encoding": "hex", "data": ["504e4155"]},
        "parsed": [
            {
                "id": feed,
                "price": price,
                "ema_price": FINE,
                "metadata": {"slot": 85_480_034, "proof_available_time": NOW, "prev_publish_time": NOW - 1},
            }
        ],
    }


def source(served: Vendor, **feeds: str) -> PythPrices:
    named: Any = {asset: {"id": feed} for asset, feed in (feeds or {"ETH": f"0x{ETH.upper()}"}).items()}
    return PythPrices("pyth", Pyth(kind="pyth", base_url=served.url, feeds=named), Limits(timeout_seconds=2), "a-key")


async def test_an_integer_with_an_exponent_and_a_confidence(served: Vendor) -> None:
    served.say(update(FINE))
    pyth = source(served)
    [eth] = await pyth.read()
    assert (eth.price, eth.confidence) == (dollars("1841.36023127"), dollars("1.77166324"))
    assert eth.observed_at is not None
    assert (eth.observed_at.timestamp(), eth.feed) == (NOW, f"pyth:{ETH}:USD")
    [asked] = served.asked
    assert asked.path == "/v2/updates/price/latest"
    assert ("ids[]", ETH) in asked.query
    assert asked.headers["authorization"] == "Bearer a-key"
    await pyth.close()


async def test_a_feed_that_it_does_not_know_leaves_the_others_alone(served: Vendor) -> None:
    served.say(update(FINE))
    pyth = source(served, ETH=ETH, BTC=BTC)
    assert [each.fault for each in await pyth.read()] == [None, "it knows no such feed"]
    await pyth.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"price": "-1"},
        {"price": "0"},
        {"price": None},
        {"price": "1.5"},
        {"price": "9" * 41},
        {"price": "١٢"},
        {"conf": None},
        {"conf": "wide"},
        {"price": "1", "conf": "9" * 40, "expo": 3},
        {"expo": "-8"},
        {"expo": -1_000_000},
        {"expo": True},
    ],
)
async def test_what_is_no_price_is_a_reason(served: Vendor, changes: dict[str, Any]) -> None:
    served.say(update(FINE | changes))
    pyth = source(served)
    [eth] = await pyth.read()
    assert eth.fault is not None
    assert eth.fault.startswith("no price")
    await pyth.close()


async def test_a_negative_confidence_and_a_missing_time_reach_the_rules(served: Vendor) -> None:
    served.say(update(FINE | {"conf": "-1"}))
    pyth = source(served)
    assert (await pyth.read())[0].confidence < 0
    await pyth.close()
    served.say(update({name: value for name, value in FINE.items() if name != "publish_time"}))
    pyth = source(served)
    assert (await pyth.read())[0].observed_at is None
    await pyth.close()


async def test_the_finest_confidence_is_not_none_at_all(served: Vendor) -> None:
    served.say(update(FINE | {"price": "1" + "0" * 24, "conf": "1", "expo": -24}))
    pyth = source(served)
    assert (await pyth.read())[0].confidence == 1
    await pyth.close()


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (401, "Unauthorized", "HTTP 401: the key"),
        (404, "Price ids not found", "HTTP 404"),
        (429, "Too many", "HTTP 429"),
        (200, {"binary": {}}, "HTTP 200 without parsed prices"),
        (200, [], "HTTP 200 without parsed prices"),
        (200, '{"parsed": 1e99999999999999999999}', "HTTP 200 with a body that is no JSON"),
        (200, "<html>", "HTTP 200 with a body that is no JSON"),
        (200, {"parsed": [None, {"id": 7}, {"id": ETH}]}, "it knows no such feed"),
    ],
)
async def test_errors(served: Vendor, status: int, body: Any, why: str) -> None:
    served.say(body, status)
    pyth = source(served)
    [eth] = await pyth.read()
    assert (eth.fault or "").startswith(why)
    await pyth.close()
