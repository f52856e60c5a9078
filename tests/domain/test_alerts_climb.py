"""What is due for an alert, and when."""

from __future__ import annotations

from dataclasses import replace
from datetime import time, timedelta
from typing import Any

import pytest

from domain.alerts.climb import acknowledge, status
from domain.alerts.delivery import Heard, Word, receive
from domain.alerts.model import (
    Acknowledgement,
    AlertType,
    Channel,
    Ending,
    Person,
    Policy,
    Severity,
    Status,
    Step,
    Why,
)
from domain.errors import Refusal
from tests.domain.alerts import SECOND, T0, USER, Story, alert, person

EMAIL, SMS, WEBHOOK = Channel.EMAIL, Channel.SMS, Channel.WEBHOOK


@pytest.mark.parametrize(
    ("alert_type", "has", "chosen"),
    [
        (AlertType.WARNING, (EMAIL, SMS, WEBHOOK), [EMAIL, WEBHOOK]),
        (AlertType.WARNING, (SMS,), [SMS]),
        (AlertType.CALL, (EMAIL, SMS), [EMAIL]),
        (AlertType.IMMINENT, (EMAIL, SMS, WEBHOOK), [EMAIL, SMS, WEBHOOK]),
        (AlertType.IMMINENT, (WEBHOOK,), [WEBHOOK]),
        (AlertType.CALL, (), []),
    ],
)
def test_severity_chooses_among_the_ways_there_are(
    alert_type: AlertType, has: tuple[Channel, ...], chosen: list[Channel]
) -> None:
    story = Story(alert(alert_type), person(*has))
    moved = story.move()
    assert [each.channel for each in moved.alert.deliveries] == chosen
    assert len(moved.begun) == len(chosen)
    assert moved.alert.told == bool(chosen)


def test_a_mail_that_bounces_starts_the_text_message() -> None:
    story = Story(alert(), person(EMAIL, SMS))
    story.move()
    story.hear(1, Heard.TAKEN, reference="m-1")
    sent = story.alert.delivery(1)
    assert sent.attempt_id is not None
    bounced = receive(sent, sent.attempt_id, Word.FAILED, story.at + SECOND, code="550", detail="no such user")
    story.alert = story.alert.with_delivery(bounced)
    moved = story.move(1)
    assert story.states == [("email", "failed"), ("sms", "sending")]
    assert (story.alert.delivery(2).why, moved.begun) == (Why.FALLBACK, (2,))
    assert story.move(1).begun == (), "once"
    story.hear(2, Heard.DELIVERED)
    assert status(story.alert) is Status.PARTIALLY_DELIVERED


def test_a_mail_that_comes_back_after_it_arrived_starts_the_next_way_and_stays_delivered() -> None:
    story = Story(alert(), person(EMAIL, SMS))
    story.move()
    story.hear(1, Heard.DELIVERED)
    arrived = story.alert.delivery(1)
    assert arrived.attempt_id is not None
    story.alert = story.alert.with_delivery(receive(arrived, arrived.attempt_id, Word.FAILED, story.at))
    assert story.move().begun == (2,)
    assert story.states == [("email", "delivered"), ("sms", "sending")]


def test_one_of_two_addresses_that_fails_starts_nothing() -> None:
    both = person(EMAIL, SMS)
    second = replace(both.contacts[0], contact_id=both.contacts[1].contact_id, address="other")
    story = Story(alert(), Person((both.contacts[0], second, both.contacts[1]), both.preferences))
    story.move()
    story.hear(1, Heard.REJECTED, code="400")
    assert story.states == [("email", "failed"), ("email", "sending")]
    assert story.hear(2, Heard.REJECTED, code="400").begun == (3,)


def test_doubt_starts_the_next_way_where_somebody_has_to_take_note() -> None:
    call, warning = Story(alert(), person(EMAIL, SMS)), Story(alert(AlertType.WARNING), person(EMAIL, SMS))
    for story in (call, warning):
        story.move()
        story.hear(1, Heard.UNSURE)
    assert call.states == [("email", "unknown"), ("sms", "sending")]
    assert warning.states == [("email", "unknown")]
    assert status(warning.alert) is Status.UNKNOWN


