"""The rules of webhooks: who gets what, when it is tried again, when an endpoint is given up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import Refusal
from domain.webhooks.catalogue import CATALOGUE, Wanted, check_event_types
from domain.webhooks.delivering import (
    ATTEMPTS_MAX,
    DELAYS,
    MILLION,
    RETRY_AFTER_MAX,
    AttemptResult,
    DeliveryStatus,
    is_success,
    jittered,
    judge,
    parse_retry_after,
    throttle,
)
from domain.webhooks.endpoint import DisabledReason, check_headers
from domain.webhooks.health import FAILING_MAX, SILENCE_MAX, Health, Seen

T0 = datetime(2026, 5, 1, 12, tzinfo=UTC)
ESCROW = UUID(int=7)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.mark.parametrize(
    ("types", "type_", "taken"),
    [
        (("*",), "escrow.funded", True),
        (("*",), "something.new", True),
        (("*",), "price.changed", False),
        (("price.*",), "price.changed", True),
        (("prices.ticked",), "prices.ticked", True),
        (("escrow.*",), "escrow.funded", True),
        (("escrow.*",), "escrowed.funded", False),
        (("margin*",), "margin_call", True),
        (("escrow.funded",), "escrow.released", False),
        (("ledger.*", "escrow.released"), "escrow.released", True),
    ],
)
def test_types_and_their_beginnings(types: tuple[str, ...], type_: str, taken: bool) -> None:
    assert Wanted(types).takes(type_, "x", {}) is taken


def test_filters_by_user_and_escrow() -> None:
    of_alice, of_escrow = Wanted(("*",), user="alice"), Wanted(("*",), escrow=ESCROW)
    assert of_alice.takes("escrow.funded", "x", {"buyer": "alice", "seller": "bob"})
    assert of_alice.takes("transfer.posted", "x", {"from": "bob", "to": "alice"})
    assert not of_alice.takes("escrow.funded", "x", {"buyer": "eve", "seller": "bob", "reference": "alice"})
    assert not of_alice.takes("something.new", "x", {"user_id": "alice"}), "nobody knows whom it names"
    assert of_escrow.takes("escrow.funded", f"escrow:{ESCROW}", {})
    assert of_escrow.takes("command.settled", "command:1", {"escrow_id": str(ESCROW)})
    assert not of_escrow.takes("escrow.funded", "escrow:other", {"escrow_id": None})


@pytest.mark.parametrize("pattern", ["", "Escrow.*", "*.funded", "es*row", "no.such", "nosuch*", "**", "a" * 200])
def test_types_that_nothing_has_are_refused(pattern: str) -> None:
    with pytest.raises(Refusal) as refused:
        check_event_types(["*", pattern])
    assert (refused.value.code, refused.value.field) == ("event_type_unknown", "event_types.1")


def test_every_type_may_be_subscribed_to() -> None:
    check_event_types(list(CATALOGUE))


def test_retries_take_about_three_days() -> None:
    assert sum(DELAYS, timedelta()) == timedelta(hours=75, minutes=35, seconds=5)
    assert ATTEMPTS_MAX == 10


@given(chance=st.integers(0, MILLION - 1), failures=st.integers(0, ATTEMPTS_MAX - 2))
def test_a_pause_is_a_fifth_longer_or_shorter_at_most(chance: int, failures: int) -> None:
    verdict = judge(AttemptResult.REJECTED, failures=failures, at=T0, chance_ppm=chance)
    assert (verdict.status, verdict.failures) == (DeliveryStatus.WAITING, failures + 1)
    assert verdict.next_attempt_at is not None
    pause = verdict.next_attempt_at - T0
    assert DELAYS[failures] * 8 // 10 <= pause <= DELAYS[failures] * 12 // 10
    assert pause == jittered(DELAYS[failures], chance)


@given(seconds=st.integers(0, 10**7), failures=st.integers(0, ATTEMPTS_MAX - 2))
def test_nothing_is_tried_again_before_it_was_asked_for(seconds: int, failures: int) -> None:
    asked = timedelta(seconds=seconds)
    verdict = judge(AttemptResult.REJECTED, failures=failures, at=T0, chance_ppm=0, retry_after=asked)
    assert verdict.next_attempt_at is not None
    assert verdict.next_attempt_at - T0 >= min(asked, RETRY_AFTER_MAX)


@pytest.mark.parametrize("result", [each for each in AttemptResult if each is not AttemptResult.DELIVERED])
def test_what_ends_a_delivery_and_what_does_not(result: AttemptResult) -> None:
    last = judge(result, failures=ATTEMPTS_MAX - 1, at=T0, chance_ppm=0)
    if result in (AttemptResult.RELEASED, AttemptResult.INTERRUPTED):
        assert (last.status, last.failures, last.next_attempt_at) == (DeliveryStatus.WAITING, ATTEMPTS_MAX - 1, T0)
    else:
        assert (last.status, last.next_attempt_at) == (DeliveryStatus.FAILED, None)
    done = judge(AttemptResult.DELIVERED, failures=3, at=T0, chance_ppm=0)
    assert (done.status, done.failures, done.next_attempt_at) == (DeliveryStatus.DELIVERED, 3, None)


@pytest.mark.parametrize("status", range(100, 600))
def test_2xx_and_nothing_else(status: int) -> None:
    assert is_success(status) is (200 <= status < 300)


@pytest.mark.parametrize(
    ("said", "pause"),
    [
        (None, None),
        ("120", timedelta(seconds=120)),
        (" 7 ", timedelta(seconds=7)),
        ("99999999999999999999", RETRY_AFTER_MAX),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("\u0663", None),
        ("Fri, 01 May 2026 12:01:00 GMT", timedelta(minutes=1)),
        ("Fri, 01 May 2026 11:00:00 GMT", timedelta(0)),
        ("Fri, 01 May 9999 11:00:00 GMT", RETRY_AFTER_MAX),
        ("Fri, 99 May 2026 11:00:00 GMT", None),
    ],
)
def test_what_retry_after_asks_for(said: str | None, pause: timedelta | None) -> None:
    assert parse_retry_after(said, T0) == pause


@given(st.text(max_size=40))
def test_no_retry_after_is_a_fault(said: str) -> None:
    pause = parse_retry_after(said, T0)
    assert pause is None or timedelta(0) <= pause <= RETRY_AFTER_MAX


def test_an_endpoint_is_left_alone_when_it_asks() -> None:
    assert throttle(200, timedelta(seconds=9)) is None
    assert throttle(500, timedelta(seconds=9)) is None
    assert throttle(None, None) is None
    assert throttle(429, timedelta(seconds=9)) == timedelta(seconds=9)
    assert throttle(429, timedelta(days=9)) == HOUR
    assert throttle(503, None) == timedelta(seconds=5)


def failed(at: datetime, status: int | None = 500) -> Seen:
    return Seen(AttemptResult.REJECTED, at, status)


def succeeded(at: datetime) -> Seen:
    return Seen(AttemptResult.DELIVERED, at, 200)


def test_five_days_of_failures_and_no_success_disable() -> None:
    health = Health()
    for hours in range(0, 121, 24):
        assert health.disabled is None
        health = health.after([failed(T0 + hours * HOUR)])
    assert (health.disabled, health.failing_since) == (DisabledReason.FAILING, T0)


def test_one_success_begins_anew() -> None:
    health = Health().after([failed(T0 + hours * HOUR) for hours in range(0, 97, 24)])
    health = health.after([succeeded(T0 + 100 * HOUR), failed(T0 + 101 * HOUR), failed(T0 + 125 * HOUR)])
    assert (health.disabled, health.failing_since) == (None, T0 + 101 * HOUR)


def test_two_failures_with_a_long_silence_between_are_no_series() -> None:
    health = Health().after([failed(T0)]).after([failed(T0 + FAILING_MAX + DAY)])
    assert (health.disabled, health.failing_since) == (None, T0 + FAILING_MAX + DAY)
    assert DELAYS[-1] * 12 // 10 < SILENCE_MAX, "the pause behind the last attempt is no silence"


def test_gone_disables_at_once_and_what_is_ours_says_nothing() -> None:
    assert Health().after([failed(T0, 410)]).disabled is DisabledReason.GONE
    ours = [Seen(AttemptResult.RELEASED, T0), Seen(AttemptResult.INTERRUPTED, T0 + 9 * DAY)]
    assert Health().after(ours) == Health()


@given(st.permutations([failed(T0), succeeded(T0 + HOUR), failed(T0 + 2 * HOUR, 429), failed(T0 + 3 * HOUR)]))
def test_the_order_in_which_attempts_are_told_of_does_not_matter(seen: list[Seen]) -> None:
    health = Health().after(seen)
    assert (health.failing_since, health.failed_at, health.succeeded_at) == (
        T0 + 2 * HOUR,
        T0 + 3 * HOUR,
        T0 + HOUR,
    )
    assert health.paused_until == T0 + 2 * HOUR + timedelta(seconds=5)


@pytest.mark.parametrize(
    "headers",
    [
        {"webhook-id": "x"},
        {"Webhook-Anything": "x"},
        {"HOST": "x"},
        {"Content-Length": "1"},
        {"Cookie": "a=b"},
        {"a b": "x"},
        {"": "x"},
        {"X-A": "x\r\nX-B: y"},
        {"X-A": ""},
        {"X-A": " x"},
        {"X-A": "\u00e4"},
        {"X-A": "1", "x-a": "2"},
        {"X" * 101: "1"},
        {"X-A": "1" * 2_001},
    ],
)
def test_headers_that_are_not_an_owners(headers: dict[str, str]) -> None:
    with pytest.raises(Refusal) as refused:
        check_headers(headers)
    assert refused.value.code == "header_not_allowed"


def test_headers_of_an_owner() -> None:
    check_headers({"Authorization": "Bearer abc", "X-Tenant": "7 of 9"})
