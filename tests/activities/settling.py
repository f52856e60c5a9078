"""A tenant's settlement steps, called as a worker calls them; escrows are moved by their own steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from uuid import UUID

from temporalio.testing import ActivityEnvironment

from activities.escrow.messages import ApplyCommand, EscrowCommand, EscrowOutcome
from activities.settlement.escrow import SettlementEscrowActivities
from activities.settlement.ledger import SettlementLedgerActivities
from activities.settlement.messages import (
    BatchOutcome,
    DeliverBatch,
    Delivered,
    RecordBatch,
    SettleBatch,
    TakenUp,
    TakeUpBatch,
)
from db.doorbell import Doorbell
from db.ids import new_id
from db.settlement import RecordedCommand
from domain.settlement import Command
from kit.clock import now
from tests.activities.steps import Steps
from tests.commands import read, take


class DirectDesk:
    """Carries commands to the escrow's own step. ``before`` may raise what a delivery can meet; ``after`` what can
    come between the effect and its answer."""

    def __init__(self, steps: Steps) -> None:
        self.sent: list[EscrowCommand] = []
        self.reloaded: list[UUID] = []
        self.before: Callable[[EscrowCommand], None] = lambda _: None
        self.after: Callable[[EscrowCommand], None] = lambda _: None
        self._steps = steps

    async def command(
        self, tenant_id: UUID, escrow_id: UUID, command: EscrowCommand, *, attempt_id: UUID | None = None
    ) -> EscrowOutcome:
        self.sent.append(command)
        self.before(command)
        asked = ApplyCommand(
            tenant_id=tenant_id,
            escrow_id=escrow_id,
            step=str(command.command_id),
            command=command.command,
            origin=command.origin,
            at=now(),
        )
        found = await self._steps.escrow.apply(asked)
        self.after(command)
        return EscrowOutcome(escrow_id=escrow_id, status=found.status, version=found.version)

    async def reload(self, escrow_id: UUID) -> None:
        self.reloaded.append(escrow_id)


class Settling:
    """Both lanes of the tenant of ``steps``."""

    def __init__(self, steps: Steps) -> None:
        doorbell = Doorbell(steps.engine)
        self.steps = steps
        self.desk = DirectDesk(steps)
        self.ledger = SettlementLedgerActivities(steps.engine, doorbell)
        self.escrow = SettlementEscrowActivities(steps.engine, doorbell, self.desk)

    async def take(self, *commands: Command) -> None:
        """Take commands in one commit."""
        await take(self.steps.engine, self.steps.tenant, commands)

    async def read(self, command: Command) -> RecordedCommand:
        """A command as it stands."""
        return await read(self.steps.engine, self.steps.tenant, command)

    async def statuses(self, commands: Iterable[Command]) -> list[tuple[str, str | None]]:
        """Status and code of each."""
        found = [await self.read(command) for command in commands]
        return [(one.status.value, None if one.outcome is None else one.outcome.code) for one in found]

    async def settle(self, *, limit: int = 1_000, step: str | None = None, attempt: int = 1) -> BatchOutcome:
        """One batch of the ledger's lane."""
        batch = SettleBatch(tenant_id=self.steps.tenant, step=step or str(new_id()), at=now(), limit=limit)
        return BatchOutcome.model_validate(await self._environment(attempt).run(self.ledger.settle, batch))

    async def take_up(self, *, limit: int = 200, step: str | None = None) -> tuple[int, ...]:
        """Take commands of the escrows' lane up."""
        batch = TakeUpBatch(tenant_id=self.steps.tenant, step=step or str(new_id()), at=now(), limit=limit)
        return TakenUp.model_validate(await self._environment(1).run(self.escrow.take_up, batch)).sequences

    async def deliver(self, sequences: tuple[int, ...], *, attempt: int = 1) -> Delivered:
        """Carry them to their escrows."""
        batch = DeliverBatch(tenant_id=self.steps.tenant, sequences=sequences)
        return Delivered.model_validate(await self._environment(attempt).run(self.escrow.deliver, batch))

    async def record(self, delivered: Delivered, *, step: str | None = None) -> BatchOutcome:
        """Write what came of it."""
        batch = RecordBatch(
            tenant_id=self.steps.tenant, step=step or str(new_id()), at=now(), outcomes=delivered.outcomes
        )
        return BatchOutcome.model_validate(await self._environment(1).run(self.escrow.record, batch))

    async def escrow_batch(self, *, limit: int = 200) -> int:
        """One round of the escrows' lane; how many commands were taken up."""
        sequences = await self.take_up(limit=limit)
        if sequences:
            await self.record(await self.deliver(sequences))
        return len(sequences)

    async def work_off(self) -> None:
        """Both lanes in turn until nothing is left."""
        while (await self.settle()).count + await self.escrow_batch():
            pass

    def _environment(self, attempt: int) -> ActivityEnvironment:
        environment = ActivityEnvironment()
        environment.info = replace(environment.info, attempt=attempt)
        return environment
