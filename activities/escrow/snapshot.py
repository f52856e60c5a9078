"""An escrow as the workflow holds it between commands."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from activities.escrow.messages import CustodyMessage, PartyMessage, to_custody
from activities.messages import Message, MinorUnits
from domain import escrow as rules
from domain.money import Asset


class AssetMessage(Message):
    """What the amounts are counted in."""

    symbol: str
    scale: int
    chain: str | None = None
    contract: str | None = None


class ApprovalMessage(Message):
    """One role's yes."""

    role: rules.Role
    user_id: str
    at: datetime


class DisputeRecordMessage(Message):
    """Why a milestone is stopped."""

    role: rules.Role
    user_id: str
    reason: str
    at: datetime


class MilestoneMessage(Message):
    """One milestone's state."""

    milestone_id: UUID
    title: str
    amount_minor: MinorUnits
    status: rules.MilestoneStatus
    released_minor: MinorUnits = 0
    refunded_minor: MinorUnits = 0
    approvals: tuple[ApprovalMessage, ...] = ()
    dispute: DisputeRecordMessage | None = None
    funded_at: datetime | None = None
    approved_at: datetime | None = None
    auto_release_at: datetime | None = None
    closed_at: datetime | None = None


class EscrowSnapshot(Message):
    """Terms and state together: enough for the rules to judge the next command."""

    escrow_id: UUID
    asset: AssetMessage
    buyer: PartyMessage
    seller: PartyMessage
    arbiter: PartyMessage | None = None
    policy_roles: tuple[rules.Role, ...]
    policy_required: int
    buyer_fee_basis_points: int = 0
    seller_fee_basis_points: int = 0
    fee_account: str
    funding_deadline: datetime | None = None
    inspection_period_seconds: int | None = None
    expires_at: datetime | None = None
    reference: str | None = None
    description: str | None = None
    milestones: tuple[MilestoneMessage, ...]
    status: rules.Status
    version: int
    created_at: datetime
    updated_at: datetime
    closed_at: datetime | None = None
    custody: CustodyMessage | None = None

    @classmethod
    def of(cls, escrow: rules.Escrow) -> EscrowSnapshot:
        """The message for an escrow."""
        terms = escrow.terms
        return cls(
            escrow_id=escrow.escrow_id,
            asset=AssetMessage(
                symbol=terms.asset.symbol,
                scale=terms.asset.scale,
                chain=terms.asset.chain,
                contract=terms.asset.contract,
            ),
            buyer=_party(terms.buyer),
            seller=_party(terms.seller),
            arbiter=None if terms.arbiter is None else _party(terms.arbiter),
            policy_roles=terms.policy.roles,
            policy_required=terms.policy.required,
            buyer_fee_basis_points=terms.buyer_fee_basis_points,
            seller_fee_basis_points=terms.seller_fee_basis_points,
            fee_account=terms.fee_account,
            funding_deadline=terms.funding_deadline,
            inspection_period_seconds=terms.inspection_period_seconds,
            expires_at=terms.expires_at,
            reference=terms.reference,
            description=terms.description,
            milestones=tuple(_milestone(milestone) for milestone in escrow.milestones),
            status=escrow.status,
            version=escrow.version,
            created_at=escrow.created_at,
            updated_at=escrow.updated_at,
            closed_at=escrow.closed_at,
            custody=None
            if terms.custody is None
            else CustodyMessage(
                relayer_id=terms.custody.relayer_id, onchain_id=terms.custody.onchain_id, token=terms.custody.token
            ),
        )

    def to_escrow(self) -> rules.Escrow:
        """The rules' view of it."""
        return rules.Escrow(
            escrow_id=self.escrow_id,
            terms=self._terms(),
            status=self.status,
            milestones=tuple(
                _to_milestone(position, milestone) for position, milestone in enumerate(self.milestones, start=1)
            ),
            created_at=self.created_at,
            updated_at=self.updated_at,
            version=self.version,
            closed_at=self.closed_at,
        )

    def _terms(self) -> rules.Terms:
        asset = self.asset
        return rules.Terms(
            asset=Asset(asset.symbol, asset.scale, asset.chain, asset.contract),
            buyer=rules.Party(self.buyer.user_id, self.buyer.address),
            seller=rules.Party(self.seller.user_id, self.seller.address),
            arbiter=None if self.arbiter is None else rules.Party(self.arbiter.user_id, self.arbiter.address),
            milestones=tuple(rules.MilestoneTerms(m.milestone_id, m.title, m.amount_minor) for m in self.milestones),
            policy=rules.ApprovalPolicy(self.policy_roles, self.policy_required),
            buyer_fee_basis_points=self.buyer_fee_basis_points,
            seller_fee_basis_points=self.seller_fee_basis_points,
            fee_account=self.fee_account,
            funding_deadline=self.funding_deadline,
            inspection_period_seconds=self.inspection_period_seconds,
            expires_at=self.expires_at,
            reference=self.reference,
            description=self.description,
            custody=None if self.custody is None else to_custody(self.custody),
        )


def _party(party: rules.Party) -> PartyMessage:
    return PartyMessage(user_id=party.user_id, address=party.address)


def _milestone(milestone: rules.Milestone) -> MilestoneMessage:
    dispute = milestone.dispute
    return MilestoneMessage(
        milestone_id=milestone.milestone_id,
        title=milestone.title,
        amount_minor=milestone.amount_minor,
        status=milestone.status,
        released_minor=milestone.released_minor,
        refunded_minor=milestone.refunded_minor,
        approvals=tuple(
            ApprovalMessage(role=given.role, user_id=given.user_id, at=given.at) for given in milestone.approvals
        ),
        dispute=None
        if dispute is None
        else DisputeRecordMessage(role=dispute.role, user_id=dispute.user_id, reason=dispute.reason, at=dispute.at),
        funded_at=milestone.funded_at,
        approved_at=milestone.approved_at,
        auto_release_at=milestone.auto_release_at,
        closed_at=milestone.closed_at,
    )


def _to_milestone(position: int, message: MilestoneMessage) -> rules.Milestone:
    dispute = message.dispute
    return rules.Milestone(
        milestone_id=message.milestone_id,
        position=position,
        title=message.title,
        amount_minor=message.amount_minor,
        status=message.status,
        released_minor=message.released_minor,
        refunded_minor=message.refunded_minor,
        approvals=tuple(rules.Approval(given.role, given.user_id, given.at) for given in message.approvals),
        dispute=None
        if dispute is None
        else rules.DisputeRecord(dispute.role, dispute.user_id, dispute.reason, dispute.at),
        funded_at=message.funded_at,
        approved_at=message.approved_at,
        auto_release_at=message.auto_release_at,
        closed_at=message.closed_at,
    )
