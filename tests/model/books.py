"""The reference model's ledger: who was promised what, and balances derived from that and from the deals."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from tests.model.controls import Balances, Bounds, Controls
from tests.model.pending import Pending
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
    """Money that comes in, goes out, changes hands or is taken back. ``counts_from`` is asked for, None is "now"."""

    key: str
    kind: str
    account: str | None = None
    asset: str | None = None
    amount: int = 0
    other: str | None = None
    takes_back: str | None = None
    reference: str | None = None
    counts_from: datetime | None = None


@dataclass(frozen=True)
class Booked:
    """A flow that was booked: what it did to whom, and from when it counts."""

    flow: Flow
    asset: str
    changes: tuple[tuple[str, int], ...]
    counts_from: datetime


PAST = {"deposit": "deposited", "withdrawal": "withdrawn", "reversal": "reversed", "transfer": "transferred"}


@dataclass
class World:
    """Everything that one tenant has, and what it left in receipts and events."""

    deals: dict[str, Deal] = field(default_factory=dict)
    booked: dict[str, Booked] = field(default_factory=dict)
    chains: dict[str, tuple[str, ...]] = field(default_factory=dict)
    pending: dict[str, Pending] = field(default_factory=dict)
    controls: Controls = field(default_factory=Controls)
    receipts: set[str] = field(default_factory=set)
    postings: Counter[str] = field(default_factory=Counter)
    told: dict[str, list[tuple[str, int | None, int | None]]] = field(default_factory=lambda: defaultdict(list))

    # --- what can be asked for; each answers what the caller hears, or raises ``No`` and changes nothing

    def open(self, key: str, agreed: Agreement, at: datetime) -> str:
        if key not in self.deals:
            self.controls.check_tenant()
            refuse_if(agreed.asset not in ASSETS, "asset_unknown")
            check_agreement(agreed, at)
            names = {deal.agreed.reference for deal in self.deals.values()} - {None}
            refuse_if(agreed.reference in names, "reference_taken")
            parts = [Part(number, price) for number, price in enumerate(agreed.prices, start=1)]
            self.deals[key] = Deal(agreed, at, parts, changed_at=at)
            self._tell(f"escrow:{key}:open", f"escrow:{key}", ("escrow.created", None, sum(agreed.prices)))
        return key

    def command(self, key: str, step: str, user: str | None, order: Order, at: datetime) -> str:
        receipt = f"escrow:{key}:{step}"
        if receipt not in self.receipts:
            refuse_if(key not in self.deals, "escrow_unknown")
            agreed = self.deals[key].agreed
            with self._trying("deals", key):
                deal = self.deals[key] = deepcopy(self.deals[key])
                deal.told.clear()
                before = self.balances()
                kinds = Clerk(deal, user, order, at).kinds
                self.controls.check_tenant()
                for kind in kinds:
                    self.controls.check(kind, before, self.balances(), [(agreed.buyer, agreed.asset)])
            self.postings.update(kinds)
            self._tell(receipt, f"escrow:{key}", *deal.told)
        return key

    def transfer(self, flow: Flow, at: datetime) -> str:
        """The key of the flow that stands for this one: itself, or the earlier one of its reference."""
        refuse_if(flow.counts_from is not None and flow.counts_from > at, "effective_in_future")
        refuse_if(flow.counts_from is not None and flow.kind != "deposit", "effective_in_past")
        booked = self._would_book(flow, at)
        if flow.key in self.booked:
            return flow.key
        if (other := self._named(flow.kind, flow.reference)) is not None:
            same = (other.asset, sorted(other.changes)) == (booked.asset, sorted(booked.changes))
            same = same and flow.counts_from in (None, other.counts_from)
            refuse_if(not same or flow.takes_back != other.flow.takes_back, "reference_taken")
            return other.flow.key
        self._book(booked)
        self._tell(f"transfer:{flow.key}", *self._flow_event(booked))
        return flow.key

    def chain(self, key: str, links: tuple[Flow, ...], at: datetime) -> str:
        """The key of the chain that stands for this one. Its first link has its key, and carries its reference."""
        if key in self.booked:
            return key
        if (other := self._named("transfer", links[0].reference)) is not None:
            whole = [self.booked[link].flow for link in self.chains.get(other.flow.key, (other.flow.key,))]
            said = [[(f.account, f.other, f.asset, f.amount) for f in each] for each in (whole, links)]
            refuse_if(said[0] != said[1], "reference_taken")
            return other.flow.key
        for link in links:
            self._would_book(replace(link, asset=ASSETS[0]), at)
        would = [self._would_book(link, at) for link in links]
        done: list[str] = []
        try:
            for booked in would:
                self._book(booked)
                done.append(booked.flow.key)
        except No:
            for link_key in done:
                del self.booked[link_key]
                self.postings["transfer"] -= 1
            raise
        self.chains[key] = tuple(link.key for link in links)
        self.receipts.add(f"chain:{key}")
        for booked in would:
            subject, told = self._flow_event(booked)
            self.told[subject].append(told)
        return key

    def set_apart(self, pending: Pending, reference: str | None, at: datetime) -> str:
        """A transfer in two phases begins."""
        key = pending.key
        if key not in self.pending:
            names = {each.reference for each in self.pending.values()} - {None}
            refuse_if(reference in names, "reference_taken")
            pending = replace(pending, reference=reference, created_at=at)
            pending.check(at)
            with self._trying("pending", key):
                before = self.balances()
                self.pending[key] = pending
                self.controls.check("transfer_hold", before, self.balances())
            self.postings["transfer_hold"] += 1
            self._tell(f"transfer:{key}:open", f"transfer:{key}", ("transfer.pending", None, pending.amount))
        return key

    def resolve(self, key: str, step: str, verb: str, amount: int | None, at: datetime) -> str:
        """A transfer in two phases ends."""
        receipt = f"transfer:{key}:{step}"
        if receipt not in self.receipts:
            refuse_if(key not in self.pending, "transfer_unknown")
            after = self.pending[key].resolved(verb, amount, at)
            kind = "transfer_post" if after.state == "POSTED" else "transfer_void"
            with self._trying("pending", key):
                before = self.balances()
                self.pending[key] = after
                self.controls.check(kind, before, self.balances(), [(after.source, after.asset)])
            self.postings[kind] += 1
            self._tell(receipt, f"transfer:{key}", (f"transfer.{after.state.lower()}", None, after.amount))
        return key

    def freeze(self, scope: str, ref: str) -> str:
        refuse_if((scope, ref) in self.controls.frozen, "already_frozen")
        self.controls.frozen.add((scope, ref))
        return "frozen"

    def lift(self, scope: str, ref: str) -> str:
        refuse_if((scope, ref) not in self.controls.frozen, "freeze_unknown")
        self.controls.frozen.discard((scope, ref))
        return "lifted"

    def bound(self, account: str, asset: str, bounds: Bounds) -> str:
        contradictory = bounds.keeps is not None and bounds.has is not None and bounds.keeps > bounds.has
        refuse_if(contradictory, "limits_contradictory")
        self.controls.bounds[account, asset] = bounds
        return "bounded"

    # --- how

    @contextmanager
    def _trying(self, table: str, key: str) -> Iterator[None]:
        """Put an entry back as it was, if what is tried with it is refused."""
        entries = getattr(self, table)
        before = entries.get(key)
        try:
            yield
        except No:
            if before is None:
                entries.pop(key, None)
            else:
                entries[key] = before
            raise

    def _tell(self, receipt: str, subject: str, *told: tuple[str, int | None, int | None]) -> None:
        self.receipts.add(receipt)
        self.told[subject].extend(told)

    def _flow_event(self, booked: Booked) -> tuple[str, tuple[str, int | None, int | None]]:
        account, change = booked.changes[0]
        return f"account:{account}", (f"ledger.{PAST[booked.flow.kind]}", None, change)

    def _named(self, kind: str, reference: str | None) -> Booked | None:
        carriers = (b for b in self.booked.values() if (b.flow.kind, b.flow.reference) == (kind, reference))
        return None if reference is None else next(carriers, None)

    def _book(self, booked: Booked) -> None:
        with self._trying("booked", booked.flow.key):
            before = self.balances()
            self.booked[booked.flow.key] = booked
            self.controls.check(booked.flow.kind, before, self.balances())
        self.postings[booked.flow.kind] += 1

    def _would_book(self, flow: Flow, at: datetime) -> Booked:
        counts_from = flow.counts_from or at
        if flow.kind == "reversal":
            refuse_if(flow.takes_back not in self.booked, "transaction_unknown")
            before = self.booked[flow.takes_back or ""]
            taken = [other.flow.key for other in self.booked.values() if other.flow.takes_back == flow.takes_back]
            refuse_if(bool(taken) and taken != [flow.key], "already_reversed")
            refuse_if(before.flow.kind in ("reversal", "transfer"), "not_reversible")
            return Booked(flow, before.asset, tuple((who, -change) for who, change in before.changes), counts_from)
        refuse_if(flow.asset not in ASSETS, "asset_unknown")
        account, other, amount = flow.account or "", flow.other or "", flow.amount
        refuse_if(account.startswith("system:") or other.startswith("system:"), "account_ref_invalid")
        refuse_if(account == other, "transfer_to_itself")
        refuse_if(amount <= 0, "amount_invalid")
        refuse_if(amount > LARGEST, "amount_too_large")
        changes = {
            "deposit": [(account, amount)],
            "withdrawal": [(account, -amount)],
            "transfer": [(account, -amount), (other, amount)],
        }
        return Booked(flow, flow.asset or "", tuple(changes[flow.kind]), counts_from)

    # --- what follows from it

    def balances(self) -> Balances:
        """What everybody has: the outside less than nothing, as everything in the house came from there."""
        free: dict[tuple[str, str], int] = defaultdict(int)
        held: dict[tuple[str, str], int] = defaultdict(int)
        for booked in self.booked.values():
            for account, change in booked.changes:
                free[account, booked.asset] += change
                free[OUTSIDE, booked.asset] -= change
        for deal in self.deals.values():
            asset = deal.agreed.asset
            for part in deal.parts:
                held[deal.agreed.buyer, asset] += deal.held(part)
                for account, change in deal.paid(part).items():
                    free[account, asset] += change
        for pending in self.pending.values():
            held[pending.source, pending.asset] += pending.held
            free[pending.source, pending.asset] -= pending.held + pending.posted
            free[pending.target, pending.asset] += pending.posted
        return Balances(free, held)

    def describe(self) -> dict[str, dict[Any, Any]]:
        """Everything that can be read of it, in the words of ``tests.model.database``."""
        balances = self.balances()
        purses = balances.available.keys() | balances.held.keys()
        parts = [(key, deal, part) for key, deal in self.deals.items() for part in deal.parts]
        holds = {(k, p.number): (d.placed(p), d.held(p)) for k, d, p in parts if p.funded_at is not None}
        return {
            "accounts": {purse: balances.of(purse) for purse in purses if any(balances.of(purse))},
            "holds": holds | {(key, None): (each.amount, each.held) for key, each in self.pending.items()},
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
            "pending": {
                key: (each.state, each.posted or None, each.expires_at, each.resolved_at)
                for key, each in self.pending.items()
            },
            "frozen": dict.fromkeys(self.controls.frozen, 1),
            "receipts": dict.fromkeys(self.receipts, 1),
            "postings": {kind: count for kind, count in self.postings.items() if count},
            "events": {subject: told for subject, told in self.told.items() if told},
        }
