"""The screen: which accounts may have something to be told at new prices. It may name too many, never too few.

An account stays at what it was told while its health is inside a *window*: not below the threshold of the next worse
level, and not at or above the point at which it is better by 2 % than the threshold of its own
(``domain.margin.health.settled_level``). An account that is worse than told but within a cooldown waits at the level it
has *seen*; its window is that level's own band, and the end of the cooldown makes it a candidate by itself. Inside its
window nothing that the rule looks at can differ, so only accounts outside are decided, exactly.

**Proof that none is missed.** Write u = 2^-53, values in 1e-8 USD, C for weighted collateral over 10,000, D for debt,
t for a threshold over 10,000. Let Cr, Dr be the same sums of *real* numbers, without rounding to 1e-8.

1. *Roundings of the rule.* Collateral values are floored and thresholds of assets are at most 1, debt values ceiled:
   Cr - c < C <= Cr and Dr <= D < Dr + d, with c and d the numbers of positions on each side.
2. *Floats.* An amount is computed as high * 1e16 + low: (1+u)^3 (1e16 is exact). A weight is one correctly rounded
   division of integers: (1+u). Then a product (1+u) and at most 31 additions of non-negative terms (1+u)^31. So each
   sum has a relative error of at most 36u/(1-36u) < 2^-47.8; no term is negative, so there is no cancellation. Products
   neither overflow nor get subnormal: amounts are integers from 1 to 1e32, weights between 1e-50 and 1e70 or zero.
3. *Worse.* C < tD implies Cr - c < t(Dr + d), so Cr < t Dr + (td + c). The screen asks Cf < below * Df + slack with
   below = t(1 + GUARD) and slack = td + c + 1. Six more roundings (below, slack, product, sum) cost less than 2^-49.
   Relative errors add up to less than 2^-46 of t Dr and of slack; GUARD = 2^-40 covers the first and the added 1 the
   second, as slack is below 2^14. So whatever the rule calls worse is a candidate.
4. *Better.* C >= hD implies Cr >= h Dr, as C <= Cr and D >= Dr. The screen asks Cf >= above * Df with
   above = h(1 - GUARD): by the same bound it is a candidate.
5. Without debt the rule says HEALTHY, whatever the collateral: Df is exactly 0, so ``above`` makes a candidate of
   everybody who was told otherwise, and ``below`` with a slack of -1 of nobody.

Signed sums do not occur. Where one did, its bound would have to be absolute: the sum of the terms' magnitudes times
2^-48.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from activities.book.columns import BORROW_KIND, KINDS, Columns, Floats, Ints, Key, Table, code_of
from domain.fixed import VALUE_UNITS
from domain.margin.health import REARM_PERCENT
from domain.margin.model import LIQUIDATION_BPS, AssetTerms
from domain.money import BASIS_POINTS

GUARD: Final = 2.0**-40
#: Rows per step: what a step reads and writes stays in the processor's cache.
CHUNK: Final = 16_384


class Weights(NamedTuple):
    """What a minor unit counts for by code, in 1e-8 USD: ``counted`` collateral times its threshold, or debt. An asset
    that cannot be valued is not a number, so that no comparison names its accounts."""

    counted: Floats
    market: Mapping[str, AssetTerms]


@dataclass(slots=True)
class Candidates:
    """Rows of one table, in their order."""

    key: Key
    rows: Ints


def weights(symbols: Sequence[str], market: Mapping[str, AssetTerms]) -> Weights:
    """The weights of every code at the prices and parameters of ``market``."""
    counted = np.zeros(1 + len(symbols) * len(KINDS))
    for asset, symbol in enumerate(symbols):
        terms = market.get(symbol)
        for kind in range(len(KINDS)):
            counted[code_of(asset, kind)] = _weight(terms, kind)
    return Weights(counted, market)


def _weight(terms: AssetTerms | None, kind: int) -> float:
    if terms is None:
        return float("nan")
    unit = VALUE_UNITS[terms.scale]
    if kind == BORROW_KIND:
        return terms.mid / unit
    return terms.mid * terms.parameters.liquidation_threshold_bps / (unit * BASIS_POINTS)


def screen(columns: Columns, at: Weights) -> list[Candidates]:
    """The rows whose health may be outside their window."""
    found = [Candidates(key, _screened(table, at.counted)) for key, table in columns.tables.items()]
    return [each for each in found if len(each.rows)]


def _screened(table: Table, counted: Floats) -> Ints:
    collateral = table.key[0]
    if not table.key[1]:
        # Nothing is owed: only who was told of a danger is told that it is over.
        return np.flatnonzero(table.above[: table.used] < np.inf)
    found: list[Ints] = []
    owns, owes, scratch = (np.empty(CHUNK) for _ in range(3))
    outsides, betters = (np.empty(CHUNK, np.bool_) for _ in range(2))
    with np.errstate(invalid="ignore"):
        for begin in range(0, table.used, CHUNK):
            end = min(begin + CHUNK, table.used)
            part, size = slice(begin, end), end - begin
            own, owe, term = owns[:size], owes[:size], scratch[:size]
            _sum(table, range(collateral), part, counted, own, term)
            _sum(table, range(collateral, table.places), part, counted, owe, term)
            np.multiply(table.below[part], owe, out=term)
            np.add(term, table.slack[part], out=term)
            outside, better = outsides[:size], betters[:size]
            np.less(own, term, out=outside)
            np.multiply(table.above[part], owe, out=term)
            np.greater_equal(own, term, out=better)
            np.logical_or(outside, better, out=outside)
            if outside.any():
                found.append(np.flatnonzero(outside) + begin)
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _sum(table: Table, places: range, part: slice, counted: Floats, out: Floats, term: Floats) -> None:
    """The places' values of some rows, added up."""
    if not places:
        out.fill(0.0)
    codes = table.key[2:]
    for number, place in enumerate(places):
        into = term if number else out
        if codes:
            np.multiply(table.amounts[place, part], counted[codes[place]], out=into)
        else:
            # Codes are within bounds by construction; to clip them spares the copy that a check would need.
            np.take(counted, table.codes[place, part], out=into, mode="clip")
            np.multiply(into, table.amounts[place, part], out=into)
        if number:
            np.add(out, term, out=out)


