"""What may be tried, drawn without a look at how things stand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from tests.model.pending import LONGEST
from tests.model.reference import ASSETS, LARGEST, Agreement

USERS = ("alice", "bob", "judy", "zoe")
KINDS = ("fund", "approve", "release", "refund", "dispute", "resolve", "cancel", "pass_deadline")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
TICK = timedelta(microseconds=1)

Terms = Callable[[datetime], Agreement]


@dataclass(frozen=True)
class Money:
    """A movement of money; ``size`` is read against what there is."""

    kind: str
    user: str
    other: str
    asset: str
    size: str
    which: int
    reference: str | None
    counts: str


@dataclass(frozen=True)
class Linked:
    """A chain of transfers."""

    links: tuple[Money, ...]


@dataclass(frozen=True)
class Ahead:
    """A transfer in two phases is begun, to wait for so long."""

    money: Money
    waits: timedelta | None


@dataclass(frozen=True)
class Settle:
    """A transfer in two phases is ended."""

    which: int
    verb: str
    size: str


@dataclass(frozen=True)
class Errand:
    """An order about some deal; ``who`` is a role in it or a user, ``size`` is read against what is left."""

    deal: int
    kind: str
    who: str | None
    parts: tuple[int, ...] | None
    size: str
    spread: bool = False


Plan = Money | Linked | Ahead | Settle | Errand

SIZES = ("all", "all", "one", "half", "rest", "more", "zero", "minus")
DEALS = st.integers(0, 5)


def _money(kinds: list[str]) -> st.SearchStrategy[Money]:
    return st.builds(
        Money,
        kind=st.sampled_from(kinds),
        user=st.sampled_from([*USERS, *USERS, *USERS, "system:fees"]),
        other=st.sampled_from(USERS),
        asset=st.sampled_from([*ASSETS, *ASSETS, *ASSETS, "DOGE"]),
        size=st.sampled_from(
            ["one", "some", "all", "half", "more", "huge", "brim", "over", "zero", *["some", "half"] * 4]
        ),
        which=st.integers(0, 9),
        reference=st.sampled_from([None, None, None, "wire-1", "wire-2"]),
        counts=st.sampled_from(["now", "now", "now", "now", "now", "past", "future"]),
    )


_moved = _money(["transfer"])
BOUNDED = _money(["deposit", "withdrawal", "transfer"])
SETTLE = st.builds(Settle, st.integers(0, 5), st.sampled_from(["post", "void", "expire"]), st.sampled_from(SIZES))
MONEY = st.one_of(
    _money(["deposit", "withdrawal", "withdrawal", "reversal", "transfer"]),
    _moved,
    st.builds(Linked, st.lists(_moved, min_size=1, max_size=3).map(tuple)),
    st.builds(Ahead, _moved, st.sampled_from([None, None, HOUR, 2 * DAY, timedelta(), LONGEST, LONGEST + TICK])),
    SETTLE,
)
ORDERS = st.builds(
    Errand,
    deal=DEALS,
    kind=st.sampled_from(KINDS),
    who=st.sampled_from(["buyer", "buyer", "seller", "seller", "arbiter", "zoe", None]),
    parts=st.none() | st.none() | st.lists(st.integers(1, 4), max_size=3).map(tuple),
    size=st.sampled_from(SIZES),
    spread=st.booleans(),
)
STOPS = st.sampled_from(
    [*(("account", user) for user in USERS), *(("asset", asset) for asset in ASSETS), ("tenant", "")]
)
BOUNDS = st.tuples(
    st.sampled_from(USERS),
    st.sampled_from(ASSETS),
    st.sampled_from([None, "one", "all", "half"]),
    st.sampled_from([None, "one", "all", "half"]),
    st.sampled_from([None, "one", "all", "half", "zero"]),
)

_prices = st.one_of(
    st.lists(st.integers(1, 12), min_size=1, max_size=4),
    st.lists(st.integers(1, 10**9) | st.sampled_from([9_999, 10_000, 10_001]), min_size=1, max_size=4),
    st.lists(st.sampled_from([1, 2**63, 2**64 + 1, 10**30, 2**253 + 1]), min_size=1, max_size=3),
    st.sampled_from([(2**255,), (2**255 - 1, 3), (LARGEST // 2,), (LARGEST,)]),
)
_fees = st.sampled_from([0, 0, 1, 250, 3_333, 5_000, 9_999, 10_000]) | st.integers(0, 10_000)


@st.composite
def _agreements(draw: st.DrawFn, mistakes: st.SearchStrategy[dict[str, Any]]) -> Terms:
    buyer, seller, arbiter, *_ = draw(st.permutations(USERS))
    arbited = draw(st.booleans())
    roles = ["buyer", "seller", *(["arbiter"] if arbited else [])]
    approvers = draw(st.lists(st.sampled_from(roles), min_size=1, max_size=3, unique=True))
    fund_in = draw(st.sampled_from([None, HOUR, 2 * DAY]))
    expires_in = draw(st.sampled_from([None, 2 * HOUR, 3 * DAY, 9 * DAY]))
    fields: dict[str, Any] = {
        "asset": draw(st.sampled_from(ASSETS)),
        "prices": tuple(draw(_prices)),
        "buyer": buyer,
        "seller": seller,
        "arbiter": arbiter if arbited else None,
        "approvers": tuple(approvers),
        "required": draw(st.integers(1, len(approvers))),
        "buyer_fee": draw(_fees),
        "seller_fee": draw(_fees),
        "inspection": draw(st.sampled_from([None, 1, 3_600, 2 * 86_400])),
        "reference": draw(st.sampled_from([None, None, None, "deal-1"])),
    }
    fields |= draw(mistakes)

    def agreed(now: datetime) -> Agreement:
        begins = now - fields.get("ago", timedelta())
        fund_by = None if fund_in is None else begins + fund_in
        expires = None if expires_in is None else begins + expires_in
        named = {name: value for name, value in fields.items() if name != "ago"}
        return Agreement(**named, fund_by=fund_by, expires=expires)

    return agreed


#: Agreements that should be refused, and deadlines that have passed when they are proposed.
_MISTAKES: list[dict[str, Any]] = [
    {"asset": "DOGE"},
    {"seller": "alice", "buyer": "alice"},
    {"approvers": ("buyer", "buyer")},
    {"approvers": ("arbiter",), "arbiter": None},
    {"required": 4},
    {"seller_fee": 10_001},
    {"prices": (1, 0)},
    {"prices": (LARGEST, 1)},
    {"prices": (LARGEST,), "buyer_fee": 1},
    {"inspection": 0},
    {"ago": HOUR},
    {"ago": 3 * DAY},
]
SOUND_TERMS = _agreements(st.just({}))
ANY_TERMS = _agreements(st.sampled_from([*_MISTAKES, *([{}] * len(_MISTAKES))]))
