"""What Holdfast promises, worked out a second time and another way. Nothing in here comes from ``domain``.

The product books movements; this model remembers only what people did (who said yes, how much of a part was released)
and *derives* the money from it: a balance is what came from outside plus what every part of every deal has paid so far.
So a movement that is forgotten, doubled or rounded otherwise there has nothing here that it could agree with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from fractions import Fraction

LARGEST = 2**256 - 1
OUTSIDE, FEES = "system:external", "system:fees"
ASSETS = ("USDC", "ETH")
HOLDING = ("funded", "approved", "disputed")
OVER = ("released", "refunded", "cancelled", "expired")

Told = tuple[str, int | None, int | None]


class No(Exception):
    """A rule says no, with this code."""


def refuse_if(broken: bool, code: str) -> None:
    if broken:
        raise No(code)


def fee(amount: int, basis_points: int) -> int:
    """Whole units only; the fraction is the payer's."""
    return int(Fraction(amount * basis_points, 10_000))


@dataclass(frozen=True)
class Agreement:
    """What the parties agree on. Deadlines are instants, ``inspection`` is in seconds."""

    asset: str
    prices: tuple[int, ...]
    buyer: str
    seller: str
    arbiter: str | None = None
    approvers: tuple[str, ...] = ("buyer",)
    required: int = 1
    buyer_fee: int = 0
    seller_fee: int = 0
    fund_by: datetime | None = None
    inspection: int | None = None
    expires: datetime | None = None
    reference: str | None = None


@dataclass(frozen=True)
class Order:
    """A command. ``parts`` None means every part to which it can apply."""

    kind: str
    parts: tuple[int, ...] | None = None
    amount: int | None = None
    to_seller: int = 0
    to_buyer: int = 0
    reason: str = "why"


@dataclass
class Part:
    """What was done about one milestone."""

    number: int
    price: int
    state: str = "pending"
    released: int = 0
    refunded: int = 0
    yes: list[str] = field(default_factory=list)
    disputed_by: str | None = None
    funded_at: datetime | None = None
    approved_at: datetime | None = None
    inspected_until: datetime | None = None
    closed_at: datetime | None = None

    @property
    def left(self) -> int:
        return self.price - self.released - self.refunded if self.state in HOLDING else 0


@dataclass
class Deal:
    """An escrow: what was agreed, and what was done."""

    agreed: Agreement
    opened_at: datetime
    parts: list[Part]
    version: int = 1
    changed_at: datetime | None = None
    told: list[Told] = field(default_factory=list)

    def role(self, user: str | None) -> str:
        named = {self.agreed.buyer: "buyer", self.agreed.seller: "seller", self.agreed.arbiter: "arbiter"}
        if user is None:
            return "system"
        refuse_if(user not in named, "not_a_party")
        return named[user]

    def user(self, role: str) -> str | None:
        return {"buyer": self.agreed.buyer, "seller": self.agreed.seller, "arbiter": self.agreed.arbiter}[role]

    @property
    def state(self) -> str:
        states = [part.state for part in self.parts]
        for open_state, shown in (
            ("disputed", "disputed"),
            ("pending", "created"),
            ("funded", "funded"),
            ("approved", "approved"),
        ):
            if open_state in states:
                return shown
        if sum(part.released for part in self.parts):
            return "completed"
        return next(state for state in ("expired", "refunded", "cancelled") if state in states)

    @property
    def closed(self) -> bool:
        return all(part.state in OVER for part in self.parts)

    def placed(self, part: Part) -> int:
        return 0 if part.funded_at is None else part.price + fee(part.price, self.agreed.buyer_fee)

    def held(self, part: Part) -> int:
        """What is left of the price, and what releasing it would still cost the buyer."""
        due = fee(part.released + part.left, self.agreed.buyer_fee) - fee(part.released, self.agreed.buyer_fee)
        return part.left + due

    def paid(self, part: Part) -> dict[str, int]:
        """What the part did to everybody's available balance so far."""
        cost, cut = fee(part.released, self.agreed.buyer_fee), fee(part.released, self.agreed.seller_fee)
        earned = part.released - cut
        return {self.agreed.buyer: -self.held(part) - earned - cost - cut, self.agreed.seller: earned, FEES: cost + cut}

    def due(self, part: Part) -> datetime | None:
        """When the clock will decide about the part, if nobody does before."""
        match part.state:
            case "pending":
                return self.agreed.fund_by or self.agreed.expires
            case "funded":
                return self.agreed.expires
            case "approved":
                return part.inspected_until
            case _:
                return None

    @property
    def next_deadline(self) -> datetime | None:
        return min((due for part in self.parts if (due := self.due(part)) is not None), default=None)

    def tell(self, event: str, part: Part | None = None, amount: int | None = None) -> None:
        self.told.append((f"escrow.{event}", None if part is None else part.number, amount))