def unvalued(columns: Columns, at: Weights) -> int:
    """How many accounts hold something that cannot be valued: ``screen`` names none of them."""
    lost = np.isnan(at.counted)
    count = sum(
        any(position.asset not in at.market for position in whole.positions) for whole in columns.always.values()
    )
    for key, table in columns.tables.items() if lost.any() else ():
        if codes := key[2:]:
            count += (table.used - len(table.free)) * bool(lost[list(codes)].any())
        else:
            count += int(np.count_nonzero(lost[table.codes[:, : table.used]].any(axis=0)))
    return count


def set_windows(table: Table, rows: Ints, seen: Ints | None = None) -> None:
    """Set the windows of rows, from what each was told; with ``seen``, of rows that wait at the levels they have seen.

    A row's thresholds are looked up by level: 1 to 3 are its own, 4 is liquidation's; behind it nothing is worse.
    """
    head = table.head[rows]
    told = head["told"]
    thresholds = np.zeros((6, len(rows)))
    thresholds[1:4] = head["levels"].T
    thresholds[4] = LIQUIDATION_BPS
    thresholds /= BASIS_POINTS
    at = told if seen is None else seen
    column = np.arange(len(rows))
    worse, own = thresholds[at + 1, column], thresholds[at, column]
    borrows, owns = _counts(table, rows)
    indebted = borrows > 0
    rearm = own * (REARM_PERCENT / 100) if seen is None else own
    table.below[rows] = np.where(indebted, worse * (1 + GUARD), 0.0)
    table.slack[rows] = np.where(indebted & (worse > 0), worse * borrows + owns + 1, -1.0)
    table.above[rows] = np.where(at > 0, rearm * (1 - GUARD), np.inf)


def _counts(table: Table, rows: Ints) -> tuple[Ints, Ints]:
    """How many positions each row has, of debt and of collateral."""
    filled = table.codes[:, rows] > 0
    collateral = table.key[0]
    return filled[collateral:].sum(axis=0), filled[:collateral].sum(axis=0)
