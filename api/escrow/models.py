"""The shapes that escrow requests and answers have on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from api.fields import WHOLE, Amount, DecimalText, Input, Instant, Line, Prose, Symbol, UserId
from domain.chain import Settled
from domain.escrow import DeadlineKind, MilestoneStatus, Role, Status, WaitsFor
from domain.escrow.opening import MAX_INSPECTION_PERIOD_SECONDS, MAX_MILESTONES
from domain.money import BASIS_POINTS

PartyRole = Literal["buyer", "seller", "arbiter"]
Actor = Annotated[
    UserId | None,
    Field(description="The party that the command speaks for; a key that is bound to a user may leave it out"),
]
Position = Annotated[int, Field(ge=1, le=MAX_MILESTONES, description="A milestone, counted from 1"), WHOLE]
Positions = Annotated[
    list[Position] | None,
    Field(min_length=1, max_length=MAX_MILESTONES, description="Which milestones; without it, all that can be meant"),
]


_EXAMPLE: dict[str, JsonValue] = {
    "asset": "USDC",
    "amount": "125.50",
    "buyer": {"user_id": "alice", "address": "0x52908400098527886E0F7030069857D2E4169EE7"},
    "seller": {"user_id": "bob"},
    "inspection_period_seconds": 259_200,
    "description": "A second-hand camera",
}


class PartyInput(Input):
    """A user in a role, with a wallet address where there is one."""

    user_id: UserId
    address: Line | None = None


class MilestoneInput(Input):
    """One deliverable and its price."""

    title: Line
    amount: Amount


class PolicyInput(Input):
    """A milestone is approved once `required` different roles out of `roles` approved it."""

    roles: Annotated[list[PartyRole], Field(min_length=1, max_length=3)]
    required: Annotated[int, Field(ge=1, le=3), WHOLE] = 1


class FeeInput(Input):
    """A fee in basis points (1/10,000) of what is released. The buyer's comes on top, the seller's out of it."""

    basis_points: Annotated[int, Field(ge=0, le=BASIS_POINTS), WHOLE]
    paid_by: Literal["buyer", "seller"]


class NewEscrow(Input):
    """What the parties agreed on: either `amount`, for a single milestone, or `milestones`."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    asset: Symbol
    buyer: PartyInput
    seller: PartyInput
    arbiter: PartyInput | None = None
    amount: Amount | None = None
    milestones: Annotated[list[MilestoneInput] | None, Field(min_length=1, max_length=MAX_MILESTONES)] = None
    approval_policy: PolicyInput | None = Field(default=None, description="Without it, the buyer approves")
    fees: Annotated[list[FeeInput], Field(max_length=2)] = Field(default=[], description="At most one for each payer")
    funding_deadline: Instant | None = Field(default=None, description="What is not funded by then expires")
    inspection_period_seconds: Annotated[int, Field(ge=1, le=MAX_INSPECTION_PERIOD_SECONDS), WHOLE] | None = Field(
        default=None, description="How long after its approval a funded milestone is released by itself"
    )
    expires_at: Instant | None = Field(
        default=None, description="What is funded but neither approved nor disputed by then returns to the buyer"
    )
    reference: Line | None = Field(
        default=None, description="Your own name for this escrow; unique. Sent again, it answers the same escrow"
    )
    description: Prose | None = None
    actor: Actor = None


class ActorInput(Input):
    """A command that says nothing but who gives it."""

    actor: Actor = None


class MilestonesInput(ActorInput):
    """A command on milestones."""

    milestones: Positions = None


class PaymentInput(MilestonesInput):
    """A release or a refund: all that is left, or `amount` of a single milestone."""

    amount: Amount | None = None


class DisputeInput(MilestonesInput):
    """Stops milestones until they are resolved."""

    reason: Prose


class ResolutionInput(ActorInput):
    """Splits what is left of one disputed milestone; both parts together are exactly that."""

    milestone: Position | None = None
    to_seller: Amount
    to_buyer: Amount


class PartyView(BaseModel):
    """A user in a role."""

    user_id: str
    address: str | None


