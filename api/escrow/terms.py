"""From the wire to the domain and back: terms and commands out of inputs, views out of escrows."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID, uuid5

from api.escrow import models
from api.fields import Input
from db.chain.settling import Told
from domain.errors import Refusal
from domain.escrow import (
    ApprovalPolicy,
    Custody,
    Escrow,
    Milestone,
    MilestoneTerms,
    Party,
    Role,
    Terms,
)
from domain.ids import escrow_workflow_id
from domain.money import Asset, format_minor, parse_minor
from workflows.escrow import MilestoneTermsMessage, PartyMessage, TermsMessage, Waiting

SINGLE_MILESTONE_TITLE = "Full amount"


def terms_of(body: models.NewEscrow, asset: Asset, escrow_id: UUID) -> Terms:
    """The terms that a request describes. Milestone ids follow from the escrow's id, so that a repeated request
    describes the same terms."""
    fees = {Role.BUYER: 0, Role.SELLER: 0}
    for index, fee in enumerate(body.fees):
        payer = Role(fee.paid_by)
        if fees[payer]:
            raise Refusal("fee_repeated", f"the {payer} pays a fee already", field=f"fees.{index}.paid_by")
        fees[payer] = fee.basis_points
    policy = ApprovalPolicy()
    if body.approval_policy is not None:
        roles = tuple(Role(role) for role in body.approval_policy.roles)
        policy = ApprovalPolicy(roles, body.approval_policy.required)
    return Terms(
        asset=asset,
        buyer=_party(body.buyer),
        seller=_party(body.seller),
        arbiter=None if body.arbiter is None else _party(body.arbiter),
        milestones=tuple(
            MilestoneTerms(uuid5(escrow_id, f"milestone:{position}"), title, amount_minor)
            for position, (title, amount_minor) in enumerate(_prices(body, asset), start=1)
        ),
        policy=policy,
        buyer_fee_basis_points=fees[Role.BUYER],
        seller_fee_basis_points=fees[Role.SELLER],
        funding_deadline=body.funding_deadline,
        inspection_period_seconds=body.inspection_period_seconds,
        expires_at=body.expires_at,
        reference=body.reference,
        description=body.description,
    )


def terms_message(terms: Terms) -> TermsMessage:
    """The terms as the workflow takes them; it gives the milestones ids of its own."""
    return TermsMessage(
        asset=terms.asset.symbol,
        buyer=_party_message(terms.buyer),
        seller=_party_message(terms.seller),
        arbiter=None if terms.arbiter is None else _party_message(terms.arbiter),
        milestones=tuple(
            MilestoneTermsMessage(title=milestone.title, amount_minor=milestone.amount_minor)
            for milestone in terms.milestones
        ),
        policy_roles=terms.policy.roles,
        policy_required=terms.policy.required,
        buyer_fee_basis_points=terms.buyer_fee_basis_points,
        seller_fee_basis_points=terms.seller_fee_basis_points,
        funding_deadline=terms.funding_deadline,
        inspection_period_seconds=terms.inspection_period_seconds,
        expires_at=terms.expires_at,
        reference=terms.reference,
        description=terms.description,
    )


def translated(refusal: Refusal, body: Input) -> Refusal:
    """The refusal with the name that its field has in the request."""
    return Refusal(refusal.code, refusal.message, field=_input_field(refusal.field, body))


def _input_field(field: str | None, body: Input) -> str | None:
    if field is None:
        return None
    if isinstance(body, models.NewEscrow):
        if body.amount is not None and field.startswith("milestones"):
            return "amount"
        for index, fee in enumerate(body.fees):
            if field == f"fees.{fee.paid_by}.basis_points":
                return f"fees.{index}.basis_points"
        return field
    if field.startswith("positions"):
        return "milestone" if isinstance(body, models.ResolutionInput) else field.replace("positions", "milestones", 1)
    return field


def _prices(body: models.NewEscrow, asset: Asset) -> list[tuple[str, int]]:
    if body.amount is not None and body.milestones is not None:
        raise Refusal("amount_ambiguous", "send either amount or milestones", field="amount")
    if body.milestones is not None:
        return [
            (milestone.title, parse_minor(milestone.amount, asset.scale, field=f"milestones.{index}.amount"))
            for index, milestone in enumerate(body.milestones)
        ]
    if body.amount is None:
        raise Refusal("required", "send amount, or milestones", field="amount")
    return [(SINGLE_MILESTONE_TITLE, parse_minor(body.amount, asset.scale, field="amount"))]


def _party(party: models.PartyInput) -> Party:
    return Party(party.user_id, party.address)


def view(escrow: Escrow, told: Sequence[Told] | None = None) -> models.EscrowView:
    """An escrow as it is answered, with what its contract told of it where that was read."""
    terms = escrow.terms
    scale = terms.asset.scale
    fees = [(terms.buyer_fee_basis_points, Role.BUYER), (terms.seller_fee_basis_points, Role.SELLER)]
    return models.EscrowView(
        escrow_id=escrow.escrow_id,
        workflow_id=escrow_workflow_id(escrow.escrow_id),
        reference=terms.reference,
        description=terms.description,
        status=escrow.status,
        version=escrow.version,
        asset=terms.asset.symbol,
        amount=format_minor(sum(milestone.amount_minor for milestone in escrow.milestones), scale),
        released=format_minor(sum(milestone.released_minor for milestone in escrow.milestones), scale),
        refunded=format_minor(sum(milestone.refunded_minor for milestone in escrow.milestones), scale),
        remaining=format_minor(sum(milestone.remaining_minor for milestone in escrow.milestones), scale),
        buyer=_party_view(terms.buyer),
        seller=_party_view(terms.seller),
        arbiter=None if terms.arbiter is None else _party_view(terms.arbiter),
        approval_policy=models.PolicyView(roles=list(terms.policy.roles), required=terms.policy.required),
        fees=[models.FeeView(basis_points=points, paid_by=payer) for points, payer in fees if points],
        funding_deadline=terms.funding_deadline,
        inspection_period_seconds=terms.inspection_period_seconds,
        expires_at=terms.expires_at,
        milestones=[_milestone_view(milestone, scale) for milestone in escrow.milestones],
        created_at=escrow.created_at,
        updated_at=escrow.updated_at,
        closed_at=escrow.closed_at,
        custody="desk" if terms.custody is None else "chain",
        on_chain=None if terms.custody is None else _on_chain_view(terms.custody, told),
    )


def waiting_view(escrow_id: UUID, waiting: Waiting) -> models.WaitingView:
    """What an escrow waits for, as its workflow says it."""
    return models.WaitingView(
        escrow_id=escrow_id,
        status=waiting.status,
        waits=[
            models.WaitView(
                what=wait.what,
                roles=list(wait.roles),
                commands=list(wait.commands),
                milestones=list(wait.milestones),
                until=wait.until,
            )
            for wait in waiting.waits
        ],
        next_deadline=waiting.next_deadline,
        next_deadline_kind=waiting.next_deadline_kind,
    )


def _party_message(party: Party) -> PartyMessage:
    return PartyMessage(user_id=party.user_id, address=party.address)


def _on_chain_view(custody: Custody, told: Sequence[Told] | None) -> models.OnChainView:
    events = None
    if told is not None:
        events = [
            models.ChainEventView(
                kind=each.kind,
                sequence=each.sequence,
                tx_hash=f"0x{each.tx_hash.hex()}",
                block_number=each.block_number,
                at=each.at,
                outcome=each.outcome,
                code=each.code,
            )
            for each in told
        ]
    return models.OnChainView(
        relayer_id=custody.relayer_id, onchain_id=custody.onchain_id, token=custody.token, events=events
    )


def _party_view(party: Party) -> models.PartyView:
    return models.PartyView(user_id=party.user_id, address=party.address)


def _milestone_view(milestone: Milestone, scale: int) -> models.MilestoneView:
    dispute = milestone.dispute
    return models.MilestoneView(
        position=milestone.position,
        milestone_id=milestone.milestone_id,
        title=milestone.title,
        amount=format_minor(milestone.amount_minor, scale),
        status=milestone.status,
        released=format_minor(milestone.released_minor, scale),
        refunded=format_minor(milestone.refunded_minor, scale),
        remaining=format_minor(milestone.remaining_minor, scale),
        approvals=[
            models.ApprovalView(role=approval.role, user_id=approval.user_id, at=approval.at)
            for approval in milestone.approvals
        ],
        dispute=None
        if dispute is None
        else models.DisputeView(role=dispute.role, user_id=dispute.user_id, at=dispute.at, reason=dispute.reason),
        funded_at=milestone.funded_at,
        approved_at=milestone.approved_at,
        auto_release_at=milestone.auto_release_at,
        closed_at=milestone.closed_at,
    )
