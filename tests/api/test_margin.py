"""Margin over HTTP, as a stranger calls it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from domain.identity import Scope
from domain.margin.market import PRICE_AGE_MAX
from kit.clock import now
from tests.api.caller import Caller, ok, refused
from tests.polling import eventually
from tests.prices import set_prices

ALICE = {"user_id": "alice", "collateral_positions": {"ETH": 10.0, "BTC": 0.5}, "borrow_positions": {"USDC": 15000.0}}
TIGHT = {"user_id": "alice", "collateral_positions": {"ETH": "10"}, "borrow_positions": {"USDC": "15000"}}


@pytest.fixture(autouse=True)
async def prices(engine: AsyncEngine) -> None:
    await set_prices(engine, ETH=2_000, BTC=60_000, USDC=1, USDT=1, DAI=1)


async def test_a_check_over_http_is_few_statements(service: Caller) -> None:
    """Beside the check's own: with a key, its claim, the snapshot and the kept answer; without one, the snapshot."""
    ok(await service.post("margin/health", ALICE))
    said: list[str] = []

    def note(*given: Any) -> None:
        # Assets and keys are read once in a while.
        if "margin_health_snapshots" in given[2] or "margin_events" in given[2] or "idempotency_keys" in given[2]:
            said.append(given[2])

    pool = service.app.state.services.engine.sync_engine
    event.listen(pool, "before_cursor_execute", note)
    try:
        ok(await service.post("margin/health", ALICE))
        without = len(said)
        ok(await service.post("margin/health", ALICE, key="one"))
    finally:
        event.remove(pool, "before_cursor_execute", note)
    assert (without, len(said) - without) == (1, 3), said


async def published(service: Caller, count: int) -> None:
    """Wait until so many events have left, each with its place in the feed."""

    async def all_have() -> bool:
        return len(ok(await service.get("margin/events", published=True))["items"]) == count

    await eventually(all_have)
    assert ok(await service.get("margin/events", published=False))["items"] == []


async def test_the_health_of_an_account(service: Caller) -> None:
    found = ok(await service.post("margin/health", ALICE))
    assert found["health_score"] == "2.666666666666666666"
    assert (found["status"], found["events"], found["recommendations"]) == ("HEALTHY", [], [])
    assert (found["total_collateral_usd"], found["total_borrow_usd"]) == ("50000.00000000", "15000.00000000")
    assert (found["previous_health_score"], found["liquidation_price_drop_percent"]) == (None, "62.50000000")
    btc, eth = found["collateral_breakdown"]
    assert (btc["asset"], btc["amount"], btc["value_usd"]) == ("BTC", "0.50000000", "30000.00000000")
    assert (eth["price_usd"], eth["price_quality"], eth["origin"]) == ("2000.000000000000000000", "good", "declared")
    assert (eth["price_age_seconds"], eth["price_confirmed"]) == (0, True)
    assert (eth["ltv"], eth["liquidation_threshold"]) == ("0.8050", "0.8300")
    assert found["liquidation_prices"] == {"BTC": None, "ETH": None}, "either alone carries the debt"
    [usdc] = found["borrow_breakdown"]
    assert (usdc["amount"], usdc["liquidation_price"], usdc["liquidation_when"]) == (
        "15000.000000",
        "2.666666666666666666",
        "above",
    )
    assert found["borrowing"] == {
        "capacity_usd": "38000.00000000",
        "debt_usd": "15000.00000000",
        "available_usd": "23000.00000000",
        "allowed": True,
        "reason": None,
    }
    assert found["parameter_version"] >= 1
    assert ok(await service.get("margin/health/alice")) == found
    again = ok(await service.post("margin/health", {"user_id": "alice"}))
    assert (again["health_score"], again["previous_health_score"]) == (found["health_score"],) * 2
    assert again["snapshot_id"] != found["snapshot_id"]


async def test_one_request_is_one_check(service: Caller) -> None:
    first, second = await asyncio.gather(*(service.post("margin/health", TIGHT, key="k") for _ in range(2)))
    answers = [one for one in (first, second) if one.status_code == 200]
    third = ok(await service.post("margin/health", TIGHT, key="k"))
    assert {one.json()["snapshot_id"] for one in answers} | {third["snapshot_id"]} == {third["snapshot_id"]}
    assert len(ok(await service.get("margin/health/alice/history"))["items"]) == 1
    refused(await service.post("margin/health", ALICE, key="k"), 422, "idempotency_key_reused", "Idempotency-Key")


