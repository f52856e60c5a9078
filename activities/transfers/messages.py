"""Messages of transfers in two phases and of chains, and their translation from and to the rules."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from activities.messages import Message, MinorUnits, OriginMessage
from domain import transfers as rules
from domain.money import Asset


class PendingTerms(Message):
    """What a pending transfer sets apart, for whom and how long: until ``expires_at``, or ``timeout_seconds`` from when
    it is made, or as long as the rules allow."""

    source: str
    target: str
    asset: str
    amount_minor: MinorUnits
    expires_at: datetime | None = None
    timeout_seconds: int | None = None
    reference: str | None = None
    description: str | None = None


class OpenPendingTransfer(Message):
    """Start of a ``PendingTransferWorkflow``. Without ``terms`` the transfer is recorded and its workflow resumes."""

    tenant_id: UUID
    transfer_id: UUID
    terms: PendingTerms | None = None
    origin: OriginMessage = OriginMessage()
    recent_commands: tuple[UUID, ...] = ()


class RecordPending(Message):
    """Input of the step that records a pending transfer, or loads one that is recorded."""

    opening: OpenPendingTransfer
    at: datetime

    def log_context(self) -> dict[str, str]:
        """Tenant and request."""
        return {"tenant_id": str(self.opening.tenant_id)} | self.opening.origin.log_context()


class PostMessage(Message):
    """See ``domain.transfers.Post``."""

    kind: Literal["post"] = "post"
    amount_minor: MinorUnits | None = None


class VoidMessage(Message):
    """See ``domain.transfers.Void``."""

    kind: Literal["void"] = "void"


class ExpireMessage(Message):
    """See ``domain.transfers.Expire``."""

    kind: Literal["expire"] = "expire"


ResolutionMessage = PostMessage | VoidMessage


class TransferCommand(Message):
    """A resolution that somebody asks for. ``command_id`` is the same for every attempt and names its single effect.

    ``repeated`` says that an earlier attempt may have had it: then the step, which has the receipts, decides alone.
    """

    command_id: UUID
    command: Annotated[ResolutionMessage, Field(discriminator="kind")]
    origin: OriginMessage
    repeated: bool = False


class ApplyResolution(Message):
    """Input of the step that resolves a transfer. ``step`` names it; ``at`` is the workflow's clock."""

    tenant_id: UUID
    transfer_id: UUID
    step: str
    command: Annotated[ResolutionMessage | ExpireMessage, Field(discriminator="kind")]
    origin: OriginMessage
    at: datetime

    def log_context(self) -> dict[str, str]:
        """Tenant, request and command."""
        return {"tenant_id": str(self.tenant_id), "command": self.command.kind} | self.origin.log_context()


class PendingSnapshot(Message):
    """A transfer in two phases as it is recorded."""

    transfer_id: UUID
    source: str
    target: str
    asset: str
    scale: int
    amount_minor: MinorUnits
    expires_at: datetime
    created_at: datetime
    status: rules.TransferStatus
    posted_minor: MinorUnits | None = None
    resolved_at: datetime | None = None
    reference: str | None = None

    @classmethod
    def of(cls, transfer: rules.PendingTransfer) -> PendingSnapshot:
        """The snapshot of a transfer."""
        return cls(
            transfer_id=transfer.transfer_id,
            source=transfer.source,
            target=transfer.target,
            asset=transfer.asset.symbol,
            scale=transfer.asset.scale,
            amount_minor=transfer.amount_minor,
            expires_at=transfer.expires_at,
            created_at=transfer.created_at,
            status=transfer.status,
            posted_minor=transfer.posted_minor,
            resolved_at=transfer.resolved_at,
            reference=transfer.reference,
        )

    def to_transfer(self) -> rules.PendingTransfer:
        """The rules' view of it; what no rule asks for (a description, an asset's contract) stays in the row."""
        return rules.PendingTransfer(
            self.transfer_id,
            self.source,
            self.target,
            Asset(self.asset, self.scale),
            self.amount_minor,
            self.expires_at,
            self.created_at,
            self.status,
            self.posted_minor,
            self.resolved_at,
            self.reference,
        )


class PendingOutcome(Message):
    """Where a transfer stands, for the caller."""

    transfer_id: UUID
    status: rules.TransferStatus


class ChainLink(Message):
    """One transfer of a chain."""

    source: str
    target: str
    asset: str
    amount_minor: MinorUnits
    description: str | None = None


class ChainRequest(Message):
    """Start of a ``TransferChainWorkflow``: transfers that are booked together or not at all, in this order."""

    tenant_id: UUID
    chain_id: UUID
    links: tuple[ChainLink, ...]
    reference: str | None = None
    origin: OriginMessage = OriginMessage()


class RecordChain(Message):
    """Input of the step; ``at`` is the workflow's clock."""

    request: ChainRequest
    at: datetime

    def log_context(self) -> dict[str, str]:
        """Tenant and request."""
        return {"tenant_id": str(self.request.tenant_id)} | self.request.origin.log_context()


class ChainOutcome(Message):
    """The chain that stands for the request: its own, or the one that already carried the same reference."""

    chain_id: UUID


def to_resolution(message: ResolutionMessage | ExpireMessage) -> rules.Resolution:
    """The rules' view of a command."""
    match message:
        case PostMessage():
            return rules.Post(message.amount_minor)
        case VoidMessage():
            return rules.Void()
        case ExpireMessage():
            return rules.Expire()
