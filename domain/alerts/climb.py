"""What is to be done for an alert now, and when to look again. One function decides, of everything that an alert does.

An acknowledgement, a recovery or a worse alert ends it: from that state on no attempt begins, whatever was planned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from domain.alerts import delivery as moves
from domain.alerts.hours import held_until
from domain.alerts.model import (
    USER,
    WAYS,
    Acknowledgement,
    Alert,
    AlertType,
    Channel,
    Contact,
    Delivery,
    DeliveryState,
    Ending,
    Person,
    Status,
    Why,
)
from domain.errors import Refusal

#: What is told whatever its user's minimum severity: an end to what was told, and a code that was asked for.
_ALWAYS = frozenset({AlertType.RECOVERED, AlertType.CONTACT_CODE})
_FAILED = frozenset({DeliveryState.FAILED, DeliveryState.UNKNOWN})
_WAITING = frozenset({DeliveryState.PENDING, DeliveryState.SENDING, DeliveryState.UNKNOWN})


@dataclass(frozen=True, slots=True)
class Advanced:
    """The alert as it is from now on: the numbers of the deliveries whose attempts have ``begun``, and of those whose
    vendor is to be asked (``looks``); ``next_at`` is None when nothing is left that the clock would change."""

    alert: Alert
    begun: tuple[int, ...]
    looks: tuple[int, ...]
    next_at: datetime | None


def advance(alert: Alert, people: Mapping[str, Person], at: datetime, new_id: Callable[[], UUID]) -> Advanced:
    """Decide what happens at ``at``. ``people`` are those that the alert's policy names, by user id."""
    for each in alert.deliveries:
        alert = alert.with_delivery(moves.pass_time(each, at))
    if not alert.over:
        alert = _climb(alert, people, at)
        alert = _hand_on(alert, people, at)
        alert = _tell_of_more(alert, people, at)
    begun: list[int] = []
    for each in alert.deliveries:
        if each.state is not DeliveryState.PENDING:
            continue
        if alert.over:
            alert = alert.with_delivery(replace(each, state=DeliveryState.CANCELLED, not_before=None))
        elif each.not_before is None or each.not_before <= at:
            alert = alert.with_delivery(moves.begin(each, new_id(), at))
            begun.append(each.number)
    if begun:
        alert = replace(alert, told=alert.occurrences)
    looks = tuple(each.number for each in alert.deliveries if moves.to_look(each, at))
    return Advanced(alert, tuple(begun), looks, _next_at(alert, at))


def hear(alert: Alert, outcome: moves.Outcome, at: datetime) -> Alert:
    """The alert after the answer to one of its attempts."""
    for each in alert.deliveries:
        if each.attempt_id == outcome.attempt_id:
            return alert.with_delivery(moves.hear(each, outcome, at))
    return alert


def receive(
    alert: Alert,
    number: int,
    attempt_id: UUID,
    word: moves.Word,
    at: datetime,
    *,
    reference: str | None = None,
    code: str | None = None,
    detail: str | None = None,
) -> Alert:
    """The alert after a vendor's receipt about an attempt of the delivery ``number``."""
    before = alert.delivery(number)
    after = moves.receive(before, attempt_id, word, at, code=code, detail=detail)
    if reference is not None and after.reference is None and attempt_id == after.attempt_id:
        after = replace(after, reference=reference)
    return alert if after == before else alert.with_delivery(after)


def acknowledge(alert: Alert, note: Acknowledgement) -> Alert:
    """The alert once somebody took note; a second time changes nothing. Refuses what is over for another reason."""
    if alert.acknowledged is not None:
        return alert
    if alert.over:
        raise Refusal("alert_closed", f"this alert is over: {alert.ended}")
    return replace(alert, acknowledged=note, ended=Ending.ACKNOWLEDGED, ended_at=note.at, step_at=None)


def end(alert: Alert, why: Ending, at: datetime) -> Alert:
    """The alert once it is over; one that is over stays as it is."""
    return alert if alert.over else replace(alert, ended=why, ended_at=at, step_at=None)


def status(alert: Alert) -> Status:
    """What the deliveries make together."""
    if alert.acknowledged is not None:
        return Status.ACKNOWLEDGED
    states = {each.state for each in alert.deliveries} - {DeliveryState.CANCELLED}
    if not states:
        if alert.over:
            return Status.SUPPRESSED
        return Status.FAILED if alert.failure_reason else Status.PENDING
    lost = DeliveryState.FAILED in states
    if DeliveryState.DELIVERED in states:
        return Status.PARTIALLY_DELIVERED if lost else Status.DELIVERED
    if DeliveryState.SENT in states:
        return Status.PARTIALLY_SENT if lost else Status.SENT
    if DeliveryState.UNKNOWN in states:
        return Status.UNKNOWN
    return Status.FAILED if states == {DeliveryState.FAILED} else Status.PENDING


