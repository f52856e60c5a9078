"""A tenant's desk as tests use it: money in, escrows opened and moved, rows read back."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client, WorkflowHandle

from db import escrow as escrows
from db import ledger
from db.engine import tenant_transaction
from db.ids import new_id
from domain.escrow import Escrow
from domain.ids import escrow_workflow_id
from domain.ledger import Balance
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
