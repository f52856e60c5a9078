"""What users are told: once a level, not again within its cooldown, and never later than that."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.margin.health import Valuation, level_of
from domain.margin.model import DEFAULT_LEVELS, Level, Levels, Severity
from domain.margin.telling import ALARMS, COOLDOWNS, AccountState, EventType, Raised, tell
from tests.domain.margins import T0, worth

MINUTE = timedelta(minutes=1)
FRESH = AccountState(DEFAULT_LEVELS, Level.HEALTHY, {})
DEBT = 10**8


def at_health(hundredths: int, *, confirmed: bool = True) -> Valuation:
    return worth(hundredths * DEBT * 100, DEBT, confirmed=confirmed)


def told(*looks: tuple[float, int], state: AccountState = FRESH, confirmed: bool = True) -> list[EventType | None]:
    """The events of looks at (minute, health in hundredths)."""
    events: list[EventType | None] = []
    for minute, health in looks:
        state, raised = tell(state, at_health(health, confirmed=confirmed), T0 + minute * MINUTE)
        events.append(None if raised is None else raised.event_type)
    return events


@pytest.mark.parametrize(
    ("health", "expected"),
    [
        (150, None),
        (149, Raised(EventType.WARNING, Severity.MEDIUM, Level.WARNING, 15_000)),
        (119, Raised(EventType.CALL, Severity.HIGH, Level.MARGIN_CALL, 12_000)),
        (104, Raised(EventType.IMMINENT, Severity.CRITICAL, Level.IMMINENT, 10_500)),
        (99, Raised(EventType.DUE, Severity.CRITICAL, Level.LIQUIDATION, 10_000)),
    ],
)
def test_one_event_says_the_worst(health: int, expected: Raised | None) -> None:
    state, raised = tell(FRESH, at_health(health), T0)
    assert raised == expected
    assert state.told is (Level.HEALTHY if expected is None else expected.level)


def test_without_confirmed_prices_liquidation_is_imminent_at_most() -> None:
    state, raised = tell(FRESH, at_health(90, confirmed=False), T0)
    assert raised is not None
    assert raised.event_type is EventType.IMMINENT
    assert tell(state, at_health(90, confirmed=False), T0)[1] is None
    assert told((1, 90), state=state) == [EventType.DUE]


def test_a_price_that_trembles_on_a_threshold_raises_one_event() -> None:
    for threshold in (150, 120, 105, 100):
        looks = [(minute, threshold + (-1, 1)[minute % 2]) for minute in range(200)]
        assert sum(event is not None for event in told(*looks)) == 1


def test_recovery_is_told_at_once_and_names_what_was_left() -> None:
    state = tell(FRESH, at_health(110), T0)[0]
    assert tell(state, at_health(122), T0)[1] is None
    state, raised = tell(state, at_health(130), T0)
    assert raised == Raised(EventType.RECOVERED, Severity.LOW, Level.WARNING, 12_000)
    _, raised = tell(state, at_health(200), T0)
    assert raised == Raised(EventType.RECOVERED, Severity.LOW, Level.HEALTHY, 15_000)


def test_a_cooldown_delays_and_does_not_swallow() -> None:
    warning, recovered = EventType.WARNING, EventType.RECOVERED
    looks = [(0, 140), (1, 160), (2, 140), (29, 140), (30, 140)]
    assert told(*looks) == [warning, recovered, None, None, warning]


def test_an_escalation_ends_the_cooldowns_of_what_is_lower() -> None:
    looks = [(0, 140), (1, 110), (2, 160), (3, 140), (4, 110), (11, 110)]
    expected = [EventType.WARNING, EventType.CALL, EventType.RECOVERED, EventType.WARNING, None, EventType.CALL]
    assert told(*looks) == expected


def test_no_cooldown_holds_an_escalation_back() -> None:
    looks = [(0, 140), (0.1, 110), (0.2, 102), (0.3, 90)]
    assert told(*looks) == [EventType.WARNING, EventType.CALL, EventType.IMMINENT, EventType.DUE]


def test_tighter_levels_tell_earlier() -> None:
    state = AccountState(Levels(20_000, 18_000, 16_000), Level.HEALTHY, {})
    assert told((0, 199), (1, 179), (2, 159), state=state) == [EventType.WARNING, EventType.CALL, EventType.IMMINENT]


LOOKS = st.lists(st.tuples(st.integers(0, 900), st.integers(80, 180), st.booleans()), min_size=1, max_size=40)


@settings(max_examples=150)
@given(LOOKS)
def test_nothing_is_lost_for_longer_than_its_cooldown(looks: list[tuple[int, int, bool]]) -> None:
    """Whatever the sequence: what is worse than told waits for its own cooldown only, what was told is the truth, and a
    type is never told twice within its cooldown without an escalation between."""
    state, at = FRESH, T0
    last: dict[Level, datetime] = {}
    for seconds, health, confirmed in looks:
        at += timedelta(seconds=seconds)
        before = state.told
        state, raised = tell(state, at_health(health, confirmed=confirmed), at)
        strict = level_of(health * 100 * DEBT, DEBT, DEFAULT_LEVELS)
        due = strict if confirmed or before is Level.LIQUIDATION else min(strict, Level.IMMINENT)
        if due > state.told:
            assert at - last[due] < COOLDOWNS[ALARMS[due][1]]
            assert raised is None
        if raised is None:
            assert state.told is before
            continue
        assert raised.level is state.told is not before
        if raised.event_type is EventType.RECOVERED:
            assert state.told < before
            continue
        assert state.told is due
        if due in last:
            assert at - last[due] >= COOLDOWNS[raised.severity]
        last = {level: when for level, when in last.items() if level > due} | {due: at}
    assert dict(state.told_at) == last
