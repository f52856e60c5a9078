"""Reconciliation's steps, called as the workflow calls them, and the tampering that they are to find."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import ActivityEnvironment

from activities.reconciliation.messages import (
    AreaCompared,
    BeginReconciliation,
    CompareArea,
    FinishReconciliation,
    ReconcileTenant,
    ReconciliationOutcome,
    ReconciliationPlan,
)
from activities.reconciliation.steps import PageSizes, ReconciliationActivities
from db.doorbell import Doorbell
from db.engine import tenant_transaction, transaction
from db.ids import new_id
from db.reconciliation import runs
from db.reconciliation.runs import StandingFinding
from kit.clock import now


class Reconciler:
    """Runs over one tenant's books, step by step."""

    def __init__(self, tenants: AsyncEngine, engine: AsyncEngine, tenant: UUID, **sizes: int) -> None:
        self.tenants = tenants
        self.tenant = tenant
        self.environment = ActivityEnvironment()
        self.steps = ReconciliationActivities(tenants, engine, Doorbell(tenants), PageSizes(**sizes))

    async def run(self, *, full: bool = True) -> ReconciliationOutcome:
        """A whole run."""
        request, plan = await self.begin(full=full)
        compared = [await self.compare(request, plan, area) for area in plan.areas]
        outcome = await self.finish(request, plan, compared)
        await self.environment.run(self.steps.clear, request)
        return outcome

    async def begin(self, *, full: bool = True) -> tuple[ReconcileTenant, ReconciliationPlan]:
        """Begin a run."""
        request = ReconcileTenant(tenant_id=self.tenant, run_id=new_id(), full=full)
        asked = BeginReconciliation(request=request, at=now())
        return request, ReconciliationPlan.model_validate(await self.environment.run(self.steps.begin, asked))

    async def compare(self, request: ReconcileTenant, plan: ReconciliationPlan, area: str) -> AreaCompared:
        """Compare one area."""
        asked = CompareArea(request=request, plan=plan, area=area)
        return AreaCompared.model_validate(await self.environment.run(self.steps.compare, asked))

    async def finish(
        self, request: ReconcileTenant, plan: ReconciliationPlan, compared: list[AreaCompared]
    ) -> ReconciliationOutcome:
        """End a run."""
        asked = FinishReconciliation(request=request, plan=plan, compared=tuple(compared), at=now())
        return ReconciliationOutcome.model_validate(await self.environment.run(self.steps.finish, asked))

    async def findings(self, run_id: UUID) -> list[StandingFinding]:
        """What a run found."""
        async with tenant_transaction(self.tenants, self.tenant) as connection:
            return await runs.list_findings(connection, run_id, before=None, limit=1_000)

    async def codes(self, run_id: UUID) -> set[tuple[str, str]]:
        """Code and subject of what a run found."""
        return {(each.finding.code, each.finding.subject) for each in await self.findings(run_id)}


async def tamper(owner: AsyncEngine, statement: str, **parameters: Any) -> None:
    """Change what no role of ours may, as the owner, past every trigger."""
    async with transaction(owner) as connection:
        await connection.execute(text("SET LOCAL ROLE NONE"))  # the server's superuser, which the tests connect as
        await connection.execute(text("SET LOCAL session_replication_role = replica"))
        done = await connection.execute(text(statement), parameters)
        assert getattr(done, "rowcount", 0) >= 1, "nothing was there to tamper with"
