"""What may be tried: plans are drawn without a look at the state, drafts make asks of them that more or less fit it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from tests.model.asks import Ask, Command, Transfer
from tests.model.books import Flow, World
from tests.model.reference import ASSETS, LARGEST, Agreement, Deal, Order, Part

USERS = ("alice", "bob", "judy", "zoe")
KINDS = ("fund", "approve", "release", "refund", "dispute", "resolve", "cancel", "pass_deadline")
HOUR, DAY = timedelta(hours=1), timedelta(days=1)

Terms = Callable[[datetime], Agreement]


@dataclass(frozen=True)
class Money:
    """A movement from or to the outside; ``size`` is read against what there is."""

    kind: str
    user: str
    asset: str
    size: str
    which: int
    reference: str | None
    counts: str


@dataclass(frozen=True)
class Errand:
    """An order about some deal; ``who`` is a role in it or a user, ``size`` is read against what is left."""

    deal: int
    kind: str
    who: str | None
    parts: tuple[int, ...] | None
    size: str


Plan = Money | Errand

SIZES = ("all", "all", "one", "half", "rest", "more", "zero", "minus")
DEALS = st.integers(0, 5)
MONEY = st.builds(
    Money,
    kind=st.sampled_from(["deposit", "deposit", "withdrawal", "reversal"]),
    user=st.sampled_from([*USERS, *USERS, *USERS, "system:fees"]),
    asset=st.sampled_from([*ASSETS, *ASSETS, *ASSETS, "DOGE"]),
    size=st.sampled_from(["one", "some", "some", "all", "more", "huge", "brim", "over", "zero"]),
    which=st.integers(0, 9),
    reference=st.sampled_from([None, None, None, "wire-1", "wire-2"]),
    counts=st.sampled_from(["now", "now", "now", "now", "now", "past", "future"]),
)
ORDERS = st.builds(
    Errand,
    deal=DEALS,
    kind=st.sampled_from(KINDS),
    who=st.sampled_from(["buyer", "buyer", "seller", "seller", "arbiter", "zoe", None]),
    parts=st.none() | st.none() | st.lists(st.integers(1, 4), max_size=3).map(tuple),
    size=st.sampled_from(SIZES),
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


@dataclass
class Draft:
    """Makes an ask of a plan, as the world stands. ``key`` is the ask's own name."""

    world: World
    at: datetime
    key: str

    def of(self, plan: Plan) -> Ask | None:
        return self._transfer(plan) if isinstance(plan, Money) else self._errand(plan)

    def deal(self, which: int) -> tuple[str, Deal] | None:
        deals = list(self.world.deals.items())
        return deals[which % len(deals)] if deals else None

    def due(self, which: int) -> datetime | None:
        found = self.deal(which)
        return None if found is None else found[1].next_deadline

    def last_moment(self, which: int, choice: int) -> Ask | None:
        """What the next deadline cuts off, or the deadline itself; where there is none, its timer all the same."""
        found = self.deal(which)
        if found is None:
            return None
        key, deal = found
        dated = [(due, part) for part in deal.parts if (due := deal.due(part)) is not None]
        soonest = min(dated, key=lambda pair: pair[0])[1] if dated else None
        ways = [(None, Order("pass_deadline"))] if soonest is None else _at_deadline(deal, soonest)
        role, order = ways[choice % len(ways)]
        return Command(key, self.key, None if role is None else deal.user(role), order, self.at)

    def provision(self, which: int, short: int) -> Ask | None:
        found = self.deal(which)
        if found is None:
            return None
        agreed, parts = found[1].agreed, found[1].parts
        needed = sum(p.price + p.price * agreed.buyer_fee // 10_000 for p in parts if p.state == "pending") - short
        missing = needed - self.world.available()[agreed.buyer, agreed.asset]
        return self._deposit(agreed.buyer, agreed.asset, missing) if missing > 0 else None

    def _deposit(self, user: str, asset: str, amount: int) -> Ask:
        return Transfer(Flow(self.key, "deposit", user, asset, amount), self.at)

    def _transfer(self, plan: Money) -> Ask | None:
        available = self.world.available()[plan.user, plan.asset]
        room = LARGEST + self.world.outside(plan.asset)
        amount = {
            "one": 1,
            "some": 10**6,
            "all": available,
            "more": available + 1,
            "huge": 2**255,
            "brim": room,
            "over": room + 1,
            "zero": 0,
        }[plan.size]
        counts_from = {"now": None, "past": self.at - DAY, "future": self.at + DAY}[plan.counts]
        if plan.kind != "reversal":
            flow = Flow(self.key, plan.kind, plan.user, plan.asset, amount, None, plan.reference, counts_from)
            return Transfer(flow, self.at)
        booked = list(self.world.booked)
        taken_back = booked[-1 - plan.which % len(booked)] if booked else self.key
        flow = Flow(self.key, "reversal", takes_back=taken_back, reference=plan.reference, counts_from=counts_from)
        return Transfer(flow, self.at)

    def _errand(self, plan: Errand) -> Ask | None:
        found = self.deal(plan.deal)
        if found is None:
            return None
        key, deal = found
        named = [part for part in deal.parts if plan.parts is None or part.number in plan.parts]
        left = max((part.left for part in named), default=0)
        order = Order(plan.kind, plan.parts)
        if plan.kind in ("release", "refund"):
            order = Order(plan.kind, plan.parts, _amount(plan.size, left))
        elif plan.kind == "resolve":
            order = Order(plan.kind, (plan.parts or ())[:1] or None, None, *_split(plan.size, left))
        elif plan.kind == "dispute" and plan.size == "zero":
            order = Order(plan.kind, plan.parts, reason=" ")
        user = deal.user(plan.who) if plan.who in ("buyer", "seller", "arbiter") else plan.who
        return Command(key, self.key, user or plan.who, order, self.at)

    def next(self, which: int, choice: int, *, named: bool) -> Ask | None:
        """Something that somebody may do about a part that is open."""
        found = self.deal(which)
        if found is None or not (parts := [part for part in found[1].parts if part.closed_at is None]):
            return None
        key, deal = found
        part = parts[choice % len(parts)]
        who, order = _options(deal, part)[choice % len(_options(deal, part))]
        if named and order.parts is None:
            order = Order(order.kind, (part.number,), order.amount, order.to_seller, order.to_buyer)
        return Command(key, self.key, deal.user(who), order, self.at)


def _options(deal: Deal, part: Part) -> list[tuple[str, Order]]:
    """Whose turn it may be, and for what; and a unit more than that."""
    this, some = (part.number,), (part.left + 1) // 2
    too_much = [("buyer", Order("release", this, part.left + 1)), ("seller", Order("refund", this, part.left + 1))]
    missing = [role for role in deal.agreed.approvers if role not in part.yes]
    match part.state:
        case "pending":
            fund = ("buyer", Order("fund"))
            early = [(role, Order("approve", this)) for role in missing[:1]]
            return [fund, fund, *early, fund, ("seller", Order("cancel"))]
        case "funded":
            yes = [(role, Order("approve")) for role in missing]
            return [*yes, *yes, ("seller", Order("refund", this, some)), ("buyer", Order("dispute", this))]
        case "approved":
            payer = ("buyer", Order("release", this, some))
            back, stop = ("seller", Order("refund", this, some)), ("seller", Order("dispute", this))
            return [payer, ("buyer", Order("release")), back, *too_much, stop, payer, ("seller", Order("release"))]
        case _ if deal.agreed.arbiter is not None:
            splits = [(0, part.left), (part.left, 0), (some, part.left - some), (part.left, 1), (some, 0)]
            resolved = [("arbiter", Order("resolve", this, None, *split)) for split in splits]
            return [*resolved, ("buyer", Order("release", this, some)), *too_much]
        case _:
            return [("buyer", Order("release", this, some)), *too_much, ("seller", Order("refund", this))]


def _at_deadline(deal: Deal, part: Part) -> list[tuple[str | None, Order]]:
    """What the last moment decides about."""
    this = (part.number,)
    urgent: list[tuple[str | None, Order]] = [(role, Order("approve", this)) for role in deal.agreed.approvers]
    if part.state == "pending":
        urgent += [("buyer", Order("fund", this))]
    elif part.state == "funded":
        urgent += [("seller", Order("dispute", this))]
    else:
        urgent = [("seller", Order("release", this)), ("buyer", Order("dispute", this))]
    return [*urgent, (None, Order("pass_deadline"))]


def _amount(size: str, left: int) -> int | None:
    return {"all": None, "one": 1, "half": left // 2, "rest": left, "more": left + 1, "zero": 0, "minus": -1}[size]


def _split(size: str, left: int) -> tuple[int, int]:
    half = left // 2
    return {
        "all": (left, 0),
        "one": (1, left - 1),
        "half": (half, left - half),
        "rest": (0, left),
        "more": (left, 1),
        "zero": (0, 0),
        "minus": (-1, left + 1),
    }[size]
