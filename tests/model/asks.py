"""What can be asked of Holdfast: each ask knows how to ask the real steps, and how to ask the model."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import ActivityEnvironment

from activities.escrow import messages
from activities.escrow.messages import ApplyCommand, OpenEscrow, PartyMessage, RecordOpening, TermsMessage
from activities.escrow.snapshot import EscrowSnapshot
from activities.escrow.steps import EscrowActivities
from activities.ledger.messages import RecordTransfer, TransferKind, TransferOutcome, TransferRequest
from activities.ledger.steps import LedgerActivities
from activities.messages import Message, OriginMessage
from db.doorbell import Doorbell
from domain.errors import Refusal, Unavailable
from domain.escrow import Role, next_deadline
from tests.model.books import Flow, World
from tests.model.reference import Agreement, No, Order

#: How often a step is tried again that met an absent database, as its workflow would.
ATTEMPTS_MAX = 4

ORDERS: dict[str, type[Message]] = {
    "fund": messages.FundMessage,
    "approve": messages.ApproveMessage,
    "release": messages.ReleaseMessage,
    "refund": messages.RefundMessage,
    "dispute": messages.DisputeMessage,
    "resolve": messages.ResolveMessage,
    "cancel": messages.CancelMessage,
    "pass_deadline": messages.PassDeadlineMessage,
}


class Worker:
    """The steps as one worker process has them; postings of one worker are grouped, those of two are not."""

    def __init__(self, engine: AsyncEngine, tenant: UUID, *, attempts_max: int = ATTEMPTS_MAX) -> None:
        self.doorbell = Doorbell(engine)
        self.tenant = tenant
        self.attempts_max = attempts_max
        self.escrow = EscrowActivities(engine, self.doorbell)
        self.ledger = LedgerActivities(engine, self.doorbell)

    async def run(self, step: Any, request: Any) -> Any:
        """One activity, tried again for as long as the database is absent."""
        for _ in range(self.attempts_max - 1):
            try:
                return await ActivityEnvironment().run(step, request)
            except Unavailable:
                await asyncio.sleep(0.2)
        return await ActivityEnvironment().run(step, request)


class Ask(Protocol):
    """One step to be done, of some kind."""

    @property
    def kind(self) -> str: ...

    async def send(self, worker: Worker) -> str:
        """What the real step answers: a key; raises its refusal."""

    def expect(self, world: World) -> str:
        """What the model answers to the same; raises ``No``."""


@dataclass(frozen=True)
class Opening:
    """Open a deal."""

    key: str
    agreed: Agreement
    at: datetime
    kind: str = "open"

    async def send(self, worker: Worker) -> str:
        opening = OpenEscrow(tenant_id=worker.tenant, escrow_id=UUID(self.key), terms=terms_message(self.agreed))
        snapshot = await worker.run(worker.escrow.open, RecordOpening(opening=opening, at=self.at))
        return str(snapshot.escrow_id)

    def expect(self, world: World) -> str:
        return world.open(self.key, self.agreed, self.at)


@dataclass(frozen=True)
class Command:
    """Give an order about a deal. The answer is the deal's key, version and next deadline."""

    key: str
    step: str
    user: str | None
    order: Order
    at: datetime

    @property
    def kind(self) -> str:
        return self.order.kind

    async def send(self, worker: Worker) -> str:
        request = ApplyCommand(
            tenant_id=worker.tenant,
            escrow_id=UUID(self.key),
            step=self.step,
            command=order_message(self.order),
            origin=OriginMessage(user_id=self.user),
            at=self.at,
        )
        snapshot: EscrowSnapshot = await worker.run(worker.escrow.apply, request)
        due = next_deadline(snapshot.to_escrow())
        return answer(snapshot.escrow_id, snapshot.version, snapshot.status, None if due is None else due.at)

    def expect(self, world: World) -> str:
        deal = world.deals[world.command(self.key, self.step, self.user, self.order, self.at)]
        return answer(self.key, deal.version, deal.state, deal.next_deadline)


@dataclass(frozen=True)
class Transfer:
    """Move money between the outside and an account."""

    flow: Flow
    at: datetime

    @property
    def kind(self) -> str:
        return self.flow.kind

    async def send(self, worker: Worker) -> str:
        flow = self.flow
        request = TransferRequest(
            tenant_id=worker.tenant,
            transfer_id=UUID(flow.key),
            kind=TransferKind(flow.kind),
            account=flow.account,
            asset=flow.asset,
            amount_minor=flow.amount,
            reverses_id=None if flow.takes_back is None else UUID(flow.takes_back),
            reference=flow.reference,
            effective_at=flow.counts_from,
        )
        outcome: TransferOutcome = await worker.run(worker.ledger.transfer, RecordTransfer(request=request, at=self.at))
        return str(outcome.transaction_id)

    def expect(self, world: World) -> str:
        return world.transfer(self.flow, self.at)


def answer(key: object, version: int, state: str, due: datetime | None) -> str:
    return f"{key} version {version}, {state}, due {due}"


async def really(ask: Ask, worker: Worker) -> str:
    """The answer of the real step, or the code of its refusal."""
    try:
        return await ask.send(worker)
    except Refusal as refusal:
        return refusal.code


def supposedly(ask: Ask, world: World) -> str:
    """The answer of the model, or the code of its refusal."""
    try:
        return ask.expect(world)
    except No as no:
        return str(no)


def terms_message(agreed: Agreement) -> TermsMessage:
    return TermsMessage(
        asset=agreed.asset,
        buyer=PartyMessage(user_id=agreed.buyer),
        seller=PartyMessage(user_id=agreed.seller),
        arbiter=None if agreed.arbiter is None else PartyMessage(user_id=agreed.arbiter),
        milestones=tuple(
            messages.MilestoneTermsMessage(title=f"part {number}", amount_minor=price)
            for number, price in enumerate(agreed.prices, start=1)
        ),
        policy_roles=tuple(Role(role) for role in agreed.approvers),
        policy_required=agreed.required,
        buyer_fee_basis_points=agreed.buyer_fee,
        seller_fee_basis_points=agreed.seller_fee,
        funding_deadline=agreed.fund_by,
        inspection_period_seconds=agreed.inspection,
        expires_at=agreed.expires,
        reference=agreed.reference,
    )


def order_message(order: Order) -> Any:
    fields: dict[str, Any] = {"kind": order.kind}
    match order.kind:
        case "release" | "refund":
            fields |= {"positions": order.parts, "amount_minor": order.amount}
        case "dispute":
            fields |= {"positions": order.parts, "reason": order.reason}
        case "resolve":
            position = None if order.parts is None else next(iter(order.parts), None)
            fields |= {"to_seller_minor": order.to_seller, "to_buyer_minor": order.to_buyer, "position": position}
        case "fund" | "approve":
            fields["positions"] = order.parts
    return ORDERS[order.kind].model_validate(fields)
