"""Messages of deposits, withdrawals, transfers and reversals."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from activities.messages import Message, MinorUnits, OriginMessage


class TransferKind(StrEnum):
    """Money from outside, money to outside, the undoing of either, or money from account to account."""

    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"
    REVERSAL = "reversal"
    TRANSFER = "transfer"


class TransferRequest(Message):
    """Start of a ``TransferWorkflow``; ``transfer_id`` names its single effect and becomes the transaction's id.

    A deposit or withdrawal names account, asset and amount, a transfer also the ``counterparty`` that gets it; a
    reversal names the transaction that it takes back.
    ``effective_at`` is when it counts; without one, when the workflow takes it up.
    """

    tenant_id: UUID
    transfer_id: UUID
    kind: TransferKind
    account: str | None = None
    counterparty: str | None = None
    asset: str | None = None
    amount_minor: MinorUnits = 0
    reverses_id: UUID | None = None
    reference: str | None = None
    description: str | None = None
    effective_at: datetime | None = None
    origin: OriginMessage = OriginMessage()


class RecordTransfer(Message):
    """Input of the step; ``at`` is the workflow's clock."""

    request: TransferRequest
    at: datetime

    def log_context(self) -> dict[str, str]:
        """Tenant and request."""
        return {"tenant_id": str(self.request.tenant_id)} | self.request.origin.log_context()


class TransferOutcome(Message):
    """The transaction that stands for the request: its own, or the one that already carried the same reference."""

    transaction_id: UUID
