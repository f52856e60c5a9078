"""Whom an escrow waits for: plain facts for operators and for ``GET …/waiting``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from domain.escrow.deadlines import falls_due
from domain.escrow.model import Escrow, Milestone, MilestoneStatus, Role


class WaitsFor(StrEnum):
    """What would take a milestone a step further."""

    FUNDING = "funding"
    APPROVAL = "approval"
    RELEASE = "release"
    INSPECTION = "inspection"
    RESOLUTION = "resolution"


@dataclass(frozen=True, slots=True)
class Wait:
    """Milestones that wait for the same: any of ``roles`` may give any of ``commands``, in time ``until``.

    At ``until`` the clock decides instead (see ``deadlines``); None means that they wait for as long as it takes.
    """

    what: WaitsFor
    roles: tuple[Role, ...]
    commands: tuple[str, ...]
    positions: tuple[int, ...]
    until: datetime | None = None


def waiting_for(escrow: Escrow) -> tuple[Wait, ...]:
    """What each open milestone waits for, those that wait for the same together, in order of their positions."""
    grouped: dict[Wait, tuple[int, ...]] = {}
    for milestone in escrow.milestones:
        if (wait := _wait_of(escrow, milestone)) is not None:
            grouped[wait] = (*grouped.get(wait, ()), milestone.position)
    return tuple(replace(wait, positions=positions) for wait, positions in grouped.items())


def _wait_of(escrow: Escrow, milestone: Milestone) -> Wait | None:
    """One milestone's wait with ``positions`` left empty, so that equal ones can be grouped."""
    due = falls_due(escrow.terms, milestone)
    until = due.at if due is not None else None
    match milestone.status:
        case MilestoneStatus.PENDING:
            return Wait(WaitsFor.FUNDING, (Role.BUYER,), ("fund",), (), until)
        case MilestoneStatus.FUNDED:
            given = {approval.role for approval in milestone.approvals}
            missing = tuple(role for role in escrow.terms.policy.roles if role not in given)
            return Wait(WaitsFor.APPROVAL, missing, ("approve",), (), until)
        case MilestoneStatus.APPROVED if until is None:
            return Wait(WaitsFor.RELEASE, (Role.BUYER, Role.SELLER), ("release",), ())
        case MilestoneStatus.APPROVED:
            return Wait(WaitsFor.INSPECTION, (Role.BUYER,), ("release", "dispute"), (), until)
        case MilestoneStatus.DISPUTED if escrow.terms.arbiter is not None:
            return Wait(WaitsFor.RESOLUTION, (Role.ARBITER,), ("resolve",), ())
        case MilestoneStatus.DISPUTED:
            return Wait(WaitsFor.RESOLUTION, (Role.BUYER, Role.SELLER), ("release", "refund"), ())
        case _:
            return None
