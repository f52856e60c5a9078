"""The shapes of transfers between accounts: in one phase, in two, and linked."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from api.fields import WHOLE, Amount, DecimalText, Input, Instant, Line, Prose, Symbol, UserId
from api.ledger.models import TransactionView
from db.transfers import TransferRecord
from domain.ids import transfer_workflow_id
from domain.money import format_minor
from domain.transfers import MAX_CHAIN, MAX_PENDING, TransferStatus

_MAX_PENDING_SECONDS = int(MAX_PENDING.total_seconds())
_EXAMPLE: dict[str, JsonValue] = {"from": "alice", "to": "bob", "asset": "USDC", "amount": "12.50"}
_CHAIN_EXAMPLE: dict[str, JsonValue] = {
    "transfers": [
        {"from": "alice", "to": "bob", "asset": "USDC", "amount": "12.50"},
        {"from": "bob", "to": "carol", "asset": "USDC", "amount": "10"},
    ]
}


class LinkInput(Input):
    """Money that goes from one user's account to another's."""

    source: UserId = Field(alias="from")
    target: UserId = Field(alias="to")
    asset: Symbol
    amount: Amount
    description: Prose | None = None


class NewTransfer(LinkInput):
    """A transfer: at once, or `pending` until it is posted, voided or expired."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    pending: bool = Field(default=False, description="Set the money apart first; a second request posts or voids it")
    expires_at: Instant | None = Field(
        default=None,
        description=f"When a pending one returns by itself; at most, and by default, {MAX_PENDING.days} days",
    )
    timeout_seconds: Annotated[int, Field(ge=1, le=_MAX_PENDING_SECONDS), WHOLE] | None = Field(
        default=None, description="The same as a duration; send either"
    )
    reference: Line | None = Field(
        default=None, description="The outside's name for it; unique per kind. Sent again, it answers the same one"
    )
    actor: UserId | None = Field(default=None, description="The user that it is done for; by default `from`")


class NewChain(Input):
    """Transfers that are booked together or not at all, in this order: a later one may spend what an earlier brings."""

    model_config = ConfigDict(json_schema_extra={"examples": [_CHAIN_EXAMPLE]})

    transfers: Annotated[list[LinkInput], Field(min_length=1, max_length=MAX_CHAIN)]
    reference: Line | None = Field(
        default=None,
        description="Your own name for the chain, unique among transfers; its first transaction carries it. "
        "Sent again, it answers the same chain",
    )
    actor: UserId | None = Field(
        default=None, description="The user that it is done for; by default `from` of the first transfer"
    )


class PostInput(Input):
    """How much of a pending transfer is posted."""

    amount: Amount | None = Field(default=None, description="Without it, all; the rest goes back")
    actor: UserId | None = Field(default=None, description="The user that it is done for; by default the payer")


class VoidInput(Input):
    """A pending transfer is taken back."""

    actor: UserId | None = Field(default=None, description="The user that it is done for; by default the payer")


class PendingTransferView(BaseModel):
    """A transfer in two phases as it stands."""

    model_config = ConfigDict(serialize_by_alias=True)

    transfer_id: UUID = Field(description="Also the id of its hold")
    workflow_id: str = Field(description="Its workflow, as the Temporal UI shows it")
    status: TransferStatus
    source: str = Field(alias="from")
    target: str = Field(alias="to")
    asset: str
    amount: DecimalText
    posted: DecimalText | None = Field(description="What went to the other account; the rest went back")
    reference: str | None
    description: str | None
    expires_at: datetime = Field(description="From then on it is not posted any more, and returns by itself")
    created_at: datetime
    resolved_at: datetime | None
    hold_transaction_id: UUID
    resolution_transaction_id: UUID | None


class ChainView(BaseModel):
    """Linked transfers as they were booked."""

    chain_id: UUID
    transactions: list[TransactionView]


def pending_view(record: TransferRecord) -> PendingTransferView:
    """A transfer in two phases as it is answered."""
    transfer = record.transfer
    scale = transfer.asset.scale
    return PendingTransferView(
        transfer_id=transfer.transfer_id,
        workflow_id=transfer_workflow_id(transfer.transfer_id),
        status=transfer.status,
        asset=transfer.asset.symbol,
        amount=format_minor(transfer.amount_minor, scale),
        posted=None if transfer.posted_minor is None else format_minor(transfer.posted_minor, scale),
        reference=transfer.reference,
        description=transfer.description,
        expires_at=transfer.expires_at,
        created_at=transfer.created_at,
        resolved_at=transfer.resolved_at,
        hold_transaction_id=record.hold_transaction_id,
        resolution_transaction_id=record.resolution_transaction_id,
        **{"from": transfer.source, "to": transfer.target},
    )
