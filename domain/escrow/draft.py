"""A decision in the making: handlers note what changes, ``finish`` makes the decision of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from domain.errors import Refusal
from domain.escrow.model import (
    CLOSED,
    MILESTONE_CLOSED,
    MILESTONE_HELD,
    Decision,
    Escrow,
    Event,
    Milestone,
    MilestoneStatus,
    Movement,
    Role,
    Status,
    Terms,
)

#: Says why a command cannot apply to an open milestone; None when it can.
WhyNot = Callable[[Milestone], Refusal | None]


@dataclass(slots=True)
class Draft:
    """The escrow as it was, who moves it and when, and what has been noted so far."""

    escrow: Escrow
    role: Role
    user_id: str
    at: datetime
    milestones: dict[int, Milestone] = field(default_factory=dict)
    movements: list[Movement] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    @property
    def terms(self) -> Terms:
        """What the parties agreed on."""
        return self.escrow.terms

    def put(self, milestone: Milestone) -> None:
        """Note a milestone's next state."""
        self.milestones[milestone.position] = milestone

    def tell(
        self, event: str, milestone: Milestone | None = None, amount_minor: int | None = None, reason: str | None = None
    ) -> None:
        """Note an event of one milestone, or of the whole escrow."""
        position = milestone.position if milestone is not None else None
        self.events.append(Event(event, position, amount_minor, self.role, reason))

    def choose(self, positions: tuple[int, ...] | None, why_not: WhyNot) -> tuple[Milestone, ...]:
        """The milestones that a command means: the named ones, each of which must do, or all that do.

        Never empty: when none does, the refusal is that of a milestone which holds money, if there is one, because it
        is nearer to what was asked for.
        """
        if positions is not None:
            return tuple(self._named(positions, why_not))
        chosen: list[Milestone] = []
        refusals: list[tuple[bool, Refusal]] = []
        for milestone in self.escrow.milestones:
            if milestone.status in MILESTONE_CLOSED:
                continue
            if (refusal := why_not(milestone)) is None:
                chosen.append(milestone)
            else:
                refusals.append((milestone.status in MILESTONE_HELD, refusal))
        if not chosen:
            raise max(refusals, key=lambda pair: pair[0])[1]
        return tuple(chosen)

    def choose_one(self, positions: tuple[int, ...] | None, why_not: WhyNot) -> Milestone:
        """The only milestone that a command can mean (``single_milestone_required``)."""
        chosen = self.choose(positions, why_not)
        if len(chosen) != 1:
            message = f"{len(chosen)} milestones are meant; name exactly one"
            raise Refusal("single_milestone_required", message, field="positions")
        return chosen[0]

    def _named(self, positions: tuple[int, ...], why_not: WhyNot) -> list[Milestone]:
        if not positions or len(set(positions)) != len(positions):
            raise Refusal("milestones_invalid", "name at least one milestone, and each once", field="positions")
        by_position = {milestone.position: milestone for milestone in self.escrow.milestones}
        named = []
        for index, position in enumerate(positions):
            milestone = by_position.get(position)
            if milestone is None:
                message = f"there is no milestone {position}; the last one is {len(by_position)}"
                raise Refusal("milestone_unknown", message, field=f"positions.{index}")
            if milestone.status in MILESTONE_CLOSED:
                raise Refusal("milestone_closed", f"milestone {position} is {milestone.status}")
            if (refusal := why_not(milestone)) is not None:
                raise refusal
            named.append(milestone)
        return named

    def finish(self) -> Decision:
        """The decision: milestones replaced, status derived, version counted up, and an event if this was the end."""
        milestones = tuple(self.milestones.get(old.position, old) for old in self.escrow.milestones)
        status = status_of(milestones)
        closed_at = None
        if status in CLOSED:
            closed_at = self.at
            self.tell(f"escrow.{status}")
        escrow = replace(
            self.escrow,
            status=status,
            milestones=milestones,
            updated_at=self.at,
            version=self.escrow.version + 1,
            closed_at=closed_at,
        )
        return Decision(escrow, tuple(self.movements), tuple(self.events))


def status_of(milestones: tuple[Milestone, ...]) -> Status:
    """An escrow's status, which is wholly derived from its milestones: a dispute, else the least advanced open one."""
    statuses = {milestone.status for milestone in milestones}
    open_statuses = statuses - MILESTONE_CLOSED
    if MilestoneStatus.DISPUTED in statuses:
        return Status.DISPUTED
    if MilestoneStatus.PENDING in statuses:
        return Status.CREATED
    if open_statuses:
        return Status.FUNDED if MilestoneStatus.FUNDED in statuses else Status.APPROVED
    if any(milestone.released_minor for milestone in milestones):
        return Status.COMPLETED
    if MilestoneStatus.EXPIRED in statuses:
        return Status.EXPIRED
    return Status.REFUNDED if MilestoneStatus.REFUNDED in statuses else Status.CANCELLED
