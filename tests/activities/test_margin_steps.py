"""Margin checks on the real database: one commit, once, whatever is repeated; told as the rules say."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.margin.messages import Cause, CheckOutcome, PositionMessage
from db import controls
from db.engine import tenant_transaction
from db.ids import new_id
from db.margin import accounts, escrows
from domain.controls import Freeze, FreezeScope
from domain.errors import Refusal
from domain.margin.market import PRICE_AGE_MAX
from domain.margin.model import Level, Position, Side
from kit.clock import now
from tests.activities.margin import SCALES, USER, Checks, owes, owns
from tests.prices import set_prices


@pytest.fixture
async def checks(tenants_engine: AsyncEngine, engine: AsyncEngine, tenant: UUID) -> Checks:
    """Prices that every test starts from, and a tenant without accounts."""
    await set_prices(engine, ETH=2_000, BTC=60_000, USDC=1, USDT=1, DAI=1)
    return Checks(tenants_engine, tenant)


class Killed(Exception):
    """Stands for the end of a process."""


async def refuses(code: str, attempt: Awaitable[CheckOutcome], field: str | None = None) -> None:
    with pytest.raises(Refusal) as caught:
        await attempt
    assert (caught.value.code, caught.value.field) == (code, field)


async def test_a_check_leaves_all_or_its_whole_trace(checks: Checks) -> None:
    outcome = await checks.check(owns("ETH", 10), owes("USDC", 15_000))
    assert (outcome.status, outcome.health_score) == ("MARGIN_CALL", "1.106666666666666666")
    assert outcome.event_type == "margin_call"
    [snapshot] = await checks.snapshots()
    assert snapshot.snapshot_id == outcome.snapshot_id
    assert (snapshot.total_collateral_usd, snapshot.total_borrow_usd) == ("20000.00000000", "15000.00000000")
    assert (snapshot.cause, snapshot.previous_health_score) == ("check", None)
    assert snapshot.parameter_version >= 1
    assert snapshot.borrowing["reason"] == "no_capacity_left" or snapshot.borrowing["allowed"]
    [raised] = await checks.events()
    assert (raised.event_type, raised.severity, raised.threshold_breached) == ("margin_call", "high", "1.2000")
    assert raised.snapshot_id == snapshot.snapshot_id
    assert {one["action"] for one in raised.recommendations} == {"repay", "top_up", "sell"}
    [outgoing] = await checks.sql("SELECT * FROM outbox WHERE subject LIKE 'margin:%'")
    assert (outgoing.event_id, outgoing.topic, outgoing.type) == (raised.event_id, "margin.events.v1", "margin_call")
    assert (outgoing.subject, outgoing.data["severity"]) == ("margin:alice", "high")
    [audit] = await checks.sql("SELECT * FROM audit_log WHERE subject LIKE 'margin:%'")
    assert (audit.subject, audit.action, audit.actor_user) == ("margin:alice", "margin.checked", "operator")
    assert audit.details["snapshot_id"] == str(snapshot.snapshot_id)
    account = await checks.account()
    assert (account.state.told, account.health) == (Level.MARGIN_CALL, 1_106_666_666_666_666_666)
    assert account.checked_at == snapshot.calculated_at == checks.at


async def test_attempts_of_one_check_are_one(checks: Checks) -> None:
    check_id = new_id()
    tried = (checks.check(owns("ETH", 10), owes("USDC", 15_000), check_id=check_id) for _ in range(8))
    assert len({outcome.snapshot_id for outcome in await asyncio.gather(*tried)}) == 1
    written = await checks.written()
    assert (written["margin_health_snapshots"], written["margin_events"], written["outbox"]) == (1, 1, 1)
    await checks.check(owns("ETH", 1), check_id=check_id)
    assert await checks.written() == written


async def test_an_attempt_that_dies_before_its_commit_leaves_nothing(
    checks: Checks, tenants_engine: AsyncEngine
) -> None:
    """Whichever statement is the last that it sends."""
    check_id = new_id()
    before = await checks.written()
    for survived in range(1, 40):
        if await _killed_after(tenants_engine, survived, checks, check_id):
            break
        assert await checks.written() == before, f"killed after statement {survived}"
    else:
        raise AssertionError("the step never ended")
    assert survived > 5, "it was killed in between"
    written = await checks.written()
    assert (written["margin_health_snapshots"], written["margin_events"], written["outbox"]) == (1, 1, 1)


async def _killed_after(engine: AsyncEngine, statements: int, checks: Checks, check_id: UUID) -> bool:
    """Whether the step survives when it dies behind so many of its statements."""
    left = statements

    def count(*_: Any) -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1

    event.listen(engine.sync_engine, "before_cursor_execute", count)
    try:
        await checks.check(owns("ETH", 10), owes("USDC", 15_000), check_id=check_id)
    except Killed:
        return False
    finally:
        event.remove(engine.sync_engine, "before_cursor_execute", count)
    return True


async def test_a_check_is_seven_statements_whether_it_tells_or_not(
    checks: Checks, tenants_engine: AsyncEngine, engine: AsyncEngine
) -> None:
    """Receipt, account, parameters, prices, positions; what was found; audit, event and receipt."""
    await checks.check(owns("ETH", 10), owes("USDC", 10_000))
    said: list[str] = []

    def note(*given: Any) -> None:
        # The doorbell rings after the commit, and once for many.
        if "pg_notify" not in given[2]:
            said.append(given[2])

    event.listen(tenants_engine.sync_engine, "before_cursor_execute", note)
    try:
        quiet = await checks.check(stored=True)
        count = len(said)
        await set_prices(engine, ETH=1_000)
        told = await checks.check(stored=True)
    finally:
        event.remove(tenants_engine.sync_engine, "before_cursor_execute", note)
    assert (quiet.event_type, told.event_type) == (None, "liquidation_due")
    assert (count, len(said) - count) == (7, 7), said


async def test_positions_are_replaced_and_the_account_says_that_it_changed(checks: Checks) -> None:
    await checks.check(owns("ETH", 10), owns("BTC", 1), owes("USDC", 5))
    first = await checks.account()
    await checks.check(owns("ETH", 11), owns("DAI", 3), owes("USDC", 5))
    assert await checks.positions() == [
        Position(Side.COLLATERAL, "DAI", 3 * 10**18),
        Position(Side.COLLATERAL, "ETH", 11 * 10**18),
        Position(Side.BORROW, "USDC", 5_000_000),
    ]
    second = await checks.account()
    assert second.version > first.version
    await checks.check(stored=True)
    assert len(await checks.positions()) == 3
    await checks.check()
    assert await checks.positions() == []


async def test_health_without_debt_and_without_collateral(checks: Checks) -> None:
    assert (await checks.check()).status == "HEALTHY"
    free = await checks.check(owns("ETH", 1))
    assert (free.status, free.health_score) == ("HEALTHY", None)
    bare = await checks.check(owes("USDC", 1))
    assert (bare.status, bare.health_score) == ("LIQUIDATION", "0.000000000000000000")
    assert bare.event_type == "liquidation_due"
    [newest, *_] = await checks.snapshots()
    assert (newest.liquidation_price_drop_percent, newest.health_score) == (None, "0.000000000000000000")


async def test_what_cannot_be_valued_is_refused_and_nothing_is_written(checks: Checks, engine: AsyncEngine) -> None:
    before = await checks.written()
    await refuses("asset_not_accepted", checks.check(owns("DOGE", 1)), "collateral_positions.DOGE")
    await refuses("margin_account_unknown", checks.check(stored=True), "user_id")
    await refuses("level_looser", checks.check(levels=(14_999, 12_000, 10_500), cause=Cause.ACCOUNT), "levels.warning")
    await refuses(
        "levels_out_of_order", checks.check(levels=(15_000, 16_000, 10_500), cause=Cause.ACCOUNT), "levels.warning"
    )
    await set_prices(engine, BTC=60_000, as_of=now() - PRICE_AGE_MAX - timedelta(minutes=1))
    await refuses("price_unusable", checks.check(owes("BTC", 1)), "borrow_positions.BTC")
    assert await checks.written() == before


async def test_the_largest_positions_fit_at_any_price(checks: Checks, engine: AsyncEngine) -> None:
    """A larger one would be a row that no tick could write, and stop the book for everybody."""
    await refuses("position_too_large", checks.check(owns("USDC", 10**30 + 1)), "collateral_positions.USDC")
    await refuses("position_too_large", checks.check(owes("BTC", 10**30 + 1)), "borrow_positions.BTC")
    await set_prices(engine, ETH=10**18, BTC=10**18, USDC=10**18, USDT=10**18, DAI=10**18)
    whole = [owns(asset, 10**30) for asset in SCALES]
    least = PositionMessage(side=Side.BORROW, asset="DAI", amount_minor=1)
    assert (await checks.check(*whole, least)).status == "HEALTHY"
    assert (await checks.check(*(owes(asset, 10**30) for asset in SCALES))).status == "LIQUIDATION"
    assert (await checks.check(*whole, least)).event_type == "margin_recovered"


async def test_old_prices_that_are_still_usable_say_so(checks: Checks, engine: AsyncEngine) -> None:
    await set_prices(engine, ETH=2_000, quality="stale", confirmed=False, as_of=checks.at - timedelta(hours=2))
    await checks.check(owns("ETH", 1))
    [snapshot] = await checks.snapshots()
    [line] = snapshot.collateral_breakdown
    assert (line["price_quality"], line["price_confirmed"], line["price_age_seconds"]) == ("stale", False, 7_200)
    assert snapshot.borrowing["reason"] == "prices_not_confirmed"


async def test_moving_prices_are_told_once_and_recovery_too(checks: Checks, engine: AsyncEngine) -> None:
    await checks.check(owns("ETH", 10), owes("USDC", 10_000), minute=0)
    for minute, price in enumerate((1_807, 1_808, 1_806, 1_808, 1_807), start=1):
        await set_prices(engine, ETH=price)
        await checks.check(stored=True, minute=minute)
    assert [each.event_type for each in await checks.events()] == ["margin_warning"]
    await set_prices(engine, ETH=2_000)
    await checks.check(stored=True, minute=6)
    [recovered, _] = await checks.events()
    assert (recovered.event_type, recovered.severity) == ("margin_recovered", "low")
    await set_prices(engine, ETH=1_700)
    quiet = await checks.check(stored=True, minute=7)
    assert (quiet.status, quiet.event_type) == ("WARNING", None)
    assert (await checks.check(stored=True, minute=31)).event_type == "margin_warning"
    await set_prices(engine, ETH=1_000)
    assert (await checks.check(stored=True, minute=31.5)).event_type == "liquidation_due"


async def test_without_confirmed_prices_nothing_is_due(checks: Checks, engine: AsyncEngine) -> None:
    await set_prices(engine, ETH=1_000, confirmed=False)
    outcome = await checks.check(owns("ETH", 10), owes("USDC", 15_000))
    assert (outcome.status, outcome.event_type) == ("LIQUIDATION", "liquidation_imminent")
    await set_prices(engine, ETH=1_000)
    assert (await checks.check(stored=True)).event_type == "liquidation_due"


async def test_tighter_levels_hold_from_the_check_that_brings_them(checks: Checks) -> None:
    outcome = await checks.check(owns("ETH", 10), owes("USDC", 9_000), levels=(20_000, 15_000, 12_000))
    assert (outcome.status, outcome.event_type) == ("WARNING", "margin_warning")
    [raised] = await checks.events()
    assert {one["target_health_score"] for one in raised.recommendations} == {"2.0000"}
    kept = (await checks.account()).state.levels
    assert (kept.warning_bps, kept.margin_call_bps, kept.imminent_bps) == (20_000, 15_000, 12_000)
    await checks.check(stored=True)
    assert (await checks.account()).state.levels == kept


async def test_frozen_tenants_are_still_looked_at(checks: Checks, tenants_engine: AsyncEngine) -> None:
    async with tenant_transaction(tenants_engine, checks.tenant) as connection:
        await controls.halt(connection, checks.tenant)
        await controls.place(connection, checks.tenant, Freeze(new_id(), FreezeScope.TENANT, None, "a test", checks.at))
    assert (await checks.check(owns("ETH", 1))).status == "HEALTHY"


async def test_checks_at_once_are_one_after_the_other(checks: Checks) -> None:
    """Each sees what the one before it left: the user is told once."""
    await asyncio.gather(*(checks.check(owns("ETH", 10), owes("USDC", 15_000)) for _ in range(10)))
    written = await checks.written()
    assert (written["margin_health_snapshots"], written["margin_events"]) == (10, 1)
    previous = {snapshot.previous_health_score for snapshot in await checks.snapshots()}
    assert previous == {None, "1.106666666666666666"}


async def test_settlement_touches_only_who_is_there(checks: Checks) -> None:
    before = await checks.written()
    assert await checks.check(stored=True, cause=Cause.SETTLEMENT) == CheckOutcome()
    assert await checks.written() == before
    await checks.check(owns("ETH", 1))
    assert (await checks.check(stored=True, cause=Cause.SETTLEMENT)).status == "HEALTHY"
    assert (await checks.snapshots())[0].cause == "settlement"


async def test_a_check_that_was_started_earlier_is_dated_no_earlier(checks: Checks) -> None:
    await checks.check(owns("ETH", 1), minute=5)
    await checks.check(stored=True, minute=0)
    newest, oldest = await checks.snapshots()
    assert newest.calculated_at == oldest.calculated_at


async def test_one_tenant_does_not_see_anothers(checks: Checks, tenants_engine: AsyncEngine) -> None:
    await checks.check(owns("ETH", 10), owes("USDC", 15_000))
    async with tenant_transaction(tenants_engine, new_id()) as connection:
        assert await accounts.find(connection, checks.tenant, USER) is None
        assert await escrows.setting(connection, checks.tenant) == "none"
        assert await escrows.held_for(connection, checks.tenant, USER, "buyer") == {}
