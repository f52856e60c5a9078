"""The screen never misses what the rule decides: random books, thresholds hit exactly and by one unit, any size."""

from __future__ import annotations

import random
from collections.abc import Sequence
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activities.book import columns as columns_module
from activities.book.columns import FLOOR, Columns, Whole
from activities.book.deciding import LEVELS
from activities.book.screen import GUARD, screen, set_windows, unvalued, weights
from domain.fixed import PRICE_ONE
from domain.margin.health import REARM_PERCENT, level_of, settled_level, value
from domain.margin.model import Levels, Market, Origin, Position, Side
from tests.activities.books import SYMBOLS, account, columns_of, market, moved, take

AMOUNTS = st.one_of(
    st.integers(1, 10),
    st.integers(1, 10**6),
    st.integers(10**17, 10**20),
    st.integers(10**29, 10**31),
    st.integers(10**31, 10**33),
)
KEYS = [*((Side.COLLATERAL, symbol, origin) for symbol in SYMBOLS for origin in Origin)]
KEYS += [(Side.BORROW, symbol, Origin.DECLARED) for symbol in SYMBOLS]
POSITIONS = st.dictionaries(st.sampled_from(KEYS), AMOUNTS, min_size=0, max_size=8)
THRESHOLDS = st.tuples(st.integers(15_000, 30_000), st.integers(12_000, 15_000), st.integers(10_500, 12_000))
PRICES = st.fixed_dictionaries({}, optional={symbol: st.integers(1, 10**24) for symbol in SYMBOLS})


def named(columns: Columns, at: Market) -> set[int]:
    """Who would be decided."""
    found = set(columns.always)
    for each in screen(columns, weights(columns.symbols, at)):
        found |= set(columns.tables[each.key].head["account"][each.rows].tolist())
    return found


def decided(accounts: Sequence[Whole], at: Market) -> set[int]:
    """Who the rule would tell something, or would if no cooldown kept it."""
    found = set()
    for each in accounts:
        valuation = value(each.positions, at)
        told = LEVELS[each.told]
        settled = settled_level(told, valuation.weighted, valuation.debt, each.levels, confirmed=valuation.confirmed)
        if settled != told:
            found.add(each.account)
    return found


def of(positions: dict[tuple[Side, str, Origin], int]) -> list[Position]:
    return [Position(side, asset, amount, origin) for (side, asset, origin), amount in positions.items()]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(POSITIONS, st.integers(0, 4), THRESHOLDS), min_size=1, max_size=6),
    PRICES,
    st.booleans(),
    st.sampled_from((1, FLOOR)),
)
def test_any_book_at_any_prices(
    drawn: list[tuple[dict[tuple[Side, str, Origin], int], int, tuple[int, int, int]]],
    prices: dict[str, int],
    confirmed: bool,
    floor: int,
) -> None:
    """Whether or not accounts that hold the same have tables of their own."""
    accounts = [
        account(number, told, of(positions), Levels(*levels))
        for number, (positions, told, levels) in enumerate(drawn, start=1)
    ]
    at = market(confirmed=confirmed, **prices)
    with patch.object(columns_module, "FLOOR", floor):
        columns = columns_of(accounts)
    assert columns.accounts == len(accounts)
    assert decided(accounts, at) <= named(columns, at)
    without = {symbol: terms for symbol, terms in at.items() if symbol != "DAI"}
    holders = sum(any(position.asset == "DAI" for position in each.positions) for each in accounts)
    assert unvalued(columns, weights(columns.symbols, without)) == holders
    assert unvalued(columns, weights(columns.symbols, at)) == 0


def on_the_edge(chance: random.Random, number: int, at: Market) -> list[Whole]:
    """Accounts whose health is a threshold exactly, and one unit of value to each side, told any level.

    Debt in DAI at one dollar can be any value, so the debt is chosen to fit the collateral, and the other way around.
    """
    made: list[Whole] = []
    levels = Levels(chance.randint(15_000, 30_000), chance.randint(12_000, 15_000), chance.randint(10_500, 12_000))
    size = 10 ** chance.choice((0, 3, 9, 15, 18, 21, 24, 30))
    collateral = [
        Position(Side.COLLATERAL, symbol, chance.randint(1, 10) * size, Origin.DECLARED)
        for symbol in chance.sample(SYMBOLS, chance.randint(1, 4))
    ]
    weighted = value(collateral, at).weighted
    threshold = chance.choice((levels.warning_bps, levels.margin_call_bps, levels.imminent_bps, 10_000))
    percent = chance.choice((100, REARM_PERCENT))
    debt = weighted * 100 // (threshold * percent)
    for nudge in (-2, -1, 0, 1, 2):
        # DAI has 18 places and values have 8: ten powers of ten make one unit of value.
        owed = (debt + nudge) * 10**10 + chance.choice((0, 0, 1, -1))
        if owed > 0:
            borrow = Position(Side.BORROW, "DAI", owed, Origin.DECLARED)
            made.append(account(number + len(made), chance.randint(0, 4), [*collateral, borrow], levels))
    return made