async def test_what_is_recommended_reaches_what_it_says(service: Caller) -> None:
    found = ok(await service.post("margin/health", TIGHT))
    assert (found["status"], found["health_score"]) == ("MARGIN_CALL", "1.106666666666666666")
    assert found["liquidation_prices"] == {"ETH": "1807.228915663000000000"}
    [raised] = found["events"]
    assert (raised["event_type"], raised["severity"], raised["threshold_breached"]) == ("margin_call", "high", "1.2000")
    ways = {one["action"]: one for one in found["recommendations"]}
    assert set(ways) == {"repay", "top_up", "sell"}
    for positions, way in (
        (([ways["top_up"]["amount"]], "0"), "top_up"),
        (([], ways["repay"]["amount"]), "repay"),
    ):
        owned = _plus("10", *positions[0])
        said = {"collateral_positions": {"ETH": owned}, "borrow_positions": {"USDC": _minus("15000", positions[1])}}
        after = ok(await service.post("margin/simulate", said))
        assert after["health_score"] == ways[way]["resulting_health_score"]
        assert after["status"] == "HEALTHY"
    sell = ways["sell"]
    said = {
        "collateral_positions": {"ETH": _minus("10", sell["amount"])},
        "borrow_positions": {"USDC": _minus("15000", sell["repay_amount"])},
    }
    assert ok(await service.post("margin/simulate", said))["health_score"] == sell["resulting_health_score"]


def _plus(one: str, *others: str) -> str:
    return str(sum(map(Decimal, others), Decimal(one)))


def _minus(one: str, other: str) -> str:
    return _plus(one, f"-{other}")


async def test_sides_that_are_empty(service: Caller) -> None:
    free = ok(await service.post("margin/health", {"user_id": "a", "collateral_positions": {"ETH": 1}}))
    assert (free["health_score"], free["status"], free["liquidation_price_drop_percent"]) == (None, "HEALTHY", None)
    said = {"user_id": "b", "collateral_positions": {}, "borrow_positions": {"USDC": 1, "DAI": 0}}
    bare = ok(await service.post("margin/health", said))
    assert (bare["health_score"], bare["status"]) == ("0.000000000000000000", "LIQUIDATION")
    assert [one["event_type"] for one in bare["events"]] == ["liquidation_due"]
    assert bare["borrowing"]["reason"] == "liquidatable"
    nothing = ok(await service.post("margin/health", {"user_id": "c", "borrow_positions": {}}))
    assert (nothing["health_score"], nothing["status"]) == (None, "HEALTHY")


@pytest.mark.parametrize(
    ("said", "code", "field"),
    [
        ({"collateral_positions": {"DOGE": 1}}, "asset_unknown", "collateral_positions.DOGE"),
        ({"borrow_positions": {"USDC": "-1"}}, "input_invalid", "borrow_positions.USDC"),
        ({"borrow_positions": {"USDC": "NaN"}}, "input_invalid", "borrow_positions.USDC"),
        ({"borrow_positions": {"USDC": "0.0000001"}}, "amount_too_fine", "borrow_positions.USDC"),
        ({"collateral_positions": {"ETH": True}}, "input_invalid", "collateral_positions.ETH"),
        ({"collateral_positions": {"ETH": str(2**256)}}, "amount_too_large", "collateral_positions.ETH"),
        ({"collateral_positions": []}, "input_invalid", "collateral_positions"),
        ({"user_id": "system:fees", "collateral_positions": {}}, "user_id_invalid", "user_id"),
        ({"user_id": "", "collateral_positions": {}}, "input_invalid", "user_id"),
        ({"positions": {}}, "input_invalid", "positions"),
    ],
)
async def test_what_cannot_be_checked_names_its_field(service: Caller, said: Any, code: str, field: str) -> None:
    refused(await service.post("margin/health", {"user_id": "alice"} | said), 422, code, field)
    refused(await service.get("margin/health/alice"), 404, "margin_account_unknown")


