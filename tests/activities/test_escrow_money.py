"""What each command of an escrow moves: which money, from where to where, under which kind."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from activities.escrow.messages import (
    ApproveMessage,
    CancelMessage,
    CommandMessage,
    DisputeMessage,
    FundMessage,
    PassDeadlineMessage,
    RefundMessage,
    ReleaseMessage,
    ResolveMessage,
)
from domain.escrow import Status
from domain.ledger import SYSTEM_FEES, Balance, Pot, TransactionKind
from tests.activities.steps import FEES, HOUR, JUDGED, T0, Steps, funded, recorded
from tests.desk import ARBITER, BUYER, SELLER, terms

Money = dict[tuple[str, Pot], int]
FREE, HELD = Pot.AVAILABLE, Pot.HELD

#: What each command does to an approved escrow over 1,000,000 (and a fee reserve of 25,000), by who sends it.
MOVES: dict[str, tuple[str | None, CommandMessage | PassDeadlineMessage, timedelta, TransactionKind, Money]] = {
    "release": (
        BUYER,
        ReleaseMessage(),
        HOUR,
        TransactionKind.ESCROW_RELEASE,
        {(BUYER, HELD): -1_025_000, (SELLER, FREE): 990_000, (SYSTEM_FEES, FREE): 35_000},
    ),
    "release of a part": (
        BUYER,
        ReleaseMessage(amount_minor=400_000),
        HOUR,
        TransactionKind.ESCROW_RELEASE,
        {(BUYER, HELD): -410_000, (SELLER, FREE): 396_000, (SYSTEM_FEES, FREE): 14_000},
    ),
    "refund": (
        SELLER,
        RefundMessage(),
        HOUR,
        TransactionKind.ESCROW_REFUND,
        {(BUYER, HELD): -1_025_000, (BUYER, FREE): 1_025_000},
    ),
    "refund of a part": (
        SELLER,
        RefundMessage(amount_minor=400_000),
        HOUR,
        TransactionKind.ESCROW_REFUND,
        {(BUYER, HELD): -410_000, (BUYER, FREE): 410_000},
    ),
    "the end of the inspection": (
        None,
        PassDeadlineMessage(),
        timedelta(days=3),
        TransactionKind.ESCROW_RELEASE,
        {(BUYER, HELD): -1_025_000, (SELLER, FREE): 990_000, (SYSTEM_FEES, FREE): 35_000},
    ),
}


def moved(legs: Any) -> Money:
    """A posting's legs, by where they are."""
    return {(leg.account, leg.pot): leg.amount_minor for leg in legs}


async def test_funding_holds_the_price_and_the_buyers_fee(steps: Steps) -> None:
    escrow_id = await funded(steps, terms(1_000_000, 2_000_000, **FEES))
    posted = (await steps.transactions())[-1].posting
    assert (posted.kind, posted.escrow_id, posted.effective_at) == (TransactionKind.ESCROW_FUND, escrow_id, T0)
    snapshot = await recorded(steps, escrow_id)
    held = {leg.hold_id: leg.amount_minor for leg in posted.legs if leg.pot is HELD}
    assert held == dict(zip([part.milestone_id for part in snapshot.milestones], [1_025_000, 2_050_000], strict=True))
    assert [leg.amount_minor for leg in posted.legs if leg.pot is FREE] == [-3_075_000]
    assert await steps.balance(BUYER) == Balance(6_925_000, 3_075_000)
    assert await steps.sql("SELECT escrow_id, placed_minor = remaining_minor FROM holds") == [(escrow_id, True)] * 2


@pytest.mark.parametrize("name", MOVES)
async def test_money_moves_where_the_command_says(steps: Steps, name: str) -> None:
    user, command, later, kind, expected = MOVES[name]
    escrow_id = await funded(steps, terms(1_000_000, inspection_period_seconds=2 * 86_400, **FEES))
    await steps.apply(escrow_id, BUYER, ApproveMessage(), at=T0)
    after = await steps.apply(escrow_id, user, command, at=T0 + later)
    assert after == await recorded(steps, escrow_id)
    posted = (await steps.transactions())[-1].posting
    assert (posted.kind, posted.escrow_id, posted.effective_at) == (kind, escrow_id, T0 + later)
    assert moved(posted.legs) == expected
    assert {leg.hold_id for leg in posted.legs if leg.pot is HELD} == {after.milestones[0].milestone_id}
    assert await steps.trial_balance() == {"USDC": 0}


async def test_a_release_without_fees_is_a_release(steps: Steps) -> None:
    escrow_id = await funded(steps, terms(5))
    await steps.apply(escrow_id, BUYER, ApproveMessage())
    await steps.apply(escrow_id, BUYER, ReleaseMessage())
    posted = (await steps.transactions())[-1].posting
    assert posted.kind is TransactionKind.ESCROW_RELEASE
    assert moved(posted.legs) == {(BUYER, HELD): -5, (SELLER, FREE): 5}


