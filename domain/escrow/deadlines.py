"""What the clock alone will do to an escrow, and when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from domain.escrow.model import Escrow, Milestone, MilestoneStatus, Terms


class DeadlineKind(StrEnum):
    """What ends: the time to fund, an inspection period, or the escrow's own time."""

    FUNDING = "funding"
    INSPECTION = "inspection"
    EXPIRY = "expiry"


@dataclass(frozen=True, slots=True)
class Deadline:
    """An instant at which ``PassDeadline`` has an effect. Only an inspection period belongs to one milestone."""

    kind: DeadlineKind
    at: datetime
    position: int | None = None


def deadlines(escrow: Escrow) -> tuple[Deadline, ...]:
    """Every deadline at which the desk's clock would do something if nobody moved before it, soonest first.

    There is none of an escrow on a chain: no clock acts there, so anybody may pass a deadline, and the desk follows.
    """
    if escrow.terms.custody is not None:
        return ()
    found = {due for milestone in escrow.milestones if (due := falls_due(escrow.terms, milestone)) is not None}
    return tuple(sorted(found, key=lambda due: (due.at, due.kind, due.position or 0)))


def next_deadline(escrow: Escrow) -> Deadline | None:
    """The soonest of ``deadlines``; this is what a timer has to wait for."""
    return next(iter(deadlines(escrow)), None)


def falls_due(terms: Terms, milestone: Milestone) -> Deadline | None:
    """The deadline that a milestone is heading for.

    Unfunded ones expire at the funding deadline, or at the expiry where there is none; funded ones expire; approved
    ones are released after their inspection period and never expire; disputed and closed ones wait for no clock.
    """
    match milestone.status:
        case MilestoneStatus.PENDING if terms.funding_deadline is not None:
            return Deadline(DeadlineKind.FUNDING, terms.funding_deadline)
        case MilestoneStatus.PENDING | MilestoneStatus.FUNDED if terms.expires_at is not None:
            return Deadline(DeadlineKind.EXPIRY, terms.expires_at)
        case MilestoneStatus.APPROVED if milestone.auto_release_at is not None:
            return Deadline(DeadlineKind.INSPECTION, milestone.auto_release_at, milestone.position)
        case _:
            return None