def test_it_climbs_who_and_when_its_policy_says() -> None:
    policy = Policy(
        must_acknowledge=True,
        steps=(Step(), Step(60, ("user", "desk"), (EMAIL, SMS))),
        repeat=1,
        repeat_seconds=600,
    )
    story = Story(alert(policy=policy), person(EMAIL), person(SMS, user="desk"))
    assert story.move().next_at == T0 + 60 * SECOND
    story.hear(1, Heard.DELIVERED)
    assert story.move(59).begun == ()
    assert story.move(1).begun == (2, 3)
    assert [(each.user_id, each.channel, each.why) for each in story.alert.deliveries[1:]] == [
        (USER, EMAIL, Why.ESCALATED),
        ("desk", SMS, Why.ESCALATED),
    ]
    for number in (2, 3):
        story.hear(number, Heard.DELIVERED)
    assert story.alert.step_at == T0 + 660 * SECOND
    assert story.move(600).begun == (4,)
    story.hear(4, Heard.DELIVERED)
    assert story.move(60).begun == (5, 6)
    story.hear(5, Heard.DELIVERED)
    assert story.hear(6, Heard.DELIVERED).next_at is None, "two rounds, and no third"


def test_an_acknowledgement_ends_everything() -> None:
    story = Story(alert(AlertType.IMMINENT), person(EMAIL, SMS))
    story.move()
    story.hear(1, Heard.NOT_TAKEN)
    story.hear(2, Heard.UNSURE)
    note = Acknowledgement(story.at, "alice", "link")
    story.alert = acknowledge(story.alert, note)
    assert acknowledge(story.alert, replace(note, by="bob")) is story.alert
    moved = story.move(3_600)
    assert (moved.begun, status(story.alert)) == ((), Status.ACKNOWLEDGED)
    assert story.states == [("email", "cancelled"), ("sms", "unknown")]
    assert moved.looks == (2,), "what became of it is still found out"
    assert story.hear(2, Heard.NOT_TAKEN).begun == (), "and not sent again"
    assert story.states == [("email", "cancelled"), ("sms", "cancelled")]


def test_what_is_over_is_not_acknowledged() -> None:
    over = replace(alert(), ended=Ending.RECOVERED, ended_at=T0)
    with pytest.raises(Refusal, match="alert_closed"):
        acknowledge(over, Acknowledgement(T0, "alice", "api"))


def test_quiet_hours_hold_what_is_not_critical_and_nobody_else() -> None:
    wishes: dict[str, Any] = {"quiet_from": time(22), "quiet_to": time(7), "time_zone": "Europe/Berlin"}
    night = T0.replace(hour=23)
    policy = Policy(must_acknowledge=True, steps=(Step(), Step(60, ("user", "desk"))))
    story = Story(alert(policy=policy, raised_at=night), person(EMAIL, **wishes), person(EMAIL, user="desk"))
    story.at = night
    moved = story.move()
    assert (moved.begun, status(story.alert)) == ((), Status.PENDING)
    assert story.move(60).begun == (2,), "the desk is awake; and one message waits for the user, not two"
    assert story.alert.delivery(1).not_before == T0.replace(day=2, hour=5)
    story.alert = replace(story.alert, occurrences=3)
    assert story.move(int(timedelta(hours=6).total_seconds())).begun == (1,)
    assert story.alert.told == 3
    critical = Story(alert(AlertType.DUE, raised_at=night), person(EMAIL, **wishes))
    critical.at = night
    assert critical.move().begun == (1,)


def test_what_a_user_does_not_want_to_hear_is_kept_and_not_sent() -> None:
    story = Story(alert(AlertType.WARNING), person(EMAIL, minimum_severity=Severity.HIGH))
    moved = story.move()
    assert (status(moved.alert), moved.alert.ended, moved.next_at) == (Status.SUPPRESSED, Ending.SUPPRESSED, None)
    assert Story(alert(), person(EMAIL, minimum_severity=Severity.HIGH)).move().begun == (1,)


def test_more_of_the_same_is_one_message_when_the_window_is_over() -> None:
    story = Story(alert(AlertType.WARNING, policy=Policy(window_seconds=100)), person(EMAIL))
    story.move()
    story.hear(1, Heard.DELIVERED)
    story.alert = replace(story.alert, occurrences=4)
    assert story.move(1).next_at == T0 + 100 * SECOND
    moved = story.move(99)
    assert (moved.begun, moved.alert.delivery(2).why, moved.alert.told) == ((2,), Why.MORE, 4)
    assert story.hear(2, Heard.DELIVERED).next_at is None


def test_nobody_to_tell_is_a_failure_that_says_so() -> None:
    story = Story(alert(AlertType.WARNING))
    moved = story.move()
    assert (status(moved.alert), moved.alert.failure_reason) == (Status.FAILED, "no_verified_contact")


def test_a_code_goes_out_at_once_whatever_its_user_wishes() -> None:
    wishes: dict[str, Any] = {"quiet_from": time(0), "quiet_to": time(23, 59), "minimum_severity": Severity.CRITICAL}
    assert Story(alert(AlertType.CONTACT_CODE), person(SMS, **wishes)).move().begun == (1,)
