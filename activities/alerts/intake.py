"""Events that somebody should be told of become alerts, in the commit that moves the consumer's cursor."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from activities.alerts.operations import OPERATIONS, told_of
from activities.alerts.steps import alert_event
from activities.consuming import Consumer, Delivered, Failed, TenantEvent
from db.alerts import notifications, people
from db.audit import AuditRecord, Origin
from db.doorbell import Doorbell
from db.ids import new_id
from db.step import Left, leave
from domain.alerts.climb import advance
from domain.alerts.intake import News, take_in
from domain.alerts.links import KEY_BYTES
from domain.alerts.model import OPERATORS, USER, WORSE, Alert, AlertType, Ending, Policy, Severity

__all__ = ["CONSUMER", "AlertConsumer", "AlertIntake"]

#: The name of the cursor.
CONSUMER: Final = "alerts"

#: Which events somebody is told of, as what.
_TYPES: Final[Mapping[str, AlertType]] = {
    **{each.value: each for each in (*WORSE, AlertType.RECOVERED)},
    "webhook.disabled": AlertType.WEBHOOK_DISABLED,
    "margin.audit_disagreed": AlertType.AUDIT_DISAGREED,
    **OPERATIONS,
}
#: What a text can use of an event of margin; its other fields are in the event itself.
_MARGIN_FACTS: Final = (
    "status",
    "health_score",
    "previous_health_score",
    "threshold_breached",
    "message",
    "collateral_usd",
    "borrow_usd",
    "recommendations",
    "snapshot_id",
)
_ADVICE_MAX: Final = 5
#: Who disabled an endpoint knows it.
_ASKED: Final = "asked"
#: What starts an alert's workflow.
RAISED: Final = "alert.raised"
#: What is said of one that nobody could be told of.
FAILED: Final = "alert.failed"

_raised = Counter("holdfast_alerts_total", "Alerts by what became of the event", ["alert_type", "became"])


def news_of(event: TenantEvent) -> News | None:
    """What an event tells; None where nobody has to be told. Raises for one that is not made as it should be."""
    alert_type = _TYPES[event.type]
    data = event.data
    if alert_type is AlertType.WEBHOOK_DISABLED:
        if data.get("reason") == _ASKED:
            return None
        user, severity = data.get("owner") or OPERATORS, Severity.MEDIUM
        facts = {
            "endpoint": str(data["url"]),
            "reason": str(data.get("reason") or "failing"),
            "subscription_id": data.get("subscription_id"),
        }
    elif alert_type is AlertType.AUDIT_DISAGREED:
        # It is ours to mend; its user would not know what to do with it.
        user, severity = OPERATORS, Severity.HIGH
        facts = {"account": data["user_id"], "told_level": data["told_level"], "strict_level": data["strict_level"]}
    elif event.type in OPERATIONS:
        user, (severity, facts) = OPERATORS, told_of(event.type, data)
    else:
        user, severity = data["user_id"], Severity(data["severity"])
        facts = {name: data[name] for name in _MARGIN_FACTS if data.get(name) is not None}
        facts["recommendations"] = list(facts.get("recommendations") or ())[:_ADVICE_MAX]
    return News(event.tenant_id, event.event_id, user, alert_type, severity, event.occurred_at, facts)


@dataclass(frozen=True, slots=True)
class _Alerting(Delivered):
    """A page of events that become alerts."""

    news: Sequence[News] = field(default=())

    async def record(self, connection: AsyncConnection) -> None:
        """Read what stands, decide event by event, and write everything at once."""
        if not self.news:
            return
        standing: dict[tuple[UUID, str], dict[UUID, Alert]] = {}
        keys = {(one.tenant_id, one.user_id) for one in self.news}
        reachable = await people.reachable(connection, keys)
        for alert in await notifications.lock_standing(connection, keys):
            standing.setdefault((alert.tenant_id, alert.user_id), {})[alert.notification_id] = alert
        decided = await people.policies(connection, {one.tenant_id for one in self.news})
        written = _Written()
        for one in self.news:
            mine = standing.setdefault((one.tenant_id, one.user_id), {})
            policy = decided.get((one.tenant_id, one.alert_type))
            written.take(one, mine, policy, reachable=(one.tenant_id, one.user_id) in reachable)
        await written.write(connection)


class _Written:
    """What a page writes. An alert that is new and ends on the same page is written once, as it ends."""

    def __init__(self) -> None:
        self._new: dict[UUID, Alert] = {}
        self._changed: dict[UUID, Alert] = {}
        self._left: dict[UUID, list[Left]] = {}
        self._at: datetime | None = None

    def take(self, news: News, standing: dict[UUID, Alert], policy: Policy | None, *, reachable: bool) -> None:
        """Decide one event; ``standing`` are its user's alerts, which it changes."""
        taken = take_in(list(standing.values()), news, policy, new_id())
        if not reachable:
            taken.raised = [_told_nobody(alert) for alert in taken.raised]
        self._at = news.at
        for action, alerts in (("raised", taken.raised), ("grouped", taken.grouped), ("ended", taken.ended)):
            for alert in alerts:
                _raised.labels(alert.alert_type, action).inc()
                self._keep(alert, f"alert.{_word(alert, action)}", news)
                if alert.passed_at is None and alert.alert_type is not AlertType.RECOVERED:
                    standing[alert.notification_id] = alert
                else:
                    standing.pop(alert.notification_id, None)

    def _keep(self, alert: Alert, event_type: str, news: News) -> None:
        known = self._new if event_type in (RAISED, FAILED) or alert.notification_id in self._new else self._changed
        known[alert.notification_id] = alert
        event = alert_event(alert, event_type, news.at, {"cause": str(news.event_id)})
        record = AuditRecord(event.subject, event_type, news.at, Origin(), dict(event.data))
        step_id = f"{event.subject}:{news.event_id}"
        self._left.setdefault(alert.tenant_id, []).append(Left(step_id, {"event": event_type}, record, [event]))

    async def write(self, connection: AsyncConnection) -> None:
        """Write the page. Every alert is due at once: its workflow looks at it when the event arrives."""
        await notifications.add(connection, [(alert, os.urandom(KEY_BYTES)) for alert in self._new.values()])
        changed = [*self._changed.values(), *(each for each in self._new.values() if each.over or each.occurrences > 1)]
        await notifications.save(connection, changed, next_at=self._at)
        for tenant, left in self._left.items():
            await leave(connection, tenant, left)


