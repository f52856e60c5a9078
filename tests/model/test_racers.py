"""Many at once for the same money: each hold is paid out once, each balance spent once, and nobody waits for ever.

Every racer is a worker of its own, with its own connection and its own group of postings, and is not tried again: a
deadlock or a lock that does not come in time would show.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.ledger.messages import TransferKind
from db.engine import tenant_transaction
from db.ids import new_id
from domain.errors import Refusal, Unavailable
from tests.desk import Desk
from tests.model import database
from tests.model.asks import Ask, Command, Opening, Worker, order_message, really, terms_message
from tests.model.books import Flow
from tests.model.machine import START
from tests.model.moves import Transfer
from tests.model.reference import Agreement, Order
from workflows.escrow import EscrowOutcome

RACERS = 32
REPEATS_MAX = 5
BUYER, SELLER, ARBITER = "alice", "bob", "judy"
DISPUTED = ((BUYER, Order("dispute")),)
APPROVED = ((BUYER, Order("approve")),)

#: What ends a milestone of a thousand, by whom: everything that pays it out.
ENDINGS: dict[str, list[tuple[str | None, Order]]] = {
    "release": [(BUYER, Order("release"))],
    "refund": [(SELLER, Order("refund"))],
    "deadline": [(None, Order("pass_deadline"))],
    "resolution": [(ARBITER, Order("resolve", None, None, part, 1_000 - part)) for part in (0, 1, 500, 1_000)],
    "release, refund or deadline": [
        (BUYER, Order("release")),
        (SELLER, Order("refund", (1,), 1_000)),
        (None, Order("pass_deadline")),
    ],
    "release, refund or resolution": [
        (BUYER, Order("release", (1,))),
        (SELLER, Order("refund")),
        (ARBITER, Order("resolve", (1,), None, 500, 500)),
    ],
}


class Race:
    """One tenant, and as many workers as there are racers."""

    def __init__(self, engine: AsyncEngine, tenant: UUID) -> None:
        self.engine = engine
        self.tenant = tenant

    async def do(self, *asks: Ask) -> None:
        """One after the other; each is done."""
        worker = Worker(self.engine, self.tenant, attempts_max=1)
        for ask in asks:
            await ask.send(worker)
        await worker.doorbell.close()

    async def run(self, asks: Iterable[Ask], *, shared: bool = False) -> Counter[str]:
        """All at once: how many were done, and how many refused with which code. The books add up afterwards."""
        every = list(asks)
        own = [Worker(self.engine, self.tenant, attempts_max=1) for _ in every[: 1 if shared else None]]
        answers = await asyncio.gather(
            *(really(ask, own[0] if shared else worker) for ask, worker in zip(every, own * len(every), strict=False))
        )
        for worker in own:
            await worker.doorbell.close()
        async with tenant_transaction(self.engine, self.tenant) as connection:
            assert await database.wrong(connection) == []
        return Counter("done" if answer.count("-") >= 4 else answer for answer in answers)

    async def state(self) -> dict[str, dict[Any, Any]]:
        async with tenant_transaction(self.engine, self.tenant) as connection:
            return await database.read(connection)

    async def escrow(self, *steps: tuple[str | None, Order], **changes: Any) -> str:
        """An escrow of a thousand with its money, taken through ``steps``."""
        fields: dict[str, Any] = {
            "asset": "USDC",
            "prices": (1_000,),
            "buyer": BUYER,
            "seller": SELLER,
            "arbiter": ARBITER,
            "buyer_fee": 250,
            "seller_fee": 100,
            "inspection": 60,
        }
        key, agreed = str(new_id()), Agreement(**(fields | changes))
        await self.do(deposit(agreed.buyer, 1_025), Opening(key, agreed, START))
        await self.do(*(command(key, user, order) for user, order in [(agreed.buyer, Order("fund")), *steps]))
        return key


@pytest.fixture
def race(tenants_engine: AsyncEngine, tenant: UUID) -> Race:
    return Race(tenants_engine, tenant)


def deposit(user: str, amount: int) -> Transfer:
    return Transfer(Flow(str(new_id()), "deposit", user, "USDC", amount), START)


def withdrawal(user: str, amount: int) -> Transfer:
    return Transfer(Flow(str(new_id()), "withdrawal", user, "USDC", amount), START)


def command(key: str, user: str | None, order: Order, minutes: int = 0) -> Command:
    return Command(key, str(new_id()), user, order, START + timedelta(minutes=minutes))


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_hold_is_paid_out_once(race: Race, ending: str) -> None:
    key = await race.escrow(*(DISPUTED if "resolution" in ending else APPROVED))
    ways = ENDINGS[ending] * RACERS
    found = await race.run(command(key, user, order, minutes=1) for user, order in ways[:RACERS])
    assert found == {"done": 1, "escrow_closed": RACERS - 1}
    state = await race.state()
    assert state["holds"] == {(key, 1): (1_025, 0)}
    assert sum(n for kind, n in state["postings"].items() if kind not in ("deposit", "escrow_fund")) == 1
    assert len(state["receipts"]) == 5
    accounts = {ref: pots for (ref, _), pots in state["accounts"].items()}
    assert accounts.pop("system:external") == (-1_025, 0)
    released = state["milestones"][key, 1][0][2]
    owed = {SELLER: released - released // 100, "system:fees": released // 100 + released // 40}
    owed[BUYER] = 1_025 - sum(owed.values())
    assert accounts == {ref: (minor, 0) for ref, minor in owed.items() if minor}


async def test_a_hold_is_paid_out_in_parts_until_it_is_empty(race: Race) -> None:
    key = await race.escrow(*APPROVED)
    tenths = [command(key, BUYER, Order("release", (1,), 100)) for _ in range(RACERS)]
    assert await race.run(tenths) == {"done": 10, "escrow_closed": RACERS - 10}
    state = await race.state()
    assert state["holds"] == {(key, 1): (1_025, 0)}
    assert (state["accounts"][SELLER, "USDC"], state["accounts"]["system:fees", "USDC"]) == ((990, 0), (35, 0))


async def test_what_is_left_decides_who_comes_too_late(race: Race) -> None:
    """Three hundred at a time out of a thousand: three are paid, and the hold keeps the rest."""
    key = await race.escrow(*APPROVED, buyer_fee=0)
    orders = [(BUYER, Order("release", (1,), 300)), (SELLER, Order("refund", (1,), 300))] * (RACERS // 2)
    found = await race.run(command(key, user, order) for user, order in orders)
    assert found == {"done": 3, "amount_exceeds_remaining": RACERS - 3}
    assert (await race.state())["holds"] == {(key, 1): (1_000, 100)}


async def test_milestones_of_one_escrow_are_each_paid_once(race: Race) -> None:
    key = await race.escrow(*APPROVED, prices=(100, 200, 300, 400))
    named = [command(key, BUYER, Order("release", (number,))) for number in (1, 2, 3, 4)] * (RACERS // 4)
    named = [command(key, each.user, each.order) for each in named]
    found = await race.run(named)
    assert found["done"] == 4
    assert found["milestone_closed"] + found["escrow_closed"] == RACERS - 4
    assert (await race.state())["accounts"][SELLER, "USDC"] == (990, 0)


@pytest.mark.parametrize("shared", [False, True])
async def test_a_balance_is_withdrawn_once(race: Race, shared: bool) -> None:
    """By workers of their own, and by one worker, whose postings go in groups."""
    await race.do(deposit(BUYER, 7))
    found = await race.run([withdrawal(BUYER, 2) for _ in range(RACERS)], shared=shared)
    assert found == {"done": 3, "insufficient_funds": RACERS - 3}
    assert (await race.state())["accounts"] == {(BUYER, "USDC"): (1, 0), ("system:external", "USDC"): (-1, 0)}


@pytest.mark.parametrize("shared", [False, True])
async def test_a_deposit_is_taken_back_once(race: Race, shared: bool) -> None:
    """Whoever comes too late is told so, not that there is nothing left to take back."""
    arrived = deposit(BUYER, 7)
    await race.do(arrived)
    reversals = [Transfer(Flow(str(new_id()), "reversal", takes_back=arrived.flow.key), START) for _ in range(RACERS)]
    assert await race.run(reversals, shared=shared) == {"done": 1, "already_reversed": RACERS - 1}
    assert (await race.state())["accounts"] == {}


async def test_a_buyer_funds_no_more_escrows_than_the_money_is_for(race: Race) -> None:
    keys = [str(new_id()) for _ in range(RACERS)]
    agreed = Agreement("USDC", (60, 40), BUYER, SELLER)
    await race.do(deposit(BUYER, 550), *(Opening(key, agreed, START) for key in keys))
    found = await race.run(command(key, BUYER, Order("fund")) for key in keys)
    assert found == {"done": 5, "insufficient_funds": RACERS - 5}
    state = await race.state()
    assert state["accounts"][BUYER, "USDC"] == (50, 500)
    assert sorted(state["holds"].values()) == [(40, 40)] * 5 + [(60, 60)] * 5


async def test_attempts_of_one_step_are_one_step(race: Race) -> None:
    key = await race.escrow(*APPROVED)
    part = command(key, BUYER, Order("release", (1,), 100))
    money = deposit(BUYER, 5)
    assert await race.run([part] * RACERS) == {"done": RACERS}
    assert await race.run([money] * RACERS) == {"done": RACERS}
    assert await race.run([part, money] * (RACERS // 2), shared=True) == {"done": RACERS}
    state = await race.state()
    assert state["holds"] == {(key, 1): (1_025, 923)}
    assert state["accounts"][BUYER, "USDC"] == (5, 923)
    assert [type_ for type_, *_ in state["events"][f"escrow:{key}"]].count("escrow.released") == 1


async def test_opposite_directions_do_not_deadlock(race: Race) -> None:
    """Two escrows between the same two, one each way, paid in parts while both deposit and withdraw."""
    there = await race.escrow(*APPROVED)
    back = await race.escrow((SELLER, Order("approve")), buyer=SELLER, seller=BUYER, approvers=("buyer",))
    await race.do(deposit(BUYER, 100), deposit(SELLER, 100))
    asks: list[Ask] = []
    for _ in range(RACERS // 4):
        asks += [command(there, BUYER, Order("release", (1,), 10)), command(back, SELLER, Order("release", (1,), 10))]
        asks += [withdrawal(SELLER, 1), withdrawal(BUYER, 1)]
    for _ in range(3):
        again = [_renamed(ask) for ask in asks]
        assert await race.run(again) == {"done": RACERS}
    state = await race.state()
    rounds = 3 * RACERS // 4
    # A hundredth of each part is the seller's fee, but only the whole units of all parts together.
    assert state["accounts"][SELLER, "USDC"][0] == 100 + 10 * rounds - 10 * rounds // 100 - rounds
    assert state["accounts"][BUYER, "USDC"][0] == state["accounts"][SELLER, "USDC"][0]


async def test_everything_at_once_leaves_the_books_in_order(race: Race) -> None:
    keys = [await race.escrow(*(DISPUTED if number % 2 else APPROVED)) for number in range(4)]
    asks: list[Ask] = [
        command(keys[number % 4], user, order, minutes=1)
        for number, (user, order) in enumerate([way for ways in ENDINGS.values() for way in ways] * 2)
    ]
    asks += [withdrawal(SELLER, 300), deposit(SELLER, 7), withdrawal(BUYER, 400)] * 3
    found = await race.run(_renamed(ask) for ask in asks[:RACERS])
    state = await race.state()
    assert found["done"] == len(state["receipts"]) - 4 * 4
    assert set(found) <= {"done", "escrow_closed", "insufficient_funds", "not_disputed", "inspection_running"} | {
        "milestone_closed",
        "nothing_due",
        "resolution_not_exact",
    }


@pytest.mark.parametrize("ending", ["release", "release, refund or resolution"])
async def test_a_hold_is_paid_out_once_through_its_workflow(desk: Desk, race: Race, ending: str) -> None:
    """As the API asks for it: updates of one workflow, each with a command id of its own."""
    agreed = Agreement("USDC", (1_000,), BUYER, SELLER, ARBITER, buyer_fee=250, seller_fee=100)
    await desk.deposit(BUYER, 1_025)
    escrow_id = await desk.open(terms_message(agreed))
    for user, order in [(BUYER, Order("fund")), *(DISPUTED if "resolution" in ending else APPROVED)]:
        await desk.command(escrow_id, user or "", order_message(order))
    ways = [way for way in ENDINGS[ending] if way[0] is not None] * RACERS
    answers = await asyncio.gather(
        *(_repeated(desk, escrow_id, user or "", order) for user, order in ways[:RACERS]),
        return_exceptions=True,
    )
    assert _counted(answers) == {"done": 1, "escrow_closed": RACERS - 1}
    state = await race.state()
    assert state["holds"] == {(str(escrow_id), 1): (1_025, 0)}
    assert len(state["receipts"]) == 5
    await race.run([])


async def _repeated(desk: Desk, escrow_id: UUID, user: str, order: Order) -> EscrowOutcome:
    """As clients do: who is told that nobody knows yet asks again, under the same command id."""
    command_id = new_id()
    for _ in range(REPEATS_MAX):
        with suppress(Unavailable):
            return await desk.command(escrow_id, user, order_message(order), command_id)
    return await desk.command(escrow_id, user, order_message(order), command_id)


async def test_a_balance_is_withdrawn_once_through_workflows(desk: Desk, race: Race) -> None:
    await desk.deposit(BUYER, 7)
    answers = await asyncio.gather(
        *(desk.deposit(BUYER, 2, kind=TransferKind.WITHDRAWAL) for _ in range(RACERS)),
        return_exceptions=True,
    )
    assert _counted(answers) == {"done": 3, "insufficient_funds": RACERS - 3}
    await race.run([])


def _counted(answers: Sequence[object]) -> Counter[str]:
    for answer in answers:
        if isinstance(answer, BaseException) and not isinstance(answer, Refusal):
            raise answer
    return Counter(answer.code if isinstance(answer, Refusal) else "done" for answer in answers)


def _renamed(ask: Ask) -> Ask:
    """The same under a name of its own."""
    if isinstance(ask, Command):
        return Command(ask.key, str(new_id()), ask.user, ask.order, ask.at)
    assert isinstance(ask, Transfer)
    flow = ask.flow
    return Transfer(Flow(str(new_id()), flow.kind, flow.account, flow.asset, flow.amount), ask.at)
