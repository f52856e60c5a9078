"""How many blocks to ask for: any limit is found in a few questions, and what lies beyond it is not asked for often."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from activities.chain.ranges import EVENTS_AIM, RUNGS, SpanTuner

MOST = st.integers(1, 10_000_000)
CAP = st.integers(1, 20_000_000)
PUBLISHED = st.sampled_from(RUNGS)


def asked(tuner: SpanTuner, cap: int, questions: int, *, tells: bool = False) -> list[bool]:
    """A provider that bears up to ``cap`` blocks, without an event; says which questions it answered."""
    answered = []
    for _ in range(questions):
        blocks = tuner.blocks
        answered.append(blocks <= cap)
        if blocks <= cap:
            tuner.bore(blocks, 0)
        else:
            tuner.too_wide(blocks, cap if tells else None)
    return answered


@given(MOST, CAP)
def test_any_limit_is_borne_within_six_questions(most: int, cap: int) -> None:
    tuner = SpanTuner(most)
    answered = asked(tuner, cap, 6)
    assert any(answered)
    assert answered.count(False) <= 5


@given(PUBLISHED, CAP)
def test_a_published_limit_is_found_exactly_and_another_by_half(cap: int, most: int) -> None:
    tuner = SpanTuner(max(most, cap))
    answered = asked(tuner, cap, 30)
    assert tuner.blocks == cap
    assert answered.count(False) <= 5


@given(CAP, MOST)
def test_what_is_asked_for_is_at_most_half_of_what_could_be(cap: int, most: int) -> None:
    tuner = SpanTuner(most)
    asked(tuner, cap, 40)
    assert min(cap, most) < 2 * tuner.blocks <= 2 * min(cap, most)


@given(MOST, st.integers(1, 100_000))
def test_a_limit_that_is_told_is_kept_at_once(most: int, cap: int) -> None:
    answered = asked(SpanTuner(most), cap, 50, tells=True)
    assert answered.count(False) <= 1


@given(MOST, CAP)
def test_refusals_become_rare(most: int, cap: int) -> None:
    tuner = SpanTuner(most)
    asked(tuner, cap, 50)
    assert asked(tuner, cap, 2_000).count(False) <= 20


@given(st.integers(1, 5_000), st.integers(1, 5_000))
def test_a_provider_that_changes_its_limit_is_followed(before: int, after: int) -> None:
    tuner = SpanTuner(5_000)
    asked(tuner, before, 30)
    asked(tuner, after, 2_000)
    assert after < 2 * tuner.blocks <= 2 * max(after, 1)


@given(st.integers(1, 20_000), MOST)
def test_answers_stay_near_their_aim(events_per_block: int, most: int) -> None:
    tuner = SpanTuner(most)
    for _ in range(20):
        tuner.bore(tuner.blocks, tuner.blocks * events_per_block)
    assert tuner.blocks == 1 or tuner.blocks * events_per_block <= EVENTS_AIM
    assert tuner.blocks >= min(most, EVENTS_AIM // events_per_block) // 2


@given(MOST, st.lists(st.tuples(st.sampled_from(["bore", "wide", "much", "slow"]), st.integers(0, 10**6)), max_size=60))
def test_there_is_always_something_to_ask_for(most: int, history: list[tuple[str, int]]) -> None:
    tuner = SpanTuner(most)
    for what, value in history:
        blocks = tuner.blocks
        match what:
            case "bore":
                tuner.bore(blocks, value)
            case "wide":
                tuner.too_wide(blocks, value or None)
            case "much":
                tuner.too_much(blocks, value or None)
            case _:
                tuner.too_slow(blocks)
        assert 1 <= tuner.blocks <= most
        if what in ("wide", "much"):
            assert tuner.blocks < blocks or blocks == 1


def test_no_step_is_more_than_double() -> None:
    assert all(below < above <= 2 * below for below, above in pairwise(RUNGS))