def check_agreement(agreed: Agreement, at: datetime) -> None:
    users = [user for user in (agreed.buyer, agreed.seller, agreed.arbiter) if user is not None]
    refuse_if(len(set(users)) < len(users), "parties_not_distinct")
    roles = agreed.approvers
    refuse_if(not roles or len(set(roles)) < len(roles), "policy_roles_invalid")
    refuse_if("system" in roles or ("arbiter" in roles and agreed.arbiter is None), "policy_roles_invalid")
    refuse_if(not 0 < agreed.required <= len(roles), "policy_required_invalid")
    refuse_if(not 0 <= agreed.buyer_fee <= 10_000 or not 0 <= agreed.seller_fee <= 10_000, "fee_invalid")
    refuse_if(not 1 <= len(agreed.prices) <= 100, "milestone_count_invalid")
    total = 0
    for price in agreed.prices:
        refuse_if(price <= 0, "amount_invalid")
        total += price + fee(price, agreed.buyer_fee)
        refuse_if(total > LARGEST, "amount_too_large")
    instants = [instant for instant in (agreed.fund_by, agreed.expires) if instant is not None]
    refuse_if(any(instant <= at for instant in instants), "deadline_not_in_future")
    refuse_if(len(instants) == 2 and instants[0] > instants[1], "deadlines_out_of_order")
    period = agreed.inspection
    refuse_if(period is not None and not 1 <= period <= 366 * 86_400, "inspection_period_invalid")


