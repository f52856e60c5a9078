"""From what Postgres sends to columns: binary rows of fixed width, read by numpy without a loop over rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from activities.book.columns import (
    HEAD,
    NEVER,
    WIDEST,
    Columns,
    Fetched,
    Ints,
    Users,
    Whole,
    is_borrow,
)
from db.margin.following import DIGIT_GROUPS, NUMBER_BYTES, Binary, OddAccount, OddPosition
from domain.margin.model import Levels, Origin, Position, Side

#: Before the first row: eleven bytes of signature, flags, and the length of an extension that is never there.
_HEADER_BYTES: Final = 19
_TRAILER_BYTES: Final = 2

_NUMBER: Final = np.dtype(
    [("groups", ">i2"), ("weight", ">i2"), ("sign", ">i2"), ("scale", ">i2"), ("digits", ">i2", (DIGIT_GROUPS,))]
)
assert _NUMBER.itemsize == NUMBER_BYTES
#: The greatest weight that two halves hold.
_WEIGHT_MAX: Final = 7
_HALF_GROUPS: Final = 4
_POSITIVE: Final = 0


def _row(*fields: tuple[str, Any]) -> np.dtype[Any]:
    """A row of binary COPY: how many fields, then each one's length and content."""
    spread: list[tuple[str, Any]] = [("fields", ">i2")]
    for name, kind in fields:
        spread += [(f"{name}_length", ">i4"), (name, kind)]
    return np.dtype(spread)


_HEAD_ROW: Final = _row(
    ("account", ">i8"),
    ("tenant", "V16"),
    *((name, ">i4") for name in ("warning", "call", "imminent")),
    ("told", ">i2"),
    *((f"told_at_{level}", ">i8") for level in range(1, 5)),
    ("version", ">i8"),
    ("health", _NUMBER),
)
_POSITION_ROW: Final = _row(("account", ">i8"), ("code", ">i2"), ("amount", _NUMBER))
_CHANGE_ROW: Final = _row(("account", ">i8"), ("version", ">i8"))


def _rows(content: bytes, row: np.dtype[Any]) -> NDArray[Any]:
    count, rest = divmod(len(content) - _HEADER_BYTES - _TRAILER_BYTES, row.itemsize)
    if rest:
        raise ValueError("a field of a fixed width is null or of another width")
    return np.frombuffer(content, row, count, _HEADER_BYTES)


def changes(content: bytes) -> tuple[Ints, Ints]:
    """Account numbers and versions."""
    rows = _rows(content, _CHANGE_ROW)
    return rows["account"].astype(np.int64), rows["version"].astype(np.int64)


def fetched(content: Binary, columns: Columns) -> Fetched:
    """Accounts with their positions, in the form that ``columns`` takes in."""
    rows = _rows(content.heads, _HEAD_ROW)
    heads = np.zeros(len(rows), HEAD)
    heads["account"], heads["told"], heads["version"] = rows["account"], rows["told"], rows["version"]
    heads["levels"] = np.stack([rows["warning"], rows["call"], rows["imminent"]], axis=1)
    heads["told_at"] = np.stack([rows[f"told_at_{level}"] for level in range(1, 5)], axis=1)
    heads["tenant"] = _tenants(rows["tenant"], columns)
    heads["health_high"], heads["health_low"], odd_health = _halves(rows["health"])
    owner, codes, high, low, odd_amount = _positions(content.positions, heads["account"])
    odd = np.zeros(len(heads), np.bool_)
    odd[odd_health] = True
    odd[owner[odd_amount]] = True
    borrows = is_borrow(codes)
    for side in (borrows, ~borrows):
        odd |= np.bincount(owner[side], minlength=len(heads)) > WIDEST
    return Fetched(heads, Users(content.users), owner, codes, high, low, np.flatnonzero(odd))


def wholes(accounts: Sequence[OddAccount], positions: Sequence[OddPosition], columns: Columns) -> Mapping[int, Whole]:
    """Accounts that the columns do not hold, by number."""
    theirs: dict[int, list[Position]] = {each.account: [] for each in accounts}
    for account, side, asset, origin, amount_minor in positions:
        theirs[account].append(Position(Side(side), asset, amount_minor, Origin(origin)))
    return {
        each.account: Whole(
            account=each.account,
            tenant=columns.tenant_number(each.tenant),
            user=each.user,
            levels=Levels(*each.levels),
            told=each.told,
            told_at=[NEVER if one is None else one for one in each.told_at],
            version=each.version,
            health=each.health,
            positions=tuple(theirs[each.account]),
        )
        for each in accounts
    }


def _tenants(content: NDArray[Any], columns: Columns) -> Ints:
    """Each row's tenant by its number; the rows of one tenant mostly stand together."""
    words = np.frombuffer(content.tobytes(), ">u8").reshape(-1, 2)
    if not len(words):
        return np.empty(0, np.int64)
    starts = np.flatnonzero(np.any(words[1:] != words[:-1], axis=1)) + 1
    starts = np.concatenate([[0], starts])
    numbers = [columns.tenant_number(UUID(bytes=words[start].tobytes())) for start in starts.tolist()]
    return np.repeat(np.array(numbers, np.int64), np.diff(starts, append=len(words)))


def _positions(content: bytes, accounts: Ints) -> tuple[Ints, Ints, Ints, Ints, NDArray[np.bool_]]:
    """Positions sorted by the index of their account in ``accounts``, which is sorted."""
    rows = _rows(content, _POSITION_ROW)
    owner = np.searchsorted(accounts, rows["account"].astype(np.int64))
    codes = rows["code"].astype(np.int64)
    high, low, odd = _halves(rows["amount"])
    if np.any(owner[1:] < owner[:-1]):
        order = np.argsort(owner, kind="stable")
        owner, codes, high, low, odd = owner[order], codes[order], high[order], low[order], odd[order]
    return owner, codes, high, low, odd


def _halves(numbers: NDArray[Any]) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """Whole numbers as ``high * HALF + low``, and which of them are not so: they are too large. -1 is itself.

    A group of digits at place p counts for 10000^p; the first one's place is the weight, and zeros at the end are left
    out, whose groups COPY filled up with zeros.
    """
    high, low = np.zeros(len(numbers), np.int64), np.zeros(len(numbers), np.int64)
    weight, digits = numbers["weight"].astype(np.int64), numbers["digits"]
    for one in np.unique(weight).tolist():
        if not 0 <= one <= _WEIGHT_MAX:
            continue
        rows = np.flatnonzero(weight == one)
        for place in range(one, -1, -1):
            group = digits[rows, one - place].astype(np.int64)
            if place >= _HALF_GROUPS:
                high[rows] += group * 10 ** (4 * (place - _HALF_GROUPS))
            else:
                low[rows] += group * 10 ** (4 * place)
    negative = numbers["sign"] != _POSITIVE
    low[negative] = -low[negative]
    return high, low, weight > _WEIGHT_MAX
