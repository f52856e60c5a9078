"""What the books must say, computed from the accepted requests alone. Shares no line with the code that it judges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

FEES, EXTERNAL = "system:fees", "system:external"
HELD = ("funded", "approved", "disputed")
OPEN = ("pending", *HELD)
ENDS = ("completed", "refunded", "cancelled", "expired")


@dataclass(slots=True)
class Milestone:
    """One price, and what became of it."""

    amount: int
    status: str = "pending"
    released: int = 0
    refunded: int = 0
    approvals: set[str] = field(default_factory=set)

    @property
    def remaining(self) -> int:
        return self.amount - self.released - self.refunded if self.status in HELD else 0

    def pay(self, *, seller: int = 0, buyer: int = 0) -> None:
        self.released += seller
        self.refunded += buyer
        if self.released + self.refunded == self.amount:
            self.status = "released" if self.released else "refunded"


@dataclass(slots=True)
class Escrow:
    """An escrow that was accepted, and every command on it that was accepted, whatever their order."""

    escrow_id: str
    asset: str
    buyer: str
    seller: str
    milestones: list[Milestone]
    approvers: frozenset[str] = frozenset({"buyer"})
    required: int = 1
    buyer_points: int = 0
    seller_points: int = 0
    #: What the clock does once its time has come, which every soak waits for.
    inspected: bool = False
    expiring: bool = False
    accepted: int = 0

    @property
    def status(self) -> str:
        """As the documentation derives it: a dispute, else the least advanced open milestone, else how it ended."""
        statuses = {milestone.status for milestone in self.milestones}
        for mine, its in (("disputed", "disputed"), ("pending", "created"), ("funded", "funded"), ("approved",) * 2):
            if mine in statuses:
                return its
        if any(milestone.released for milestone in self.milestones):
            return "completed"
        return next(end for end in ("expired", "refunded", "cancelled") if end in statuses)

    @property
    def clock_runs(self) -> bool:
        """Whether the clock will still do something."""
        return any(self._due(milestone) for milestone in self.milestones)

    def apply(self, kind: str, role: str, body: Mapping[str, Any], scale: int) -> None:
        """An accepted command."""
        self.accepted += 1
        named = body.get("milestones")
        among = [m for n, m in enumerate(self.milestones, 1) if named is None or n in named]
        amount = minor(body["amount"], scale) if "amount" in body else None
        match kind:
            case "fund":
                for milestone in _those(among, "pending"):
                    milestone.status = "funded"
                    self._agree(milestone)
            case "approvals":
                for milestone in _those(among, "pending", "funded", "approved"):
                    milestone.approvals.add(role)
                    self._agree(milestone)
            case "release":
                sources = ("approved", "disputed") if role == "buyer" else ("approved",)
                for milestone in _those(among, *sources):
                    milestone.pay(seller=milestone.remaining if amount is None else amount)
            case "refund":
                for milestone in _those(among, *HELD):
                    milestone.pay(buyer=milestone.remaining if amount is None else amount)
            case "dispute":
                for milestone in _those(among, "funded", "approved"):
                    milestone.status = "disputed"
            case "resolution":
                [milestone] = _those(among, "disputed")
                milestone.pay(seller=minor(body["to_seller"], scale), buyer=minor(body["to_buyer"], scale))
            case "cancel":
                for milestone in _those(among, "pending"):
                    milestone.status = "cancelled"
            case _:
                raise ValueError(kind)

    def pass_time(self) -> None:
        """Let every deadline pass."""
        for milestone in self.milestones:
            if not self._due(milestone):
                continue
            if milestone.status == "approved":
                milestone.pay(seller=milestone.remaining)
            else:
                milestone.pay(buyer=milestone.remaining)
                milestone.status = "expired"

    def book(self, books: Counter[tuple[str, str, str]]) -> None:
        """Add what it moved to ``books``, by account, asset and pot."""
        for m in self.milestones:
            paid = fee(m.released, self.buyer_points)
            held = m.remaining + fee(m.released + m.remaining, self.buyer_points) - paid if m.status in HELD else 0
            taken = fee(m.released, self.seller_points)
            books[self.buyer, self.asset, "available"] -= m.released + paid + held
            books[self.buyer, self.asset, "held"] += held
            books[self.seller, self.asset, "available"] += m.released - taken
            books[FEES, self.asset, "available"] += paid + taken

    def _due(self, milestone: Milestone) -> bool:
        return (self.inspected and milestone.status == "approved") or (
            self.expiring and milestone.status in ("pending", "funded")
        )

    def _agree(self, milestone: Milestone) -> None:
        if milestone.status == "funded" and len(milestone.approvals & self.approvers) >= self.required:
            milestone.status = "approved"


def fee(amount: int, points: int) -> int:
    """A fee in basis points, in the house's favour never."""
    return amount * points // 10_000


def minor(text: str, scale: int) -> int:
    """Decimal text in minor units."""
    whole, _, part = text.partition(".")
    return int(whole + part.ljust(scale, "0"))


def major(amount: int, scale: int) -> str:
    """Minor units as decimal text."""
    whole, part = divmod(amount, 10**scale)
    return f"{whole}.{part:0{scale}d}" if scale else str(whole)


def _those(among: Iterable[Milestone], *statuses: str) -> list[Milestone]:
    return [milestone for milestone in among if milestone.status in statuses]