class Clerk:
    """Carries one order out on a deal; raises ``No`` and leaves it half done, so work on a copy."""

    def __init__(self, deal: Deal, user: str | None, order: Order, at: datetime) -> None:
        self.deal, self.order, self.at = deal, order, at
        self.kinds: set[str] = set()
        self.role = deal.role(user)
        may = {"fund": ("buyer",), "approve": deal.agreed.approvers, "refund": ("seller",), "resolve": ("arbiter",)}
        may["pass_deadline"] = ("system",)
        refuse_if(order.kind == "resolve" and deal.agreed.arbiter is None, "no_arbiter")
        refuse_if(self.role not in may.get(order.kind, ("buyer", "seller")), "role_not_allowed")
        refuse_if(deal.closed, "escrow_closed")
        getattr(self, order.kind)()
        deal.version += 1
        deal.changed_at = at
        if deal.closed:
            deal.tell(deal.state)

    def meant(self, objection: Callable[[Part], str | None]) -> list[Part]:
        """The parts that the order names, each of which must do; unnamed, all that do."""
        parts, named = {part.number: part for part in self.deal.parts}, self.order.parts
        if named is None:
            heard = [(part, objection(part)) for part in self.deal.parts if part.state not in OVER]
            if willing := [part for part, code in heard if code is None]:
                return willing
            # What holds money is nearer to what was asked for.
            raise No(min(heard, key=lambda pair: pair[0].state not in HOLDING)[1])
        refuse_if(not named or len(set(named)) < len(named), "milestones_invalid")
        for number in named:
            refuse_if(number not in parts, "milestone_unknown")
            refuse_if(parts[number].state in OVER, "milestone_closed")
            if code := objection(parts[number]):
                raise No(code)
        return [parts[number] for number in named]

    def only(self, objection: Callable[[Part], str | None]) -> Part:
        parts = self.meant(objection)
        refuse_if(len(parts) != 1, "single_milestone_required")
        return parts[0]

    def portions(self, objection: Callable[[Part], str | None]) -> Iterator[tuple[Part, int]]:
        amount = self.order.amount
        if amount is None:
            yield from [(part, part.left) for part in self.meant(objection)]
            return
        refuse_if(amount <= 0, "amount_invalid")
        part = self.only(objection)
        refuse_if(amount > part.left, "amount_exceeds_remaining")
        yield part, amount

    def pay(self, part: Part, kind: str, *, release: int = 0, refund: int = 0) -> None:
        self.kinds.add(kind)
        part.released += release
        part.refunded += refund
        if release:
            self.deal.tell("released", part, release)
        if refund:
            self.deal.tell("refunded", part, refund)
        if not part.left:
            self.close(part, "released" if part.released else "refunded")

    def close(self, part: Part, state: str) -> None:
        part.state, part.closed_at, part.inspected_until = state, self.at, None

    def late(self, part: Part) -> str | None:
        agreed = self.deal.agreed
        if agreed.expires is not None and self.at >= agreed.expires:
            return "escrow_expired"
        overdue = part.state == "pending" and agreed.fund_by is not None and self.at >= agreed.fund_by
        return "funding_deadline_passed" if overdue else None

    def agree(self, part: Part) -> None:
        """Money and enough approvals together begin the inspection."""
        if part.state == "funded" and len(part.yes) >= self.deal.agreed.required:
            part.state, part.approved_at = "approved", self.at
            if (period := self.deal.agreed.inspection) is not None:
                part.inspected_until = self.at + timedelta(seconds=period)
            self.deal.tell("approved", part, part.left)

    def fund(self) -> None:
        for part in self.meant(lambda p: "milestone_already_funded" if p.state != "pending" else self.late(p)):
            part.state, part.funded_at = "funded", self.at
            self.kinds.add("escrow_fund")
            self.deal.tell("funded", part, part.price)
            self.agree(part)

    def approve(self) -> None:
        parts = self.meant(lambda p: "milestone_disputed" if p.state == "disputed" else self.late(p))
        fresh = [part for part in parts if self.role not in part.yes]
        refuse_if(not fresh, "already_approved")
        for part in fresh:
            part.yes.append(self.role)
            self.deal.tell("approval_recorded", part, part.price)
            self.agree(part)

    def release(self) -> None:
        def objection(part: Part) -> str | None:
            if part.state == "approved":
                ends = part.inspected_until
                return "inspection_running" if self.role == "seller" and ends and self.at < ends else None
            if part.state == "disputed":
                return None if self.role == "buyer" else "milestone_disputed"
            return "milestone_not_funded" if part.state == "pending" else "milestone_not_approved"

        for part, amount in self.portions(objection):
            self.pay(part, "escrow_release", release=amount)

    def refund(self) -> None:
        for part, amount in self.portions(lambda p: "milestone_not_funded" if p.state == "pending" else None):
            self.pay(part, "escrow_refund", refund=amount)

    def dispute(self) -> None:
        refuse_if(not self.order.reason.strip() or len(self.order.reason) > 2000, "reason_invalid")

        def objection(part: Part) -> str | None:
            if part.state in ("pending", "disputed"):
                return "milestone_not_funded" if part.state == "pending" else "milestone_disputed"
            due = self.deal.due(part)
            if due is None or self.at < due:
                return None
            return "escrow_expired" if part.state == "funded" else "inspection_over"

        for part in self.meant(objection):
            part.state, part.disputed_by, part.inspected_until = "disputed", self.role, None
            self.deal.tell("disputed", part, part.left)

    def resolve(self) -> None:
        part = self.only(lambda p: None if p.state == "disputed" else "not_disputed")
        refuse_if(min(self.order.to_seller, self.order.to_buyer) < 0, "amount_invalid")
        refuse_if(self.order.to_seller + self.order.to_buyer != part.left, "resolution_not_exact")
        self.deal.tell("resolved", part, part.left)
        self.pay(part, "escrow_resolution", release=self.order.to_seller, refund=self.order.to_buyer)

    def cancel(self) -> None:
        refuse_if(any(part.state in HOLDING for part in self.deal.parts), "escrow_holds_money")
        for part in self.deal.parts:
            if part.state == "pending":
                self.close(part, "cancelled")
                self.deal.tell("cancelled", part, part.price)

    def pass_deadline(self) -> None:
        overdue = [p for p in self.deal.parts if (due := self.deal.due(p)) is not None and self.at >= due]
        refuse_if(not overdue, "nothing_due")
        for part in overdue:
            if part.state == "approved":
                self.pay(part, "escrow_release", release=part.left)
                continue
            if part.state == "funded":
                self.pay(part, "escrow_refund", refund=part.left)
            self.close(part, "expired")
            self.deal.tell("expired", part, part.price)
