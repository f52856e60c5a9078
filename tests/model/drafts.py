"""Asks made of plans: what fits how things stand, more or less."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from tests.model.asks import Ask, Command
from tests.model.books import Flow, World
from tests.model.controls import Bounds
from tests.model.moves import Bound, Chain, Resolve, SetApart, Transfer
from tests.model.pending import Pending
from tests.model.plans import DAY, USERS, Ahead, Errand, Linked, Money, Plan, Settle
from tests.model.reference import ASSETS, LARGEST, OUTSIDE, Deal, Order, Part


@dataclass
class Draft:
    """Makes an ask of a plan, as the world stands. ``key`` is the ask's own name."""

    world: World
    at: datetime
    key: str

    def of(self, plan: Plan) -> Ask | None:
        match plan:
            case Money():
                return Transfer(self._flow(plan, self.key), self.at)
            case Linked(links):
                flows = [
                    self._flow(self._following(links, n), f"{self.key}#{n}" if n else self.key)
                    for n in range(len(links))
                ]
                whole = [replace(flow, counts_from=None) for flow in flows]
                unnamed = [replace(flow, reference=None) for flow in whole[1:]]
                return Chain(self.key, (whole[0], *unnamed), self.at)
            case Ahead(money, waits):
                amount = self._amount(money)
                expires = None if waits is None else self.at + waits
                pending = Pending(self.key, money.user, self._payee(money), money.asset, amount, expires)
                return SetApart(pending, money.reference, self.at)
            case Settle(which, verb, size):
                found = self.pending(which)
                if found is None and which:
                    return None
                key, left = (self.key, 1) if found is None else (found.key, found.amount)
                return Resolve(key, self.key, verb, _amount(size, left) if verb == "post" else None, self.at)
            case Errand():
                return self._errand(plan)

    def bound(self, user: str, asset: str, keeps: str | None, has: str | None, pays: str | None) -> Bound:
        available, held = self.world.balances().of((user, asset))
        sizes = {"one": 1, "all": available, "half": (available + held) // 2, "zero": 0}
        bounds = Bounds(*(None if size is None else sizes[size] for size in (keeps, has, pays)))
        return Bound(user, asset, bounds, self.at)

    def pending(self, which: int) -> Pending | None:
        """One of the last transfers in two phases."""
        found = list(self.world.pending.values())
        return found[-1 - which % len(found)] if found else None

    def available(self, user: str, asset: str) -> int:
        return self.world.balances().of((user, asset))[0]

    def deal(self, which: int) -> tuple[str, Deal] | None:
        deals = list(self.world.deals.items())
        return deals[which % len(deals)] if deals else None

    def due(self, which: int) -> datetime | None:
        found = self.deal(which)
        return None if found is None else found[1].next_deadline

    def forward(self, which: int) -> Ask | None:
        """The shortest way of a deal's first open part to its approval, a step of it."""
        found = self.deal(which)
        part = None if found is None else next((part for part in found[1].parts if part.closed_at is None), None)
        if found is None or part is None or part.state not in ("pending", "funded"):
            return None
        key, deal = found
        if len(part.yes) < deal.agreed.required:
            role = next(role for role in deal.agreed.approvers if role not in part.yes)
            return Command(key, self.key, deal.user(role), Order("approve", (part.number,)), self.at)
        return Command(key, self.key, deal.agreed.buyer, Order("fund", (part.number,)), self.at)

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
        missing = needed - self.available(agreed.buyer, agreed.asset)
        return self._deposit(agreed.buyer, agreed.asset, missing) if missing > 0 else None

    def allowance(self, plan: Plan) -> Ask | None:
        """Something for whoever would pay and has nothing."""
        match plan:
            case Money() as money:
                pass
            case Linked((money, *_)) | Ahead(money):
                pass
            case _:
                return None
        if money.user not in USERS or money.asset not in ASSETS or not money.which:
            return None
        poor = money.kind in ("withdrawal", "transfer") and not self.available(money.user, money.asset)
        return self._deposit(money.user, money.asset, 10**6) if poor else None

    def _deposit(self, user: str, asset: str, amount: int) -> Ask:
        return Transfer(Flow(self.key, "deposit", user, asset, amount), self.at)

    def _amount(self, plan: Money) -> int:
        available, room = self.available(plan.user, plan.asset), LARGEST + self.available(OUTSIDE, plan.asset)
        some = 10**6 if plan.kind == "deposit" else min(10**6, (available + 1) // 2)
        sizes = {"one": 1, "some": some, "all": available, "half": available // 2, "more": available + 1, "zero": 0}
        return (sizes | {"huge": 2**255, "brim": room, "over": room + 1})[plan.size]

    def _following(self, links: tuple[Money, ...], number: int) -> Money:
        """A link of a chain, which mostly passes on what the one before brings."""
        link = links[number]
        if number == 0 or link.which == 0:
            return link
        before = self._following(links, number - 1)
        return replace(
            link, user=self._payee(before), asset=before.asset, size="one" if link.size == "half" else link.size
        )

    def _payee(self, plan: Money) -> str:
        """Somebody else, mostly."""
        return (
            next(user for user in USERS if user != plan.user) if plan.other == plan.user and plan.which else plan.other
        )

    def _flow(self, plan: Money, key: str) -> Flow:
        counts_from = {"now": None, "past": self.at - DAY, "future": self.at + DAY}[plan.counts]
        if plan.kind == "reversal":
            booked = list(self.world.booked)
            taken_back = booked[-1 - plan.which % len(booked)] if booked else self.key
            return Flow(key, "reversal", takes_back=taken_back, reference=plan.reference, counts_from=counts_from)
        return Flow(
            key,
            plan.kind,
            plan.user,
            plan.asset,
            self._amount(plan),
            self._payee(plan) if plan.kind == "transfer" else None,
            reference=plan.reference,
            counts_from=counts_from,
        )

    def _errand(self, plan: Errand) -> Ask | None:
        found = self.deal(plan.deal)
        if found is None:
            return None
        key, deal = found
        named = [part for part in deal.parts if plan.parts is None or part.number in plan.parts]
        left = max((part.left for part in named), default=0)
        order = Order(plan.kind, plan.parts)
        if plan.kind in ("release", "refund"):
            left = sum(part.left for part in named) if plan.spread else left
            order = Order(plan.kind, plan.parts, _amount(plan.size, left), spread=plan.spread)
        elif plan.kind == "fund" and plan.spread:
            price = sum(part.price for part in named if part.state == "pending")
            order = Order(plan.kind, plan.parts, _amount(plan.size, price))
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
