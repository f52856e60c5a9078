"""Settling from a chain, called as a worker calls it: escrows are moved by their own steps, without their workflows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import ActivityEnvironment

from activities.chain.escrows import escrow_id_of
from activities.chain.messages import (
    ChainSettled,
    ChainSettlementRun,
    DeliveredFinal,
    DeliverFinal,
    RecordFinal,
)
from activities.chain.settling import ChainSettlementActivities
from activities.escrow.messages import (
    ApplyCommand,
    EscrowCommand,
    EscrowOutcome,
    OpenEscrow,
    PassDeadlineMessage,
    RecordOpening,
    judge,
)
from db import controls
from db import escrow as escrows
from db.chain.rows import instant_of
from db.doorbell import Doorbell
from db.engine import tenant_transaction
from db.ids import new_id
from domain.controls import Freeze, FreezeScope
from domain.escrow import Escrow
from kit.clock import now
from tests.activities.steps import Steps
from tests.chain.contract import Contract
from tests.chain.tokens import TOKENS


class StepDesk:
    """Opens escrows and carries their commands out by their own steps. ``before`` may raise what can come between."""

    def __init__(self, steps: Steps) -> None:
        self.sent: list[EscrowCommand] = []
        self.before: Callable[[str], None] = lambda _: None
        self.after: Callable[[str], None] = lambda _: None
        self._steps = steps

    async def open(self, opening: OpenEscrow, *, summary: str, details: str | None = None) -> EscrowOutcome:
        self.before("open")
        found = await self._steps.escrow.open(RecordOpening(opening=opening, at=now()))
        self.after("open")
        return EscrowOutcome(escrow_id=found.escrow_id, status=found.status, version=found.version)

    async def command(
        self, tenant_id: UUID, escrow_id: UUID, command: EscrowCommand, *, attempt_id: UUID | None = None
    ) -> EscrowOutcome:
        kind = command.command.kind
        self.sent.append(command)
        self.before(kind)
        if not command.repeated:
            async with tenant_transaction(self._steps.engine, tenant_id) as connection:
                standing = await escrows.find(connection, escrow_id)
            assert standing is not None
            judge(standing, command, now())
        assert command.followed is not None or not isinstance(command.command, PassDeadlineMessage)
        asked = ApplyCommand(
            tenant_id=tenant_id,
            escrow_id=escrow_id,
            step=str(command.command_id),
            command=command.command,
            origin=command.origin,
            at=now() if command.followed is None else command.followed.at,
            followed=command.followed,
        )
        found = await self._steps.escrow.apply(asked)
        self.after(kind)
        return EscrowOutcome(escrow_id=escrow_id, status=found.status, version=found.version)

    async def reload(self, escrow_id: UUID) -> None:
        """Nothing: there is no run."""


class ChainDesk:
    """One contract, followed by one tenant. ``engine`` sees every tenant."""

    def __init__(self, tenants: AsyncEngine, engine: AsyncEngine, tenant: UUID) -> None:
        self.engine = engine
        self.steps = Steps(tenants, tenant, ActivityEnvironment())
        self.desk = StepDesk(self.steps)
        self.contract = Contract(tenant)
        self.settling = ChainSettlementActivities(tenants, Doorbell(tenants), self.desk, {"local": TOKENS})

    @property
    def run(self) -> ChainSettlementRun:
        return ChainSettlementRun(tenant_id=self.contract.tenant, relayer_id=self.contract.relayer_id)

    async def deliver(self, *, limit: int = 200, attempt: int = 1) -> DeliveredFinal:
        environment = ActivityEnvironment()
        environment.info = replace(environment.info, attempt=attempt)
        asked = DeliverFinal(run=self.run, limit=limit)
        return DeliveredFinal.model_validate(await environment.run(self.settling.deliver, asked))

    async def record(self, delivered: DeliveredFinal, step: str | None = None) -> ChainSettled:
        asked = RecordFinal(run=self.run, step=step or str(new_id()), at=now(), delivered=delivered)
        return ChainSettled.model_validate(await ActivityEnvironment().run(self.settling.record, asked))

    async def settle(self, *, limit: int = 200) -> ChainSettled:
        """Batch after batch until nothing is left."""
        done = ChainSettled()
        while (delivered := await self.deliver(limit=limit)).found:
            done = done.plus(await self.record(delivered))
            if delivered.through == delivered.after:
                break
        return done

    async def follow(self) -> ChainSettled:
        """Write what the contract told since, and settle it."""
        if not self.contract.source.source_id:
            await self.contract.register(self.engine)
        await self.contract.write(self.engine)
        return await self.settle()

    async def freeze(self, scope: FreezeScope, ref: str | None = None) -> None:
        """Freeze an account, an asset or the tenant, as the API does."""
        tenant = self.contract.tenant
        async with tenant_transaction(self.steps.engine, tenant) as connection:
            await controls.halt(connection, tenant)
            await controls.place(connection, tenant, Freeze(new_id(), scope, ref, "a test", now()))

    def escrow_id(self, onchain_id: bytes) -> UUID:
        created = next(event for event in self.contract.events if event.subject == onchain_id)
        return escrow_id_of(self.contract.relayer_id, f"0x{onchain_id.hex()}", instant_of(created.at_seconds))

    async def escrow(self, onchain_id: bytes) -> Escrow | None:
        async with tenant_transaction(self.steps.engine, self.contract.tenant) as connection:
            return await escrows.find(connection, self.escrow_id(onchain_id))

    async def outcomes(self) -> list[tuple[str, str | None, str | None]]:
        """Kind, outcome and code of each event."""
        rows: list[Any] = await self.steps.sql(
            "SELECT kind, outcome, outcome_code FROM chain_events WHERE source_id = :source ORDER BY sequence",
            source=self.contract.source.source_id,
        )
        return [(row.kind, row.outcome, row.outcome_code) for row in rows]
