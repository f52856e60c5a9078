"""Messages of reconciliation."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from activities.messages import Message, OriginMessage


class ReconcileTenant(Message):
    """Start of a ``ReconciliationWorkflow``: one tenant, from the first transaction on or from where the last ended."""

    tenant_id: UUID
    run_id: UUID
    full: bool = True
    origin: OriginMessage = OriginMessage()

    def log_context(self) -> dict[str, str]:
        """Tenant, run and request."""
        return {"tenant_id": str(self.tenant_id), "run_id": str(self.run_id)} | self.origin.log_context()


class BeginReconciliation(Message):
    """Input of the first step; ``at`` is the workflow's clock."""

    request: ReconcileTenant
    at: datetime

    def log_context(self) -> dict[str, str]:
        """Tenant, run and request."""
        return self.request.log_context()


class ReconciliationPlan(Message):
    """What a run will compare, in this order, and whether it reads everything."""

    areas: tuple[str, ...]
    began_at: datetime
    full: bool
    after_sequence: int = 0
    since: datetime | None = None


class CompareArea(Message):
    """Input of the step that compares one area."""

    request: ReconcileTenant
    plan: ReconciliationPlan
    area: str

    def log_context(self) -> dict[str, str]:
        """Tenant, run, area and request."""
        return {"area": self.area} | self.request.log_context()


class AreaCompared(Message):
    """How many subjects of an area were compared; their differences are rows."""

    area: str
    checked: int = 0


class Progress(Message):
    """What the heartbeat carries: the key of the last subject compared, and how many there were."""

    after: str = ""
    checked: int = 0


class FinishReconciliation(Message):
    """Input of the last step; ``at`` is the workflow's clock. ``failure`` says why a run ends before its end."""

    request: ReconcileTenant
    plan: ReconciliationPlan
    compared: tuple[AreaCompared, ...]
    at: datetime
    failure: str | None = None

    def log_context(self) -> dict[str, str]:
        """Tenant, run and request."""
        return self.request.log_context()


class ReconciliationOutcome(Message):
    """What a run found, in subjects; ``share_explained`` is decimal text, 1.000000 only when nothing is unexplained."""

    run_id: UUID
    checked: int
    explained: int
    unexplained: int
    share_explained: str


class TenantsWanted(Message):
    """Asks for the next tenants behind ``after``."""

    after: UUID | None = None
    limit: int


class Sweep(Message):
    """Start of a ``ReconciliationSweepWorkflow``; it renews itself behind ``after``, with what it counted so far."""

    full: bool = False
    after: UUID | None = None
    tenants: int = 0
    failed: int = 0
