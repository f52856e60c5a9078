"""Messages of settling from a chain. Events travel by their numbers; what they say is read from their rows."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from activities.messages import Message, MinorUnits
from domain.chain import Settled


class ChainSettlementRun(Message):
    """Start of a ``ChainSettlementWorkflow``: the relayer whose final events it settles."""

    tenant_id: UUID
    relayer_id: str

    def log_context(self) -> dict[str, str]:
        """Tenant and relayer."""
        return {"tenant_id": str(self.tenant_id), "relayer_id": self.relayer_id}


class DeliverFinal(Message):
    """Input of the step that carries about ``limit`` events to their escrows. ``repeated``: an attempt before left some
    of them without an outcome."""

    run: ChainSettlementRun
    limit: int
    repeated: bool = False

    def log_context(self) -> dict[str, str]:
        """Tenant and relayer."""
        return self.run.log_context()


class NotSettled(Message):
    """An event that moved nothing, and why."""

    sequence: int
    outcome: Settled
    code: str
    reason: str


class LinkMessage(Message):
    """What an escrow on a chain is here from the event of this number on; its id there is hexadecimal with 0x."""

    sequence: int
    onchain_id: str
    escrow_id: UUID
    status: str
    code: str | None = None
    reason: str | None = None


class DeliveredFinal(Message):
    """Events behind ``after`` up to ``through`` have an outcome: they are settled, but for ``others``.

    ``found`` of them were there; the rest waits for escrows that could not be reached.
    """

    after: int
    through: int
    found: int
    others: tuple[NotSettled, ...] = ()
    links: tuple[LinkMessage, ...] = ()


class RecordFinal(Message):
    """Input of the step that writes outcomes. ``step`` names it, the same for every attempt; ``at`` is the workflow's
    clock."""

    run: ChainSettlementRun
    step: str
    at: datetime
    delivered: DeliveredFinal

    def log_context(self) -> dict[str, str]:
        """Tenant and relayer."""
        return self.run.log_context()


class SourcesWanted(Message):
    """Asks for the next relayers that settle, behind ``after``."""

    after: int = 0
    limit: int


class SettlingSource(Message):
    """A relayer that settles; ``source_id`` orders them."""

    source_id: int
    run: ChainSettlementRun


class TokenBooks(Message):
    """What a contract says of its money in one token; amounts are in the token's smallest unit."""

    token: str
    sequence: int
    balance: MinorUnits
    held: MinorUnits
    owed: MinorUnits


class ReadBooks(Message):
    """What a contract says of its money as of one final block; of ``unread`` tokens nobody keeps the state of it."""

    block_number: int
    block_hash: str
    books: tuple[TokenBooks, ...] = ()
    unread: int = 0


class CompareBooks(Message):
    """Input of the step that compares what a contract says with its events and the ledger."""

    run: ChainSettlementRun
    step: str
    at: datetime
    read: ReadBooks

    def log_context(self) -> dict[str, str]:
        """Tenant and relayer."""
        return self.run.log_context()


class BooksCompared(Message):
    """How many tokens were compared, in how many something is unexplained, and how many nobody could tell of."""

    tokens: int = 0
    differing: int = 0
    unread: int = 0


class BooksSweep(Message):
    """Start of a ``ChainReconciliationWorkflow``; it renews itself behind ``after``, with what it counted so far.
    ``unread`` are contracts whose books nobody could tell."""

    after: int = 0
    relayers: int = 0
    tokens: int = 0
    differing: int = 0
    unread: int = 0


class ChainSettled(Message):
    """How many events were settled, and how many were not."""

    settled: int = 0
    unsupported: int = 0
    disagreeing: int = 0

    @property
    def count(self) -> int:
        """All of them."""
        return self.settled + self.unsupported + self.disagreeing

    def plus(self, other: ChainSettled) -> ChainSettled:
        """Both together."""
        return ChainSettled(
            settled=self.settled + other.settled,
            unsupported=self.unsupported + other.unsupported,
            disagreeing=self.disagreeing + other.disagreeing,
        )
