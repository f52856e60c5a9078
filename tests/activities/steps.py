"""A tenant's steps, called as a worker calls them, but without Temporal: the activities on a real database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import ActivityEnvironment

from activities.escrow.messages import (
    ApplyCommand,
    CommandMessage,
    FundMessage,
    OpenEscrow,
    PartyMessage,
    PassDeadlineMessage,
    RecordOpening,
    TermsMessage,
)
from activities.escrow.snapshot import EscrowSnapshot
from activities.escrow.steps import EscrowActivities
from activities.ledger.messages import RecordTransfer, TransferKind, TransferOutcome, TransferRequest
from activities.ledger.steps import LedgerActivities
from activities.messages import OriginMessage
from db import escrow as escrows
from db import ledger
from db.doorbell import Doorbell
from db.engine import tenant_transaction
from db.ids import new_id
from db.ledger import LedgerTransaction, TransactionFilter
from domain.ledger import Balance
from kit.clock import now
from tests.desk import ARBITER, BUYER

ALL = 1_000
#: Where a step leaves something.
TABLES = (
    "pending_transfers",
    "escrows",
    "escrow_milestones",
    "accounts WHERE version > 0",  # one that is opened and moves nothing is nowhere to be seen
    "holds",
    "ledger_transactions",
    "ledger_legs",
    "audit_log",
    "outbox",
    "receipts",
)

T0 = datetime(2026, 3, 1, 9, 0, 0, 123456, tzinfo=UTC)
HOUR = timedelta(hours=1)
FEES = {"buyer_fee_basis_points": 250, "seller_fee_basis_points": 100}
JUDGED: dict[str, Any] = {"arbiter": PartyMessage(user_id=ARBITER)}


class Steps:
    """One tenant's escrow and ledger steps, and what they left behind."""

    def __init__(self, engine: AsyncEngine, tenant: UUID, environment: ActivityEnvironment) -> None:
        doorbell = Doorbell(engine)
        self.engine = engine
        self.tenant = tenant
        self.environment = environment
        self.escrow = EscrowActivities(engine, doorbell)
        self.ledger = LedgerActivities(engine, doorbell)

    async def deposit(self, account: str, amount_minor: int, **changes: Any) -> TransferOutcome:
        """Bring money in."""
        return await self.transfer(TransferKind.DEPOSIT, account=account, amount_minor=amount_minor, **changes)

    async def withdraw(self, account: str, amount_minor: int, **changes: Any) -> TransferOutcome:
        """Take money out."""
        return await self.transfer(TransferKind.WITHDRAWAL, account=account, amount_minor=amount_minor, **changes)

    async def reverse(self, transaction_id: UUID, **changes: Any) -> TransferOutcome:
        """Take a transfer back."""
        return await self.transfer(TransferKind.REVERSAL, reverses_id=transaction_id, asset=None, **changes)

    async def transfer(self, kind: TransferKind, at: datetime | None = None, **changes: Any) -> TransferOutcome:
        """Book a transfer in USDC; ``changes`` replace fields of the request."""
        fields: dict[str, Any] = {
            "tenant_id": self.tenant,
            "transfer_id": new_id(),
            "kind": kind,
            "asset": "USDC",
            "origin": OriginMessage(user_id="operator", request_id="test"),
        }
        request = TransferRequest(**(fields | changes))
        answer = await self.environment.run(self.ledger.transfer, RecordTransfer(request=request, at=at or now()))
        return TransferOutcome.model_validate(answer)

    async def open(
        self, wanted: TermsMessage | None, escrow_id: UUID | None = None, at: datetime | None = None
    ) -> UUID:
        """Record an escrow and answer its id."""
        opening = OpenEscrow(
            tenant_id=self.tenant,
            escrow_id=escrow_id or new_id(),
            terms=wanted,
            origin=OriginMessage(user_id="alice", request_id="opening"),
        )
        return (await self.record(RecordOpening(opening=opening, at=at or now()))).escrow_id

    async def record(self, request: RecordOpening) -> EscrowSnapshot:
        """The step that records an escrow."""
        return EscrowSnapshot.model_validate(await self.environment.run(self.escrow.open, request))

    async def apply(
        self,
        escrow_id: UUID,
        user: str | None,
        command: CommandMessage | PassDeadlineMessage,
        *,
        step: str | None = None,
        at: datetime | None = None,
    ) -> EscrowSnapshot:
        """Carry a command out."""
        request = ApplyCommand(
            tenant_id=self.tenant,
            escrow_id=escrow_id,
            step=step or str(new_id()),
            command=command,
            origin=OriginMessage(user_id=user, request_id="test"),
            at=at or now(),
        )
        return EscrowSnapshot.model_validate(await self.environment.run(self.escrow.apply, request))

    async def balance(self, account: str, asset: str = "USDC", at: datetime | None = None) -> Balance:
        """What an account has; nothing when it never was."""
        async with tenant_transaction(self.engine, self.tenant) as connection:
            found = await ledger.balances(connection, account, asset=asset, at=at)
        return found[0].balance if found else Balance()

    async def transactions(self) -> list[LedgerTransaction]:
        """Everything posted, oldest first."""
        async with tenant_transaction(self.engine, self.tenant) as connection:
            found = await ledger.list_transactions(connection, TransactionFilter(), before=None, limit=ALL)
        return found[::-1]

    async def trial_balance(self) -> dict[str, int]:
        """The sum of all accounts, per asset."""
        async with tenant_transaction(self.engine, self.tenant) as connection:
            return await ledger.trial_balance(connection)

    async def sql(self, query: str, **parameters: Any) -> list[Any]:
        """Rows as the tenant's role sees them."""
        async with tenant_transaction(self.engine, self.tenant) as connection:
            return list((await connection.execute(text(query), parameters)).all())

    async def written(self) -> dict[str, int]:
        """How many rows the tenant has, by table."""
        return {table: int((await self.sql(f"SELECT count(*) FROM {table}"))[0][0]) for table in TABLES}


async def recorded(steps: Steps, escrow_id: UUID) -> EscrowSnapshot:
    """The escrow as Postgres has it."""
    async with tenant_transaction(steps.engine, steps.tenant) as connection:
        found = await escrows.find(connection, escrow_id)
    assert found is not None
    return EscrowSnapshot.of(found)


async def funded(steps: Steps, wanted: TermsMessage, *, money: int = 10_000_000) -> UUID:
    """A new escrow whose money is on hold, all at ``T0``."""
    await steps.deposit(BUYER, money, at=T0)
    escrow_id = await steps.open(wanted, at=T0)
    await steps.apply(escrow_id, BUYER, FundMessage(), at=T0)
    return escrow_id