class PolicyView(BaseModel):
    """How many of which roles must approve."""

    roles: list[Role]
    required: int


class FeeView(BaseModel):
    """A fee and who pays it."""

    basis_points: int
    paid_by: Role


class ApprovalView(BaseModel):
    """One role's yes."""

    role: Role
    user_id: str
    at: datetime


class DisputeView(ApprovalView):
    """Why a milestone was stopped, by whom, and when."""

    reason: str


class MilestoneView(BaseModel):
    """A milestone as it stands."""

    position: int
    milestone_id: UUID
    title: str
    amount: DecimalText
    status: MilestoneStatus
    released: DecimalText
    refunded: DecimalText
    remaining: DecimalText = Field(description="What is still held for it, without the buyer's fee")
    approvals: list[ApprovalView]
    dispute: DisputeView | None
    funded_at: datetime | None
    approved_at: datetime | None
    auto_release_at: datetime | None = Field(description="The end of its inspection period, once that runs")
    closed_at: datetime | None


class ChainEventView(BaseModel):
    """What the contract told of the escrow, and in which transaction."""

    kind: str = Field(examples=["Funded"])
    sequence: int = Field(description="Its number among all events of the contract")
    tx_hash: str
    block_number: int
    at: datetime = Field(description="The block's own time")
    outcome: Settled | None = Field(description="What came of it here; null until it is final and settled")
    code: str | None = Field(description="Why it moved nothing here")


class OnChainView(BaseModel):
    """Which contract keeps an escrow's money, and what the escrow is called there."""

    relayer_id: str = Field(description="Who follows the contract", examples=["mainnet:0x…"])
    onchain_id: str = Field(description="The escrow's id in the contract")
    token: str = Field(description="What it is paid in there; zeros are the chain's own coin")
    events: list[ChainEventView] | None = Field(
        default=None, description="What the contract told of it, in order; null in lists and answers to commands"
    )


class EscrowView(BaseModel):
    """An escrow as it stands."""

    escrow_id: UUID
    workflow_id: str = Field(description="Its workflow, as the Temporal UI shows it")
    reference: str | None
    description: str | None
    status: Status
    version: int = Field(description="Counts the commands that changed it; creation is 1")
    asset: str
    amount: DecimalText = Field(description="All milestones together, without fees")
    released: DecimalText
    refunded: DecimalText
    remaining: DecimalText = Field(description="What is still held, without the buyer's fee")
    buyer: PartyView
    seller: PartyView
    arbiter: PartyView | None
    approval_policy: PolicyView
    fees: list[FeeView]
    funding_deadline: datetime | None
    inspection_period_seconds: int | None
    expires_at: datetime | None
    milestones: list[MilestoneView]
    created_at: datetime
    updated_at: datetime
    closed_at: datetime | None
    custody: Literal["desk", "chain"] = Field(
        description="Who keeps the money; where a contract on a chain does, the parties ask the contract"
    )
    on_chain: OnChainView | None


class TimelineEntry(BaseModel):
    """One act: what was done, for whom, by which key, and when."""

    entry_id: int
    action: str = Field(examples=["escrow.released"])
    at: datetime = Field(description="When it took effect")
    recorded_at: datetime = Field(description="When it was written down")
    actor: str | None = Field(description="The party that it was done for; null for the clock")
    key_id: UUID | None = Field(description="The API key that asked for it")
    request_id: str | None
    workflow_id: str | None
    details: dict[str, Any]


class WaitView(BaseModel):
    """Milestones that wait for the same: any of `roles` may give any of `commands`, in time `until`."""

    what: WaitsFor
    roles: list[Role]
    commands: list[str] = Field(description="Of an escrow in a contract on a chain: the contract's, not routes here")
    milestones: list[int]
    until: datetime | None = Field(description="When the clock decides instead; null means it waits for ever")


class WaitingView(BaseModel):
    """What an escrow waits for, and until when; a closed one waits for nothing."""

    escrow_id: UUID
    status: Status
    waits: list[WaitView]
    next_deadline: datetime | None = Field(description="When the clock acts by itself")
    next_deadline_kind: DeadlineKind | None
