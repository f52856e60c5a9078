"""What the escrow rules of the house say that the contract must do: the same commands, decided by ``domain.escrow``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from domain import escrow as rules
from domain.errors import Refusal
from domain.money import Asset
from tests.contracts.desk import NOBODY, STATES, Ask, State, Terms, Told

ROLES = {rules.Role.BUYER: 1, rules.Role.SELLER: 2, rules.Role.ARBITER: 4}
_ESCROW_ID = UUID(int=1)


def when(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _instant(seconds: int) -> datetime | None:
    return when(seconds) if seconds else None


def roles_of(bits: int) -> tuple[rules.Role, ...]:
    return tuple(role for role, bit in ROLES.items() if bits & bit)


def agreed(terms: Terms) -> rules.Terms:
    """Terms of the contract as terms of the house: one milestone, no fees."""
    return rules.Terms(
        asset=Asset("COIN", 18),
        buyer=rules.Party(terms.buyer),
        seller=rules.Party(terms.seller),
        arbiter=None if terms.arbiter == NOBODY else rules.Party(terms.arbiter),
        milestones=(rules.MilestoneTerms(_ESCROW_ID, "all of it", terms.amount),),
        policy=rules.ApprovalPolicy(roles_of(terms.approving_roles), terms.approvals_required),
        funding_deadline=_instant(terms.funding_deadline),
        inspection_period_seconds=terms.inspection_seconds or None,
        expires_at=_instant(terms.expires_at),
    )


def command(ask: Ask) -> rules.Command:
    """A command to the contract as one to the rules."""
    match ask:
        case Ask("fund"):
            return rules.Fund(amount_minor=ask.value)
        case Ask("approve"):
            return rules.Approve()
        case Ask("release", (amount,)):
            return rules.Release(amount_minor=amount)
        case Ask("refund", (amount,)):
            return rules.Refund(amount_minor=amount)
        case Ask("dispute", (reason,)):
            return rules.Dispute(reason.hex() if any(reason) else "")
        case Ask("resolve", (to_seller, to_buyer)):
            return rules.Resolve(to_seller, to_buyer)
        case Ask("cancel"):
            return rules.Cancel()
        case Ask("pass_deadline"):
            return rules.PassDeadline()
        case _:
            raise ValueError(ask)


@dataclass
class Oracle:
    """Escrows by their ids as the rules have them, and where the money of each token is."""

    escrows: dict[bytes, rules.Escrow] = field(default_factory=dict)
    terms: dict[bytes, Terms] = field(default_factory=dict)
    sequence: int = 0
    held: Counter[str] = field(default_factory=Counter)
    withdrawable: Counter[tuple[str, str]] = field(default_factory=Counter)

    def owed(self, token: str) -> int:
        return sum(amount for (of, _), amount in self.withdrawable.items() if of == token)

    def open(self, escrow_id: bytes, terms: Terms, at: int) -> str | None:
        """Why an escrow may not be opened; None when it now is."""
        try:
            decision = rules.open_escrow(_ESCROW_ID, agreed(terms), when(at))
        except Refusal as refusal:
            return refusal.code
        self.escrows[escrow_id], self.terms[escrow_id] = decision.escrow, terms
        self.sequence += 1
        return None

    def ask(self, escrow_id: bytes, ask: Ask, by: str, at: int) -> str | list[Told]:
        """The code of the refusal, or what must be told."""
        before, terms = self.escrows[escrow_id], self.terms[escrow_id]
        asked = command(ask)
        # On a chain there is no clock that acts, so whoever likes acts for it.
        user_id = None if ask.name == "pass_deadline" else by
        if ask.name == "fund" and terms.token != NOBODY:
            # Beside tokens there are no coins; the contract takes the price by itself.
            asked = rules.Fund(amount_minor=terms.amount if ask.value == 0 else 0)
        try:
            decision = rules.decide(before, asked, user_id=user_id, at=when(at))
        except Refusal as refusal:
            return refusal.code
        self.escrows[escrow_id] = decision.escrow
        for movement in decision.movements:
            paid = movement.to_seller_minor + movement.to_buyer_minor
            self.held[terms.token] += movement.placed_minor - paid
            self.withdrawable[terms.token, terms.seller] += movement.to_seller_minor
            self.withdrawable[terms.token, terms.buyer] += movement.to_buyer_minor
        told = _told(before, decision, terms, asked)
        self.sequence += len(told)
        return [(name, {"escrow_id": escrow_id, "by": by, **arguments}) for name, arguments in told]

    def withdraw(self, token: str, by: str) -> int:
        """What an account gets, 0 where that is nothing."""
        amount = self.withdrawable.pop((token, by), 0)
        self.sequence += amount > 0
        return amount

    def state(self, escrow_id: bytes) -> State:
        milestone = self.escrows[escrow_id].milestones[0]
        return State(
            status=STATES[list(rules.MilestoneStatus).index(milestone.status)],
            approvals=sum(ROLES[given.role] for given in milestone.approvals),
            released=milestone.released_minor,
            refunded=milestone.refunded_minor,
            release_at=_seconds(milestone.auto_release_at),
        )

    def due_at(self, escrow_id: bytes) -> int:
        due = rules.next_deadline(self.escrows[escrow_id])
        return 0 if due is None else _seconds(due.at)


def _seconds(at: datetime | None) -> int:
    return 0 if at is None else int(at.timestamp())


def _told(before: rules.Escrow, decision: rules.Decision, terms: Terms, asked: rules.Command) -> list[Told]:
    """Events of milestones as the contract's; those of the whole escrow say nothing that it does not know already."""
    told: list[Told] = []
    remaining = before.milestones[0].remaining_minor
    for event in decision.events:
        if event.position is None:
            continue
        role = ROLES.get(event.role or rules.Role.SYSTEM, 0)
        match event.type:
            case "escrow.funded":
                told.append(("Funded", {"token": terms.token, "amount": event.amount_minor}))
            case "escrow.approval_recorded":
                told.append(("ApprovalRecorded", {"role": role}))
            case "escrow.approved":
                release_at = _seconds(decision.escrow.milestones[0].auto_release_at)
                told.append(("Approved", {"release_at": release_at}))
            case "escrow.released" | "escrow.refunded":
                assert event.amount_minor is not None
                remaining -= event.amount_minor
                paid = event.type == "escrow.released"
                money = {"token": terms.token, "amount": event.amount_minor, "remaining": remaining}
                account = terms.seller if paid else terms.buyer
                told.append(("Released" if paid else "Refunded", {"account": account, **money}))
            case "escrow.disputed":
                reason = bytes.fromhex(event.reason or "")
                told.append(("Disputed", {"role": role, "reason": reason, "remaining": remaining}))
            case "escrow.resolved":
                assert isinstance(asked, rules.Resolve)
                parts = {"to_seller": asked.to_seller_minor, "to_buyer": asked.to_buyer_minor}
                told.append(("Resolved", parts))
            case "escrow.cancelled" | "escrow.expired":
                told.append((event.type.removeprefix("escrow.").capitalize(), {}))
            case _:
                raise ValueError(event.type)
    return told
