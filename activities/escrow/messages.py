"""Messages of the escrow workflow, and their translation from and to the rules."""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from activities.messages import Message, MinorUnits, OriginMessage
from domain import escrow as rules
from domain.errors import Refusal
from domain.money import Asset


class PartyMessage(Message):
    """A user in a role."""

    user_id: str
    address: str | None = None


class CustodyMessage(Message):
    """See ``domain.escrow.Custody``."""

    relayer_id: str
    onchain_id: str
    token: str


class FollowedMessage(Message):
    """That a chain carried it out: at its block's time, by this transaction, as this event of its contract."""

    at: datetime
    tx_hash: str
    sequence: int


class MilestoneTermsMessage(Message):
    """A deliverable and its price."""

    title: str
    amount_minor: MinorUnits


class TermsMessage(Message):
    """What the parties agreed on; milestones have no ids before they are recorded."""

    asset: str
    buyer: PartyMessage
    seller: PartyMessage
    arbiter: PartyMessage | None = None
    milestones: tuple[MilestoneTermsMessage, ...]
    policy_roles: tuple[rules.Role, ...] = (rules.Role.BUYER,)
    policy_required: int = 1
    buyer_fee_basis_points: int = 0
    seller_fee_basis_points: int = 0
    funding_deadline: datetime | None = None
    inspection_period_seconds: int | None = None
    expires_at: datetime | None = None
    reference: str | None = None
    description: str | None = None
    custody: CustodyMessage | None = None

    def content_hash(self) -> bytes:
        """SHA-256 of the terms: the same reference with the same hash is the same escrow.

        Defaults are left out, so that a field added later does not change the hashes of older terms.
        """
        return sha256(self.model_dump_json(exclude_defaults=True).encode()).digest()

    def to_terms(self, asset: Asset, milestone_ids: tuple[UUID, ...]) -> rules.Terms:
        """The rules' view of it, with the ids that its milestones were given."""
        return rules.Terms(
            asset=asset,
            buyer=_party(self.buyer),
            seller=_party(self.seller),
            arbiter=None if self.arbiter is None else _party(self.arbiter),
            milestones=tuple(
                rules.MilestoneTerms(milestone_id, milestone.title, milestone.amount_minor)
                for milestone_id, milestone in zip(milestone_ids, self.milestones, strict=True)
            ),
            policy=rules.ApprovalPolicy(self.policy_roles, self.policy_required),
            buyer_fee_basis_points=self.buyer_fee_basis_points,
            seller_fee_basis_points=self.seller_fee_basis_points,
            funding_deadline=self.funding_deadline,
            inspection_period_seconds=self.inspection_period_seconds,
            expires_at=self.expires_at,
            reference=self.reference,
            description=self.description,
            custody=None if self.custody is None else to_custody(self.custody),
        )


class OpenEscrow(Message):
    """Start of an ``EscrowWorkflow``. Without ``terms`` the escrow is already recorded and its workflow resumes."""

    tenant_id: UUID
    escrow_id: UUID
    terms: TermsMessage | None = None
    origin: OriginMessage = OriginMessage()
    recent_commands: tuple[UUID, ...] = ()
    followed: FollowedMessage | None = None


class RecordOpening(Message):
    """Input of the step that records a new escrow, or loads one that is recorded."""

    opening: OpenEscrow
    at: datetime

    def log_context(self) -> dict[str, str]:
        """Tenant and request."""
        return {"tenant_id": str(self.opening.tenant_id)} | self.opening.origin.log_context()


class FundMessage(Message):
    """See ``domain.escrow.Fund``."""

    kind: Literal["fund"] = "fund"
    positions: tuple[int, ...] | None = None
    amount_minor: MinorUnits | None = None


class ApproveMessage(Message):
    """See ``domain.escrow.Approve``."""

    kind: Literal["approve"] = "approve"
    positions: tuple[int, ...] | None = None


class ReleaseMessage(Message):
    """See ``domain.escrow.Release``."""

    kind: Literal["release"] = "release"
    positions: tuple[int, ...] | None = None
    amount_minor: MinorUnits | None = None
    spread: Literal[True] | None = None


class RefundMessage(Message):
    """See ``domain.escrow.Refund``."""

    kind: Literal["refund"] = "refund"
    positions: tuple[int, ...] | None = None
    amount_minor: MinorUnits | None = None
    spread: Literal[True] | None = None


