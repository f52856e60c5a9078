"""Alerts as the rules have them, made for tests."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from domain.alerts.climb import Advanced, advance, hear
from domain.alerts.delivery import Heard, Outcome
from domain.alerts.model import (
    POLICIES,
    Alert,
    AlertType,
    Channel,
    Contact,
    Person,
    Preferences,
    Severity,
)

T0 = datetime(2026, 5, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
TENANT, USER = UUID(int=1), "alice"
SEVERITY = {
    AlertType.WARNING: Severity.MEDIUM,
    AlertType.CALL: Severity.HIGH,
    AlertType.IMMINENT: Severity.CRITICAL,
    AlertType.DUE: Severity.CRITICAL,
    AlertType.RECOVERED: Severity.LOW,
    AlertType.WEBHOOK_DISABLED: Severity.MEDIUM,
    AlertType.AUDIT_DISAGREED: Severity.HIGH,
    AlertType.RELAYER_HALTED: Severity.CRITICAL,
    AlertType.PROVIDER_ACCUSED: Severity.MEDIUM,
    AlertType.EVENT_DISAGREED: Severity.HIGH,
    AlertType.BOOKS_DIFFER: Severity.CRITICAL,
    AlertType.BACKFILL_FAILED: Severity.MEDIUM,
    AlertType.CONTACT_CODE: Severity.LOW,
}
#: Contacts have the number of their channel as id.
NUMBERS = {Channel.EMAIL: 1, Channel.SMS: 2, Channel.WEBHOOK: 3}


class Ids:
    """Ids in order."""

    def __init__(self) -> None:
        self._numbers: Iterator[int] = iter(range(1_000, 1_000_000))

    def __call__(self) -> UUID:
        return UUID(int=next(self._numbers))


def person(*channels: Channel, user: str = USER, **wishes: Any) -> Person:
    """Somebody with a verified contact on each of these channels."""
    first = 0 if user == USER else 10
    contacts = tuple(Contact(UUID(int=first + NUMBERS[one]), user, one, f"{user} by {one}") for one in channels)
    return Person(contacts, Preferences(**wishes))


def alert(alert_type: AlertType = AlertType.CALL, **fields: Any) -> Alert:
    """An alert that was just raised."""
    made: dict[str, Any] = {
        "tenant_id": TENANT,
        "notification_id": UUID(int=7),
        "user_id": USER,
        "alert_type": alert_type,
        "severity": SEVERITY[alert_type],
        "policy": POLICIES[alert_type],
        "facts": {},
        "raised_at": T0,
    }
    return Alert(**(made | fields))


class Story:
    """One alert and its people over time."""

    def __init__(self, told: Alert, *people: Person) -> None:
        self.alert = told
        self.people = {each.contacts[0].user_id if each.contacts else USER: each for each in people}
        self.at = T0
        self.ids = Ids()

    def move(self, seconds: int = 0) -> Advanced:
        """Decide, so much later."""
        self.at += seconds * SECOND
        moved = advance(self.alert, self.people, self.at, self.ids)
        self.alert = moved.alert
        return moved

    def hear(self, number: int, heard: Heard, **said: Any) -> Advanced:
        """The answer to a delivery's attempt, and what follows."""
        attempt_id = self.alert.delivery(number).attempt_id
        assert attempt_id is not None
        self.alert = hear(self.alert, Outcome(attempt_id, heard, **said), self.at)
        return self.move()

    @property
    def states(self) -> list[tuple[str, str]]:
        return [(each.channel.value, each.state.value) for each in self.alert.deliveries]
