"""A tenant's desk as tests use it: money in, escrows opened and moved, rows read back."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client, WorkflowHandle

from db import controls, ledger, transfers
from db import escrow as escrows
from db.engine import tenant_transaction
from db.ids import new_id
from domain.controls import Freeze, FreezeScope
from domain.escrow import Escrow
from domain.ids import escrow_workflow_id, transfer_workflow_id
from domain.ledger import Balance
from domain.transfers import PendingTransfer
from kit.clock import now
from workflows.client import EscrowClient, TransferClient
from workflows.escrow import (
    CommandMessage,
    EscrowCommand,
    EscrowOutcome,
    EscrowWorkflow,
    MilestoneTermsMessage,
    OpenEscrow,
    OriginMessage,
    PartyMessage,
    TermsMessage,
)
from workflows.ledger import TransferKind, TransferOutcome, TransferRequest
from workflows.transfers import (
    OpenPendingTransfer,
    PendingOutcome,
    PendingTerms,
    PendingTransferWorkflow,
    ResolutionMessage,
    TransferCommand,
)

TASK_QUEUE = "holdfast-test"
BUYER, SELLER, ARBITER = "alice", "bob", "judy"


def terms(*amounts_minor: int, **changes: Any) -> TermsMessage:
    """Terms between alice and bob in USDC, one milestone per amount; ``changes`` replace fields."""
    milestones = tuple(
        MilestoneTermsMessage(title=f"part {number}", amount_minor=amount)
        for number, amount in enumerate(amounts_minor or (1_000_000,), start=1)
    )
    fields: dict[str, Any] = {
        "asset": "USDC",
        "buyer": PartyMessage(user_id=BUYER, address="0xb0b0000000000000000000000000000000000001"),
        "seller": PartyMessage(user_id=SELLER),
        "milestones": milestones,
    }
    return TermsMessage(**(fields | changes))


class Desk:
    """One tenant's escrows and money, through real workflows and a real database."""

    def __init__(self, tenant: UUID, client: Client, engine: AsyncEngine, task_queue: str = TASK_QUEUE) -> None:
        self.tenant = tenant
        self.client = client
        self.engine = engine
        self.escrows = EscrowClient(client, task_queue)
        self.transfers = TransferClient(client, task_queue)

    async def deposit(self, user: str, amount_minor: int, asset: str = "USDC", **changes: Any) -> TransferOutcome:
        """Bring money in from outside."""
        fields: dict[str, Any] = {
            "tenant_id": self.tenant,
            "transfer_id": new_id(),
            "kind": TransferKind.DEPOSIT,
            "account": user,
            "asset": asset,
            "amount_minor": amount_minor,
        }
        request = TransferRequest(**(fields | changes))
        return await self.transfers.transfer(request, summary="deposit")

    async def open(self, wanted: TermsMessage, escrow_id: UUID | None = None) -> UUID:
        """Open an escrow and answer its id."""
        opening = OpenEscrow(
            tenant_id=self.tenant,
            escrow_id=escrow_id or new_id(),
            terms=wanted,
            origin=OriginMessage(user_id=BUYER, request_id="test"),
        )
        return (await self.escrows.open(opening, summary="a test's escrow")).escrow_id

    async def command(
        self, escrow_id: UUID, user: str, command: CommandMessage, command_id: UUID | None = None
    ) -> EscrowOutcome:
        """Have ``user`` send a command."""
        sent = EscrowCommand(
            command_id=command_id or new_id(), command=command, origin=OriginMessage(user_id=user, request_id="test")
        )
        return await self.escrows.command(self.tenant, escrow_id, sent)

    def handle(self, escrow_id: UUID) -> WorkflowHandle[EscrowWorkflow, EscrowOutcome]:
        """The escrow's workflow."""
        return self.client.get_workflow_handle_for(EscrowWorkflow.run, escrow_workflow_id(escrow_id))

    async def pend(self, amount_minor: int, transfer_id: UUID | None = None, **changes: Any) -> UUID:
        """Set money of the buyer apart for the seller and answer the transfer's id."""
        fields: dict[str, Any] = {"source": BUYER, "target": SELLER, "asset": "USDC", "amount_minor": amount_minor}
        opening = OpenPendingTransfer(
            tenant_id=self.tenant,
            transfer_id=transfer_id or new_id(),
            terms=PendingTerms(**(fields | changes)),
            origin=OriginMessage(user_id=BUYER, request_id="test"),
        )
        return (await self.transfers.open(opening, summary="a test's transfer")).transfer_id

    async def resolve(
        self, transfer_id: UUID, command: ResolutionMessage, command_id: UUID | None = None, *, repeated: bool = False
    ) -> PendingOutcome:
        """Post or void a pending transfer."""
        sent = TransferCommand(
            command_id=command_id or new_id(),
            command=command,
            origin=OriginMessage(user_id=BUYER, request_id="test"),
            repeated=repeated,
        )
        attempt_id = new_id() if repeated else None
        return await self.transfers.resolve(self.tenant, transfer_id, sent, attempt_id=attempt_id)

    def pending_handle(self, transfer_id: UUID) -> WorkflowHandle[PendingTransferWorkflow, PendingOutcome]:
        """The workflow of a transfer in two phases."""
        return self.client.get_workflow_handle_for(PendingTransferWorkflow.run, transfer_workflow_id(transfer_id))

    async def pending(self, transfer_id: UUID) -> PendingTransfer:
        """The transfer in two phases as Postgres has it."""
        async with tenant_transaction(self.engine, self.tenant) as connection:
            found = await transfers.find(connection, transfer_id)
        assert found is not None
        return found.transfer

    async def freeze(self, scope: FreezeScope, ref: str | None = None) -> UUID:
        """Freeze an account, an asset or the tenant, as the API does."""
        frozen = Freeze(new_id(), scope, ref, "a test", now())
        async with tenant_transaction(self.engine, self.tenant) as connection:
            await controls.halt(connection, self.tenant)
            await controls.place(connection, self.tenant, frozen)
        return frozen.freeze_id

    async def lift(self, freeze_id: UUID) -> None:
        """Lift a freeze."""
        async with tenant_transaction(self.engine, self.tenant) as connection:
            await controls.halt(connection, self.tenant)
            await controls.lift(connection, freeze_id, reason="over", at=now())

    async def row(self, escrow_id: UUID) -> Escrow:
        """The escrow as Postgres has it."""
        async with tenant_transaction(self.engine, self.tenant) as connection:
            found = await escrows.find(connection, escrow_id)
        assert found is not None
        return found

    async def balance(self, user: str, asset: str = "USDC", at: datetime | None = None) -> Balance:
        """A user's balance; zero for an account that never was."""
        async with tenant_transaction(self.engine, self.tenant) as connection:
            found = await ledger.balances(connection, user, asset=asset, at=at)
        return found[0].balance if found else Balance()

    async def sql(self, query: str, **parameters: Any) -> list[Any]:
        """Rows as the tenant's role sees them."""
        async with tenant_transaction(self.engine, self.tenant) as connection:
            return list((await connection.execute(text(query), parameters)).all())
