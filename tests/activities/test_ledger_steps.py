"""Deposits, withdrawals and reversals on the real database: booked once, dated as asked, told and recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import ActivityEnvironment

from activities.escrow.messages import FundMessage
from activities.ledger.messages import RecordTransfer, TransferKind, TransferOutcome, TransferRequest
from activities.messages import OriginMessage
from db.engine import transaction
from db.identity import create_tenant
from db.ids import new_id
from domain.errors import Refusal
from domain.ledger import SYSTEM_EXTERNAL, Balance, Leg, Pot, TransactionKind
from tests.activities.steps import Steps
from tests.desk import BUYER, terms

T0 = datetime(2026, 3, 1, 9, 0, 0, 123456, tzinfo=UTC)
DAY = timedelta(days=1)


def legs(*pairs: tuple[str, int]) -> tuple[Leg, ...]:
    return tuple(Leg(account, "USDC", Pot.AVAILABLE, amount) for account, amount in pairs)


async def refuses(code: str, attempt: Awaitable[TransferOutcome]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await attempt
    assert caught.value.code == code
    return caught.value


async def test_money_comes_goes_and_is_taken_back(steps: Steps) -> None:
    arrived = await steps.deposit("alice", 100, reference="wire-1", description="a wire")
    left = await steps.withdraw("alice", 30)
    undone = await steps.reverse(left.transaction_id, description="bounced")
    first, second, third = [each.posting for each in await steps.transactions()]
    assert (first.transaction_id, first.kind, first.reference, first.description) == (
        arrived.transaction_id,
        TransactionKind.DEPOSIT,
        "wire-1",
        "a wire",
    )
    assert set(first.legs) == set(legs((SYSTEM_EXTERNAL, -100), ("alice", 100)))
    assert (second.transaction_id, second.kind) == (left.transaction_id, TransactionKind.WITHDRAWAL)
    assert set(second.legs) == set(legs(("alice", -30), (SYSTEM_EXTERNAL, 30)))
    assert (third.transaction_id, third.kind, third.reverses_id) == (
        undone.transaction_id,
        TransactionKind.REVERSAL,
        left.transaction_id,
    )
    assert set(third.legs) == set(legs(("alice", 30), (SYSTEM_EXTERNAL, -30)))
    assert await steps.balance("alice") == Balance(100)
    assert await steps.trial_balance() == {"USDC": 0}


async def test_a_transfer_that_is_repeated_is_booked_once(steps: Steps) -> None:
    transfer = new_id()
    first = await steps.deposit("alice", 100, transfer_id=transfer)
    written = await steps.written()
    assert first.transaction_id == transfer
    assert await steps.deposit("alice", 100, transfer_id=transfer) == first
    assert await steps.written() == written


@pytest.mark.parametrize("reference", [None, "wire-1"])
async def test_attempts_at_once_are_booked_once(steps: Steps, reference: str | None) -> None:
    transfer = new_id()
    found = await asyncio.gather(
        *(steps.deposit("alice", 100, transfer_id=transfer, reference=reference) for _ in range(10))
    )
    assert set(found) == {TransferOutcome(transaction_id=transfer)}
    assert await steps.balance("alice") == Balance(100)


async def test_a_reference_names_what_it_named_before(steps: Steps) -> None:
    first = await steps.deposit("alice", 100, reference="wire-1")
    written = await steps.written()
    assert await steps.deposit("alice", 100, reference="wire-1") == first
    await refuses("reference_taken", steps.deposit("alice", 101, reference="wire-1"))
    await refuses("reference_taken", steps.deposit("bob", 100, reference="wire-1"))
    refusal = await refuses("reference_taken", steps.deposit("alice", 100, asset="USDT", reference="wire-1"))
    assert refusal.field == "reference"
    assert await steps.written() == written
    assert (await steps.withdraw("alice", 100, reference="wire-1")) != first, "a withdrawal has names of its own"


async def test_racers_with_one_reference_all_get_its_transaction(steps: Steps) -> None:
    found = await asyncio.gather(*(steps.deposit("alice", 100, reference="wire-1") for _ in range(10)))
    assert len(set(found)) == 1
    assert await steps.balance("alice") == Balance(100)


async def test_racers_with_one_reference_get_it_also_when_the_money_is_gone(steps: Steps) -> None:
    await steps.deposit("alice", 100)
    found = await asyncio.gather(*(steps.withdraw("alice", 100, reference="payout-1") for _ in range(10)))
    assert len(set(found)) == 1
    assert await steps.balance("alice") == Balance(0)


async def test_racers_with_one_reference_for_different_things_are_told_so(steps: Steps) -> None:
    tried = (steps.deposit("alice", 100 + number, reference="wire-1") for number in range(6))
    found = await asyncio.gather(*tried, return_exceptions=True)
    codes = [answer.code for answer in found if isinstance(answer, Refusal)]
    assert codes == ["reference_taken"] * 5
    assert len([answer for answer in found if isinstance(answer, TransferOutcome)]) == 1
    assert len(await steps.transactions()) == 1


async def test_money_that_is_there_once_is_withdrawn_once(steps: Steps) -> None:
    await steps.deposit("alice", 100)
    found = await asyncio.gather(*(steps.withdraw("alice", 60) for _ in range(6)), return_exceptions=True)
    assert [answer.code for answer in found if isinstance(answer, Refusal)] == ["insufficient_funds"] * 5
    assert await steps.balance("alice") == Balance(40)


async def test_refusals_write_nothing(steps: Steps, tenants_engine: AsyncEngine) -> None:
    await steps.deposit("alice", 100)
    spent = await steps.deposit("bob", 50)
    await steps.withdraw("bob", 50)
    undone = await steps.deposit("alice", 5)
    reversal = await steps.reverse(undone.transaction_id)
    escrow_id = await steps.open(terms(10))
    await steps.deposit(BUYER, 10)
    await steps.apply(escrow_id, BUYER, FundMessage())
    funding = (await steps.transactions())[-1].posting.transaction_id
    other = new_id()
    async with transaction(tenants_engine) as connection:
        await create_tenant(connection, new_tenant=other, name=f"other {other}")
    theirs = await Steps(tenants_engine, other, ActivityEnvironment()).deposit("alice", 5)
    before = await steps.written()
    await refuses("insufficient_funds", steps.withdraw("alice", 111))
    await refuses("insufficient_funds", steps.withdraw("nobody", 1))
    await refuses("insufficient_funds", steps.reverse(spent.transaction_id))
    await refuses("already_reversed", steps.reverse(undone.transaction_id))
    await refuses("not_reversible", steps.reverse(reversal.transaction_id))
    await refuses("not_reversible", steps.reverse(funding))
    await refuses("transaction_unknown", steps.reverse(new_id()))
    await refuses("transaction_unknown", steps.reverse(theirs.transaction_id))
    await refuses("transaction_unknown", steps.transfer(TransferKind.REVERSAL))
    await refuses("asset_unknown", steps.deposit("alice", 1, asset="DOGE"))
    await refuses("asset_unknown", steps.deposit("alice", 1, asset=None))
    await refuses("amount_invalid", steps.deposit("alice", 0))
    await refuses("amount_invalid", steps.deposit("alice", -1))
    await refuses("amount_too_large", steps.deposit("alice", 2**256))
    await refuses("account_ref_invalid", steps.deposit("system:fees", 1))
    await refuses("account_ref_invalid", steps.deposit("system:external", 1))
    await refuses("account_ref_invalid", steps.deposit("", 1))
    await refuses("effective_in_future", steps.deposit("alice", 1, at=T0, effective_at=T0 + timedelta(microseconds=1)))
    assert await steps.written() == before


async def test_a_transfer_from_the_past_changes_what_was(steps: Steps) -> None:
    await steps.deposit("alice", 100, at=T0)
    late = await steps.deposit("alice", 7, at=T0 + 5 * DAY, effective_at=T0 + DAY)
    await steps.withdraw("alice", 50, at=T0 + 5 * DAY)
    history = [await steps.balance("alice", at=T0 + day * DAY) for day in (-1, 0, 1, 4, 5)]
    assert history == [Balance(), Balance(100), Balance(107), Balance(107), Balance(57)]
    posted = {each.posting.transaction_id: each for each in await steps.transactions()}[late.transaction_id]
    assert posted.posting.effective_at == T0 + DAY
    assert posted.recorded_at > T0 + DAY, "the database's clock says when it was written"


async def test_a_repeat_at_another_time_is_the_same_transfer(steps: Steps) -> None:
    """A retried activity has the first attempt's clock, a client's retry a new one; both mean the one booking."""
    first = await steps.deposit("alice", 100, reference="wire-1", at=T0)
    assert await steps.deposit("alice", 100, reference="wire-1", at=T0 + DAY) == first
    assert [each.posting.effective_at for each in await steps.transactions()] == [T0]


async def test_only_a_deposit_counts_from_the_past(steps: Steps) -> None:
    booked = (await steps.deposit("alice", 10, at=T0 + DAY)).transaction_id
    later = {"at": T0 + 2 * DAY, "effective_at": T0}
    await refuses("effective_in_past", steps.withdraw("alice", 1, **later))
    await refuses("effective_in_past", steps.reverse(booked, **later))


@pytest.mark.parametrize("change", [{"description": "another"}, {"effective_at": T0 - DAY}])
async def test_a_reference_with_other_content_is_taken(steps: Steps, change: dict[str, Any]) -> None:
    await steps.deposit("alice", 100, reference="wire-1", at=T0)
    await refuses("reference_taken", steps.deposit("alice", 100, reference="wire-1", at=T0 + DAY, **change))
    assert len(await steps.transactions()) == 1


@pytest.mark.parametrize(
    ("kind", "action", "amount"),
    [
        (TransferKind.DEPOSIT, "ledger.deposited", "2.500000"),
        (TransferKind.WITHDRAWAL, "ledger.withdrawn", "-2.500000"),
        (TransferKind.REVERSAL, "ledger.reversed", "-10.000000"),
    ],
)
async def test_events_and_audit_tell_what_was_booked(
    steps: Steps, kind: TransferKind, action: str, amount: str
) -> None:
    key_id, transfer = new_id(), new_id()
    before = await steps.deposit("alice", 10_000_000, at=T0)
    reversal = kind is TransferKind.REVERSAL
    counts_from = T0 + DAY if kind is TransferKind.DEPOSIT else T0 + 2 * DAY
    fields: dict[str, Any] = (
        {"reverses_id": before.transaction_id}
        if reversal
        else {"account": "alice", "asset": "USDC", "amount_minor": 2_500_000}
    )
    request = TransferRequest(
        tenant_id=steps.tenant,
        transfer_id=transfer,
        kind=kind,
        reference="ref-1",
        origin=OriginMessage(user_id="operator", key_id=key_id, request_id="req-1"),
        effective_at=counts_from if kind is TransferKind.DEPOSIT else None,
        **fields,
    )
    await steps.environment.run(steps.ledger.transfer, RecordTransfer(request=request, at=T0 + 2 * DAY))
    facts = {
        "transaction_id": str(transfer),
        "account": "alice",
        "asset": "USDC",
        "amount": amount,
        "reference": "ref-1",
        "reverses_id": str(before.transaction_id) if reversal else None,
    }
    *_, row = await steps.sql("SELECT * FROM audit_log WHERE subject = 'account:alice' ORDER BY audit_id")
    assert (row.action, row.at, row.details) == (action, T0 + 2 * DAY, facts)
    assert (row.actor_user, row.actor_key_id, row.request_id) == ("operator", key_id, "req-1")
    assert row.workflow_id == f"transfer:{transfer}"
    *_, event = await steps.sql("SELECT * FROM outbox WHERE subject = 'account:alice' ORDER BY outbox_id")
    assert (event.topic, event.type, event.occurred_at) == ("settlement.events.v1", action, counts_from)
    assert event.data == facts
    assert isinstance(event.event_id, UUID)