async def test_a_resolution_splits_what_is_held(steps: Steps) -> None:
    escrow_id = await funded(steps, terms(1_000_000, **FEES, **JUDGED))
    await steps.apply(escrow_id, SELLER, DisputeMessage(reason="late"))
    split = ResolveMessage(to_seller_minor=600_000, to_buyer_minor=400_000)
    after = await steps.apply(escrow_id, ARBITER, split)
    posted = (await steps.transactions())[-1].posting
    assert posted.kind is TransactionKind.ESCROW_RESOLUTION
    assert moved(posted.legs) == {
        (BUYER, HELD): -1_025_000,
        (SELLER, FREE): 594_000,
        (BUYER, FREE): 410_000,
        (SYSTEM_FEES, FREE): 21_000,
    }
    assert (after.status, await steps.balance(BUYER)) == (Status.COMPLETED, Balance(9_385_000))


@pytest.mark.parametrize(("to_seller", "to_buyer"), [(1_000_000, 0), (0, 1_000_000)])
async def test_a_resolution_may_give_all_to_one(steps: Steps, to_seller: int, to_buyer: int) -> None:
    escrow_id = await funded(steps, terms(1_000_000, **FEES, **JUDGED))
    await steps.apply(escrow_id, BUYER, DisputeMessage(reason="late"))
    await steps.apply(escrow_id, ARBITER, ResolveMessage(to_seller_minor=to_seller, to_buyer_minor=to_buyer))
    posted = (await steps.transactions())[-1].posting
    assert posted.kind is TransactionKind.ESCROW_RESOLUTION
    assert (await steps.balance(SELLER)).available_minor == to_seller * 99 // 100
    assert (await steps.balance(BUYER)).held_minor == 0
    assert await steps.trial_balance() == {"USDC": 0}


async def test_one_deadline_can_release_one_part_and_refund_another(steps: Steps) -> None:
    wanted = terms(1_000_000, 2_000_000, inspection_period_seconds=60, expires_at=T0 + HOUR, **FEES)
    escrow_id = await funded(steps, wanted)
    await steps.apply(escrow_id, BUYER, ApproveMessage(positions=(1,)), at=T0)
    after = await steps.apply(escrow_id, None, PassDeadlineMessage(), at=T0 + HOUR)
    posted = {each.posting.kind: moved(each.posting.legs) for each in (await steps.transactions())[-2:]}
    assert posted == {
        TransactionKind.ESCROW_RELEASE: {
            (BUYER, HELD): -1_025_000,
            (SELLER, FREE): 990_000,
            (SYSTEM_FEES, FREE): 35_000,
        },
        TransactionKind.ESCROW_REFUND: {(BUYER, HELD): -2_050_000, (BUYER, FREE): 2_050_000},
    }
    assert after.status is Status.COMPLETED
    assert await steps.trial_balance() == {"USDC": 0}


@pytest.mark.parametrize("command", [ApproveMessage(), CancelMessage()])
async def test_what_moves_no_money_posts_nothing(steps: Steps, command: CommandMessage) -> None:
    escrow_id = await steps.open(terms(5))
    await steps.apply(escrow_id, BUYER, command)
    assert await steps.transactions() == []


async def test_parts_cost_what_the_whole_would(steps: Steps) -> None:
    """Fees are cut from the sum of what was released; no rounding is lost or won by many small steps."""
    escrow_id = await funded(steps, terms(999, buyer_fee_basis_points=333, seller_fee_basis_points=77))
    await steps.apply(escrow_id, BUYER, ApproveMessage())
    for amount in (1, 33, 500):
        await steps.apply(escrow_id, BUYER, ReleaseMessage(amount_minor=amount))
    await steps.apply(escrow_id, SELLER, RefundMessage(amount_minor=65))
    await steps.apply(escrow_id, BUYER, ReleaseMessage())
    released = 999 - 65
    buyers, sellers = released * 333 // 10_000, released * 77 // 10_000
    assert await steps.balance(SELLER) == Balance(released - sellers)
    assert await steps.balance(SYSTEM_FEES) == Balance(buyers + sellers)
    assert await steps.balance(BUYER) == Balance(10_000_000 - released - buyers)
    assert await steps.trial_balance() == {"USDC": 0}


async def test_uint256_amounts_go_through(steps: Steps) -> None:
    large = 2**255
    await steps.deposit(BUYER, large + 5, asset="ETH")
    escrow_id = await steps.open(terms(large, asset="ETH"))
    await steps.apply(escrow_id, BUYER, FundMessage())
    await steps.apply(escrow_id, BUYER, ApproveMessage())
    await steps.apply(escrow_id, BUYER, ReleaseMessage(amount_minor=large - 1))
    assert await steps.balance(SELLER, "ETH") == Balance(large - 1)
    assert await steps.balance(BUYER, "ETH") == Balance(5, 1)
