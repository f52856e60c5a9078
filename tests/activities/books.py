"""Books for tests: accounts in memory without a database, and markets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from activities.book.columns import EXACT_BELOW, HALF, HEAD, NEVER, NO_HEALTH, WIDEST, Columns, Fetched, Whole
from activities.book.screen import set_windows
from db.ids import new_id
from domain.fixed import PRICE_ONE
from domain.margin.model import DEFAULT_LEVELS, AssetTerms, Levels, Market, Parameters, Position, Side

AT = datetime(2026, 8, 1, 12, tzinfo=UTC)
SYMBOLS = ("BTC", "DAI", "ETH", "USDC", "USDT")
_SCALES = {"BTC": 8, "DAI": 18, "ETH": 18, "USDC": 6, "USDT": 6}
_THRESHOLDS = {"BTC": 7_800, "DAI": 7_700, "ETH": 8_300, "USDC": 7_800, "USDT": 7_800}
_PRICES = {"BTC": 60_000 * PRICE_ONE, "ETH": 3_000 * PRICE_ONE, "DAI": PRICE_ONE, "USDC": PRICE_ONE, "USDT": PRICE_ONE}


def market(*, confirmed: bool = True, **prices: int) -> Market:
    """What the tests' assets are worth; ``prices`` are in 1e-18 USD."""
    return {
        symbol: AssetTerms(
            symbol=symbol,
            scale=_SCALES[symbol],
            parameters=Parameters(5_000, _THRESHOLDS[symbol], 500, 500),
            mid=(mid := prices.get(symbol, _PRICES[symbol])),
            low=mid,
            high=mid,
            confirmed=confirmed,
            quality="good",
            as_of=AT,
        )
        for symbol in SYMBOLS
    }


def moved(before: Market, symbol: str, mid: int) -> Market:
    """The same market with another price."""
    return {**before, symbol: replace(before[symbol], mid=mid, low=mid, high=mid)}


def account(number: int, told: int, positions: Sequence[Position], levels: Levels = DEFAULT_LEVELS) -> Whole:
    """An account as it is read; ``told`` is the level that its user was told."""
    return Whole(number, 0, f"user-{number}", levels, told, [NEVER] * 4, 1, None, tuple(positions))


def columns_of(accounts: Sequence[Whole]) -> Columns:
    """The columns of accounts, as a first read makes them."""
    made = Columns()
    made.know(SYMBOLS)
    made.tenant_number(new_id())
    take(made, accounts)
    return made


def take(columns: Columns, accounts: Sequence[Whole]) -> None:
    """Let columns take accounts in, as a read does."""
    ordered = sorted(accounts, key=lambda each: each.account)
    heads = np.zeros(len(ordered), HEAD)
    for index, each in enumerate(ordered):
        levels = (each.levels.warning_bps, each.levels.margin_call_bps, each.levels.imminent_bps)
        health = NO_HEALTH if each.health is None else each.health
        heads[index] = (each.account, each.tenant, 0, levels, each.told, each.told_at, each.version, 0, health)
    flat = [(index, position) for index, each in enumerate(ordered) for position in each.positions]
    odd = {index for index, position in flat if position.amount_minor >= EXACT_BELOW}
    for index, each in enumerate(ordered):
        borrows = sum(position.side is Side.BORROW for position in each.positions)
        if max(borrows, len(each.positions) - borrows) > WIDEST:
            odd.add(index)
    fits = [0 if position.amount_minor >= EXACT_BELOW else position.amount_minor for _, position in flat]
    fetched = Fetched(
        heads,
        [each.user for each in ordered],
        np.array([index for index, _ in flat], np.int64),
        np.array([columns.code(position) for _, position in flat], np.int64),
        np.array([amount // HALF for amount in fits], np.int64),
        np.array([amount % HALF for amount in fits], np.int64),
        np.array(sorted(odd), np.int64),
    )
    wholes = {ordered[index].account: ordered[index] for index in odd}
    for key, rows in columns.put(fetched, wholes):
        set_windows(columns.tables[key], rows)