def test_a_big_book_on_its_thresholds() -> None:
    chance = random.Random(20260801)
    base = market()
    accounts: list[Whole] = []
    while len(accounts) < 6_000:
        accounts += on_the_edge(chance, len(accounts) + 1, base)
    columns = columns_of(accounts)
    whom = decided(accounts, base)
    assert len(whom) > 1_000
    assert whom <= named(columns, base)
    for _ in range(10):
        at = moved(base, chance.choice(SYMBOLS), chance.randint(1, 10**22))
        assert decided(accounts, at) <= named(columns, at)


def test_the_screen_names_few_beside_those_that_move() -> None:
    """A screen that named everybody would be complete, too."""
    chance = random.Random(5)
    accounts = []
    for number in range(1, 5_001):
        worth = chance.randint(10**3, 10**6)
        collateral = Position(Side.COLLATERAL, "ETH", worth * 10**18 // 3_000)
        debt = Position(Side.BORROW, "USDC", int(worth * 0.83 / chance.uniform(1.01, 4)) * 10**6)
        plain = account(number, 0, [collateral, debt])
        found = value(plain.positions, market())
        plain.told = int(level_of(found.weighted, found.debt, plain.levels))
        accounts.append(plain)
    columns = columns_of(accounts)
    assert named(columns, market()) == set()
    at = moved(market(), "ETH", 2_970 * PRICE_ONE)
    assert named(columns, at) == decided(accounts, at) != set()


def test_a_guard_that_is_too_small_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same book with the band on the wrong side: the tests above are able to fail."""
    chance = random.Random(20260801)
    accounts = [each for number in range(400) for each in on_the_edge(chance, 10 * number + 1, market())]
    columns = columns_of(accounts)
    for table in columns.tables.values():
        table.below *= 1 - 3 * GUARD
        table.slack[:] = -1.0
    assert decided(accounts, market()) - named(columns, market())


def test_who_waits_is_named_when_it_leaves_what_it_has_seen() -> None:
    positions = [Position(Side.COLLATERAL, "ETH", 10**18), Position(Side.BORROW, "USDC", 2_000 * 10**6)]
    columns = columns_of([account(1, 0, positions)])
    [table] = columns.tables.values()
    # 0.83 * 3,000 / 2,000 = 1.245: a warning, which is held back.
    assert named(columns, market()) == {1}
    set_windows(table, np.array([0]), np.array([1]))
    assert named(columns, market()) == set()
    assert named(columns, moved(market(), "ETH", 2_880 * PRICE_ONE)) == {1}, "1.195 is a margin call"
    assert named(columns, moved(market(), "ETH", 3_620 * PRICE_ONE)) == {1}, "1.502 is healthy"
    assert named(columns, moved(market(), "ETH", 3_600 * PRICE_ONE)) == set()


def test_accounts_are_replaced_and_let_go_of() -> None:
    small = [Position(Side.COLLATERAL, "ETH", 10**18), Position(Side.BORROW, "USDC", 3_000 * 10**6)]
    huge = [Position(Side.COLLATERAL, "ETH", 10**40), Position(Side.BORROW, "USDC", 10**33)]
    columns = columns_of([account(number, 0, small) for number in (3, 5, 9)])
    assert named(columns, market()) == {3, 5, 9}
    take(columns, [account(5, 0, [small[0]]), account(9, 0, huge), account(12, 0, small)])
    assert columns.accounts == 4
    assert sorted(columns.always) == [9]
    assert named(columns, market()) == {3, 9, 12}
    take(columns, [account(9, 0, small), account(5, 0, [*small, Position(Side.COLLATERAL, "DAI", 5)])])
    assert (columns.always, columns.accounts) == ({}, 4)
    assert named(columns, market()) == {3, 5, 9, 12}
    assert [
        columns.user(int(table.head["user"][row]))
        for table in columns.tables.values()
        for row in range(table.used)
        if table.head["account"][row] == 9
    ] == ["user-9"]


def test_an_asset_without_a_price_names_nobody() -> None:
    positions = [Position(Side.COLLATERAL, "ETH", 1), Position(Side.BORROW, "USDC", 3_000 * 10**6)]
    columns = columns_of([account(1, 0, positions)])
    assert named(columns, {symbol: terms for symbol, terms in market().items() if symbol != "ETH"}) == set()
