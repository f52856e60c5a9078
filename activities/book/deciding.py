"""The exact decision: each candidate is valued in integers by the rule itself, and what it is told becomes rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import numpy as np

from activities.book.columns import (
    EXACT_BELOW,
    HALF,
    KINDS,
    NEVER,
    NO_HEALTH,
    NOTHING,
    Columns,
    Ints,
    Key,
    Whole,
)
from activities.book.lines import Lines
from activities.book.screen import Candidates, set_windows
from db.margin.book import Move, Telling
from domain.margin.health import health_factor, is_below, settled_level, value
from domain.margin.model import LIQUIDATION_BPS, Level, Levels, Market, Position
from domain.margin.rows import Sheet
from domain.margin.telling import ALARMS, COOLDOWNS, AccountState, tell_level

_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
#: Rows whose columns are taken out of their table at a time.
_SLICE: Final = 4_096

LEVELS: Final = tuple(Level)


@dataclass(slots=True)
class Account:
    """A candidate as the rule takes it. ``row`` is its place in a table, or its number where it is kept whole."""

    row: int
    number: int
    tenant: int
    user: int | str
    levels: Levels
    told: Level
    told_at: list[int]
    version: int
    health: int | None
    positions: tuple[Position, ...]


@dataclass(slots=True)
class Decided:
    """What was decided on some candidates. ``tellings`` are to be written, ``told`` is what the columns then hold;
    ``steady`` need nothing, ``waiting`` are worse than told until their cooldown ends (microseconds).
    ``held`` counts accounts that would be liquidatable if their prices were confirmed."""

    key: Key | None
    tellings: list[Telling] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    steady: list[int] = field(default_factory=list)
    waiting: dict[int, tuple[Level, int]] = field(default_factory=dict)
    held: int = 0


class Judge:
    """Decides candidates at one market and instant. ``sheet`` makes their rows."""

    def __init__(self, columns: Columns, sheet: Sheet) -> None:
        self._columns = columns
        self._market: Market = sheet.market
        self._at = sheet.at
        self._now = microseconds(sheet.at)
        self._levels: dict[tuple[int, int, int], Levels] = {}
        self._lines = Lines(sheet)
        self._instants: dict[int, datetime] = {}
        self._kinds = [None, *((side, symbol, origin) for symbol in columns.symbols for side, origin in KINDS)]
        self._valued = [True, *(symbol in self._market for symbol in columns.symbols for _ in KINDS)]

    def decide(self, candidates: Candidates) -> Iterator[Decided]:
        """Decide rows of one table, some thousands at a time."""
        for begin in range(0, len(candidates.rows), _SLICE):
            decided = Decided(candidates.key)
            for account in self._accounts(candidates.key, candidates.rows[begin : begin + _SLICE], decided.steady):
                self._decide(account, decided)
            yield decided

    def decide_wholes(self) -> Decided:
        """Decide every account that the columns do not hold."""
        decided = Decided(None)
        for whole in self._columns.always.values():
            if all(position.asset in self._market for position in whole.positions):
                self._decide(_of_whole(whole), decided)
            else:
                decided.steady.append(whole.account)
        return decided

    def _accounts(self, key: Key, rows: Ints, unvalued: list[int]) -> Iterator[Account]:
        """Rows as the rule takes them, but for those with an asset that cannot be valued: ``unvalued`` gets them."""
        table = self._columns.tables[key]
        head = table.head[rows]
        numbers, tenants, users = head["account"].tolist(), head["tenant"].tolist(), head["user"].tolist()
        levels, told, told_at = head["levels"].tolist(), head["told"].tolist(), head["told_at"].tolist()
        versions, healths = head["version"].tolist(), (head["health_high"].tolist(), head["health_low"].tolist())
        codes, highs, lows = (each[:, rows].T.tolist() for each in (table.codes, table.high, table.low))
        kinds, valued = self._kinds, self._valued
        for n, row in enumerate(rows.tolist()):
            positions: list[Position] = []
            for code, high, low in zip(codes[n], highs[n], lows[n], strict=True):
                if code == NOTHING:
                    continue
                if not valued[code]:
                    unvalued.append(row)
                    break
                kind = kinds[code]
                assert kind is not None
                positions.append(Position(kind[0], kind[1], high * HALF + low, kind[2]))
            else:
                health = healths[0][n] * HALF + healths[1][n]
                yield Account(
                    row,
                    numbers[n],
                    tenants[n],
                    users[n],
                    self._levels_of(levels[n]),
                    LEVELS[told[n]],
                    told_at[n],
                    versions[n],
                    None if health == NO_HEALTH else health,
                    tuple(positions),
                )

    def _levels_of(self, bps: list[int]) -> Levels:
        found = self._levels.get(key := (bps[0], bps[1], bps[2]))
        if found is None:
            found = self._levels[key] = Levels(*bps)
        return found

    def _decide(self, account: Account, decided: Decided) -> None:
        valuation = value(account.positions, self._market)
        told, levels = account.told, account.levels
        level = settled_level(told, valuation.weighted, valuation.debt, levels, confirmed=valuation.confirmed)
        if level == told:
            decided.steady.append(account.row)
            decided.held += not valuation.confirmed and is_below(valuation.weighted, valuation.debt, LIQUIDATION_BPS)
            return
        after, raised = tell_level(AccountState(levels, told, self._told_at(account.told_at)), level, self._at)
        if raised is None:
            due = account.told_at[level - 1] + COOLDOWNS[ALARMS[level][1]] // _MICROSECOND
            decided.waiting[account.row] = level, due
            return
        told_then = after.told_at
        move = Move(
            account.number,
            account.version,
            level.value,
            tuple(
                None if (when := told_then.get(each)) is None else self._now if when is self._at else before
                for each, before in zip(LEVELS[1:], account.told_at, strict=True)
            ),
            health_factor(valuation.weighted, valuation.debt),
        )
        user = self._columns.user(account.user) if isinstance(account.user, int) else account.user
        tenant = self._columns.tenants[account.tenant]
        decided.tellings.append(
            self._lines.telling(move, tenant, user, account.health, account.positions, valuation, levels, raised)
        )
        decided.rows.append(account.row)

    def _told_at(self, told_at: list[int]) -> dict[Level, datetime]:
        """When each level was told; many accounts were told at one instant."""
        found: dict[Level, datetime] = {}
        for level, at in zip(LEVELS[1:], told_at, strict=True):
            if at != NEVER:
                when = self._instants.get(at)
                found[level] = when if when is not None else self._instants.setdefault(at, instant(at))
        return found


def _of_whole(whole: Whole) -> Account:
    return Account(
        whole.account,
        whole.account,
        whole.tenant,
        whole.user,
        whole.levels,
        LEVELS[whole.told],
        whole.told_at,
        whole.version,
        whole.health,
        whole.positions,
    )


def audit_details(tellings: Sequence[Telling], tick: int, version: int) -> dict[UUID, str]:
    """What each tenant's audit record says of a batch: how many of its accounts were told what."""
    counts: dict[UUID, Counter[str]] = {}
    for telling in tellings:
        counts.setdefault(telling.tenant, Counter())[telling.type] += 1
    return {
        tenant: json.dumps({"price_tick": tick, "parameter_version": version, "told": dict(sorted(told.items()))})
        for tenant, told in counts.items()
    }


