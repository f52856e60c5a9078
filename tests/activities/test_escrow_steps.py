"""The escrow's steps on the real database: one effect each, money to the right places, and a record of it all."""

from __future__ import annotations

import asyncio

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
    ReleaseMessage,
    TermsMessage,
)
from activities.escrow.snapshot import EscrowSnapshot
from activities.messages import OriginMessage
from db.engine import transaction
from db.identity import create_tenant
from db.ids import new_id
from domain.errors import Refusal
from domain.escrow import Status
from domain.ledger import Balance
from tests.activities.steps import HOUR, JUDGED, T0, Steps, funded, recorded
from tests.desk import BUYER, SELLER, terms


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
