"""The reference model's ledger: what came from outside and left, and balances derived from that and the deals."""

from __future__ import annotations

from collections import Counter, defaultdict
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.model.reference import (
    ASSETS,
    LARGEST,
    OUTSIDE,
    Agreement,
    Clerk,
    Deal,
    No,
    Order,
    Part,
    check_agreement,
    refuse_if,
)


@dataclass(frozen=True)
class Flow:
    """Money that comes in, goes out, or is taken back. ``counts_from`` is asked for, None is "now"."""

    key: str
    kind: str
    account: str | None = None
    asset: str | None = None
    amount: int = 0
    takes_back: str | None = None
    reference: str | None = None
    counts_from: datetime | None = None


@dataclass
class Booked:
    """A flow that was booked: what it did to whom, and from when it counts."""

    flow: Flow
    account: str
    asset: str
    change: int
    counts_from: datetime


PAST = {"deposit": "ledger.deposited", "withdrawal": "ledger.withdrawn", "reversal": "ledger.reversed"}


@dataclass
class World:
    """Everything that one tenant has, and what it left in receipts and events."""

    deals: dict[str, Deal] = field(default_factory=dict)
    booked: dict[str, Booked] = field(default_factory=dict)
    receipts: set[str] = field(default_factory=set)
    postings: Counter[str] = field(default_factory=Counter)
    told: dict[str, list[tuple[str, int | None, int | None]]] = field(default_factory=lambda: defaultdict(list))

    # --- what can be asked for; each answers what the caller hears, or raises ``No`` and changes nothing

    def open(self, key: str, agreed: Agreement, at: datetime) -> str:
        if key not in self.deals:
            refuse_if(agreed.asset not in ASSETS, "asset_unknown")
            check_agreement(agreed, at)
            names = {deal.agreed.reference for deal in self.deals.values()} - {None}
            refuse_if(agreed.reference in names, "reference_taken")
            parts = [Part(number, price) for number, price in enumerate(agreed.prices, start=1)]
            self.deals[key] = Deal(agreed, at, parts, changed_at=at)
            self.receipts.add(f"escrow:{key}:open")
            self.told[f"escrow:{key}"].append(("escrow.created", None, sum(agreed.prices)))
        return key

    def command(self, key: str, step: str, user: str | None, order: Order, at: datetime) -> str:
        receipt = f"escrow:{key}:{step}"
        if receipt not in self.receipts:
            refuse_if(key not in self.deals, "escrow_unknown")
            before, self.deals[key] = self.deals[key], deepcopy(self.deals[key])
            self.deals[key].told.clear()
            try:
                kinds = Clerk(self.deals[key], user, order, at).kinds
                refuse_if(any(minor < 0 for minor in self.available().values()), "insufficient_funds")
            except No:
                self.deals[key] = before
                raise
            self.receipts.add(receipt)
            self.postings.update(kinds)
            self.told[f"escrow:{key}"].extend(self.deals[key].told)
        return key

    def transfer(self, flow: Flow, at: datetime) -> str:
        """The key of the flow that stands for this one: itself, or the earlier one of its reference."""
        refuse_if(flow.counts_from is not None and flow.counts_from > at, "effective_in_future")
        refuse_if(flow.counts_from is not None and flow.kind != "deposit", "effective_in_past")
        booked = self._would_book(flow, at)
        if flow.key in self.booked:
            return flow.key
        for other in self.booked.values():
            if flow.reference is not None and (other.flow.kind, other.flow.reference) == (flow.kind, flow.reference):
                same = (other.account, other.asset, other.change) == (booked.account, booked.asset, booked.change)
                same = same and flow.counts_from in (None, other.counts_from)
                refuse_if(not same or flow.takes_back != other.flow.takes_back, "reference_taken")
                return other.flow.key
        short = booked.change < 0 and self.available()[booked.account, booked.asset] + booked.change < 0
        refuse_if(short, "insufficient_funds")
        refuse_if(booked.change - self.outside(booked.asset) > LARGEST, "balance_too_large")
        self.booked[flow.key] = booked
        self.receipts.add(f"transfer:{flow.key}")
        self.postings[flow.kind] += 1
        self.told[f"account:{booked.account}"].append((PAST[flow.kind], None, booked.change))
        return flow.key

    def _would_book(self, flow: Flow, at: datetime) -> Booked:
        counts_from = flow.counts_from or at
        if flow.kind == "reversal":
            refuse_if(flow.takes_back not in self.booked, "transaction_unknown")
            before = self.booked[flow.takes_back or ""]
            taken = [other.flow.key for other in self.booked.values() if other.flow.takes_back == flow.takes_back]
            refuse_if(bool(taken) and taken != [flow.key], "already_reversed")
            refuse_if(before.flow.kind == "reversal", "not_reversible")
            return Booked(flow, before.account, before.asset, -before.change, counts_from)
        refuse_if(flow.asset not in ASSETS, "asset_unknown")
        account, asset = flow.account or "", flow.asset or ""
        refuse_if(account.startswith("system:"), "account_ref_invalid")
        refuse_if(flow.amount <= 0, "amount_invalid")
        refuse_if(flow.amount > LARGEST, "amount_too_large")
        return Booked(flow, account, asset, flow.amount if flow.kind == "deposit" else -flow.amount, counts_from)

    # --- what follows from it

    def outside(self, asset: str) -> int:
        """What the outside has: less than nothing, as everything in the house came from there."""
        return -sum(booked.change for booked in self.booked.values() if booked.asset == asset)

    def available(self) -> dict[tuple[str, str], int]:
        """What everybody may use, the outside apart."""
        found: dict[tuple[str, str], int] = defaultdict(int)
        for booked in self.booked.values():
            found[booked.account, booked.asset] += booked.change
        for deal in self.deals.values():
            for part in deal.parts:
                for account, change in deal.paid(part).items():
                    found[account, deal.agreed.asset] += change
        return found

    def held(self) -> dict[tuple[str, str], int]:
        """What is set apart from everybody's balance for deals."""
        found: dict[tuple[str, str], int] = defaultdict(int)
        for deal in self.deals.values():
            found[deal.agreed.buyer, deal.agreed.asset] += sum(deal.held(part) for part in deal.parts)
        return found

    def describe(self) -> dict[str, dict[Any, Any]]:
        """Everything that can be read of it, in the words of ``tests.model.database``."""
        available, held = self.available(), self.held()
        available |= {(OUTSIDE, asset): self.outside(asset) for asset in ASSETS}
        parts = [(key, deal, part) for key, deal in self.deals.items() for part in deal.parts]
        return {
            "accounts": {
                account: (available.get(account, 0), held.get(account, 0))
                for account in available.keys() | held.keys()
                if available.get(account, 0) or held.get(account, 0)
            },
            "holds": {(k, p.number): (d.placed(p), d.held(p)) for k, d, p in parts if p.funded_at is not None},
            "escrows": {
                key: (deal.state, deal.version, deal.changed_at, deal.changed_at if deal.closed else None)
                for key, deal in self.deals.items()
            },
            "milestones": {
                (key, part.number): (
                    (part.state, part.price, part.released, part.refunded),
                    (tuple(part.yes), part.disputed_by),
                    (part.funded_at, part.approved_at, part.inspected_until, part.closed_at),
                )
                for key, _, part in parts
            },
            "receipts": dict.fromkeys(self.receipts, 1),
            "postings": dict(self.postings),
            "events": {subject: told for subject, told in self.told.items() if told},
        }
