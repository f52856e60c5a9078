"""What an escrow is: its terms, which never change, and its state, which only ``decide`` moves.

Amounts are integers in the minor unit of ``Terms.asset``. Milestones are counted from 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from domain.money import Asset, share_floor


class Role(StrEnum):
    """Whom a command speaks for. ``SYSTEM`` is the clock: deadlines act through it and nobody else can."""

    BUYER = "buyer"
    SELLER = "seller"
    ARBITER = "arbiter"
    SYSTEM = "system"


class Status(StrEnum):
    """Where an escrow stands. The last four are final."""

    CREATED = "created"
    FUNDED = "funded"
    APPROVED = "approved"
    DISPUTED = "disputed"
    COMPLETED = "completed"
    REFUNDED = "refunded"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class MilestoneStatus(StrEnum):
    """Where one milestone stands. The last four are final."""

    PENDING = "pending"
    FUNDED = "funded"
    APPROVED = "approved"
    DISPUTED = "disputed"
    RELEASED = "released"
    REFUNDED = "refunded"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


CLOSED = frozenset({Status.COMPLETED, Status.REFUNDED, Status.CANCELLED, Status.EXPIRED})
MILESTONE_HELD = frozenset({MilestoneStatus.FUNDED, MilestoneStatus.APPROVED, MilestoneStatus.DISPUTED})
MILESTONE_CLOSED = frozenset(
    {MilestoneStatus.RELEASED, MilestoneStatus.REFUNDED, MilestoneStatus.CANCELLED, MilestoneStatus.EXPIRED}
)


@dataclass(frozen=True, slots=True)
class Party:
    """A user in a role. ``user_id`` is the tenant's own opaque string, ``address`` a wallet where there is one."""

    user_id: str
    address: str | None = None


@dataclass(frozen=True, slots=True)
class ApprovalPolicy:
    """A milestone is approved once ``required`` different roles out of ``roles`` approved it."""

    roles: tuple[Role, ...] = (Role.BUYER,)
    required: int = 1


@dataclass(frozen=True, slots=True)
class MilestoneTerms:
    """One deliverable and its price; ``milestone_id`` also names the ledger hold that carries the money."""

    milestone_id: UUID
    title: str
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Custody:
    """A contract on a chain that keeps the money and carries out what the parties ask of it; the desk follows.

    ``relayer_id`` follows the contract, ``onchain_id`` is the escrow's id there and ``token`` what it is paid in, both
    hexadecimal with ``0x``. There is one milestone and no fee.
    """

    relayer_id: str
    onchain_id: str
    token: str


@dataclass(frozen=True, slots=True)
class Terms:
    """What the parties agreed on.

    Fees are basis points (1/10,000) of what is released. The buyer's fee is held on top of the amount when a milestone
    is funded, the seller's is taken out of what is released; both end on ``fee_account``.
    ``inspection_period_seconds`` runs from the moment a milestone is both funded and approved; at its end what is left
    is released. At ``expires_at`` whatever is funded but neither approved nor disputed returns to the buyer.
    Without a ``custody`` the desk itself keeps the money.
    """

    asset: Asset
    buyer: Party
    seller: Party
    milestones: tuple[MilestoneTerms, ...]
    arbiter: Party | None = None
    policy: ApprovalPolicy = ApprovalPolicy()
    buyer_fee_basis_points: int = 0
    seller_fee_basis_points: int = 0
    fee_account: str = "system:fees"
    funding_deadline: datetime | None = None
    inspection_period_seconds: int | None = None
    expires_at: datetime | None = None
    reference: str | None = None
    description: str | None = None
    custody: Custody | None = None


@dataclass(frozen=True, slots=True)
class Approval:
    """One role's yes to a milestone."""

    role: Role
    user_id: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Dispute:
    """Why a milestone is stopped, who stopped it, and when."""

    role: Role
    user_id: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Milestone:
    """One milestone's state. ``auto_release_at`` is the end of its inspection period, once that runs."""

    milestone_id: UUID
    position: int
    title: str
    amount_minor: int
    status: MilestoneStatus = MilestoneStatus.PENDING
    released_minor: int = 0
    refunded_minor: int = 0
    approvals: tuple[Approval, ...] = ()
    dispute: Dispute | None = None
    funded_at: datetime | None = None
    approved_at: datetime | None = None
    auto_release_at: datetime | None = None
    closed_at: datetime | None = None

    @property
    def remaining_minor(self) -> int:
        """What is still held for this milestone, the buyer's fee reserve apart; 0 unless it is funded and open."""
        if self.status not in MILESTONE_HELD:
            return 0
        return self.amount_minor - self.released_minor - self.refunded_minor

    def reserve_minor(self, buyer_fee_basis_points: int) -> int:
        """The buyer's fee still held beside ``remaining_minor``: what releasing all of it would cost."""
        return share_floor(self.released_minor + self.remaining_minor, buyer_fee_basis_points) - share_floor(
            self.released_minor, buyer_fee_basis_points
        )


@dataclass(frozen=True, slots=True)
class Escrow:
    """An escrow as the rules see it. ``version`` counts the commands that changed it, creation being 1."""

    escrow_id: UUID
    terms: Terms
    status: Status
    milestones: tuple[Milestone, ...]
    created_at: datetime
    updated_at: datetime
    version: int = 1
    closed_at: datetime | None = None

    def role_of(self, user_id: str) -> Role | None:
        """The role that a user has here, or None for a stranger."""
        for role, party in self.parties():
            if party.user_id == user_id:
                return role
        return None

    def parties(self) -> tuple[tuple[Role, Party], ...]:
        """The roles that are filled, with who fills them."""
        parties = [(Role.BUYER, self.terms.buyer), (Role.SELLER, self.terms.seller)]
        if self.terms.arbiter is not None:
            parties.append((Role.ARBITER, self.terms.arbiter))
        return tuple(parties)


@dataclass(frozen=True, slots=True)
class Movement:
    """What one milestone's hold takes in or gives out, in minor units.

    Taking in: ``placed_minor`` leaves the buyer's available balance for the hold. Giving out: the hold pays
    ``to_seller_minor``, ``to_buyer_minor`` and ``fee_minor``.
    """

    position: int
    hold_id: UUID
    placed_minor: int = 0
    to_seller_minor: int = 0
    to_buyer_minor: int = 0
    fee_minor: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """What happened, past tense (``escrow.released``). Without a position it tells of the escrow as a whole."""

    type: str
    position: int | None = None
    amount_minor: int | None = None
    role: Role | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome of a command that was allowed: the next state, the money that moves, what to tell."""

    escrow: Escrow
    movements: tuple[Movement, ...]
    events: tuple[Event, ...]