async def test_numbers_that_are_none_and_users_without_an_account(service: Caller) -> None:
    for number in (b"NaN", b"Infinity", b"-Infinity"):
        said = b'{"user_id": "alice", "collateral_positions": {"ETH": %b}}' % number
        refused(await service.post("margin/health", said), 422, "body_invalid", "body")
    refused(await service.post("margin/health", {"user_id": "alice"}), 404, "margin_account_unknown", "user_id")
    for path in ("health/alice", "health/alice/history", "accounts/alice"):
        refused(await service.get(f"margin/{path}"), 404, "margin_account_unknown")


async def test_without_a_usable_price_nothing_is_computed(service: Caller, engine: AsyncEngine) -> None:
    await set_prices(engine, ETH=2_000, as_of=now() - PRICE_AGE_MAX - timedelta(hours=1))
    refused(await service.post("margin/health", TIGHT), 409, "price_unusable", "collateral_positions.ETH")
    refused(await service.get("margin/accounts/alice"), 404, "margin_account_unknown")
    said = {key: value for key, value in TIGHT.items() if key != "user_id"}
    refused(await service.post("margin/simulate", said), 409, "price_unusable", "collateral_positions.ETH")
    assert ok(await service.post("margin/simulate", said | {"prices": {"ETH": 2000}}))["status"] == "MARGIN_CALL"


async def test_nobody_borrows_on_a_doubtful_price(service: Caller, engine: AsyncEngine) -> None:
    await set_prices(engine, ETH=2_000, confirmed=False, quality="stale", as_of=now() - timedelta(minutes=10))
    found = ok(await service.post("margin/health", ALICE))
    assert (found["borrowing"]["allowed"], found["borrowing"]["reason"]) == (False, "prices_not_confirmed")
    eth = found["collateral_breakdown"][1]
    assert (eth["price_quality"], eth["price_confirmed"]) == ("stale", False)
    assert eth["price_age_seconds"] >= 600
    await set_prices(engine, ETH=2_000, BTC=60_000, USDC=1, band="0.01")
    cautious = ok(await service.post("margin/health", ALICE))
    assert (cautious["health_score"], cautious["borrowing"]["capacity_usd"]) == (
        "2.666666666666666666",
        "37620.00000000",
    ), "health is at mid, borrowing at low and high"
    assert cautious["borrowing"]["debt_usd"] == "15150.00000000"


async def test_a_price_that_moves_is_told_and_the_events_can_be_found(service: Caller, engine: AsyncEngine) -> None:
    said = TIGHT | {"borrow_positions": {"USDC": "10000"}}
    ok(await service.post("margin/health", said))
    for price in (1_800, 1_810, 1_790, 1_200, 2_400):
        await set_prices(engine, ETH=price)
        ok(await service.post("margin/health", {"user_id": "alice"}))
    listed = ok(await service.get("margin/events"))["items"]
    assert [one["event_type"] for one in listed] == ["margin_recovered", "liquidation_due", "margin_warning"]
    assert listed[1]["message"] == "health 0.9960 is below 1.0000"

    async def types(**filters: Any) -> list[str]:
        return [one["event_type"] for one in ok(await service.get("margin/events", **filters))["items"]]

    assert await types(severity="critical") == ["liquidation_due"]
    assert await types(event_type="margin_warning", user_id="alice") == ["margin_warning"]
    assert await types(user_id="bob") == []
    assert await types(created_from=listed[0]["created_at"]) == ["margin_recovered"]
    assert await types(created_to=listed[2]["created_at"]) == []
    refused(await service.get("margin/events", severity="fatal"), 422, "input_invalid", "severity")
    first = ok(await service.get("margin/events", limit=2))
    rest = ok(await service.get("margin/events", limit=2, cursor=first["next_cursor"]))
    assert [one["event_id"] for one in first["items"] + rest["items"]] == [one["event_id"] for one in listed]
    await published(service, 3)
    history = ok(await service.get("margin/health/alice/history"))["items"]
    assert [len(one["events"]) for one in history] == [1, 1, 0, 0, 1, 0]
    some = ok(await service.get("margin/health/alice/history", limit=4))
    more = ok(await service.get("margin/health/alice/history", limit=4, cursor=some["next_cursor"]))
    assert some["items"] + more["items"] == history
    to = {"to": history[0]["calculated_at"]}
    assert ok(await service.get("margin/health/alice/history", **to))["items"] == history[1:]
    since = {"from": history[0]["calculated_at"]}
    assert ok(await service.get("margin/health/alice/history", **since))["items"] == history[:1]


