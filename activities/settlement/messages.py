"""Messages of the settlement workflow. Commands travel by their sequence; what they say is read from their rows."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from activities.messages import Message
from domain.settlement import CommandStatus


class SettlementRun(Message):
    """Start of a ``SettlementWorkflow``: the tenant whose commands it works off."""

    tenant_id: UUID


class _Batch(Message):
    """A step on some of a tenant's commands. ``step`` names it, the same for every attempt; ``at`` is the workflow's
    clock."""

    tenant_id: UUID
    step: str
    at: datetime

    def log_context(self) -> dict[str, str]:
        """The tenant."""
        return {"tenant_id": str(self.tenant_id)}


class SettleBatch(_Batch):
    """Input of the step that carries out up to ``limit`` commands of the ledger's lane."""

    limit: int


class TakeUpBatch(_Batch):
    """Input of the step that takes up to ``limit`` commands of the escrows' lane up."""

    limit: int


class TakenUp(Message):
    """The commands, by sequence, that are being worked on now."""

    sequences: tuple[int, ...]


class DeliverBatch(Message):
    """Input of the step that carries commands to their escrows' workflows."""

    tenant_id: UUID
    sequences: tuple[int, ...]

    def log_context(self) -> dict[str, str]:
        """The tenant."""
        return {"tenant_id": str(self.tenant_id)}


class DeliveredOutcome(Message):
    """How the delivery of one command ended."""

    sequence: int
    status: CommandStatus
    code: str | None = None
    reason: str | None = None


class Delivered(Message):
    """The outcomes so far; a command without one is delivered again."""

    outcomes: tuple[DeliveredOutcome, ...]


class RecordBatch(_Batch):
    """Input of the step that writes outcomes."""

    outcomes: tuple[DeliveredOutcome, ...]


class BatchOutcome(Message):
    """How many commands a batch finished, and how."""

    settled: int = 0
    rejected: int = 0
    failed: int = 0

    @property
    def count(self) -> int:
        """All of them."""
        return self.settled + self.rejected + self.failed

    def plus(self, other: BatchOutcome) -> BatchOutcome:
        """Both together."""
        return BatchOutcome(
            settled=self.settled + other.settled,
            rejected=self.rejected + other.rejected,
            failed=self.failed + other.failed,
        )
