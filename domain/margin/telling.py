"""What an account's user is told, and when: worse at once but not again within a cooldown, better when it is so."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from domain.margin.health import Valuation, settled_level
from domain.margin.model import Level, Levels, Severity


class EventType(StrEnum):
    """What an event of margin says."""

    WARNING = "margin_warning"
    CALL = "margin_call"
    IMMINENT = "liquidation_imminent"
    DUE = "liquidation_due"
    RECOVERED = "margin_recovered"


#: What getting to a level is called, and how urgent it is.
ALARMS: Final[Mapping[Level, tuple[EventType, Severity]]] = {
    Level.WARNING: (EventType.WARNING, Severity.MEDIUM),
    Level.MARGIN_CALL: (EventType.CALL, Severity.HIGH),
    Level.IMMINENT: (EventType.IMMINENT, Severity.CRITICAL),
    Level.LIQUIDATION: (EventType.DUE, Severity.CRITICAL),
}

#: For how long after an event its type is not told again. A recovery needs none: it follows what was told.
COOLDOWNS: Final[Mapping[Severity, timedelta]] = {
    Severity.LOW: timedelta(minutes=60),
    Severity.MEDIUM: timedelta(minutes=30),
    Severity.HIGH: timedelta(minutes=10),
    Severity.CRITICAL: timedelta(minutes=2),
}


class AccountState(NamedTuple):
    """``told`` is the level that the user was told last; ``told_at`` when each level was told, since the last
    escalation beyond it."""

    levels: Levels
    told: Level
    told_at: Mapping[Level, datetime]


class Raised(NamedTuple):
    """One event. ``level`` is what the user is told now, ``threshold_bps`` the health that was crossed, down or up."""

    event_type: EventType
    severity: Severity
    level: Level
    threshold_bps: int


def tell(state: AccountState, valuation: Valuation, at: datetime) -> tuple[AccountState, Raised | None]:
    """What the user is told of a valuation at ``at``, and the account's state after it.

    One event says the worst level, also when others were skipped. Within a level's cooldown the account stays at what
    it was told, so that the next look tells it. To tell a level forgets when lower ones were told: what gets worse
    after an escalation's end is told at once.
    """
    confirmed = valuation.confirmed
    level = settled_level(state.told, valuation.weighted, valuation.debt, state.levels, confirmed=confirmed)
    return tell_level(state, level, at)


def tell_level(state: AccountState, level: Level, at: datetime) -> tuple[AccountState, Raised | None]:
    """The same where the level is known at which the account should be told to be."""
    levels = state.levels
    if level == state.told:
        return state, None
    if level < state.told:
        raised = Raised(EventType.RECOVERED, Severity.LOW, level, levels.threshold_bps(Level(level + 1)))
        return AccountState(levels, level, state.told_at), raised
    event_type, severity = ALARMS[level]
    last = state.told_at.get(level)
    if last is not None and at - last < COOLDOWNS[severity]:
        return state, None
    told_at = {earlier: when for earlier, when in state.told_at.items() if earlier > level}
    told_at[level] = at
    return AccountState(levels, level, told_at), Raised(event_type, severity, level, levels.threshold_bps(level))
