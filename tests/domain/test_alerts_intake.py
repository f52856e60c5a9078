"""What an event makes of the alerts of its user."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import pytest

from domain.alerts.climb import acknowledge
from domain.alerts.delivery import Heard
from domain.alerts.intake import News, take_in
from domain.alerts.model import Acknowledgement, Alert, AlertType, Channel, Ending, Policy, Severity
from tests.domain.alerts import SECOND, SEVERITY, T0, TENANT, USER, Story, alert, person

NEW = UUID(int=99)


def news(alert_type: AlertType, seconds: int = 10) -> News:
    return News(TENANT, UUID(int=50), USER, alert_type, SEVERITY[alert_type], T0 + seconds * SECOND, {"n": seconds})


def told(alert_type: AlertType, *channels: Channel) -> Alert:
    story = Story(alert(alert_type), person(*channels))
    for number in story.move().begun:
        story.hear(number, Heard.DELIVERED)
    return story.alert


def test_the_first_is_an_alert_by_the_tenants_policy_or_ours() -> None:
    [made] = take_in([], news(AlertType.CALL), None, NEW).raised
    assert (made.notification_id, made.policy.must_acknowledge, made.margin_event_id) == (NEW, True, UUID(int=50))
    [made] = take_in([], news(AlertType.CALL), Policy(), NEW).raised
    assert not made.policy.must_acknowledge


def test_the_same_within_the_window_joins_and_behind_it_does_not() -> None:
    standing = alert(AlertType.WARNING, policy=Policy(window_seconds=60))
    taken = take_in([standing], news(AlertType.WARNING, 59), None, NEW)
    assert [(one.occurrences, one.facts) for one in taken.grouped] == [(2, {"n": 59})]
    taken = take_in([standing], news(AlertType.WARNING, 60), None, NEW)
    assert ([one.ended for one in taken.ended], len(taken.raised)) == ([Ending.SUPERSEDED], 1)


def test_what_somebody_took_note_of_is_not_joined() -> None:
    noted = acknowledge(alert(), Acknowledgement(T0, USER, "api"))
    taken = take_in([noted], news(AlertType.CALL), None, NEW)
    [ended] = taken.ended
    assert (ended.ended, ended.passed_at is not None, len(taken.raised)) == (Ending.ACKNOWLEDGED, True, 1)


@pytest.mark.parametrize("worse", [AlertType.CALL, AlertType.IMMINENT, AlertType.DUE])
def test_a_worse_one_breaks_the_window(worse: AlertType) -> None:
    taken = take_in([alert(AlertType.WARNING)], news(worse), None, NEW)
    assert [one.ended for one in taken.ended] == [Ending.SUPERSEDED]
    assert [one.alert_type for one in taken.raised] == [worse]


def test_a_recovery_ends_them_and_says_so_where_it_was_told() -> None:
    call = told(AlertType.CALL, Channel.EMAIL, Channel.SMS)
    taken = take_in([call], news(AlertType.RECOVERED), None, NEW)
    [over] = taken.raised
    assert [one.ended for one in taken.ended] == [Ending.RECOVERED]
    assert (over.facts["channels"], over.facts["over"], over.severity) == (["email"], ["margin_call"], Severity.HIGH)
    noted = acknowledge(call, Acknowledgement(T0, USER, "api"))
    assert take_in([noted], news(AlertType.RECOVERED), None, NEW).raised, "also who took note is told"
    assert take_in([alert()], news(AlertType.RECOVERED), None, NEW).raised == [], "nobody had been told"
    assert take_in([], news(AlertType.RECOVERED), None, NEW).raised == []


def test_endpoints_are_told_of_together_and_margin_leaves_them_alone() -> None:
    down = alert(AlertType.WEBHOOK_DISABLED)
    assert len(take_in([down], news(AlertType.WEBHOOK_DISABLED), None, NEW).grouped) == 1
    for kind in (AlertType.DUE, AlertType.RECOVERED):
        assert take_in([down], news(kind), None, NEW).ended == []
    later = replace(news(AlertType.WEBHOOK_DISABLED), at=T0 + 601 * SECOND)
    assert len(take_in([down], later, None, NEW).raised) == 1