def _told_nobody(alert: Alert) -> Alert:
    """A new alert of a user without any contact: where nobody else is to be told, it has failed, and costs no workflow.
    When prices fall, those may be most."""
    if any(who != USER for each in alert.policy.steps for who in each.to):
        return alert
    return replace(advance(alert, {}, alert.raised_at, new_id).alert, step_at=None)


def _word(alert: Alert, action: str) -> str:
    if action == "raised" and alert.failure_reason is not None:
        return "failed"
    if action != "ended":
        return action
    if alert.climbed and not alert.deliveries:
        return "passed"  # Nobody was told: there is no workflow to wake.
    return str(alert.ended) if alert.ended is not Ending.ACKNOWLEDGED else "passed"


class AlertIntake:
    """A consumer's handler. ``wrote`` says that a page left something, until it is taken back."""

    def __init__(self) -> None:
        self.wrote = False

    @property
    def types(self) -> Sequence[str]:
        """What somebody is told of."""
        return tuple(_TYPES)

    async def deliver(self, events: Sequence[TenantEvent], upto: int) -> Delivered:
        """Read the events of a page; they are written with the cursor. What comes before an event that cannot be read
        is written first, that event then stands alone."""
        self.wrote = True
        news: list[News] = []
        for event in events:
            try:
                told = news_of(event)
                news += [] if told is None else [told]
            except (KeyError, ValueError, TypeError, AttributeError) as bug:
                if news:
                    return _Alerting(event.position - 1, news=news)
                return _Alerting(event.position, [Failed(event, f"{type(bug).__name__}: {bug}")])
        return _Alerting(upto, news=news)

    async def close(self) -> None:
        """Nothing is held."""


class AlertConsumer(Consumer):
    """The consumer of ``AlertIntake``: the relay is woken for what a page leaves."""

    def __init__(self, engine: AsyncEngine, dsn: str) -> None:
        self._intake = AlertIntake()
        super().__init__(engine, dsn, CONSUMER, self._intake)
        self._doorbell = Doorbell(engine)

    async def pass_once(self) -> bool:
        """Deliver one page, and ring once it is committed."""
        more = await super().pass_once()
        if self._intake.wrote:
            self._intake.wrote = False
            self._doorbell.ring()
        return more