async def test_an_account_has_positions_and_tighter_levels(service: Caller) -> None:
    said = {"collateral_positions": {"ETH": 10}, "borrow_positions": {"USDC": 10000}, "levels": {"warning": 1.8}}
    found = ok(await service.send("PUT", "margin/accounts/alice", said))
    assert (found["status"], found["cause"]) == ("WARNING", "account")
    assert {one["target_health_score"] for one in found["recommendations"]} == {"1.8000"}
    account = ok(await service.get("margin/accounts/alice"))
    assert account["levels"] == {"warning": "1.8000", "margin_call": "1.2000", "imminent": "1.0500"}
    assert (account["told_status"], account["health_score"]) == ("WARNING", found["health_score"])
    eth = {"asset": "ETH", "amount": "10.000000000000000000", "origin": "declared"}
    assert account["collateral_positions"] == [eth]
    ok(await service.send("PUT", "margin/accounts/alice", {"levels": {"warning": "1.9", "margin_call": "1.5"}}))
    kept = ok(await service.get("margin/accounts/alice"))
    assert (kept["collateral_positions"], kept["levels"]["margin_call"]) == ([eth], "1.5000")
    assert kept["version"] > account["version"]
    for levels, code, field in (
        ({"warning": "1.4999"}, "level_looser", "levels.warning"),
        ({"imminent": "1.3"}, "levels_out_of_order", "levels.margin_call"),
        ({"warning": "100.0001"}, "level_too_high", "levels.warning"),
        ({"warning": "1.55555"}, "ratio_too_fine", "levels.warning"),
    ):
        refused(await service.send("PUT", "margin/accounts/alice", {"levels": levels}), 422, code, field)
    assert ok(await service.get("margin/accounts/alice")) == kept


async def test_an_account_may_be_opened_empty(service: Caller) -> None:
    opened = ok(await service.send("PUT", "margin/accounts/new", {}))
    assert (opened["status"], opened["health_score"]) == ("HEALTHY", None)
    assert ok(await service.get("margin/accounts/new"))["collateral_positions"] == []


async def test_simulations_move_prices_and_write_nothing(service: Caller) -> None:
    ok(await service.post("margin/health", ALICE))
    before = ok(await service.get("margin/health/alice"))
    crash = ok(await service.post("margin/simulate", {"user_id": "alice", "price_changes_percent": {"ETH": -50}}))
    assert (crash["health_score"], crash["previous_health_score"]) == (
        "2.113333333333333333",
        before["health_score"],
    )
    assert crash["collateral_breakdown"][1]["price_quality"] == "hypothetical"
    both = {"user_id": "alice", "price_changes_percent": {"ETH": "-62.5", "BTC": "-62.5"}}
    edge = ok(await service.post("margin/simulate", both))
    assert (edge["health_score"], edge["status"]) == ("1.000000000000000000", "MARGIN_CALL")
    assert [one["event_type"] for one in edge["events"]] == ["liquidation_imminent"]
    fall = {"user_id": "alice", "prices": {"ETH": "0.01", "BTC": 100}}
    assert ok(await service.post("margin/simulate", fall))["status"] == "LIQUIDATION"
    assert ok(await service.get("margin/health/alice")) == before
    for said, code, field in (
        ({}, "positions_required", "collateral_positions"),
        ({"collateral_positions": {}, "prices": {"DOGE": 1}}, "asset_not_accepted", "prices.DOGE"),
        ({"collateral_positions": {}, "prices": {"ETH": 0}}, "price_invalid", "prices.ETH"),
        ({"collateral_positions": {}, "price_changes_percent": {"ETH": -100}}, "price_invalid",
         "price_changes_percent.ETH"),
        ({"collateral_positions": {}, "price_changes_percent": {"ETH": "1e9"}}, "input_invalid",
         "price_changes_percent.ETH"),
        ({"collateral_positions": {}, "prices": {"ETH": 1}, "price_changes_percent": {"ETH": 1}}, "price_ambiguous",
         "prices.ETH"),
    ):  # fmt: skip
        refused(await service.post("margin/simulate", said), 422, code, field)
    refused(await service.post("margin/simulate", {"user_id": "bob"}), 404, "margin_account_unknown", "user_id")


