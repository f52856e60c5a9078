"""The steps that work settlement commands off: one effect for every attempt, order kept, each outcome told once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import ActivityEnvironment

from activities.escrow.messages import ApproveMessage, EscrowCommand, FundMessage, PartyMessage
from activities.failures import BUG_ATTEMPTS_MAX
from db.engine import transaction
from db.identity import create_tenant
from db.ids import new_id
from domain.errors import Unavailable
from domain.ledger import Balance
from domain.settlement import Command
from tests.activities.settling import Settling
from tests.activities.steps import Steps
from tests.commands import command
from tests.desk import BUYER, SELLER, terms


@pytest.fixture
async def settling(quiet_tenants: AsyncEngine) -> Settling:
    tenant = new_id()
    async with transaction(quiet_tenants) as connection:
        assert await create_tenant(connection, new_tenant=tenant, name=f"test-{tenant}")
    return Settling(Steps(quiet_tenants, tenant, ActivityEnvironment()))


@asynccontextmanager
async def a_bug(engine: AsyncEngine, name: str, condition: str) -> AsyncIterator[None]:
    """A constraint that nobody thought of, while it lasts."""
    async with transaction(engine) as connection:
        await connection.execute(
            text(f"ALTER TABLE settlement_commands ADD CONSTRAINT {name} CHECK ({condition}) NOT VALID")
        )
    try:
        yield
    finally:
        async with transaction(engine) as connection:
            await connection.execute(text(f"ALTER TABLE settlement_commands DROP CONSTRAINT {name}"))


async def told(settling: Settling) -> list[tuple[str, str]]:
    """Type and subject of the outcome events, in order."""
    rows = await settling.steps.sql("SELECT type, subject FROM outbox WHERE type LIKE 'command.%' ORDER BY outbox_id")
    return [(row.type, row.subject) for row in rows]


async def test_a_batch_is_one_commit_with_an_outcome_each(settling: Settling) -> None:
    commands = [
        command("deposit", 1_000, description="a wire"),
        command("transfer", 400),
        command("withdrawal", 700),
        command("withdrawal", 600),
    ]
    await settling.take(*commands)
    done = await settling.settle()
    assert (done.settled, done.rejected, done.failed) == (3, 1, 0)
    refused = ("REJECTED", "insufficient_funds")
    assert await settling.statuses(commands) == [("SETTLED", None), ("SETTLED", None), refused, ("SETTLED", None)]
    booked = {found.posting.transaction_id: found.posting for found in await settling.steps.transactions()}
    for one in (commands[0], commands[1], commands[3]):
        found = await settling.read(one)
        assert found.outcome is not None
        assert found.outcome.transaction_id in booked
        assert found.attempts == 1
        assert found.processing_at is not None
    assert [posting.description for posting in booked.values()] == ["a wire", None, None]
    assert (await settling.read(commands[2])).outcome is not None
    assert await told(settling) == [
        (f"command.{'rejected' if one is commands[2] else 'settled'}", f"command:{one.command_id}") for one in commands
    ]
    [audit] = await settling.steps.sql("SELECT details FROM audit_log WHERE action = 'commands.finished'")
    assert (audit.details["count"], audit.details["rejected"]) == (4, 1)


async def test_a_batch_that_is_repeated_has_one_effect(settling: Settling) -> None:
    """The worker died after the commit and before its answer."""
    await settling.take(command("deposit", 1_000))
    first = await settling.settle(step="same")
    await settling.take(command("deposit", 10))
    assert await settling.settle(step="same", attempt=2) == first
    assert await settling.steps.balance(BUYER) == Balance(1_000)
    assert len(await told(settling)) == 1
    assert (await settling.settle(step="next")).settled == 1


async def test_nothing_to_do_leaves_nothing(settling: Settling) -> None:
    before = await settling.steps.written()
    assert (await settling.settle()).count == 0
    assert await settling.take_up() == ()
    assert await settling.steps.written() == before


async def test_a_faulty_command_fails_alone(settling: Settling, quiet_owner: AsyncEngine) -> None:
    bad = command("deposit", 1)
    good = command("deposit", 2)
    await settling.take(bad, good)
    async with a_bug(quiet_owner, "a_bug", f"command_id <> '{bad.command_id}' OR status <> 'SETTLED'"):
        with pytest.raises(IntegrityError):
            await settling.settle(attempt=BUG_ATTEMPTS_MAX)
        with pytest.raises(IntegrityError):
            await settling.settle(limit=1, attempt=BUG_ATTEMPTS_MAX - 1)
        assert (await settling.settle(limit=1, attempt=BUG_ATTEMPTS_MAX)).failed == 1
        assert (await settling.settle()).settled == 1
    assert await settling.statuses([bad, good]) == [("FAILED", "internal_error"), ("SETTLED", None)]
    assert await settling.steps.balance(BUYER) == Balance(2)
    assert await told(settling) == [
        ("command.failed", f"command:{bad.command_id}"),
        ("command.settled", f"command:{good.command_id}"),
    ]


async def test_turns_across_the_lanes(settling: Settling) -> None:
    """Each waits for what was received before it and names the same account, or the same escrow."""
    escrow = await settling.steps.open(terms(600, 400))
    other = await settling.steps.open(terms(50, buyer=PartyMessage(user_id="carol")))
    deposit = command("deposit", 1_000)
    fund = command("escrow_fund", 600, escrow_id=escrow, milestones=(1,))
    second = command("escrow_fund", 400, escrow_id=escrow, milestones=(2,))
    payment = command("transfer", 5, "dave", counterparty_ref=BUYER)
    behind = command("withdrawal", 1, "dave")
    carol = command("deposit", 50, "carol")
    carols = command("escrow_fund", 50, "carol", escrow_id=other)
    await settling.take(deposit, fund, second, payment, behind, carol, carols)
    assert await settling.take_up() == (), "money comes before the funding that needs it"
    assert (await settling.settle()).settled == 2
    assert await settling.statuses([payment, behind]) == [("RECEIVED", None)] * 2, "alice's turn comes first"
    sequences = await settling.take_up()
    assert len(sequences) == 3
    assert await settling.statuses([fund, carols]) == [("PROCESSING", None)] * 2
    assert (await settling.settle()).count == 0
    await settling.record(await settling.deliver(sequences))
    assert await settling.statuses([fund, second, carols]) == [("SETTLED", None)] * 3
    await settling.work_off()
    assert await settling.statuses([payment, behind]) == [("REJECTED", "insufficient_funds")] * 2


async def test_a_command_on_an_escrow_knows_its_transaction(settling: Settling) -> None:
    escrow = await settling.steps.open(terms(600, 400, buyer_fee_basis_points=100))
    await settling.steps.deposit(BUYER, 1_010)
    fund = command("escrow_fund", 1_000, escrow_id=escrow)
    await settling.take(fund)
    await settling.work_off()
    found = await settling.read(fund)
    assert found.outcome is not None
    booked = [one for one in await settling.steps.transactions() if one.posting.escrow_id == escrow]
    assert [one.posting.transaction_id for one in booked] == [found.outcome.transaction_id]
    assert await settling.steps.balance(BUYER) == Balance(0, 1_010)


async def test_amounts_on_an_escrow_are_exact(settling: Settling) -> None:
    escrow = await settling.steps.open(terms(600, 400, 100))
    await settling.steps.deposit(BUYER, 1_100)
    said = {
        command("escrow_fund", 999, escrow_id=escrow): "amount_mismatch",
        command("escrow_fund", 1_000, escrow_id=escrow): "amount_mismatch",
        command("escrow_fund", 600, escrow_id=escrow, asset_symbol="USDT"): "asset_mismatch",
        command("escrow_fund", 600, escrow_id=new_id()): "escrow_unknown",
        command("escrow_fund", 600, SELLER, escrow_id=escrow, milestones=(1,)): "role_not_allowed",
        command("escrow_fund", 600, "eve", escrow_id=escrow, milestones=(1,)): "not_a_party",
        command("escrow_fund", 1_000, escrow_id=escrow, milestones=(1, 2)): None,
        command("escrow_refund", 100, SELLER, escrow_id=escrow, milestones=(1,)): None,
        command("escrow_refund", 800, SELLER, escrow_id=escrow): "single_milestone_required",
        command("escrow_refund", 501, SELLER, escrow_id=escrow, milestones=(1,)): "amount_exceeds_remaining",
        command("escrow_refund", 900, SELLER, escrow_id=escrow): None,
    }
    await settling.take(*said)
    await settling.work_off()
    expected = [("SETTLED", None) if code is None else ("REJECTED", code) for code in said.values()]
    assert await settling.statuses(said) == expected
    assert await settling.steps.balance(BUYER) == Balance(1_100)


async def test_a_closed_escrow_answers_from_its_row(settling: Settling) -> None:
    escrow = await settling.steps.open(terms(100))
    await settling.steps.deposit(BUYER, 100)
    await settling.steps.apply(escrow, BUYER, FundMessage())
    await settling.steps.apply(escrow, BUYER, ApproveMessage())
    whole, late = (command("escrow_release", 100, escrow_id=escrow) for _ in range(2))
    await settling.take(whole)
    await settling.work_off()
    await settling.take(late)
    sent = len(settling.desk.sent)
    await settling.work_off()
    assert await settling.statuses([whole, late]) == [("SETTLED", None), ("REJECTED", "escrow_closed")]
    assert len(settling.desk.sent) == sent, "its workflow may be gone"


class TestDelivery:
    """What can happen between a command and its escrow."""

    @pytest.fixture
    async def funding(self, settling: Settling) -> Command:
        """A command whose escrow waits for its money, which is there."""
        escrow = await settling.steps.open(terms(100))
        await settling.steps.deposit(BUYER, 1_000)
        fund = command("escrow_fund", 100, escrow_id=escrow)
        await settling.take(fund)
        return fund

    async def test_an_absence_is_no_outcome_and_keeps_the_order(self, settling: Settling, funding: Command) -> None:
        behind = command("escrow_refund", 100, SELLER, escrow_id=funding.escrow_id)
        await settling.take(behind)

        def away(_: EscrowCommand) -> None:
            raise Unavailable("temporal", "away")

        settling.desk.before = away
        sequences = await settling.take_up()
        assert (await settling.deliver(sequences)).outcomes == ()
        assert len(settling.desk.sent) == 1, "what stands behind waits for its turn"
        assert await settling.statuses([funding, behind]) == [("PROCESSING", None)] * 2
        settling.desk.before = lambda _: None
        await settling.work_off()
        assert await settling.statuses([funding, behind]) == [("SETTLED", None)] * 2
        assert (await settling.read(funding)).attempts == 2
        assert [one.repeated for one in settling.desk.sent] == [False, True, True]

    async def test_an_effect_whose_answer_was_lost_is_one_effect(self, settling: Settling, funding: Command) -> None:
        def lost(_: EscrowCommand) -> None:
            raise Unavailable("temporal", "the answer was lost")

        settling.desk.after = lost
        sequences = await settling.take_up()
        assert (await settling.deliver(sequences)).outcomes == ()
        again = await settling.deliver(sequences, attempt=2)
        assert [one.status for one in again.outcomes] == ["SETTLED"]
        assert len(settling.desk.sent) == 1, "its receipt tells"
        assert settling.desk.reloaded == [funding.escrow_id], "its run may not know"
        first = await settling.record(again, step="same")
        assert await settling.record(again, step="same") == first
        assert await settling.record(again) == first.model_copy(update={"settled": 0})
        assert await settling.steps.balance(BUYER) == Balance(900, 100)
        assert await told(settling) == [("command.settled", f"command:{funding.command_id}")]

    async def test_a_fault_is_an_outcome_after_a_few_attempts(self, settling: Settling, funding: Command) -> None:
        def fault(_: EscrowCommand) -> None:
            raise LookupError("nobody thought of this")

        settling.desk.before = fault
        await settling.work_off()
        assert await settling.statuses([funding]) == [("FAILED", "internal_error")]
        assert len(settling.desk.sent) == BUG_ATTEMPTS_MAX
        assert await settling.steps.balance(BUYER) == Balance(1_000)

    async def test_a_fault_after_the_effect_is_none(self, settling: Settling, funding: Command) -> None:
        def fault(_: EscrowCommand) -> None:
            raise LookupError("nobody thought of this")

        settling.desk.after = fault
        await settling.work_off()
        assert await settling.statuses([funding]) == [("SETTLED", None)]
        assert await settling.steps.balance(BUYER) == Balance(900, 100)
