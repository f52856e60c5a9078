"""What an event makes of the alerts of its user: a new one, one more of the same, or an end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from domain.alerts.climb import end
from domain.alerts.model import (
    POLICIES,
    WORSE,
    Alert,
    AlertType,
    DeliveryState,
    Ending,
    Policy,
    Severity,
)

#: Types that a margin account has one open alert of, at most.
MARGIN = frozenset(WORSE)


@dataclass(frozen=True, slots=True)
class News:
    """An event that somebody should be told of."""

    tenant_id: UUID
    event_id: UUID
    user_id: str
    alert_type: AlertType
    severity: Severity
    at: datetime
    facts: Mapping[str, Any]


@dataclass(slots=True)
class Taken:
    """Alerts that are new, that have more to tell, and that ended."""

    raised: list[Alert] = field(default_factory=list)
    grouped: list[Alert] = field(default_factory=list)
    ended: list[Alert] = field(default_factory=list)


def take_in(standing: Sequence[Alert], news: News, policy: Policy | None, notification_id: UUID) -> Taken:
    """What one event makes of its user's alerts that stand (``passed_at`` is None); ``notification_id`` names the new
    alert, if there is one."""
    taken = Taken()
    if news.alert_type in MARGIN:
        same = _joinable(standing, news)
        if same is not None:
            taken.grouped.append(replace(same, occurrences=same.occurrences + 1, facts=news.facts))
            return taken
        lower = WORSE[: WORSE.index(news.alert_type) + 1]
        taken.ended = [_pass(each, Ending.SUPERSEDED, news.at) for each in standing if each.alert_type in lower]
        taken.raised.append(_new(news, policy, notification_id, news.facts))
    elif news.alert_type is AlertType.RECOVERED:
        closed = [each for each in standing if each.alert_type in MARGIN]
        taken.ended = [_pass(each, Ending.RECOVERED, news.at) for each in closed]
        ways = sorted({each.channel for alert in closed for each in alert.deliveries if _may_have_arrived(each.state)})
        if ways:
            facts = {**news.facts, "channels": ways, "over": sorted({each.alert_type for each in closed})}
            worst = max((each.severity for each in closed), key=lambda severity: severity.rank)
            taken.raised.append(replace(_new(news, policy, notification_id, facts), severity=worst))
    else:
        same = _joinable(standing, news)
        if same is not None:
            taken.grouped.append(replace(same, occurrences=same.occurrences + 1, facts=news.facts))
        else:
            taken.raised.append(_new(news, policy, notification_id, news.facts))
    return taken


def _joinable(standing: Sequence[Alert], news: News) -> Alert | None:
    """The open alert of the same kind whose window the event falls into."""
    for alert in standing:
        if alert.alert_type is news.alert_type and not alert.over and news.at < alert.window_ends_at:
            return alert
    return None


def _pass(alert: Alert, why: Ending, at: datetime) -> Alert:
    return replace(end(alert, why, at), passed_at=at)


def _may_have_arrived(state: DeliveryState) -> bool:
    return state not in (DeliveryState.PENDING, DeliveryState.CANCELLED, DeliveryState.FAILED)


def _new(news: News, policy: Policy | None, notification_id: UUID, facts: Mapping[str, Any]) -> Alert:
    return Alert(
        tenant_id=news.tenant_id,
        notification_id=notification_id,
        user_id=news.user_id,
        alert_type=news.alert_type,
        severity=news.severity,
        policy=policy or POLICIES[news.alert_type],
        facts=facts,
        raised_at=news.at,
        margin_event_id=news.event_id if news.alert_type in MARGIN | {AlertType.RECOVERED} else None,
    )
