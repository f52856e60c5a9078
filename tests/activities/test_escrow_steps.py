"""The escrow's steps on the real database: one effect each, money to the right places, and a record of it all."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import ActivityEnvironment

from activities.escrow.messages import (
    ApplyCommand,
    ApproveMessage,
    CancelMessage,
    CommandMessage,
    DisputeMessage,
    FundMessage,
    OpenEscrow,
    PartyMessage,
    PassDeadlineMessage,
    RecordOpening,
    RefundMessage,
    ReleaseMessage,
    ResolveMessage,
    TermsMessage,
)
from activities.escrow.snapshot import EscrowSnapshot
from activities.messages import OriginMessage
from db import escrow as escrows
from db.engine import tenant_transaction, transaction
from db.identity import create_tenant
from db.ids import new_id
from domain.errors import Refusal
from domain.escrow import Status
from domain.ledger import SYSTEM_FEES, Balance, Pot, TransactionKind
from tests.activities.steps import Steps
from tests.desk import ARBITER, BUYER, SELLER, terms

T0 = datetime(2026, 3, 1, 9, 0, 0, 123456, tzinfo=UTC)
HOUR = timedelta(hours=1)
FEES = {"buyer_fee_basis_points": 250, "seller_fee_basis_points": 100}
JUDGED: dict[str, Any] = {"arbiter": PartyMessage(user_id=ARBITER)}


async def recorded(steps: Steps, escrow_id: UUID) -> EscrowSnapshot:
    """The escrow as Postgres has it."""
    async with tenant_transaction(steps.engine, steps.tenant) as connection:
        found = await escrows.find(connection, escrow_id)
    assert found is not None
    return EscrowSnapshot.of(found)


async def funded(steps: Steps, wanted: TermsMessage, *, money: int = 10_000_000) -> UUID:
    """A new escrow whose money is on hold, all at ``T0``."""
    await steps.deposit(BUYER, money, at=T0)
    escrow_id = await steps.open(wanted, at=T0)
    await steps.apply(escrow_id, BUYER, FundMessage(), at=T0)
    return escrow_id


async def test_a_command_that_is_repeated_has_one_effect(steps: Steps) -> None:
    """The worker died between commit and answer, and its successor starts over."""
    await steps.deposit(BUYER, 5_000_000)
    escrow_id = await steps.open(terms(1_000_000, 2_000_000))
    before = await steps.written()
    first = await steps.apply(escrow_id, BUYER, FundMessage(positions=(1,)), step="fund-1")
    after = await steps.written()
    assert after["ledger_transactions"] == before["ledger_transactions"] + 1
    assert [await steps.apply(escrow_id, BUYER, FundMessage(positions=(1,)), step="fund-1") for _ in range(2)] == [
        first,
        first,
    ]
    assert await steps.written() == after
    assert await steps.balance(BUYER) == Balance(4_000_000, 1_000_000)
    assert first == await recorded(steps, escrow_id)


async def test_a_late_repeat_answers_where_the_escrow_stands_now(steps: Steps) -> None:
    escrow_id = await funded(steps, terms(1_000_000))
    await steps.apply(escrow_id, BUYER, ApproveMessage(), step="approve-1")
    done = await steps.apply(escrow_id, BUYER, ReleaseMessage(), step="release-1")
    assert done.status is Status.COMPLETED
    written = await steps.written()
    assert await steps.apply(escrow_id, BUYER, ApproveMessage(), step="approve-1") == done
    assert await steps.written() == written


async def test_attempts_at_once_have_one_effect(steps: Steps) -> None:
    await steps.deposit(BUYER, 5_000_000)
    escrow_id = await steps.open(terms(1_000_000))
    answers = await asyncio.gather(*(steps.apply(escrow_id, BUYER, FundMessage(), step="once") for _ in range(10)))
    assert all(answer == answers[0] for answer in answers)
    assert await steps.balance(BUYER) == Balance(4_000_000, 1_000_000)
    assert (await recorded(steps, escrow_id)).version == 2


async def test_different_commands_at_once_are_decided_one_after_the_other(steps: Steps) -> None:
    escrow_id = await funded(steps, terms(10))
    await steps.apply(escrow_id, BUYER, ApproveMessage())
    tried = (steps.apply(escrow_id, BUYER, ReleaseMessage(amount_minor=3)) for _ in range(8))
    found = await asyncio.gather(*tried, return_exceptions=True)
    refusals = [answer for answer in found if isinstance(answer, Refusal)]
    assert [answer for answer in found if not isinstance(answer, EscrowSnapshot | Refusal)] == []
    assert {refusal.code for refusal in refusals} == {"amount_exceeds_remaining"}
    assert len(refusals) == 5
    assert await steps.balance(SELLER) == Balance(9)


async def test_an_escrow_is_recorded_once_whatever_comes_again(steps: Steps) -> None:
    escrow_id = new_id()
    request = RecordOpening(
        opening=OpenEscrow(tenant_id=steps.tenant, escrow_id=escrow_id, terms=terms(5, 6, reference="order-1")), at=T0
    )
    found = await asyncio.gather(*(steps.record(request) for _ in range(8)))
    assert all(answer == found[0] for answer in found)
    resumed = RecordOpening(opening=OpenEscrow(tenant_id=steps.tenant, escrow_id=escrow_id), at=T0 + HOUR)
    assert await steps.record(resumed) == found[0]
    assert found[0] == await recorded(steps, escrow_id)
    assert found[0].created_at == T0
    written = await steps.written()
    assert {name: written[name] for name in ("escrows", "escrow_milestones", "audit_log", "outbox", "receipts")} == {
        "escrows": 1,
        "escrow_milestones": 2,
        "audit_log": 1,
        "outbox": 1,
        "receipts": 1,
    }


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        (terms(5, asset="DOGE"), "asset_unknown"),
        (terms(5, asset="usdc"), "asset_unknown"),
        (terms(0), "amount_invalid"),
        (terms(5, expires_at=T0), "deadline_not_in_future"),
        (terms(5, seller=PartyMessage(user_id=BUYER)), "parties_not_distinct"),
        (terms(5, reference="taken"), "reference_taken"),
        (None, "escrow_unknown"),
    ],
)
async def test_an_escrow_that_is_refused_writes_nothing(steps: Steps, wanted: TermsMessage | None, code: str) -> None:
    await steps.open(terms(5, reference="taken"), at=T0)
    before = await steps.written()
    with pytest.raises(Refusal) as caught:
        await steps.open(wanted, at=T0)
    assert caught.value.code == code
    assert await steps.written() == before


@pytest.mark.parametrize(
    ("user", "command", "code"),
    [
        ("mallory", FundMessage(), "not_a_party"),
        (SELLER, FundMessage(), "role_not_allowed"),
        (BUYER, FundMessage(), "insufficient_funds"),
        (BUYER, FundMessage(positions=(3,)), "milestone_unknown"),
        (BUYER, ReleaseMessage(), "milestone_not_funded"),
        (BUYER, DisputeMessage(reason="why"), "milestone_not_funded"),
        (BUYER, PassDeadlineMessage(), "role_not_allowed"),
        (None, PassDeadlineMessage(), "nothing_due"),
        (None, FundMessage(), "role_not_allowed"),
    ],
)
async def test_a_command_that_is_refused_writes_nothing(
    steps: Steps, user: str | None, command: CommandMessage | PassDeadlineMessage, code: str
) -> None:
    await steps.deposit(BUYER, 5)
    escrow_id = await steps.open(terms(6, 7))
    before = await steps.written()
    for _ in range(2):
        with pytest.raises(Refusal) as caught:
            await steps.apply(escrow_id, user, command, step="the same")
        assert caught.value.code == code
    assert await steps.written() == before
    assert (await recorded(steps, escrow_id)).version == 1


async def test_a_step_that_was_refused_may_succeed_when_it_comes_again(steps: Steps) -> None:
    escrow_id = await steps.open(terms(6))
    with pytest.raises(Refusal):
        await steps.apply(escrow_id, BUYER, FundMessage(), step="fund")
    await steps.deposit(BUYER, 6)
    assert (await steps.apply(escrow_id, BUYER, FundMessage(), step="fund")).status is Status.FUNDED


async def test_another_tenants_escrow_is_unknown(steps: Steps, tenants_engine: AsyncEngine) -> None:
    escrow_id = await steps.open(terms(6))
    other = new_id()
    async with transaction(tenants_engine) as connection:
        await create_tenant(connection, new_tenant=other, name=f"other {other}")
    stranger = Steps(tenants_engine, other, ActivityEnvironment())
    with pytest.raises(Refusal) as caught:
        await stranger.apply(escrow_id, BUYER, CancelMessage())
    assert caught.value.code == "escrow_unknown"
    assert (await recorded(steps, escrow_id)).status is Status.CREATED


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


async def test_the_clock_of_the_command_dates_the_money(steps: Steps) -> None:
    escrow_id = await funded(steps, terms(1_000_000))
    await steps.apply(escrow_id, BUYER, ApproveMessage(), at=T0 + HOUR)
    await steps.apply(escrow_id, BUYER, ReleaseMessage(), at=T0 + 2 * HOUR)
    assert await steps.balance(BUYER, at=T0 - HOUR) == Balance()
    assert await steps.balance(BUYER, at=T0 + HOUR) == Balance(9_000_000, 1_000_000)
    assert await steps.balance(SELLER, at=T0 + HOUR) == Balance()
    assert await steps.balance(SELLER, at=T0 + 2 * HOUR) == Balance(1_000_000)


async def test_events_and_audit_tell_who_did_what(steps: Steps) -> None:
    key_id = new_id()
    await steps.deposit(BUYER, 5_000_000, at=T0)
    escrow_id = await steps.open(terms(1_500_000, reference="order-1", **JUDGED), at=T0)
    request = ApplyCommand(
        tenant_id=steps.tenant,
        escrow_id=escrow_id,
        step="one",
        command=FundMessage(),
        origin=OriginMessage(user_id=BUYER, key_id=key_id, request_id="req-1"),
        at=T0 + HOUR,
    )
    await steps.environment.run(steps.escrow.apply, request)
    subject = f"escrow:{escrow_id}"
    [transaction_id] = [each.posting.transaction_id for each in await steps.transactions() if each.posting.escrow_id]
    rows = await steps.sql("SELECT * FROM audit_log WHERE subject = :subject ORDER BY audit_id", subject=subject)
    assert [(row.action, row.actor_user, row.request_id, row.at) for row in rows] == [
        ("escrow.open", "alice", "opening", T0),
        ("escrow.fund", BUYER, "req-1", T0 + HOUR),
    ]
    assert (rows[1].actor_key_id, rows[1].workflow_id) == (key_id, subject)
    assert rows[1].details == {
        "command": {"kind": "fund"},
        "status": {"before": "created", "after": "funded"},
        "version": 2,
        "events": [{"type": "escrow.funded", "milestone": 1, "amount": "1.500000", "role": "buyer"}],
        "transactions": {"escrow_fund": str(transaction_id)},
    }
    assert rows[0].details["milestones"] == [{"title": "part 1", "amount": "1.500000"}]
    events = await steps.sql("SELECT * FROM outbox WHERE subject = :subject ORDER BY outbox_id", subject=subject)
    assert [(row.topic, row.type, row.occurred_at) for row in events] == [
        ("settlement.events.v1", "escrow.created", T0),
        ("settlement.events.v1", "escrow.funded", T0 + HOUR),
    ]
    assert events[1].data == {
        "escrow_id": str(escrow_id),
        "reference": "order-1",
        "status": "funded",
        "version": 2,
        "asset": "USDC",
        "buyer": BUYER,
        "seller": SELLER,
        "transactions": {"escrow_fund": str(transaction_id)},
        "milestone": 1,
        "amount": "1.500000",
        "role": "buyer",
    }


async def test_the_clocks_acts_are_nobodys(steps: Steps) -> None:
    escrow_id = await steps.open(terms(5, funding_deadline=T0 + HOUR), at=T0)
    await steps.apply(escrow_id, None, PassDeadlineMessage(), at=T0 + HOUR)
    [row] = await steps.sql("SELECT * FROM audit_log WHERE action = 'escrow.pass_deadline'")
    assert (row.actor_user, row.details["status"]) == (None, {"before": "created", "after": "expired"})
    types = await steps.sql("SELECT type, data ->> 'role' FROM outbox ORDER BY outbox_id")
    assert [tuple(each) for each in types][1:] == [("escrow.expired", "system"), ("escrow.expired", "system")]
