"""Quiet hours by a user's own clock."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from domain.alerts.model import AlertType, Preferences, Severity
from domain.errors import Refusal


def zone(name: str) -> ZoneInfo:
    """The time zone of this name; refuses one that nobody knows."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Refusal("time_zone_unknown", f"there is no time zone {name[:60]!r}", field="time_zone") from None


def check(wishes: Preferences) -> None:
    """Refuses wishes that mean nothing."""
    zone(wishes.time_zone)
    if (wishes.quiet_from is None) != (wishes.quiet_to is None) or (
        wishes.quiet_from is not None and wishes.quiet_from == wishes.quiet_to
    ):
        raise Refusal("quiet_hours_incomplete", "quiet hours begin and end, at different times", field="quiet_hours")


def held_until(wishes: Preferences, alert_type: AlertType, severity: Severity, at: datetime) -> datetime | None:
    """The end of the quiet hours that ``at`` lies in; None outside of them, and for what does not wait: critical
    alerts, and a code that somebody has just asked for."""
    if wishes.quiet_from is None or wishes.quiet_to is None:
        return None
    if severity is Severity.CRITICAL or alert_type is AlertType.CONTACT_CODE:
        return None
    there = at.astimezone(zone(wishes.time_zone))
    if not _within(there.time(), wishes.quiet_from, wishes.quiet_to):
        return None
    for days in (0, 1):
        end = datetime.combine(there.date() + timedelta(days=days), wishes.quiet_to, there.tzinfo).astimezone(UTC)
        if end > at:
            return end
    return None


def _within(now: time, begin: time, end: time) -> bool:
    if begin < end:
        return begin <= now < end
    return now >= begin or now < end
