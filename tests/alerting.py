"""A tenant's alerts as tests use them: people who can be told, events that tell of something, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine

from db import outbox
from db.alerts import attempts, mailbox, notifications, people
from db.alerts.attempts import Written
from db.alerts.mailbox import MailboxMessage
from db.alerts.notifications import AlertFilter, Stored
from db.doorbell import Doorbell
from db.engine import tenant_transaction
from db.ids import new_id
from db.outbox import MARGIN_TOPIC, OutboxEvent
from domain.alerts.model import AlertType, Channel, Contact, Policy, Preferences, Step
from kit.clock import now
from tests.polling import eventually

USER = "alice"
SEVERITIES = {
    "margin_warning": "medium",
    "margin_call": "high",
    "liquidation_imminent": "critical",
    "liquidation_due": "critical",
    "margin_recovered": "low",
}
ADDRESSES = {
    Channel.EMAIL: "alice@example.com",
    Channel.SMS: "+4915112345678",
    Channel.WEBHOOK: "https://example.com/hook",
}
#: Climbs at once, so that a test sees it.
QUICK = Policy(must_acknowledge=True, steps=(Step(), Step(1, channels=tuple(Channel))), repeat=1, repeat_seconds=1)
#: Nothing follows before somebody acknowledges.
SLOW = Policy(must_acknowledge=True, steps=(Step(), Step(3_600)), window_seconds=3_600)


def margin_data(user: str, event_type: str, health: str = "1.190000") -> dict[str, Any]:
    """The data of a margin event, as the book writes it."""
    return {
        "user_id": user,
        "severity": SEVERITIES[event_type],
        "status": "MARGIN_CALL",
        "health_score": health,
        "previous_health_score": None,
        "threshold_breached": "1.2000",
        "message": f"health {health} is below 1.2000",
        "collateral_usd": "18000.00000000",
        "borrow_usd": "15000.00000000",
        "recommendations": [
            {"action": "repay", "asset": "USDC", "amount": "1000.000000", "target_health_score": "1.5000"}
        ],
        "snapshot_id": str(new_id()),
    }


class Alerting:
    """One tenant's people, events and alerts."""

    def __init__(self, engine: AsyncEngine, tenant: UUID) -> None:
        self.engine = engine
        self.tenant = tenant

    async def contact(self, channel: Channel, address: str | None = None, user: str = USER) -> UUID:
        """A contact that is verified."""
        contact = Contact(new_id(), user, channel, address or ADDRESSES[channel])
        async with tenant_transaction(self.engine, self.tenant) as connection:
            made = await people.add_contact(
                connection,
                self.tenant,
                contact,
                secret=bytes(32) if channel is Channel.WEBHOOK else None,
                code_hash=bytes(32),
                code_expires_at=now(),
            )
            assert made
            await people.change_contact(connection, self.tenant, contact.contact_id, verified_at=now())
        return contact.contact_id

    async def policy(self, alert_type: AlertType | str, policy: Policy) -> None:
        """Decide what follows alerts of a type."""
        async with tenant_transaction(self.engine, self.tenant) as connection:
            await people.set_policy(connection, self.tenant, AlertType(alert_type), policy)

    async def wishes(self, wishes: Preferences, user: str = USER) -> None:
        """Set what a user wishes."""
        async with tenant_transaction(self.engine, self.tenant) as connection:
            await people.set_preferences(connection, self.tenant, user, wishes)

    async def happen(
        self, *types: str, user: str = USER, at: datetime | None = None, data: Mapping[str, Any] | None = None
    ) -> list[UUID]:
        """Events of margin, in one commit; their ids."""
        events = [
            OutboxEvent(
                new_id(),
                MARGIN_TOPIC,
                event_type,
                f"margin:{user}",
                at or now(),
                margin_data(user, event_type) | dict(data or {}),
            )
            for event_type in types
        ]
        async with tenant_transaction(self.engine, self.tenant) as connection:
            await outbox.append(connection, self.tenant, events)
        Doorbell(self.engine).ring()
        return [event.event_id for event in events]

    async def alerts(self, **wanted: Any) -> list[Stored]:
        """The alerts, the oldest first."""
        async with tenant_transaction(self.engine, self.tenant) as connection:
            found = await notifications.list_(connection, self.tenant, AlertFilter(**wanted), before=None, limit=200)
        return found[::-1]

    async def get(self, notification_id: UUID) -> Stored:
        """One alert."""
        async with tenant_transaction(self.engine, self.tenant) as connection:
            found = await notifications.find(connection, self.tenant, notification_id)
        assert found is not None
        return found

    async def log(self, notification_id: UUID) -> list[Written]:
        """Its rows of attempts."""
        async with tenant_transaction(self.engine, self.tenant) as connection:
            return await attempts.list_of(connection, self.tenant, notification_id)

    async def box(self) -> list[MailboxMessage]:
        """What is in the mailbox, the oldest first."""
        async with tenant_transaction(self.engine, self.tenant) as connection:
            found = await mailbox.list_(connection, self.tenant, channel=None, address=None, before=None, limit=200)
        return found[::-1]

    async def until(self, test: Callable[[list[Stored]], bool], *, limit_seconds: float = 20.0) -> list[Stored]:
        """The alerts once they pass a test."""
        last: list[Stored] = []

        async def passed() -> bool:
            last[:] = await self.alerts()
            return test(last)

        try:
            await eventually(passed, limit_seconds=limit_seconds)
        except AssertionError:
            raise AssertionError([(one.status, one.alert) for one in last]) from None
        return last
