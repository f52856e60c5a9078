"""What a contract's events mean to the desk: terms that it may keep, and commands that its own rules decide again.

Pure. A contract carries commands out and tells of each in one or more events; the first of them is the command, what
follows are its consequences. The rules must come to the same consequences, or the desk does not follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

from activities.escrow.messages import (
    ApproveMessage,
    CancelMessage,
    CommandMessage,
    CustodyMessage,
    DisputeMessage,
    FollowedMessage,
    FundMessage,
    MilestoneTermsMessage,
    PartyMessage,
    PassDeadlineMessage,
    RefundMessage,
    ReleaseMessage,
    ResolveMessage,
    TermsMessage,
    to_command,
)
from domain.errors import Refusal
from domain.escrow import Decision, Escrow, Role, decide
from domain.ids import uuid7
from domain.money import Asset
from kit.chains import Token

NOBODY: Final = "0x" + 40 * "0"
TITLE: Final = "all of it"
#: The last second that a time here can be.
_LAST_SECOND: Final = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp())
_ROLES: Final = {Role.BUYER: 1, Role.SELLER: 2, Role.ARBITER: 4}

#: What may follow the first event of a command, in the same transaction and at once.
_CONSEQUENCES: Final = {
    "Funded": ("Approved",),
    "ApprovalRecorded": ("Approved",),
    "Refunded": ("Expired",),
    "Resolved": ("Released", "Refunded"),
}


class Unsupported(Exception):
    """The desk does not keep this: its token or its terms are none of the desk's. ``code`` is for ever."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Disagreement(Exception):
    """The desk's own rules would not have done what the contract did."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Fact:
    """One event of an escrow, decoded: numbers, and bytes as hexadecimal with 0x."""

    sequence: int
    kind: str
    operation_id: UUID
    tx_hash: bytes
    at: datetime
    arguments: Mapping[str, Any]

    @property
    def by(self) -> str:
        """Who called the contract."""
        return str(self.arguments["by"])

    @property
    def followed(self) -> FollowedMessage:
        """For messages: that the chain did it."""
        return FollowedMessage(at=self.at, tx_hash=f"0x{self.tx_hash.hex()}", sequence=self.sequence)


@dataclass(frozen=True, slots=True)
class Act:
    """A command that the contract carried out, and all that it told of it."""

    facts: tuple[Fact, ...]

    @property
    def first(self) -> Fact:
        """The event that is the command."""
        return self.facts[0]


def escrow_id_of(relayer_id: str, onchain_id: str, created_at: datetime) -> UUID:
    """The desk's id of an escrow on a chain: the same for every attempt, and it sorts by its block's time."""
    return uuid7(created_at, sha256(f"{relayer_id}:{onchain_id}".encode()).digest()[:10])


def acts_of(facts: Sequence[Fact]) -> list[Act]:
    """The commands that these events of one escrow, in order and of whole transactions, tell of."""
    acts: list[Act] = []
    rest = list(facts)
    while rest:
        taken = [rest.pop(0)]
        for kind in _CONSEQUENCES.get(taken[0].kind, ()):
            if rest and rest[0].kind == kind and _continues(taken[-1], rest[0]):
                taken.append(rest.pop(0))
        acts.append(Act(tuple(taken)))
    return acts


def terms_of(relayer_id: str, fact: Fact, tokens: Mapping[str, Token], assets: Mapping[str, Asset]) -> TermsMessage:
    """The terms of a new escrow; raises ``Unsupported`` for what the desk does not keep."""
    told = fact.arguments
    asset = asset_of(told["token"], tokens, assets)
    return TermsMessage(
        asset=asset.symbol,
        buyer=_party(told["buyer"]),
        seller=_party(told["seller"]),
        arbiter=None if told["arbiter"] == NOBODY else _party(told["arbiter"]),
        milestones=(MilestoneTermsMessage(title=TITLE, amount_minor=told["amount"]),),
        policy_roles=tuple(role for role, bit in _ROLES.items() if told["approving_roles"] & bit),
        policy_required=told["approvals_required"],
        funding_deadline=_instant("funding_deadline", told),
        inspection_period_seconds=told["inspection_seconds"] or None,
        expires_at=_instant("expires_at", told),
        custody=CustodyMessage(relayer_id=relayer_id, onchain_id=told["escrow_id"], token=told["token"]),
    )


def asset_of(token: str, tokens: Mapping[str, Token], assets: Mapping[str, Asset]) -> Asset:
    """The asset that a token is here; raises ``Unsupported``. An amount of the token is that many minor units."""
    known = tokens.get(token)
    if known is None:
        raise Unsupported("token_unknown", f"the configuration has no token {token} on this chain")
    asset = assets.get(known.asset)
    if asset is None:
        raise Unsupported("asset_unknown", f"token {token} is to be {known.asset}, which is no asset here")
    if asset.scale != known.decimals:
        reason = f"token {token} has {known.decimals} decimals, and {asset.symbol} {asset.scale}"
        raise Unsupported("scale_differs", reason)
    return asset


def command_of(act: Act, escrow: Escrow) -> CommandMessage | PassDeadlineMessage:
    """The command that an act was; raises ``Disagreement`` where it is none that this escrow could be asked."""
    first, told = act.first, act.first.arguments
    match first.kind, escrow.role_of(first.by):
        case "Funded", _:
            return FundMessage(amount_minor=told["amount"])
        case "ApprovalRecorded", _:
            return ApproveMessage()
        case "Released", Role.BUYER | Role.SELLER:
            return ReleaseMessage(amount_minor=told["amount"])
        case "Refunded", Role.SELLER if len(act.facts) == 1:
            return RefundMessage(amount_minor=told["amount"])
        case (("Released" | "Refunded" | "Expired"), _):
            return PassDeadlineMessage()
        case "Disputed", _:
            return DisputeMessage(reason=told["reason"])
        case "Resolved", _:
            return ResolveMessage(to_seller_minor=told["to_seller"], to_buyer_minor=told["to_buyer"])
        case "Cancelled", _:
            return CancelMessage()
        case kind, _:
            raise Disagreement("event_unexpected", f"{kind} tells of nothing that was asked of the escrow")


def follow(act: Act, escrow: Escrow) -> tuple[CommandMessage | PassDeadlineMessage, Decision]:
    """The command that an act was and what the rules make of it; raises ``Disagreement`` unless they come to the same
    consequences as the contract."""
    message, first = command_of(act, escrow), act.first
    user_id = None if isinstance(message, PassDeadlineMessage) else first.by
    try:
        decision = decide(escrow, to_command(message), user_id=user_id, at=first.at, followed=True)
    except Refusal as refusal:
        raise Disagreement(refusal.code, f"{first.kind} {first.sequence}: {refusal.message}") from None
    wanted, told = _consequences(escrow, decision, message), [_essence(fact) for fact in act.facts]
    if wanted != told:
        raise Disagreement("consequences_differ", f"the rules come to {wanted}, the contract told {told}")
    return message, decision


def _continues(before: Fact, after: Fact) -> bool:
    return after.sequence == before.sequence + 1 and after.tx_hash == before.tx_hash


_ESSENCE: Final = {
    "Funded": ("amount", "token"),
    "ApprovalRecorded": ("role",),
    "Approved": ("release_at",),
    "Released": ("account", "token", "amount", "remaining"),
    "Refunded": ("account", "token", "amount", "remaining"),
    "Disputed": ("role", "remaining"),
    "Resolved": ("to_seller", "to_buyer"),
    "Cancelled": (),
    "Expired": (),
}


def _essence(fact: Fact) -> tuple[Any, ...]:
    """What of an event the rules come to as well, in the order of ``_ESSENCE``."""
    return (fact.kind, *(fact.arguments[name] for name in _ESSENCE[fact.kind]))


def _consequences(
    before: Escrow, decision: Decision, message: CommandMessage | PassDeadlineMessage
) -> list[tuple[Any, ...]]:
    """What a contract tells of a decision; see ``_essence``."""
    custody, terms = before.terms.custody, before.terms
    assert custody is not None, "only what a chain keeps is followed"
    remaining = before.milestones[0].remaining_minor
    told: list[tuple[Any, ...]] = []
    for event in decision.events:
        if event.position is None:
            continue
        amount, role = event.amount_minor or 0, _ROLES.get(event.role or Role.SYSTEM, 0)
        match event.type.removeprefix("escrow."):
            case "funded":
                told.append(("Funded", amount, custody.token))
            case "approval_recorded":
                told.append(("ApprovalRecorded", role))
            case "approved":
                told.append(("Approved", _seconds(decision.escrow.milestones[0].auto_release_at)))
            case "released":
                remaining -= amount
                told.append(("Released", terms.seller.user_id, custody.token, amount, remaining))
            case "refunded":
                remaining -= amount
                told.append(("Refunded", terms.buyer.user_id, custody.token, amount, remaining))
            case "disputed":
                told.append(("Disputed", role, remaining))
            case "resolved":
                assert isinstance(message, ResolveMessage), "nothing else resolves"
                told.append(("Resolved", message.to_seller_minor, message.to_buyer_minor))
            case ended:
                told.append((ended.capitalize(),))
    return told


def _party(address: str) -> PartyMessage:
    return PartyMessage(user_id=address, address=address)


def _instant(name: str, told: Mapping[str, Any]) -> datetime | None:
    seconds: int = told[name]
    if seconds > _LAST_SECOND:
        raise Unsupported("deadline_too_late", f"{name} {seconds} is behind the end of the calendar")
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def _seconds(at: datetime | None) -> int:
    return 0 if at is None else int(at.timestamp())
