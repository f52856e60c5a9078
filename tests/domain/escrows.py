"""Escrows for the tests of the rules: one way to agree on terms, one way to reach each state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from domain.escrow import (
    ApprovalPolicy,
    Approve,
    Cancel,
    Command,
    Decision,
    Dispute,
    Escrow,
    Fund,
    MilestoneTerms,
    Party,
    PassDeadline,
    Refund,
    Release,
    Role,
    Terms,
    decide,
    open_escrow,
)
from domain.money import Asset

OPENED = datetime(2026, 1, 1, tzinfo=UTC)
SOON = OPENED + timedelta(hours=1)
FUNDING_DEADLINE = OPENED + timedelta(days=7)
EXPIRES = OPENED + timedelta(days=30)
LONG_AFTER = OPENED + timedelta(days=365)
INSPECTION = timedelta(days=3)

ESCROW_ID = UUID(int=1)
USDC = Asset("USDC", 6)

#: Who asks: a name in the tests' tables, and the user id that goes with it.
USERS = {"buyer": "beate", "seller": "simon", "arbiter": "anna", "stranger": "sergej", "system": None}
BUYER, SELLER, ARBITER, STRANGER, SYSTEM = USERS.values()


def terms(*amounts_minor: int, **changes: Any) -> Terms:
    """Terms with milestones of these amounts and every deadline set; ``changes`` replaces what a test is about."""
    agreed = Terms(
        asset=USDC,
        buyer=Party("beate"),
        seller=Party("simon"),
        arbiter=Party("anna"),
        milestones=tuple(
            MilestoneTerms(UUID(int=1000 + index), f"part {index}", amount)
            for index, amount in enumerate(amounts_minor or (100,), start=1)
        ),
        policy=ApprovalPolicy((Role.BUYER,), 1),
        funding_deadline=FUNDING_DEADLINE,
        inspection_period_seconds=int(INSPECTION.total_seconds()),
        expires_at=EXPIRES,
    )
    return replace(agreed, **changes)


def opened(agreed: Terms | None = None) -> Escrow:
    """A new escrow."""
    return open_escrow(ESCROW_ID, agreed or terms(), OPENED).escrow


def after(escrow: Escrow, *steps: tuple[str | None, Command], at: datetime = SOON) -> Escrow:
    """The escrow after ``(user id, command)`` steps, all at one instant."""
    for user_id, command in steps:
        escrow = decide(escrow, command, user_id=user_id, at=at).escrow
    return escrow


def in_state(state: str, agreed: Terms | None = None) -> Escrow:
    """An escrow whose milestones are all in ``state``, reached by commands alone."""
    fund, approve, dispute = (BUYER, Fund()), (BUYER, Approve()), (BUYER, Dispute("late"))
    ways: dict[str, Iterable[tuple[str | None, Command]]] = {
        "pending": (),
        "funded": (fund,),
        "approved": (fund, approve),
        "disputed": (fund, approve, dispute),
        "released": (fund, approve, (BUYER, Release())),
        "refunded": (fund, (SELLER, Refund())),
        "cancelled": ((SELLER, Cancel()),),
    }
    if state == "expired":
        return after(opened(agreed), (SYSTEM, PassDeadline()), at=FUNDING_DEADLINE)
    return after(opened(agreed), *ways[state])


def events_of(decision: Decision) -> list[str]:
    """A decision's events as short text: ``escrow.released 1 100``, or only the type for the whole escrow."""
    return [
        event.type if event.position is None else f"{event.type} {event.position} {event.amount_minor}"
        for event in decision.events
    ]
