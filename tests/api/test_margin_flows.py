"""Margin together with the rest: escrows that count as collateral, events in the feed, simulations beside checks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from db.ids import new_id
from tests.api.caller import BUYER, SELLER, Caller, ok
from tests.polling import eventually
from tests.prices import set_prices

DEBT = {"user_id": SELLER, "collateral_positions": {"ETH": 1}, "borrow_positions": {"DAI": 1300}}


@pytest.fixture(autouse=True)
async def prices(engine: AsyncEngine) -> None:
    await set_prices(engine, ETH=2_000, BTC=60_000, USDC=1, USDT=1, DAI=1)


async def margin_feed(service: Caller) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = ok(await service.get("events", topic="margin.events.v1"))["items"]
    return items


async def test_a_funded_escrow_counts_while_it_is_held(service: Caller) -> None:
    """The seller's: 1300 DAI against 1 ETH is 1.27; with 500 USDC in escrow 1.57, and gone again after the refund."""
    ok(await service.send("PUT", "margin/settings", {"escrow_collateral": "seller"}))
    assert ok(await service.post("margin/health", DEBT))["status"] == "WARNING"
    await service.deposit(BUYER, "500")
    escrow = await service.open(amount="500")
    await service.command(escrow["escrow_id"], "fund", BUYER)
    found: dict[str, Any] = {}

    async def has_origin(*origins: str) -> bool:
        found.update(ok(await service.get(f"margin/health/{SELLER}")))
        return [line["origin"] for line in found["collateral_breakdown"]] == list(origins)

    await eventually(lambda: has_origin("declared", "escrow"))
    assert (found["status"], found["cause"], found["health_score"]) == ("HEALTHY", "settlement", "1.576923076923076923")
    usdc = found["collateral_breakdown"][1]
    assert (usdc["asset"], usdc["amount"]) == ("USDC", "500.000000")
    assert [one["event_type"] for one in found["events"]] == ["margin_recovered"]
    account = ok(await service.get(f"margin/accounts/{SELLER}"))
    assert [line["origin"] for line in account["collateral_positions"]] == ["declared", "escrow"]
    ok(await service.send("PUT", "margin/settings", {"escrow_collateral": "none"}))
    await eventually(lambda: has_origin("declared"))
    ok(await service.send("PUT", "margin/settings", {"escrow_collateral": "seller"}))
    await eventually(lambda: has_origin("declared", "escrow"))
    for said in ({"user_id": SELLER}, DEBT):
        simulated = ok(await service.post("margin/simulate", said))
        checked = ok(await service.post("margin/health", said))
        assert simulated["health_score"] == checked["health_score"], "escrow money counts in both"
        assert simulated["total_collateral_usd"] == checked["total_collateral_usd"]
    await service.command(escrow["escrow_id"], "refund", SELLER)
    await eventually(lambda: has_origin("declared"))
    assert found["status"] == "WARNING"
    told = [(one["type"], one["subject"]) for one in await margin_feed(service) if one["subject"] == "margin:bob"]
    assert told == [("margin_warning", "margin:bob"), ("margin_recovered", "margin:bob")], "the warning cools down"
    refused = await service.get(f"margin/health/{BUYER}")
    assert refused.status_code == 404, "who has no margin account gets none by an escrow"


async def test_more_money_than_a_position_has_counts_as_one(service: Caller) -> None:
    """An escrow may hold it; no row of margin has to."""
    ok(await service.send("PUT", "margin/settings", {"escrow_collateral": "seller"}))
    much = str(3 * 10**40)
    await service.deposit(BUYER, much)
    escrow = await service.open(amount=much)
    await service.command(escrow["escrow_id"], "fund", BUYER)
    checked = ok(await service.post("margin/health", DEBT))
    simulated = ok(await service.post("margin/simulate", DEBT))
    for found in (checked, simulated):
        assert found["collateral_breakdown"][1]["amount"] == f"{10**30}.000000"
    assert checked["health_score"] == simulated["health_score"]


async def test_an_event_is_in_the_feed_under_its_id_and_then_marked(service: Caller) -> None:
    said = DEBT | {"user_id": 'we"ird/ü 1'}
    ok(await service.post("margin/health", said))

    async def is_out() -> bool:
        return [one["published_to_pubsub"] for one in ok(await service.get("margin/events"))["items"]] == [True]

    await eventually(is_out)
    [raised] = ok(await service.get("margin/events"))["items"]
    [event] = await margin_feed(service)
    assert (event["id"], event["type"], event["topic"]) == (raised["event_id"], "margin_warning", "margin.events.v1")
    assert event["subject"] == f"margin:{said['user_id']}"
    assert event["data"]["recommendations"] == raised["recommendations"]
    assert event["data"]["snapshot_id"] == raised["snapshot_id"]
    path = "margin/health/we%22ird/%C3%BC%201"
    assert ok(await service.get(path))["user_id"] == said["user_id"]
    assert len(ok(await service.get(f"{path}/history"))["items"]) == 1


async def test_money_that_moves_has_its_owner_looked_at_once_a_page(service: Caller) -> None:
    ok(await service.post("margin/health", {"user_id": BUYER, "collateral_positions": {"ETH": 1}}))
    await asyncio.gather(*(service.deposit(BUYER, "1") for _ in range(5)))

    async def causes() -> list[str]:
        items = ok(await service.get(f"margin/health/{BUYER}/history"))["items"]
        return [one["cause"] for one in items]

    async def looked_at() -> bool:
        return (await causes()).count("settlement") >= 1

    await eventually(looked_at)
    assert 1 <= (await causes()).count("settlement") <= 5


ASSETS = {"ETH": 18, "BTC": 8, "USDC": 6, "DAI": 18}


def amounts() -> st.SearchStrategy[dict[str, str]]:
    one = st.sampled_from(sorted(ASSETS)).flatmap(
        lambda asset: st.tuples(st.just(asset), st.integers(1, 10**7), st.integers(0, ASSETS[asset]))
    )
    return st.lists(one, max_size=3, unique_by=lambda each: each[0]).map(
        lambda found: {asset: _decimal(digits, places) for asset, digits, places in found}
    )


def _decimal(digits: int, places: int) -> str:
    text = str(digits).rjust(places + 1, "0")
    return f"{text[: len(text) - places]}.{text[len(text) - places :]}" if places else text


#: What a simulation cannot know or has no use for.
OF_A_CHECK = {"snapshot_id", "cause", "calculated_at", "user_id", "events"}


@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(collateral=amounts(), borrow=amounts())
async def test_a_simulation_finds_what_a_check_finds(
    service: Caller, collateral: dict[str, str], borrow: dict[str, str]
) -> None:
    said = {"collateral_positions": collateral, "borrow_positions": borrow}
    simulated = ok(await service.post("margin/simulate", said))
    checked = ok(await service.post("margin/health", said | {"user_id": str(new_id())}))
    assert [one["event_type"] for one in simulated["events"]] == [one["event_type"] for one in checked["events"]]
    for found in (simulated, checked):
        for line in found["collateral_breakdown"] + found["borrow_breakdown"]:
            del line["price_age_seconds"]
    for name in checked.keys() - OF_A_CHECK:
        assert simulated[name] == checked[name], name
