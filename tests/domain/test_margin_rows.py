"""The rows that a look at an account leaves say the same as the rules."""

from __future__ import annotations

import json
from datetime import timedelta
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from domain.margin.advice import hold, main_recommendations, recommendations
from domain.margin.borrowing import Obstacle, borrowing
from domain.margin.health import health_factor, value
from domain.margin.model import DEFAULT_LEVELS, Level, Market, Position, Side
from domain.margin.rows import Sheet, SnapshotRow, ratio, subject_of
from domain.margin.telling import AccountState, EventType, tell
from domain.money import parse_minor
from tests.domain.margins import MARKETS, SCALES, T0, books, market, owes, owns

TENANT, SNAPSHOT, EVENT = (UUID(int=n) for n in (1, 2, 3))
LATER = T0 + timedelta(seconds=90)


def snapshot(positions: list[Position], given_market: Market, user: str = "alice") -> SnapshotRow:
    found, holdings = value(positions, given_market), hold(positions, given_market)
    sheet = Sheet(given_market, parameter_version=7, price_tick=9, at=LATER)
    advised = recommendations(holdings, found, DEFAULT_LEVELS)
    return sheet.snapshot(
        TENANT, SNAPSHOT, user, positions, holdings, found, DEFAULT_LEVELS,
        previous_health=None, cause="check", advised=advised,
    )  # fmt: skip


@settings(max_examples=50)
@given(MARKETS, books())
def test_breakdowns_add_up_and_are_json(given_market: Market, positions: list[Position]) -> None:
    row = snapshot(positions, given_market)
    found = value(positions, given_market)
    owned, owed = json.loads(row.collateral_breakdown), json.loads(row.borrow_breakdown)
    for lines, side, total, written in (
        (owned, Side.COLLATERAL, found.collateral, row.total_collateral_usd),
        (owed, Side.BORROW, found.debt, row.total_borrow_usd),
    ):
        assert sum(parse_minor(line["value_usd"], 8) for line in lines) == total == parse_minor(written, 8)
        mine = [position for position in positions if position.side is side]
        assert [parse_minor(line["amount"], SCALES[line["asset"]]) for line in lines] == [p[2] for p in mine]
        assert all(line["price_age_seconds"] == 90 for line in lines)
    assert row.health_score == ratio(health_factor(found.weighted, found.debt))
    assert {one["target_health_score"] for one in json.loads(row.recommendations)} <= {"1.5000"}
    assert json.loads(row.borrowing)["allowed"] is (borrowing(found).obstacle is None)


def test_an_event_says_what_its_snapshot_says() -> None:
    """Whatever the user is called."""
    positions, prices = [owns("ETH", 10), owes("USDC", 15_000)], market()
    user = 'o"k\\ \u2603 \U0001f600'
    row = snapshot(positions, prices, user)
    _, raised = tell(AccountState(DEFAULT_LEVELS, Level.HEALTHY, {}), value(positions, prices), LATER)
    assert raised is not None
    sheet = Sheet(prices, parameter_version=7, price_tick=9, at=LATER)
    event, text = sheet.event(EVENT, row, raised)
    assert json.loads(text) == {
        "user_id": user,
        "severity": "high",
        "status": "MARGIN_CALL",
        "health_score": "1.106666666666666666",
        "previous_health_score": None,
        "threshold_breached": "1.2000",
        "message": "health 1.1066 is below 1.2000",
        "collateral_usd": "20000.00000000",
        "borrow_usd": "15000.00000000",
        "recommendations": json.loads(row.recommendations),
        "snapshot_id": str(SNAPSHOT),
        "parameter_version": 7,
        "price_tick": 9,
        "calculated_at": "2026-03-01T09:01:30+00:00",
    }
    assert (event.event_type, event.event_id, event.user_id) == ("margin_call", EVENT, user)
    assert subject_of(user) == f"margin:{user}"


def test_messages_never_read_as_if_a_threshold_were_met() -> None:
    prices = market()
    sheet = Sheet(prices, parameter_version=1, price_tick=1, at=LATER)
    just_below = [owns("ETH", 1), owes("USDC", "1383.333334")]
    row = snapshot(just_below, prices)
    state, raised = tell(AccountState(DEFAULT_LEVELS, Level.HEALTHY, {}), value(just_below, prices), T0)
    assert raised is not None
    assert sheet.event(EVENT, row, raised)[0].message == "health 1.1999 is below 1.2000"
    free = [owns("ETH", 1)]
    _, raised = tell(state, value(free, prices), T0)
    assert raised is not None
    assert raised.event_type is EventType.RECOVERED
    assert sheet.event(EVENT, snapshot(free, prices), raised)[0].message == "there is no debt left"


@given(MARKETS, books(), st.booleans())
def test_borrowing_counts_loan_to_value_and_needs_confirmed_prices(
    given_market: Market, positions: list[Position], confirmed: bool
) -> None:
    found = value(positions, given_market)._replace(confirmed=confirmed)
    may = borrowing(found)
    assert may.available == max(0, may.capacity - may.debt)
    if not confirmed:
        assert may.obstacle is Obstacle.PRICES
    elif may.obstacle is None:
        assert may.available > 0
        health = health_factor(found.weighted, found.debt)
        assert health is None or health >= 10**18


def test_what_may_be_borrowed() -> None:
    """1 ETH at 2000 with a loan-to-value of 74.7 %."""
    assert borrowing(value([owns("ETH", 1), owes("USDC", 494)], market())).available == 1_000 * 10**8
    over = value([owns("ETH", 1), owes("USDC", 1_500)], market())
    assert borrowing(over)[2:] == (0, Obstacle.CAPACITY)
    assert borrowing(value([owes("USDC", 1)], market())).obstacle is Obstacle.HEALTH


def test_an_events_advice_is_short() -> None:
    positions, prices = [owns("ETH", 5), owns("BTC", "0.2"), owes("USDC", 15_000), owes("DAI", 10)], market()
    holdings = hold(positions, prices)
    short = main_recommendations(holdings, value(positions, prices), DEFAULT_LEVELS)
    assert [one.asset for one in short] == ["USDC", "BTC", "BTC"][: len(short)]


def test_what_is_repaid_besides_is_told() -> None:
    row = snapshot([owes("BTC", "0.05"), owes("USDC", 10), owns("USDC", 1)], market())
    several, top_up = json.loads(row.recommendations)
    assert (several["action"], several["asset"], several["amount"]) == ("repay_several", "BTC", "0.05000000")
    assert several["also_repay"] == [{"asset": "USDC", "amount": "9.480000"}]
    assert (several["repay_asset"], several["target_health_score"]) == (None, "1.5000")
    assert top_up["also_repay"] == []