def settle(columns: Columns, decided: Decided, moved: set[int]) -> None:
    """Bring the columns to what was written; accounts that were not are read again later."""
    if decided.key is None:
        for telling in decided.tellings:
            move = telling.move
            whole = columns.always.get(move.account)
            if whole is not None and move.account in moved:
                whole.told, whole.version = move.told, move.version + 1
                whole.told_at = [NEVER if at is None else at for at in move.told_at]
                whole.health = move.health
        return
    table = columns.tables[decided.key]
    if decided.steady:
        set_windows(table, np.array(decided.steady, np.int64))
    if decided.waiting:
        seen = np.array([level for level, _ in decided.waiting.values()], np.int64)
        set_windows(table, np.array(list(decided.waiting), np.int64), seen)
    # An account with a health that the columns do not hold is read again, and then kept whole.
    kept = [
        (row, move, health)
        for row, (move, *_) in zip(decided.rows, decided.tellings, strict=True)
        if move.account in moved and (health := NO_HEALTH if move.health is None else move.health) < EXACT_BELOW
    ]
    if not kept:
        return
    rows = np.array([row for row, _, _ in kept], np.int64)
    table.head["told"][rows] = [move.told for _, move, _ in kept]
    table.head["version"][rows] = [move.version + 1 for _, move, _ in kept]
    table.head["told_at"][rows] = [[NEVER if at is None else at for at in move.told_at] for _, move, _ in kept]
    table.head["health_high"][rows] = [health // HALF if health > 0 else 0 for _, _, health in kept]
    table.head["health_low"][rows] = [health % HALF if health > 0 else health for _, _, health in kept]
    set_windows(table, rows)


def microseconds(at: datetime) -> int:
    """An instant as Postgres and the columns have it: microseconds since 2000."""
    return (at - _EPOCH) // _MICROSECOND


def instant(at: int) -> datetime:
    """The instant of a number of microseconds since 2000."""
    return _EPOCH + timedelta(microseconds=at)


def told_by_type(tellings: Sequence[Telling]) -> Mapping[str, int]:
    """How many accounts were told what."""
    return Counter(telling.type for telling in tellings)
