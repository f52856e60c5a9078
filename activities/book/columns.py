"""A part of the book in memory: accounts as rows of columns, an amount twice, as a float to screen and exact to decide.

Rows of one table have the same number of places for collateral and for debt, so that a table is screened by a few long
vector operations; where many accounts hold the same assets, they have a table in which a place is one asset's. An
account with more positions than the widest table has, or with an amount that two halves do not hold, is kept whole in
``Columns.always`` and decided exactly at every tick; nothing is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from domain.margin.model import Levels, Origin, Position, Side

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

#: An amount is ``high * HALF + low``, both halves below ``HALF``, where it is below ``EXACT_BELOW``.
HALF: Final = 10**16
EXACT_BELOW: Final = 10**32

#: How many places for collateral or debt a table may have.
WIDTHS: Final = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
WIDEST: Final = WIDTHS[-1]

#: Of what kind a position is, by the last part of its code.
KINDS: Final[tuple[tuple[Side, Origin], ...]] = (
    (Side.COLLATERAL, Origin.DECLARED),
    (Side.COLLATERAL, Origin.ESCROW),
    (Side.BORROW, Origin.DECLARED),
)
BORROW_KIND: Final = 2
#: The code of a place without a position.
NOTHING: Final = 0
#: So many accounts that hold the same get a table of their own; what wider ones hold is not compared.
FLOOR: Final = 4_096
COMPARED: Final = 8

#: No instant: what was never told. In microseconds since 2000, as Postgres has them.
NEVER: Final = -(2**63)
#: A health that is not there: no snapshot yet, or no debt.
NO_HEALTH: Final = -1

#: What is known of an account beside its positions. ``user`` and ``tenant`` are places in ``Columns``' lists.
HEAD: Final = np.dtype(
    [
        ("account", np.int64),
        ("tenant", np.int64),
        ("user", np.int64),
        ("levels", np.int64, (3,)),
        ("told", np.int64),
        ("told_at", np.int64, (4,)),
        ("version", np.int64),
        ("health_high", np.int64),
        ("health_low", np.int64),
    ]
)

#: Places for collateral, places for debt; then, where all rows of a table hold the same, the code of each place.
Key: TypeAlias = tuple[int, ...]
#: A row of a table of a ``Columns``.
Place: TypeAlias = tuple[Key, int]


class Fetched(NamedTuple):
    """Accounts as read, sorted by number, with their positions sorted by account (``owner`` is an account's index).

    ``odd`` are indices of accounts that the columns cannot hold; ``users`` are their users in the accounts' order.
    """

    heads: NDArray[Any]
    users: Sequence[str] | Users
    owner: Ints
    codes: Ints
    high: Ints
    low: Ints
    odd: Ints


@dataclass(slots=True)
class Whole:
    """An account that is not in the columns."""

    account: int
    tenant: int
    user: str
    levels: Levels
    told: int
    told_at: list[int]
    version: int
    health: int | None
    positions: tuple[Position, ...]


class Users:
    """User ids as one text with a line each: a million of them in a few megabytes."""

    def __init__(self, lines: bytes) -> None:
        self._lines = lines
        self._ends: Ints = np.flatnonzero(np.frombuffer(lines, np.uint8) == ord("\n"))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        begin = int(self._ends[index - 1]) + 1 if index else 0
        line = self._lines[begin : int(self._ends[index])].decode()
        # COPY escapes backslashes; ids have no control characters, which it would escape, too.
        return line.replace("\\\\", "\\") if "\\" in line else line


class Table:
    """Accounts with up to ``collateral`` and ``debt`` positions. Its hot columns are what the screen reads: ``codes``
    and ``amounts`` by place (collateral first), and per row the window in which nothing changes (see ``screen``)."""

    def __init__(self, key: Key, capacity: int = 64) -> None:
        self.key = key
        self.places = key[0] + key[1]
        self.used = 0
        self.free: list[int] = []
        self.head = np.zeros(capacity, HEAD)
        self.codes: Ints = np.zeros((self.places, capacity), np.int64)
        self.amounts: Floats = np.zeros((self.places, capacity), np.float64)
        self.high: Ints = np.zeros((self.places, capacity), np.int64)
        self.low: Ints = np.zeros((self.places, capacity), np.int64)
        self.below: Floats = np.zeros(capacity, np.float64)
        self.slack: Floats = np.full(capacity, -1.0)
        self.above: Floats = np.full(capacity, np.inf)

    def take(self, count: int) -> Ints:
        """Rows for ``count`` more accounts; free ones first."""
        reused = self.free[-count:] if count else []
        del self.free[len(self.free) - len(reused) :]
        fresh = count - len(reused)
        while self.used + fresh > len(self.head):
            self._grow(max(2 * len(self.head), self.used + fresh))
        rows = np.concatenate([np.array(reused, np.int64), np.arange(self.used, self.used + fresh, dtype=np.int64)])
        self.used += fresh
        return rows

    def release(self, row: int) -> None:
        """Let go of a row; the screen passes over it until it is taken again."""
        self.head[row] = np.zeros((), HEAD)
        for column in (self.codes, self.amounts, self.high, self.low):
            column[:, row] = 0
        self.below[row], self.slack[row], self.above[row] = 0.0, -1.0, np.inf
        self.free.append(row)

    def _grow(self, capacity: int) -> None:
        more = capacity - len(self.head)
        self.head = np.concatenate([self.head, np.zeros(more, HEAD)])
        self.codes = np.concatenate([self.codes, np.zeros((self.places, more), np.int64)], axis=1)
        self.amounts = np.concatenate([self.amounts, np.zeros((self.places, more), np.float64)], axis=1)
        self.high = np.concatenate([self.high, np.zeros((self.places, more), np.int64)], axis=1)
        self.low = np.concatenate([self.low, np.zeros((self.places, more), np.int64)], axis=1)
        self.below = np.concatenate([self.below, np.zeros(more)])
        self.slack = np.concatenate([self.slack, np.full(more, -1.0)])
        self.above = np.concatenate([self.above, np.full(more, np.inf)])

    @property
    def bytes_used(self) -> int:
        """What the columns take."""
        columns = (self.head, self.codes, self.amounts, self.high, self.low, self.below, self.slack, self.above)
        return sum(column.nbytes for column in columns)


class Columns:
    """Some shards of the book. Who changes it keeps ``where``, the tables and ``always`` in step by these methods."""

    def __init__(self) -> None:
        self.tables: dict[Key, Table] = {}
        self.always: dict[int, Whole] = {}
        self.tenants: list[UUID] = []
        self.symbols: list[str] = []
        self._numbers: dict[UUID, int] = {}
        self._sorted: Ints = np.empty(0, np.int64)
        self._sorted_places: Ints = np.empty(0, np.int64)
        self._keys: list[Key] = []
        self._moved: dict[int, Place | None] = {}
        self._users: Users | None = None
        self._more_users: list[str] = []

    @property
    def accounts(self) -> int:
        """How many accounts it has."""
        return len(self.always) + sum(table.used - len(table.free) for table in self.tables.values())

    @property
    def bytes_used(self) -> int:
        """What its columns take."""
        index = self._sorted.nbytes + self._sorted_places.nbytes
        return index + sum(table.bytes_used for table in self.tables.values())

    def tenant_number(self, tenant: UUID) -> int:
        """The place of a tenant in ``tenants``."""
        found = self._numbers.get(tenant)
        if found is None:
            found = self._numbers[tenant] = len(self.tenants)
            self.tenants.append(tenant)
        return found

    def know(self, symbols: Iterable[str]) -> None:
        """Give codes to assets that have none."""
        self.symbols += sorted(set(symbols) - set(self.symbols))

    def code(self, position: Position) -> int:
        """The code of a position's asset, side and origin."""
        return code_of(self.symbols.index(position.asset), KINDS.index((position.side, position.origin)))

    def user(self, number: int) -> str:
        """The user id at a place."""
        known = len(self._users) if self._users is not None else 0
        return self._users[number] if self._users is not None and number < known else self._more_users[number - known]

    def find(self, account: int) -> Place | None:
        """Where an account is in the tables."""
        if account in self._moved:
            return self._moved[account]
        index = int(np.searchsorted(self._sorted, account))
        if index == len(self._sorted) or self._sorted[index] != account:
            return None
        packed = int(self._sorted_places[index])
        return self._keys[packed >> 48], packed & (1 << 48) - 1

    def version(self, account: int) -> int:
        """The version of an account that is here; 0 of one that is not."""
        if account in self.always:
            return self.always[account].version
        place = self.find(account)
        return 0 if place is None else int(self.tables[place[0]].head["version"][place[1]])

    def put(self, fetched: Fetched, wholes: Mapping[int, Whole]) -> list[tuple[Key, Ints]]:
        """Take accounts in, in the place of what was known of them. ``wholes`` has the odd ones by number.

        Answers the rows that were written, by table; their windows are still to be set.
        """
        first = not self.tables and not self.always
        heads = fetched.heads
        for account in () if first else heads["account"].tolist():
            self._drop(account)
        if first and isinstance(fetched.users, Users):
            self._users = fetched.users
            heads["user"] = np.arange(len(heads))
        else:
            begin = (len(self._users) if self._users is not None else 0) + len(self._more_users)
            self._more_users += [fetched.users[index] for index in range(len(heads))]
            heads["user"] = np.arange(begin, begin + len(heads))
        self.always.update(wholes)
        written, places = self._place(fetched)
        if first:
            held = places >= 0
            self._sorted, self._sorted_places = heads["account"][held].copy(), places[held]
        else:
            for account, packed in zip(heads["account"].tolist(), places.tolist(), strict=True):
                self._moved[account] = (self._keys[packed >> 48], packed & (1 << 48) - 1) if packed >= 0 else None
        return written

    def _drop(self, account: int) -> None:
        self.always.pop(account, None)
        place = self.find(account)
        if place is not None:
            self.tables[place[0]].release(place[1])

    def _place(self, fetched: Fetched) -> tuple[list[tuple[Key, Ints]], Ints]:
        """Spread accounts over the tables; the rows by table, and of each account where it is (-1: nowhere)."""
        count = len(fetched.heads)
        borrows = is_borrow(fetched.codes)
        debts = np.bincount(fetched.owner[borrows], minlength=count)
        owns = np.bincount(fetched.owner[~borrows], minlength=count)
        widths = np.array(WIDTHS)
        kind = np.searchsorted(widths, owns) * 64 + np.searchsorted(widths, debts)
        kind[fetched.odd] = -1
        slot = _ranks(fetched.owner, borrows)
        places = np.full(count, -1, np.int64)
        written: list[tuple[Key, Ints]] = []
        row_of = np.zeros(count, np.int64)
        for one in np.unique(kind).tolist():
            if one < 0:
                continue
            key = (WIDTHS[one // 64], WIDTHS[one % 64])
            mine = np.flatnonzero(kind == one)
            row_of[mine] = np.arange(len(mine))
            theirs = np.flatnonzero((kind == one)[fetched.owner]) if len(mine) < count else np.arange(len(slot))
            at = slot[theirs] + np.where(borrows[theirs], key[0], 0), row_of[fetched.owner[theirs]]
            shape = (key[0] + key[1], len(mine))
            codes, high, low = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
            codes[at], high[at], low[at] = fetched.codes[theirs], fetched.high[theirs], fetched.low[theirs]
            for full, some in self._alike(key, codes):
                table = self._table(full, len(some))
                rows = table.take(len(some))
                table.head[rows] = fetched.heads[mine[some]]
                places[mine[some]] = (self._keys.index(full) << 48) + rows
                table.codes[:, rows], table.high[:, rows] = codes[:, some], high[:, some]
                table.low[:, rows] = low[:, some]
                table.amounts[:, rows] = high[:, some] * float(HALF) + low[:, some]
                written.append((full, rows))
        return written, places

    def _alike(self, key: Key, codes: Ints) -> Iterator[tuple[Key, Ints]]:
        """Divide accounts with the same places by what they hold: tables of their own for many, one for all others."""
        places, count = codes.shape
        base = int(codes.max(initial=0)) + 1
        if not places or places > COMPARED or base**places >= 2**62:
            yield key, np.arange(count)
            return
        packed = np.zeros(count, np.int64)
        for place in codes:
            packed = packed * base + place
        others = np.ones(count, np.bool_)
        found, firsts, counts = np.unique(packed, return_index=True, return_counts=True)
        for one, first, many in zip(found.tolist(), firsts.tolist(), counts.tolist(), strict=True):
            full = (*key, *codes[:, first].tolist())
            if many >= FLOOR or full in self.tables:
                same = packed == one
                others &= ~same
                yield full, np.flatnonzero(same)
        if others.any():
            yield key, np.flatnonzero(others)

    def _table(self, key: Key, wanted: int) -> Table:
        if key not in self.tables:
            self.tables[key] = Table(key, max(64, wanted))
            self._keys.append(key)
        return self.tables[key]


def code_of(asset: int, kind: int) -> int:
    """The code of a kind of position in the asset at a place of ``Columns.symbols``."""
    return 1 + asset * len(KINDS) + kind


def is_borrow(codes: Ints) -> NDArray[np.bool_]:
    """Which codes are of debt."""
    borrows: NDArray[np.bool_] = (codes != NOTHING) & ((codes - 1) % len(KINDS) == BORROW_KIND)
    return borrows


def _ranks(owner: Ints, borrows: NDArray[np.bool_]) -> Ints:
    """Of each position, how many of its account's on the same side come before it; ``owner`` is sorted."""
    ranks = np.zeros(len(owner), np.int64)
    for side in (borrows, ~borrows):
        mine = owner[side]
        if len(mine):
            starts = np.flatnonzero(np.diff(mine, prepend=-1))
            ranks[side] = np.arange(len(mine)) - np.repeat(starts, np.diff(starts, append=len(mine)))
    return ranks