async def test_a_user_sees_and_checks_its_own(service: Caller) -> None:
    ok(await service.post("margin/health", TIGHT))
    ok(await service.post("margin/health", TIGHT | {"user_id": "bob"}))
    alice = await service.key_for(user_id="alice")
    ok(await alice.post("margin/health", {"user_id": "alice"}))
    ok(await alice.send("PUT", "margin/accounts/alice", {"levels": {"warning": "2"}}))
    for method, path, said in (
        ("POST", "margin/health", {"user_id": "bob"}),
        ("POST", "margin/simulate", {"user_id": "bob"}),
        ("GET", "margin/health/bob", None),
        ("GET", "margin/health/bob/history", None),
        ("GET", "margin/accounts/bob", None),
        ("PUT", "margin/accounts/bob", {}),
    ):
        refused(await alice.send(method, path, said), 403, "account_not_yours")
    refused(await alice.get("margin/events", user_id="bob"), 403, "actor_not_allowed", "user_id")
    assert {one["user_id"] for one in ok(await alice.get("margin/events"))["items"]} == {"alice"}
    refused(await alice.send("PUT", "margin/settings", {"escrow_collateral": "buyer"}), 403, "service_key_required")
    reader = await service.key_for(scopes=(Scope.MARGIN_READ,))
    refused(await reader.post("margin/health", TIGHT), 403, "scope_missing")
    assert ok(await reader.post("margin/simulate", {"user_id": "bob"}))["status"] == "MARGIN_CALL"


async def test_settings(service: Caller) -> None:
    assert ok(await service.get("margin/settings")) == {"escrow_collateral": "none"}
    assert ok(await service.send("PUT", "margin/settings", {"escrow_collateral": "seller"}))
    assert ok(await service.get("margin/settings")) == {"escrow_collateral": "seller"}
    refused(
        await service.send("PUT", "margin/settings", {"escrow_collateral": "all"}), 422, "input_invalid",
        "escrow_collateral",
    )  # fmt: skip


async def test_parameters_are_versions(service: Caller) -> None:
    """In force from far in the future on, so that no other test computes with them."""
    in_force = ok(await service.get("margin/parameters"))
    assert in_force["assets"]["ETH"] == {
        "ltv": "0.8050",
        "liquidation_threshold": "0.8300",
        "liquidation_bonus": "0.0500",
        "borrow_rate": "0.0500",
    }
    assert in_force["levels"] == {"warning": "1.5000", "margin_call": "1.2000", "imminent": "1.0500"}
    then = (now() + timedelta(days=365_000)).isoformat()
    said = {"effective_from": then, "note": "a vote", "assets": {"ETH": {"ltv": 0.5, "liquidation_threshold": "0.6"}}}
    made = ok(await service.post("margin/parameters", said), 201)
    assert made["version"] > in_force["version"]
    assert ok(await service.get("margin/parameters")) == in_force
    assert ok(await service.get("margin/parameters", at=then)) == made
    refused(await service.post("margin/parameters", said), 409, "effective_from_taken")
    eth = said["assets"]
    for changes, code, field in (
        ({"effective_from": "2020-01-01T00:00:00Z"}, "effective_from_in_past", "effective_from"),
        ({"assets": {}}, "parameters_missing", "assets"),
        ({"assets": {"DOGE": eth["ETH"]}}, "asset_unknown", "assets.DOGE"),  # type: ignore[index]
        ({"assets": {"ETH": {"ltv": "0.7", "liquidation_threshold": "0.6"}}}, "shares_out_of_order", "assets.ETH.ltv"),
        ({"assets": {"ETH": {"ltv": "0", "liquidation_threshold": "1.0001"}}}, "shares_out_of_order",
         "assets.ETH.liquidation_threshold"),
        ({"assets": {"ETH": {"ltv": "0", "liquidation_threshold": "1", "borrow_rate": "11"}}}, "share_too_large",
         "assets.ETH.borrow_rate"),
        ({"assets": {"ETH": {"ltv": "0.12345", "liquidation_threshold": "1"}}}, "ratio_too_fine", "assets.ETH.ltv"),
    ):  # fmt: skip
        refused(await service.post("margin/parameters", said | changes), 422, code, field)
    tenants = await service.key_for(scopes=(Scope.MARGIN_WRITE, Scope.MARGIN_READ))
    refused(await tenants.post("margin/parameters", said), 403, "scope_missing")
