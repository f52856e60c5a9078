"""Messages of relayers."""

from __future__ import annotations

from uuid import UUID

from activities.messages import Message, OriginMessage
from domain.chain import RelayerStatus
from domain.chain.following import Ask


class RelayerRun(Message):
    """Start of a ``RelayerWorkflow``. ``recent_commands`` are ids whose receipts answer a repeat."""

    tenant_id: UUID
    relayer_id: str
    recent_commands: tuple[UUID, ...] = ()

    def log_context(self) -> dict[str, str]:
        """The relayer."""
        return {"relayer": self.relayer_id}


class RelayerState(Message):
    """Where a relayer stands, as it is recorded. ``reason`` is why it does not follow."""

    relayer_id: str
    status: RelayerStatus
    reason: str | None = None
    block_number: int = 0
    last_sequence: int = 0
    confirmed_number: int = 0
    finalized_number: int = 0
    head_number: int | None = None


class TurnDone(Message):
    """What a turn came to. ``fault`` is what kept it from reading the chain at its end."""

    state: RelayerState
    blocks: int = 0
    events: int = 0
    reorgs: int = 0
    reverted: int = 0
    fault: str | None = None


class RelayerCommand(Message):
    """What an operator asks of a relayer. ``to_block`` is a rewind's: the last block that stays."""

    command_id: UUID
    ask: Ask
    to_block: int | None = None
    origin: OriginMessage = OriginMessage()
    repeated: bool = False

    def log_context(self) -> dict[str, str]:
        """The request that asked, where one did."""
        return self.origin.log_context()


class CarryOut(Message):
    """Input of the step that carries a command out."""

    tenant_id: UUID
    relayer_id: str
    command: RelayerCommand

    def log_context(self) -> dict[str, str]:
        """The relayer, and who asked."""
        return {"relayer": self.relayer_id} | self.command.log_context()