class DisputeMessage(Message):
    """See ``domain.escrow.Dispute``."""

    kind: Literal["dispute"] = "dispute"
    reason: str
    positions: tuple[int, ...] | None = None


class ResolveMessage(Message):
    """See ``domain.escrow.Resolve``."""

    kind: Literal["resolve"] = "resolve"
    to_seller_minor: MinorUnits
    to_buyer_minor: MinorUnits
    position: int | None = None


class CancelMessage(Message):
    """See ``domain.escrow.Cancel``."""

    kind: Literal["cancel"] = "cancel"


class PassDeadlineMessage(Message):
    """See ``domain.escrow.PassDeadline``."""

    kind: Literal["pass_deadline"] = "pass_deadline"


CommandMessage = (
    FundMessage | ApproveMessage | ReleaseMessage | RefundMessage | DisputeMessage | ResolveMessage | CancelMessage
)


class EscrowCommand(Message):
    """One party's command. ``command_id`` is the same for every attempt and names its single effect.

    ``repeated`` says that an earlier attempt may have had it: then the step, which has the receipts, decides alone.
    ``followed`` says that a chain has carried it out; only then it may be the passing of a deadline.
    """

    command_id: UUID
    command: Annotated[CommandMessage | PassDeadlineMessage, Field(discriminator="kind")]
    origin: OriginMessage
    repeated: bool = False
    followed: FollowedMessage | None = None


class ApplyCommand(Message):
    """Input of the step that carries a command out. ``step`` names it; ``at`` is the workflow's clock."""

    tenant_id: UUID
    escrow_id: UUID
    step: str
    command: Annotated[CommandMessage | PassDeadlineMessage, Field(discriminator="kind")]
    origin: OriginMessage
    at: datetime
    followed: FollowedMessage | None = None

    def log_context(self) -> dict[str, str]:
        """Tenant, request and command."""
        return {"tenant_id": str(self.tenant_id), "command": self.command.kind} | self.origin.log_context()


class EscrowOutcome(Message):
    """What a command left behind, for the caller."""

    escrow_id: UUID
    status: rules.Status
    version: int


def to_command(message: CommandMessage | PassDeadlineMessage) -> rules.Command:
    """The rules' view of a command."""
    match message:
        case FundMessage():
            return rules.Fund(message.positions, message.amount_minor)
        case ApproveMessage():
            return rules.Approve(message.positions)
        case ReleaseMessage():
            return rules.Release(message.positions, message.amount_minor, message.spread is True)
        case RefundMessage():
            return rules.Refund(message.positions, message.amount_minor, message.spread is True)
        case DisputeMessage():
            return rules.Dispute(message.reason, message.positions)
        case ResolveMessage():
            return rules.Resolve(message.to_seller_minor, message.to_buyer_minor, message.position)
        case CancelMessage():
            return rules.Cancel()
        case PassDeadlineMessage():
            return rules.PassDeadline()


def asker(
    command: CommandMessage | PassDeadlineMessage, origin: OriginMessage, *, followed: FollowedMessage | None
) -> str | None:
    """Who asks, for the rules: on a chain the clock passes a deadline, whoever called the contract for it."""
    return None if followed is not None and isinstance(command, PassDeadlineMessage) else origin.user_id


def judge(escrow: rules.Escrow, command: EscrowCommand, at: datetime) -> None:
    """Refuse what the rules refuse now, or at the time of the block that carried it out."""
    followed = command.followed
    if followed is None:
        if isinstance(command.command, PassDeadlineMessage):
            raise Refusal("role_not_allowed", "deadlines are passed by the clock alone")
        rules.decide(escrow, to_command(command.command), user_id=command.origin.user_id or "", at=at)
        return
    user_id = asker(command.command, command.origin, followed=followed)
    rules.decide(escrow, to_command(command.command), user_id=user_id, at=followed.at, followed=True)


def to_custody(message: CustodyMessage) -> rules.Custody:
    """The rules' view of it."""
    return rules.Custody(message.relayer_id, message.onchain_id, message.token)


def _party(message: PartyMessage) -> rules.Party:
    return rules.Party(message.user_id, message.address)
