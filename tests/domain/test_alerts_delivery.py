"""One delivery: it never moves backwards, and what is doubtful is found out before it is sent again."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.alerts import delivery as moves
from domain.alerts.delivery import LOOK_SECONDS, RETRY_SECONDS, SILENCE, Heard, Outcome, Word
from domain.alerts.model import Channel, Delivery, DeliveryState, Why
from tests.domain.alerts import SECOND, T0, USER

ATTEMPT = UUID(int=5)


def under_way(channel: Channel = Channel.SMS) -> Delivery:
    fresh = Delivery(1, Why.RAISED, 0, UUID(int=1), USER, channel, "somewhere")
    return moves.begin(fresh, ATTEMPT, T0)


def heard(delivery: Delivery, what: Heard, seconds: int = 1, **said: object) -> Delivery:
    assert delivery.attempt_id is not None
    return moves.hear(delivery, Outcome(delivery.attempt_id, what, **said), T0 + seconds * SECOND)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("what", "state"),
    [
        (Heard.TAKEN, DeliveryState.SENT),
        (Heard.DELIVERED, DeliveryState.DELIVERED),
        (Heard.REJECTED, DeliveryState.FAILED),
        (Heard.NOT_TAKEN, DeliveryState.PENDING),
        (Heard.UNSURE, DeliveryState.UNKNOWN),
    ],
)
def test_what_an_answer_makes_of_it(what: Heard, state: DeliveryState) -> None:
    assert heard(under_way(), what).state is state


def test_what_was_not_taken_is_tried_again_with_growing_pauses_and_then_failed() -> None:
    delivery = under_way()
    pauses = []
    for attempt in range(1, len(RETRY_SECONDS) + 1):
        delivery = heard(delivery, Heard.NOT_TAKEN, 0)
        assert delivery.not_before is not None
        pauses.append(delivery.not_before - T0)
        delivery = moves.begin(delivery, UUID(int=ATTEMPT.int + attempt), T0)
    for pause, seconds in zip(pauses, RETRY_SECONDS, strict=True):
        assert seconds * SECOND <= pause <= seconds * SECOND * 6 // 5
    assert heard(delivery, Heard.NOT_TAKEN).state is DeliveryState.FAILED


def test_a_vendors_patience_counts_up_to_a_limit() -> None:
    def pause(seconds: int) -> timedelta:
        later = heard(under_way(), Heard.NOT_TAKEN, 0, retry_after_seconds=seconds).not_before
        assert later is not None
        return later - T0

    assert pause(90) == 90 * SECOND
    assert pause(86_400) == moves.RETRY_AFTER_MAX
    assert pause(0) >= RETRY_SECONDS[0] * SECOND


def test_a_doubtful_text_message_is_looked_up_and_sent_again_only_when_it_is_not_there() -> None:
    delivery = heard(under_way(), Heard.UNSURE, 0)
    at = T0
    for seconds in LOOK_SECONDS:
        assert not moves.to_look(delivery, at)
        at += seconds * SECOND
        assert moves.pass_time(delivery, at) == delivery
        assert moves.to_look(delivery, at)
        delivery = moves.hear(delivery, Outcome(ATTEMPT, Heard.UNSURE), at)
    assert (delivery.state, delivery.not_before) == (DeliveryState.UNKNOWN, None), "a person has to look"
    assert heard(heard(under_way(), Heard.UNSURE), Heard.TAKEN).state is DeliveryState.SENT
    assert heard(heard(under_way(), Heard.UNSURE), Heard.NOT_TAKEN).state is DeliveryState.PENDING


def test_a_doubtful_mail_waits_for_its_event_before_it_is_sent_again() -> None:
    delivery = heard(under_way(Channel.EMAIL), Heard.UNSURE, 0)
    assert not moves.to_look(delivery, T0 + SILENCE)
    assert moves.pass_time(delivery, T0 + SILENCE - SECOND) == delivery
    assert moves.receive(delivery, ATTEMPT, Word.SENT, T0 + SECOND).state is DeliveryState.SENT
    assert moves.pass_time(delivery, T0 + SILENCE).state is DeliveryState.PENDING


def test_an_attempt_without_an_outcome_is_doubtful() -> None:
    delivery = under_way()
    assert moves.pass_time(delivery, T0 + moves.SEND_LIMIT - SECOND) == delivery
    assert moves.pass_time(delivery, T0 + moves.SEND_LIMIT).state is DeliveryState.UNKNOWN


def test_a_receipt_that_comes_before_the_answer_counts() -> None:
    delivery = moves.receive(under_way(), ATTEMPT, Word.DELIVERED, T0)
    late = heard(delivery, Heard.TAKEN, reference="SM1")
    assert (late.state, late.reference) == (DeliveryState.DELIVERED, "SM1")
    assert heard(delivery, Heard.UNSURE).state is DeliveryState.DELIVERED


def test_words_about_an_older_attempt() -> None:
    delivery = moves.begin(heard(under_way(), Heard.NOT_TAKEN), UUID(int=6), T0)
    assert moves.receive(delivery, ATTEMPT, Word.FAILED, T0) == delivery, "the newer one is under way"
    assert moves.receive(delivery, ATTEMPT, Word.SENT, T0) == delivery
    assert moves.receive(delivery, ATTEMPT, Word.DELIVERED, T0).state is DeliveryState.DELIVERED, "it did arrive"


WORDS = st.lists(st.sampled_from([*Word, *Heard]), max_size=12)


@given(WORDS, st.sampled_from(list(Channel)))
def test_no_order_of_words_moves_it_backwards(words: list[Word | Heard], channel: Channel) -> None:
    """Repeated, late and out of order: once sent it is never unsent, and what arrived has arrived."""
    delivery = under_way(channel)
    for word in words:
        before = delivery
        delivery = moves.receive(delivery, ATTEMPT, word, T0) if isinstance(word, Word) else heard(delivery, word)
        assert delivery.state is before.state or (
            moves.is_further(before.state, delivery.state)
            # What was not taken, proven so, starts anew.
            or (word is Heard.NOT_TAKEN and before.state in (DeliveryState.SENDING, DeliveryState.UNKNOWN))
        )
        assert moves.receive(delivery, ATTEMPT, Word.DELIVERED, T0).state is DeliveryState.DELIVERED
