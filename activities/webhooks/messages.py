"""What travels through Temporal about webhooks."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from activities.messages import Message


class WebhookRun(Message):
    """Which endpoint a run works for. ``delivered`` and ``failed`` count what the runs before it did."""

    tenant_id: UUID
    subscription_id: UUID
    delivered: int = 0
    failed: int = 0

    def log_context(self) -> dict[str, str]:
        """The tenant and the endpoint."""
        return {"tenant_id": str(self.tenant_id), "subscription_id": str(self.subscription_id)}


class TakeTurn(Message):
    """Send what is due to one endpoint, for a while."""

    tenant_id: UUID
    subscription_id: UUID

    def log_context(self) -> dict[str, str]:
        """The tenant and the endpoint."""
        return {"tenant_id": str(self.tenant_id), "subscription_id": str(self.subscription_id)}


class TurnDone(Message):
    """What a turn did: attempts that were delivered, and that were not. ``next_at``: when there is more to do, perhaps
    at once; None while nothing waits, or nothing may be sent."""

    delivered: int = 0
    failed: int = 0
    next_at: datetime | None = None
