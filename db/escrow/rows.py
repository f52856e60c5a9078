"""Between an escrow and its rows."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from domain.escrow import (
    Approval,
    ApprovalPolicy,
    Custody,
    DisputeRecord,
    Escrow,
    Milestone,
    MilestoneStatus,
    MilestoneTerms,
    Party,
    Role,
    Status,
    Terms,
)
from domain.money import Asset


def to_escrow(row: Any) -> Escrow:
    """The escrow that a row of ``queries.SELECT`` holds, its milestones aggregated in ``milestones``."""
    milestones = tuple(_milestone(entry) for entry in row.milestones)
    return Escrow(
        escrow_id=row.escrow_id,
        terms=_terms(row, milestones),
        status=Status(row.status),
        milestones=milestones,
        created_at=row.created_at,
        updated_at=row.updated_at,
        version=row.version,
        closed_at=row.closed_at,
    )


def escrow_row(escrow: Escrow) -> dict[str, Any]:
    """The columns of ``escrows`` for an escrow, tenant and content hash apart."""
    terms = escrow.terms
    return {
        "escrow_id": escrow.escrow_id,
        "reference": terms.reference,
        "status": escrow.status,
        "version": escrow.version,
        "asset": terms.asset.symbol,
        "amount_minor": sum(milestone.amount_minor for milestone in terms.milestones),
        "buyer_user_id": terms.buyer.user_id,
        "buyer_address": terms.buyer.address,
        "seller_user_id": terms.seller.user_id,
        "seller_address": terms.seller.address,
        "arbiter_user_id": None if terms.arbiter is None else terms.arbiter.user_id,
        "arbiter_address": None if terms.arbiter is None else terms.arbiter.address,
        "policy_roles": [str(role) for role in terms.policy.roles],
        "policy_required": terms.policy.required,
        "buyer_fee_basis_points": terms.buyer_fee_basis_points,
        "seller_fee_basis_points": terms.seller_fee_basis_points,
        "fee_account": terms.fee_account,
        "funding_deadline": terms.funding_deadline,
        "inspection_period_seconds": terms.inspection_period_seconds,
        "expires_at": terms.expires_at,
        "description": terms.description,
        "custody_relayer_id": None if terms.custody is None else terms.custody.relayer_id,
        "custody_onchain_id": None if terms.custody is None else terms.custody.onchain_id,
        "custody_token": None if terms.custody is None else terms.custody.token,
        "created_at": escrow.created_at,
        "updated_at": escrow.updated_at,
        "closed_at": escrow.closed_at,
    }


def milestone_row(milestone: Milestone) -> dict[str, Any]:
    """The columns of ``escrow_milestones`` as JSON, tenant and escrow apart."""
    dispute = milestone.dispute
    return {
        "position": milestone.position,
        "milestone_id": str(milestone.milestone_id),
        "title": milestone.title,
        "amount_minor": milestone.amount_minor,
        "status": milestone.status,
        "released_minor": milestone.released_minor,
        "refunded_minor": milestone.refunded_minor,
        "approvals": [
            {"role": given.role, "user_id": given.user_id, "at": given.at.isoformat()} for given in milestone.approvals
        ],
        "dispute": None
        if dispute is None
        else {
            "role": dispute.role,
            "user_id": dispute.user_id,
            "reason": dispute.reason,
            "at": dispute.at.isoformat(),
        },
        "funded_at": _isoformat(milestone.funded_at),
        "approved_at": _isoformat(milestone.approved_at),
        "auto_release_at": _isoformat(milestone.auto_release_at),
        "closed_at": _isoformat(milestone.closed_at),
    }


def _terms(row: Any, milestones: tuple[Milestone, ...]) -> Terms:
    arbiter = None if row.arbiter_user_id is None else Party(row.arbiter_user_id, row.arbiter_address)
    return Terms(
        asset=Asset(row.asset, row.scale, row.chain, row.contract),
        buyer=Party(row.buyer_user_id, row.buyer_address),
        seller=Party(row.seller_user_id, row.seller_address),
        milestones=tuple(MilestoneTerms(m.milestone_id, m.title, m.amount_minor) for m in milestones),
        arbiter=arbiter,
        policy=ApprovalPolicy(tuple(Role(role) for role in row.policy_roles), row.policy_required),
        buyer_fee_basis_points=row.buyer_fee_basis_points,
        seller_fee_basis_points=row.seller_fee_basis_points,
        fee_account=row.fee_account,
        funding_deadline=row.funding_deadline,
        inspection_period_seconds=row.inspection_period_seconds,
        expires_at=row.expires_at,
        reference=row.reference,
        description=row.description,
        custody=None
        if row.custody_relayer_id is None
        else Custody(row.custody_relayer_id, row.custody_onchain_id, row.custody_token),
    )


def _milestone(entry: dict[str, Any]) -> Milestone:
    dispute = entry["dispute"]
    return Milestone(
        milestone_id=UUID(entry["milestone_id"]),
        position=entry["position"],
        title=entry["title"],
        amount_minor=int(entry["amount_minor"]),
        status=MilestoneStatus(entry["status"]),
        released_minor=int(entry["released_minor"]),
        refunded_minor=int(entry["refunded_minor"]),
        approvals=tuple(
            Approval(Role(given["role"]), given["user_id"], datetime.fromisoformat(given["at"]))
            for given in entry["approvals"]
        ),
        dispute=None
        if dispute is None
        else DisputeRecord(
            Role(dispute["role"]), dispute["user_id"], dispute["reason"], datetime.fromisoformat(dispute["at"])
        ),
        funded_at=_instant(entry["funded_at"]),
        approved_at=_instant(entry["approved_at"]),
        auto_release_at=_instant(entry["auto_release_at"]),
        closed_at=_instant(entry["closed_at"]),
    )


def _isoformat(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _instant(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
