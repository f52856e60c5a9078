"""A contract's own word about its money against events and ledger: what is explained, and what is not."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import ActivityEnvironment

from activities.chain.books import ChainBooksActivities
from activities.chain.messages import SourcesWanted
from db.doorbell import Doorbell
from db.engine import tenant_transaction
from tests.chain.books import ModelChain, compare, compared, read_books
from tests.chain.contract import Contract
from tests.chain.desk import ChainDesk
from tests.chain.tokens import TOKENS, USDC
from tests.contracts.desk import COIN


async def released(desk: ChainDesk, amount: int = 30) -> bytes:
    """An escrow that paid a part, of which nobody has withdrawn anything."""
    contract = desk.contract
    onchain_id = contract.funded()
    contract.done(onchain_id, "approve", by=contract.buyer)
    contract.done(onchain_id, "release", amount, by=contract.buyer)
    return onchain_id


def found(parts: list[dict[str, Any]]) -> set[tuple[str, str, str, bool]]:
    return {(part["code"], part["what"], part["amount"], part["explained"]) for part in parts}


async def test_books_agree_and_it_is_told(chain_desk: ChainDesk) -> None:
    await released(chain_desk)
    chain_desk.contract.withdraw(USDC, chain_desk.contract.seller)
    await chain_desk.follow()
    assert await compared(chain_desk) == {USDC: []}
    (event,) = await chain_desk.steps.sql("SELECT type, data FROM outbox WHERE type LIKE 'chain.books%'")
    assert event.type == "chain.books_reconciled"
    assert event.data["held"] == event.data["ledger_held"] == "70"
    assert (event.data["owed"], event.data["explained"], event.data["unexplained"]) == ("0", "0", "0")


async def test_what_has_a_reason_is_explained(chain_desk: ChainDesk) -> None:
    contract = chain_desk.contract
    await released(chain_desk)
    await chain_desk.follow()
    # Final and not settled yet; in coins that the configuration does not know, nothing is looked at.
    contract.funded()
    await contract.write(chain_desk.engine)
    chain = ModelChain(contract, forced={USDC: 5})
    outcome = await compare(chain_desk, chain)
    assert (outcome.tokens, outcome.differing) == (1, 0)
    assert found((await compared(chain_desk, chain))[USDC]) == {
        ("forced_in", "balance", "5", True),
        ("not_settled", "held", "100", True),
    }
    # Delivered, and not written yet: the ledger is ahead of the events' outcomes.
    delivered = await chain_desk.deliver()
    assert found((await compared(chain_desk))[USDC]) == {
        ("not_settled", "held", "100", True),
        ("under_way", "held", "-100", True),
    }
    await chain_desk.record(delivered)
    assert await compared(chain_desk) == {USDC: []}


async def test_what_was_settled_since_the_block_is_explained(chain_desk: ChainDesk) -> None:
    contract = chain_desk.contract
    await released(chain_desk)
    await chain_desk.follow()
    before = ModelChain(deepcopy(contract))
    contract.withdraw(USDC, contract.seller)
    contract.funded()
    await chain_desk.follow()
    assert found((await compared(chain_desk, before))[USDC]) == {
        ("not_settled", "held", "-100", True),
        ("not_settled", "owed", "30", True),
    }


async def test_what_the_rules_disagree_with_and_what_is_wrong_is_not_explained(
    chain_desk: ChainDesk, owner_engine: AsyncEngine
) -> None:
    contract = chain_desk.contract
    onchain_id = await released(chain_desk)
    # The contract pays more than the rules let it.
    paid = {"escrow_id": onchain_id, "by": contract.stranger, "account": contract.seller, "token": USDC}
    contract.oracle.sequence += 1
    contract.oracle.held[USDC] -= 10
    contract.oracle.withdrawable[USDC, contract.seller] += 10
    contract.mine([("Released", paid | {"amount": 10, "remaining": 60})], first=contract.oracle.sequence)
    await chain_desk.follow()
    assert found((await compared(chain_desk))[USDC]) == {
        ("disagreeing", "held", "-10", False),
        ("disagreeing", "owed", "10", False),
    }
    assert (await compare(chain_desk)).differing == 1
    told = await chain_desk.steps.sql("SELECT data FROM outbox WHERE type = 'chain.books_differ'")
    assert {row.data["unexplained"] for row in told} == {"20"}
    # Somebody changes the ledger, and the contract lost something.
    async with tenant_transaction(owner_engine, contract.tenant) as connection:
        less = "UPDATE holds SET remaining_minor = remaining_minor - 1 WHERE escrow_id IS NULL AND tenant_id = :tenant"
        await connection.execute(text(less), {"tenant": contract.tenant})
    short = ModelChain(contract, forced={USDC: -3})
    assert found((await compared(chain_desk, short))[USDC]) >= {
        ("contract_short", "balance", "-3", False),
        ("ledger_differs", "owed", "1", False),
        ("mirror_differs", "outside", "1", False),
    }


async def test_events_that_are_missing_explain_and_events_that_lie_do_not(chain_desk: ChainDesk) -> None:
    contract = chain_desk.contract
    await released(chain_desk)
    await chain_desk.follow()
    contract.funded()
    # The contract knows of two events that are not here yet.
    parts = found((await compared(chain_desk))[USDC])
    assert parts == {("events_missing", "held", "100", True)}
    contract.oracle.sequence -= 2
    assert found((await compared(chain_desk))[USDC]) == {("events_differ", "held", "100", False)}


async def test_relayers_that_move_nothing_end_no_page(chain_desk: ChainDesk) -> None:
    """The sweep is over where a page is empty: one of relayers that only watch must not be."""
    contract, engine = chain_desk.contract, chain_desk.engine
    watching = Contract(contract.tenant)
    watching.source = replace(watching.source, settles=False)
    await watching.register(engine)
    await contract.register(engine)
    steps = ChainBooksActivities(chain_desk.steps.engine, engine, Doorbell(engine), {"local": TOKENS})
    wanted = SourcesWanted(after=watching.source.source_id - 1, limit=1)
    (found,) = await ActivityEnvironment().run(steps.list_settling, wanted)
    assert found.run.relayer_id == contract.relayer_id


async def test_a_state_that_nobody_keeps_is_not_compared(chain_desk: ChainDesk) -> None:
    contract = chain_desk.contract
    await contract.register(chain_desk.engine)
    assert (await compare(chain_desk)).tokens == 0
    contract.create(contract.terms(token=COIN))
    await contract.write(chain_desk.engine)
    await chain_desk.settle()
    assert (await compare(chain_desk)).tokens == 0
    contract.funded()
    await contract.write(chain_desk.engine)
    forgotten = ModelChain(contract, forgotten=True)
    assert (await compare(chain_desk, forgotten)).tokens == 0
    assert (await read_books(chain_desk, forgotten)).unread == 1, "and it is counted"
