"""Final events of a contract create and move escrows here, and the ledger mirrors the contract."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from activities.escrow.messages import ApproveMessage, FundMessage, PassDeadlineMessage
from db.chain import settling, sources
from db.engine import tenant_transaction, transaction
from domain.chain import RelayerStatus
from domain.controls import FreezeScope
from domain.errors import Refusal, Unavailable
from domain.ledger import Balance, chain_account
from tests.chain.books import compared
from tests.chain.desk import ChainDesk
from tests.chain.tokens import STRANGE, USDC
from tests.contracts.desk import BUYER, COIN, NOBODY, REASON, SELLER


async def balances(desk: ChainDesk, asset: str = "USDC") -> tuple[Balance, Balance, Balance]:
    """Of the buyer, the seller and what the contract stands for."""
    contract = desk.contract
    accounts = (contract.buyer, contract.seller, chain_account(contract.relayer_id))
    first, second, third = [await desk.steps.balance(account, asset) for account in accounts]
    return first, second, third


async def test_an_escrow_on_chain_is_an_escrow_here(chain_desk: ChainDesk) -> None:
    contract = chain_desk.contract
    onchain_id = contract.funded(contract.terms(inspection_seconds=3_600))
    contract.done(onchain_id, "approve", by=contract.buyer)
    settled = await chain_desk.follow()
    assert (settled.settled, settled.unsupported, settled.disagreeing) == (4, 0, 0)

    escrow = await chain_desk.escrow(onchain_id)
    assert escrow is not None
    assert (escrow.status, escrow.version) == ("approved", 3)
    assert escrow.terms.custody is not None
    assert escrow.terms.custody.onchain_id == f"0x{onchain_id.hex()}"
    assert escrow.terms.buyer.user_id == escrow.terms.buyer.address == contract.buyer
    # Times are the blocks' own.
    assert escrow.updated_at == datetime.fromtimestamp(contract.at, UTC)
    assert await balances(chain_desk) == (Balance(0, 100), Balance(), Balance(-100, 0))

    contract.done(onchain_id, "release", 30, by=contract.buyer)
    contract.done(onchain_id, "refund", 20, by=contract.seller)
    contract.done(onchain_id, "pass_deadline", by=contract.stranger, seconds=3_600)
    await chain_desk.follow()
    assert (await chain_desk.escrow(onchain_id)).status == "completed"  # type: ignore[union-attr] # it is there
    # What the contract owes is on hold: the desk must not pay it a second time.
    assert await balances(chain_desk) == (Balance(0, 20), Balance(0, 80), Balance(-100, 0))

    assert contract.withdraw(USDC, contract.seller) == 80
    await chain_desk.follow()
    assert await balances(chain_desk) == (Balance(0, 20), Balance(), Balance(-20, 0))
    assert await chain_desk.steps.trial_balance() == {"USDC": 0}
    assert {outcome for _, outcome, _ in await chain_desk.outcomes()} == {"settled"}


async def test_every_command_is_followed(chain_desk: ChainDesk) -> None:
    """Disputes with a resolution in parts, cancelling, expiry and what is not funded in time, in coins and tokens."""
    contract = chain_desk.contract
    both = contract.terms(approving_roles=BUYER | SELLER, approvals_required=2, token=COIN)
    first = contract.funded(both)
    contract.done(first, "dispute", REASON, by=contract.seller)
    contract.done(first, "resolve", 60, 40, by=contract.arbiter)
    second = contract.create(contract.terms(arbiter=NOBODY))
    contract.done(second, "cancel", by=contract.seller)
    third = contract.funded(contract.terms(expires_at=contract.at + 500))
    contract.done(third, "pass_deadline", by=contract.seller, seconds=500)
    fourth = contract.create(contract.terms(funding_deadline=contract.at + 100))
    contract.done(fourth, "pass_deadline", by=contract.stranger, seconds=100)
    fifth = contract.funded(contract.terms(approving_roles=SELLER))
    contract.done(fifth, "refund", 100, by=contract.seller)
    settled = await chain_desk.follow()
    assert settled.count == settled.settled == len(contract.events)

    escrows = [await chain_desk.escrow(onchain_id) for onchain_id in (first, second, third, fourth, fifth)]
    assert [escrow and escrow.status for escrow in escrows] == [
        "completed",
        "cancelled",
        "expired",
        "expired",
        "refunded",
    ]
    disputed = escrows[0].milestones[0].dispute if escrows[0] else None
    assert disputed is not None
    assert disputed.reason == f"0x{REASON.hex()}"
    assert await balances(chain_desk, "ETH") == (Balance(0, 40), Balance(0, 60), Balance(-100, 0))
    assert await balances(chain_desk) == (Balance(0, 200), Balance(), Balance(-200, 0))


async def test_the_desk_moves_nothing_that_a_chain_keeps(chain_desk: ChainDesk) -> None:
    contract = chain_desk.contract
    onchain_id = contract.create(contract.terms(funding_deadline=contract.at + 100))
    await chain_desk.follow()
    steps, escrow_id = chain_desk.steps, chain_desk.escrow_id(onchain_id)
    for user, command in (
        (contract.buyer, FundMessage()),
        (contract.buyer, ApproveMessage()),
        (None, PassDeadlineMessage()),
    ):
        with pytest.raises(Refusal) as refused:
            await steps.apply(escrow_id, user, command)
        assert refused.value.code == "escrow_on_chain"


async def test_what_the_desk_does_not_keep_is_unsupported(chain_desk: ChainDesk) -> None:
    contract = chain_desk.contract
    strange = contract.funded(contract.terms(token=STRANGE, approving_roles=BUYER))
    contract.done(strange, "approve", by=contract.buyer)
    contract.done(strange, "release", 100, by=contract.buyer)
    late = contract.create(contract.terms())
    settled = await chain_desk.follow()
    contract.withdraw(STRANGE, contract.seller)
    assert (settled.settled, settled.unsupported) == (1, 5)
    settled = await chain_desk.follow()
    assert settled.unsupported == 1
    assert {code for _, _, code in await chain_desk.outcomes()} == {"token_unknown", None}
    assert await chain_desk.escrow(strange) is None
    assert await chain_desk.escrow(late) is not None


@pytest.mark.parametrize("at_once", [True, False], ids=["in one batch", "one by one"])
async def test_a_withdrawal_takes_what_is_owed_for_escrows_that_are_not_followed_too(
    chain_desk: ChainDesk, at_once: bool
) -> None:
    """Anybody can have a contract owe an account a unit for terms that the desk does not keep."""
    contract = chain_desk.contract
    never = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp()) + 1
    for terms in (contract.terms(), contract.terms(amount=7, expires_at=never)):
        onchain_id = contract.funded(terms)
        contract.done(onchain_id, "approve", by=contract.buyer)
        contract.done(onchain_id, "release", terms.amount, by=contract.buyer)
    if not at_once:
        await chain_desk.follow()
    assert contract.withdraw(USDC, contract.seller) == 107
    # And once more, with nothing but such a unit.
    onchain_id = contract.funded(contract.terms(amount=7, expires_at=never))
    contract.done(onchain_id, "approve", by=contract.buyer)
    contract.done(onchain_id, "release", 7, by=contract.buyer)
    assert contract.withdraw(USDC, contract.seller) == 7
    await chain_desk.follow()
    assert await balances(chain_desk) == (Balance(), Balance(), Balance())
    outcomes = {(kind, outcome) for kind, outcome, _ in await chain_desk.outcomes() if kind == "Withdrawn"}
    assert outcomes == {("Withdrawn", "settled")}
    assert await compared(chain_desk) == {USDC: []}


async def test_what_the_rules_would_not_have_done_stops_its_escrow_alone(chain_desk: ChainDesk) -> None:
    contract = chain_desk.contract
    bad, good = contract.funded(), contract.funded()
    # A contract that pays without approval.
    paid = {"escrow_id": bad, "by": contract.buyer, "account": contract.seller, "token": USDC, "amount": 100}
    contract.at += 1
    contract.oracle.sequence += 1
    contract.mine([("Released", paid | {"remaining": 0})], first=contract.oracle.sequence)
    contract.done(bad, "approve", by=contract.buyer)
    contract.done(good, "approve", by=contract.buyer)
    settled = await chain_desk.follow()
    assert (settled.settled, settled.disagreeing) == (6, 3)
    codes = [code for _, outcome, code in await chain_desk.outcomes() if outcome == "disagrees"]
    assert codes == ["milestone_not_approved", "escrow_disagrees", "escrow_disagrees"]
    told = await chain_desk.steps.sql("SELECT data FROM outbox WHERE type = 'chain.event_disagreed'")
    assert [(row.data["kind"], row.data["code"]) for row in told] == [("Released", "milestone_not_approved")]
    assert (await chain_desk.escrow(bad)).status == "funded"  # type: ignore[union-attr] # it is there
    assert (await chain_desk.escrow(good)).status == "approved"  # type: ignore[union-attr]


async def test_nothing_is_settled_ahead_of_what_is_missing_or_not_final(chain_desk: ChainDesk) -> None:
    contract = chain_desk.contract
    contract.funded()
    await contract.register(chain_desk.engine)
    await contract.write(chain_desk.engine, final=False)
    assert (await chain_desk.settle()).count == 0
    # What a job has yet to fill in holds back what the live end has.
    contract.funded()
    contract.written = 3
    await contract.write(chain_desk.engine)
    assert (await chain_desk.settle()).count == 2
    contract.written, whole = 2, contract.blocks
    contract.blocks = whole[:3]
    await contract.write(chain_desk.engine)
    contract.blocks = whole
    async with tenant_transaction(chain_desk.engine, contract.tenant) as connection:
        moved = (
            "UPDATE chain_cursors SET block_number = 4, confirmed_number = 4, finalized_number = 4 WHERE source_id = :s"
        )
        await connection.execute(text(moved), {"s": contract.source.source_id})
    assert (await chain_desk.settle()).count == 2


async def test_what_waits_too_long_is_found(chain_desk: ChainDesk) -> None:
    contract = chain_desk.contract
    contract.funded()
    await contract.register(chain_desk.engine)

    async def waiting(seconds: int = 0) -> list[str]:
        async with transaction(chain_desk.engine) as connection:
            found = await settling.list_waiting(connection, timedelta(seconds=seconds), limit=10_000)
        return [each.relayer_id for each in found if each.tenant_id == contract.tenant]

    await contract.write(chain_desk.engine, final=False)
    assert await waiting() == []
    await contract.write(chain_desk.engine)
    assert (await waiting(), await waiting(60)) == ([contract.relayer_id], [])
    # What is final is in doubt where a relayer halted.
    async with tenant_transaction(chain_desk.engine, contract.tenant) as connection:
        await sources.set_status(connection, contract.source.source_id, RelayerStatus.HALTED, "a fork below")
    assert await waiting() == []
    assert (await chain_desk.settle()).count == 0
    async with tenant_transaction(chain_desk.engine, contract.tenant) as connection:
        await sources.set_status(connection, contract.source.source_id, RelayerStatus.FOLLOWING)
    assert (await chain_desk.settle()).count == 2
    assert await waiting() == []


async def test_a_freeze_does_not_undo_what_a_chain_did(chain_desk: ChainDesk) -> None:
    """Nothing of it can be spent here, so nothing is lost by booking it."""
    contract = chain_desk.contract
    await chain_desk.freeze(FreezeScope.TENANT, None)
    await chain_desk.freeze(FreezeScope.ACCOUNT, contract.buyer)
    onchain_id = contract.funded()
    contract.done(onchain_id, "approve", by=contract.buyer)
    contract.done(onchain_id, "release", 100, by=contract.buyer)
    contract.withdraw(USDC, contract.seller)
    assert (await chain_desk.follow()).settled == len(contract.events)
    assert await balances(chain_desk) == (Balance(), Balance(), Balance())


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_delivery_that_was_cut_short_is_finished(chain_desk: ChainDesk, when: str) -> None:
    """An escrow that cannot be reached holds back what stands behind it, and whatever had its effect has it once."""
    contract = chain_desk.contract
    first, second = contract.funded(), contract.funded()
    contract.done(first, "approve", by=contract.buyer)
    contract.done(second, "approve", by=contract.buyer)
    failures = iter([True])

    def fail(kind: str) -> None:
        if kind == "approve" and next(failures, False):
            raise Unavailable("temporal", "no outcome in time")

    setattr(chain_desk.desk, when, fail)
    await contract.register(chain_desk.engine)
    await contract.write(chain_desk.engine)
    delivered = await chain_desk.deliver()
    # Which of the two was asked first is not said.
    assert (delivered.after, delivered.found) == (0, 8)
    assert delivered.through in (4, 6)
    # The record of a delivery that was made twice is written once.
    assert (await chain_desk.record(delivered)).count == delivered.through
    assert (await chain_desk.record(delivered)).count == 0
    assert (await chain_desk.settle()).settled == 8 - delivered.through
    assert await balances(chain_desk) == (Balance(0, 200), Balance(), Balance(-200, 0))
    for onchain_id in (first, second):
        assert (await chain_desk.escrow(onchain_id)).version == 3  # type: ignore[union-attr] # it is there