def _climb(alert: Alert, people: Mapping[str, Person], at: datetime) -> Alert:
    policy = alert.policy
    if alert.climbed == 0:
        wanted = people.get(alert.user_id, Person()).preferences.minimum_severity
        if alert.severity.rank < wanted.rank and alert.alert_type not in _ALWAYS:
            return replace(end(alert, Ending.SUPPRESSED, at), failure_reason="below_minimum_severity")
    elif alert.step_at is None or at < alert.step_at:
        return alert
    number = alert.climbed
    alert = _plan(alert, Why.ESCALATED if number else Why.RAISED, number, people, at)
    climbed = number + 1
    step_at: datetime | None = None
    if policy.must_acknowledge and climbed < len(policy.steps) * (1 + policy.repeat):
        place = climbed % len(policy.steps)
        pause = policy.steps[place].after_seconds if place else policy.repeat_seconds
        step_at = at + timedelta(seconds=pause)
    reason = None if alert.deliveries else "no_verified_contact"
    return replace(alert, climbed=climbed, step_at=step_at, failure_reason=reason)


def _plan(alert: Alert, why: Why, number: int, people: Mapping[str, Person], at: datetime) -> Alert:
    """Deliveries to everybody whom a step names."""
    step = alert.policy.steps[number % len(alert.policy.steps)]
    for who in step.to:
        user = alert.user_id if who == USER else who
        person = people.get(user, Person())
        at_once, then = _ways(alert, step.channels)
        chosen = [contact for contact in person.contacts if contact.channel in at_once]
        for channel in then:
            chosen = chosen or [contact for contact in person.contacts if contact.channel is channel]
        alert = _add(alert, why, number, chosen, person, at)
    return alert


def _ways(alert: Alert, channels: tuple[Channel, ...] | None) -> tuple[tuple[Channel, ...], tuple[Channel, ...]]:
    if channels is not None:
        return channels, ()
    if alert.alert_type is AlertType.CONTACT_CODE:
        return tuple(Channel), ()
    if alert.alert_type is AlertType.RECOVERED:
        # Whoever was told of it is told that it is over, on the same ways.
        used = tuple(Channel(name) for name in alert.facts.get("channels", ()))
        return used, tuple(channel for channel in Channel if channel not in used)
    return WAYS[alert.severity]


def _add(alert: Alert, why: Why, number: int, contacts: list[Contact], person: Person, at: datetime) -> Alert:
    """One delivery a contact, but none to whom one is on its way already; held until quiet hours are over."""
    waiting = {each.contact_id for each in alert.deliveries if each.state is DeliveryState.PENDING}
    held = held_until(person.preferences, alert.alert_type, alert.severity, at)
    for contact in contacts:
        if contact.contact_id in waiting:
            continue
        made = Delivery(
            len(alert.deliveries) + 1,
            why,
            number,
            contact.contact_id,
            contact.user_id,
            contact.channel,
            contact.address,
            not_before=held,
        )
        alert = replace(alert, deliveries=(*alert.deliveries, made))
    return alert


def _hand_on(alert: Alert, people: Mapping[str, Person], at: datetime) -> Alert:
    """Where a way to a person failed, take the next. Where it is not known and somebody has to take note, too."""
    for each in alert.deliveries:
        lost = each.state is DeliveryState.FAILED or each.bounced
        doubtful = each.state is DeliveryState.UNKNOWN and alert.policy.must_acknowledge
        if each.handed_on or not (lost or doubtful):
            continue
        beside = [
            other
            for other in alert.deliveries
            if (other.step, other.user_id, other.why is Why.MORE) == (each.step, each.user_id, each.why is Why.MORE)
        ]
        alike = [other for other in beside if other.channel is each.channel]
        if not all(other.state in _FAILED or other.bounced for other in alike):
            continue
        for other in alike:
            alert = alert.with_delivery(replace(alert.delivery(other.number), handed_on=True))
        step = alert.policy.steps[each.step % len(alert.policy.steps)]
        person = people.get(each.user_id, Person())
        used = {other.channel for other in beside}
        for channel in _ways(alert, step.channels)[1]:
            contacts = [contact for contact in person.contacts if contact.channel is channel]
            if contacts and channel not in used:
                alert = _add(alert, Why.FALLBACK, each.step, contacts, person, at)
                break
    return alert


def _tell_of_more(alert: Alert, people: Mapping[str, Person], at: datetime) -> Alert:
    """When the window is over, one message says how often it has happened again."""
    if not 0 < alert.told < alert.occurrences or at < alert.window_ends_at:
        return alert
    return replace(_plan(alert, Why.MORE, 0, people, at), told=alert.occurrences)


def _next_at(alert: Alert, at: datetime) -> datetime | None:
    times = [each.not_before for each in alert.deliveries if each.state in _WAITING]
    if not alert.over:
        times.append(alert.step_at)
        if 0 < alert.told < alert.occurrences:
            times.append(alert.window_ends_at)
    known = [time for time in times if time is not None]
    return max(min(known), at) if known else None
