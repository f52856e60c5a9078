"""Deadlines of days, reached by skipping time on the real server; the money is read from Postgres."""

from __future__ import annotations

from datetime import timedelta

import pytest
from temporalio.testing import TimeSkipper

from domain.errors import Refusal
from domain.escrow import MilestoneStatus, Status
from domain.ledger import Balance
from kit.clock import now
from tests.desk import ARBITER, BUYER, SELLER, Desk, terms
from workflows.escrow import ApproveMessage, DisputeMessage, FundMessage, PartyMessage, ResolveMessage

DAY = timedelta(days=1)


@pytest.fixture
def skipper(desk: Desk) -> TimeSkipper:
    return TimeSkipper(desk.client)


async def test_an_escrow_that_nobody_funds_expires_at_its_funding_deadline(desk: Desk, skipper: TimeSkipper) -> None:
    escrow_id = await desk.open(terms(funding_deadline=now() + 30 * DAY))
    await skipper.fast_forward(desk.handle(escrow_id), 29 * DAY)
    assert (await desk.row(escrow_id)).status is Status.CREATED
    await skipper.fast_forward(desk.handle(escrow_id), 2 * DAY)
    outcome = await desk.handle(escrow_id).result()
    row = await desk.row(escrow_id)
    assert outcome.status is row.status is Status.EXPIRED
    assert row.closed_at is not None
    assert row.closed_at > now() + 29 * DAY, "the workflow's clock was skipped, and it is the clock of the rules"


async def test_inspection_ends_in_release(desk: Desk, skipper: TimeSkipper) -> None:
    await desk.deposit(BUYER, 1_000_000)
    escrow_id = await desk.open(terms(1_000_000, inspection_period_seconds=3 * 86_400))
    await desk.command(escrow_id, BUYER, ApproveMessage())
    await desk.command(escrow_id, BUYER, FundMessage())
    assert (await desk.row(escrow_id)).status is Status.APPROVED
    await skipper.fast_forward(desk.handle(escrow_id), 4 * DAY)
    assert (await desk.handle(escrow_id).result()).status is Status.COMPLETED
    assert await desk.balance(SELLER) == Balance(1_000_000, 0)


async def test_expiry_returns_what_is_funded_and_unapproved(desk: Desk, skipper: TimeSkipper) -> None:
    await desk.deposit(BUYER, 2_200_000)
    escrow_id = await desk.open(terms(1_000_000, 1_000_000, buyer_fee_basis_points=1000, expires_at=now() + 60 * DAY))
    await desk.command(escrow_id, BUYER, FundMessage())
    assert await desk.balance(BUYER) == Balance(0, 2_200_000)
    await skipper.fast_forward(desk.handle(escrow_id), 61 * DAY)
    assert (await desk.handle(escrow_id).result()).status is Status.EXPIRED
    assert await desk.balance(BUYER) == Balance(2_200_000, 0), "the fee's reserve comes back too"


async def test_a_dispute_stops_the_clock_until_it_is_resolved(desk: Desk, skipper: TimeSkipper) -> None:
    await desk.deposit(BUYER, 1_000_000)
    escrow_id = await desk.open(
        terms(
            1_000_000,
            arbiter=PartyMessage(user_id=ARBITER),
            inspection_period_seconds=86_400,
            expires_at=now() + 9 * DAY,
        )
    )
    await desk.command(escrow_id, BUYER, FundMessage())
    await desk.command(escrow_id, BUYER, ApproveMessage())
    await desk.command(escrow_id, BUYER, DisputeMessage(reason="half of it is missing"))
    await skipper.fast_forward(desk.handle(escrow_id), 30 * DAY)
    assert (await desk.row(escrow_id)).status is Status.DISPUTED
    split = ResolveMessage(to_seller_minor=400_000, to_buyer_minor=600_000)
    outcome = await desk.command(escrow_id, ARBITER, split)
    assert outcome.status is Status.COMPLETED
    assert await desk.balance(SELLER) == Balance(400_000, 0)
    assert await desk.balance(BUYER) == Balance(600_000, 0)


async def test_several_deadlines_pass_one_after_another(desk: Desk, skipper: TimeSkipper) -> None:
    """Milestone 1 is approved and inspected, 2 is funded and expires, 3 is never funded."""
    await desk.deposit(BUYER, 2_000_000)
    escrow_id = await desk.open(
        terms(
            1_000_000,
            1_000_000,
            500_000,
            funding_deadline=now() + 5 * DAY,
            inspection_period_seconds=10 * 86_400,
            expires_at=now() + 40 * DAY,
        )
    )
    await desk.command(escrow_id, BUYER, FundMessage(positions=(1, 2)))
    await desk.command(escrow_id, BUYER, ApproveMessage(positions=(1,)))
    await skipper.fast_forward(desk.handle(escrow_id), 6 * DAY)
    assert [m.status for m in (await desk.row(escrow_id)).milestones] == [
        MilestoneStatus.APPROVED,
        MilestoneStatus.FUNDED,
        MilestoneStatus.EXPIRED,
    ]
    await skipper.fast_forward(desk.handle(escrow_id), 5 * DAY)
    assert await desk.balance(SELLER) == Balance(1_000_000, 0)
    await skipper.fast_forward(desk.handle(escrow_id), 30 * DAY)
    outcome = await desk.handle(escrow_id).result()
    assert outcome.status is Status.COMPLETED, "something was released"
    assert await desk.balance(BUYER) == Balance(1_000_000, 0)


async def test_a_late_command_is_refused_by_the_workflows_clock(desk: Desk, skipper: TimeSkipper) -> None:
    await desk.deposit(BUYER, 1_000_000)
    escrow_id = await desk.open(terms(1_000_000, 1, funding_deadline=now() + 2 * DAY, expires_at=now() + 9 * DAY))
    await desk.command(escrow_id, BUYER, FundMessage(positions=(1,)))
    await skipper.fast_forward(desk.handle(escrow_id), 3 * DAY)
    with pytest.raises(Refusal) as refused:
        await desk.command(escrow_id, BUYER, FundMessage(positions=(2,)))
    assert refused.value.code == "milestone_closed"
