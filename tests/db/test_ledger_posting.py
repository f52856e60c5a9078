"""``db.ledger.post``: the one way money is booked, by many at once, and what can be read of it afterwards."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from db import ledger
from db.engine import tenant_transaction
from db.ids import new_id
from db.ledger import TransactionFilter
from domain.errors import Refusal
from domain.ledger import (
    SYSTEM_EXTERNAL,
    Balance,
    Leg,
    Posting,
    Pot,
    TransactionKind,
    deposit,
    pay_from_hold,
    place_hold,
    reverse,
    withdrawal,
)
from domain.money import MAX_MINOR
from tests.db.raw import sql

AT = datetime(2026, 5, 1, tzinfo=UTC)
RACERS = 32


class Bank:
    """One tenant's ledger."""

    def __init__(self, engine: AsyncEngine, tenant: UUID) -> None:
        self.engine = engine
        self.tenant = tenant

    async def post(self, *postings: Posting) -> None:
        async with tenant_transaction(self.engine, self.tenant) as connection:
            await ledger.post(connection, self.tenant, postings)

    async def deposit(self, account: str, amount_minor: int, asset: str = "USDC", at: datetime = AT) -> Posting:
        made = deposit(account, asset, amount_minor, transaction_id=new_id(), effective_at=at)
        await self.post(made)
        return made

    async def balance(self, account: str, asset: str = "USDC", **instants: datetime) -> Balance:
        async with tenant_transaction(self.engine, self.tenant) as connection:
            found = await ledger.balances(connection, account, asset=asset, **instants)
        return found[0].balance if found else Balance()

    async def refuses(self, code: str, *postings: Posting) -> None:
        """Expect a refusal, and nothing written by it."""
        before = await self.rows()
        with pytest.raises(Refusal) as caught:
            await self.post(*postings)
        assert caught.value.code == code
        assert await self.rows() == before

    async def rows(self) -> list[int]:
        async with tenant_transaction(self.engine, self.tenant) as connection:
            tables = ("accounts", "holds", "ledger_transactions", "ledger_legs")
            return [int((await sql(connection, f"SELECT count(*) FROM {table}"))[0][0]) for table in tables]

    async def check(self) -> None:
        """Balances are what the legs add up to, holds what accounts have on hold, and all of it together nothing."""
        async with tenant_transaction(self.engine, self.tenant) as connection:
            assert set((await ledger.trial_balance(connection)).values()) <= {0}
            wrong = await sql(
                connection,
                """
                SELECT a.ref FROM accounts a
                LEFT JOIN (SELECT account_id, sum(amount_minor) FILTER (WHERE pot = 'available') AS available,
                           sum(amount_minor) FILTER (WHERE pot = 'held') AS held FROM ledger_legs GROUP BY 1) l
                       USING (account_id)
                LEFT JOIN (SELECT account_id, sum(remaining_minor) AS remaining FROM holds GROUP BY 1) h
                       USING (account_id)
                WHERE a.available_minor <> coalesce(l.available, 0) OR a.held_minor <> coalesce(l.held, 0)
                   OR a.held_minor <> coalesce(h.remaining, 0)
                """,
            )
            assert wrong == []


@pytest.fixture
def bank(tenants_engine: AsyncEngine, tenant: UUID) -> Bank:
    return Bank(tenants_engine, tenant)


def posting(*legs: Leg, kind: TransactionKind = TransactionKind.ESCROW_FUND) -> Posting:
    return Posting(new_id(), kind, legs, AT)


def free(account: str, amount_minor: int, asset: str = "USDC") -> Leg:
    return Leg(account, asset, Pot.AVAILABLE, amount_minor)


async def outcomes(attempts: Iterable[Awaitable[None]]) -> Counter[str]:
    """How many attempts ended how, by refusal code; anything but a refusal is raised."""
    found: Counter[str] = Counter()
    for answer in await asyncio.gather(*attempts, return_exceptions=True):
        if answer is None:
            found["done"] += 1
        elif isinstance(answer, Refusal):
            found[answer.code] += 1
        else:
            raise answer
    return found


async def test_refusals_have_codes_and_write_nothing(bank: Bank) -> None:
    await bank.deposit("alice", 100)
    hold, other = new_id(), new_id()
    await bank.post(posting(*place_hold("alice", "USDC", 40, hold_id=hold)))
    await bank.post(posting(*place_hold("alice", "USDC", 20, hold_id=other)))
    taking = withdrawal("alice", "USDC", 41, transaction_id=new_id(), effective_at=AT)
    await bank.refuses("insufficient_funds", taking)
    await bank.refuses("insufficient_funds", withdrawal("zoe", "USDC", 1, transaction_id=new_id(), effective_at=AT))
    await bank.refuses("insufficient_funds", posting(*place_hold("alice", "USDC", 41, hold_id=new_id())))
    await bank.refuses("hold_exhausted", posting(*pay_from_hold("alice", "USDC", {"bob": 61}, hold_id=hold)))
    # The account holds 60 in all, but this hold only 40 of it: what the rules cannot see, the database does.
    await bank.refuses("hold_exhausted", posting(*pay_from_hold("alice", "USDC", {"bob": 41}, hold_id=hold)))
    await bank.refuses("posting_unbalanced", posting(free("alice", -1), free("bob", 2)))
    await bank.refuses("posting_too_short", posting(free(SYSTEM_EXTERNAL, -1)))
    await bank.refuses("leg_zero", posting(free("alice", 0), free("bob", 0)))
    await bank.refuses("leg_repeated", posting(free("alice", -2), free("bob", 1), free("bob", 1)))
    await bank.check()


async def test_postings_of_one_call_are_booked_together_or_not_at_all(bank: Bank) -> None:
    arriving = deposit("alice", "USDC", 10, transaction_id=new_id(), effective_at=AT)
    spending = posting(free("alice", -10), free("bob", 10))
    too_much = posting(free("bob", -11), free("carol", 11))
    await bank.refuses("insufficient_funds", arriving, spending, too_much)
    await bank.post(arriving, spending)
    assert (await bank.balance("alice"), await bank.balance("bob")) == (Balance(), Balance(10))
    await bank.check()


async def test_a_hold_is_spent_once_per_unit(bank: Bank) -> None:
    await bank.deposit("alice", 100)
    hold = new_id()
    await bank.post(posting(*place_hold("alice", "USDC", 10, hold_id=hold)))
    await bank.post(posting(*place_hold("alice", "USDC", 50, hold_id=new_id())))
    paid = await outcomes(
        bank.post(posting(*pay_from_hold("alice", "USDC", {f"payee {n % 3}": 1}, hold_id=hold))) for n in range(RACERS)
    )
    assert paid == {"done": 10, "hold_exhausted": RACERS - 10}
    assert await bank.balance("alice") == Balance(40, 50)
    assert sum([(await bank.balance(f"payee {n}")).available_minor for n in range(3)]) == 10
    await bank.check()


async def test_a_balance_is_spent_once(bank: Bank) -> None:
    await bank.deposit("alice", 7)
    spent = await outcomes(bank.post(posting(free("alice", -2), free("bob", 2))) for _ in range(RACERS))
    assert spent == {"done": 3, "insufficient_funds": RACERS - 3}
    assert await bank.balance("alice") == Balance(1)
    await bank.check()


async def test_transfers_in_every_direction_do_not_deadlock(bank: Bank) -> None:
    chance = random.Random(7)
    names = [f"account {number}" for number in range(6)]
    await bank.post(
        *(deposit(name, "USDC", 1_000, transaction_id=new_id(), effective_at=AT) for name in names),
    )

    async def transfers() -> None:
        for _ in range(8):
            source, target, third = chance.sample(names, 3)
            await bank.post(posting(free(source, -3), free(target, 2), free(third, 1)))

    assert await outcomes(transfers() for _ in range(20)) == {"done": 20}
    assert sum([(await bank.balance(name)).available_minor for name in names]) == 6_000
    await bank.check()


@pytest.mark.parametrize("seed", range(3))
async def test_accounts_that_many_open_at_once_do_not_deadlock(bank: Bank, seed: int) -> None:
    """Each posting opens some accounts and finds others there; whoever opens one holds nothing that another needs."""
    chance = random.Random(seed)
    names = [f"account {number:02}" for number in range(12)]

    async def fill() -> None:
        legs = [free(name, 1) for name in chance.sample(names, 6)]
        await asyncio.sleep(chance.random() / 50)
        await bank.post(posting(free(SYSTEM_EXTERNAL, -6), *legs, kind=TransactionKind.DEPOSIT))
        await bank.post(posting(*legs[:3], *(free(name, -1) for name in [leg.account for leg in legs[3:]])))

    for _ in range(4):
        names = [f"{name}'" for name in names]
        assert await outcomes(fill() for _ in range(12)) == {"done": 12}
    await bank.check()


async def test_amounts_of_256_bits_survive(bank: Bank) -> None:
    large = 2**255 + 1
    await bank.deposit("alice", large, "ETH")
    hold = new_id()
    await bank.post(posting(*place_hold("alice", "ETH", large - 1, hold_id=hold)))
    assert await bank.balance("alice", "ETH") == Balance(1, large - 1)
    assert await bank.balance("alice", "ETH", at=AT) == Balance(1, large - 1)
    await bank.post(posting(*pay_from_hold("alice", "ETH", {"bob": large - 2, "alice": 1}, hold_id=hold)))
    assert await bank.balance("bob", "ETH") == Balance(large - 2)
    assert await bank.balance("alice", "ETH") == Balance(2)
    async with tenant_transaction(bank.engine, bank.tenant) as connection:
        newest, *_ = await ledger.list_transactions(connection, TransactionFilter(), before=None, limit=1)
    assert {leg.amount_minor for leg in newest.posting.legs} == {1 - large, large - 2, 1}
    await bank.check()


async def test_sums_go_beyond_64_bits(bank: Bank) -> None:
    for number in range(4):
        await bank.deposit("alice", 2**63 - 1, "ETH", AT + timedelta(days=number))
    assert (await bank.balance("alice", "ETH", at=AT + timedelta(days=2))).available_minor == 3 * (2**63 - 1)
    assert (await bank.balance("alice", "ETH")).available_minor == 4 * (2**63 - 1)
    assert (await bank.balance(SYSTEM_EXTERNAL, "ETH")).available_minor == -4 * (2**63 - 1)
    await bank.check()


async def test_a_balance_does_not_outgrow_its_column(bank: Bank) -> None:
    await bank.deposit("alice", MAX_MINOR, "ETH")
    one_more = deposit("alice", "ETH", 1, transaction_id=new_id(), effective_at=AT)
    await bank.refuses("balance_too_large", one_more)
    await bank.check()


async def test_a_transaction_is_reversed_once_whoever_asks(bank: Bank) -> None:
    made = await bank.deposit("alice", 10)
    await bank.deposit("alice", 100)
    reversals = [reverse(made, transaction_id=new_id(), effective_at=AT) for _ in range(8)]
    assert await outcomes(bank.post(each) for each in reversals) == {"done": 1, "already_reversed": 7}
    assert await bank.balance("alice") == Balance(100)
    await bank.check()


async def test_a_reversal_needs_the_money_to_be_there(bank: Bank) -> None:
    made = await bank.deposit("alice", 10)
    await bank.post(posting(*place_hold("alice", "USDC", 1, hold_id=new_id())))
    await bank.refuses("insufficient_funds", reverse(made, transaction_id=new_id(), effective_at=AT))


async def test_a_reference_is_taken_once_per_kind(bank: Bank) -> None:
    await bank.deposit("alice", 100)

    def arriving() -> Posting:
        return deposit("alice", "USDC", 1, transaction_id=new_id(), effective_at=AT, reference="wire-7")

    assert await outcomes(bank.post(arriving()) for _ in range(8)) == {"done": 1, "reference_taken": 7}
    leaving = withdrawal("alice", "USDC", 1, transaction_id=new_id(), effective_at=AT, reference="wire-7")
    await bank.post(leaving)
    async with tenant_transaction(bank.engine, bank.tenant) as connection:
        found = await ledger.find_by_reference(connection, TransactionKind.WITHDRAWAL, "wire-7")
    assert found is not None
    assert found.posting == leaving


async def test_what_was_posted_reads_back_as_it_was(bank: Bank) -> None:
    hold, escrow = new_id(), new_id()
    postings = [
        deposit(
            "alice", "ETH", 10**30, transaction_id=new_id(), effective_at=AT, reference="r", description="d \u2713"
        ),
        Posting(
            new_id(),
            TransactionKind.ESCROW_FUND,
            place_hold("alice", "ETH", 10**30 - 1, hold_id=hold),
            AT + timedelta(microseconds=1),
            escrow_id=escrow,
        ),
        withdrawal("alice", "ETH", 1, transaction_id=new_id(), effective_at=AT),
    ]
    await bank.post(*postings)
    undone = reverse(postings[2], transaction_id=new_id(), effective_at=AT)
    await bank.post(undone)
    async with tenant_transaction(bank.engine, bank.tenant) as connection:
        read = await ledger.list_transactions(connection, TransactionFilter(), before=None, limit=10)
        one = await ledger.find_transaction(connection, undone.transaction_id)
    assert [each.posting for each in read] == [undone, *postings[::-1]]
    assert one == read[0]
    assert one is not None
    assert one.posting.reverses_id == postings[2].transaction_id


async def test_transactions_are_found_by_each_filter_and_all_together(bank: Bank) -> None:
    escrow = new_id()
    first = deposit("alice", "USDC", 50, transaction_id=new_id(), effective_at=AT, reference="one")
    second = deposit("bob", "USDC", 50, transaction_id=new_id(), effective_at=AT + timedelta(days=1), reference="two")
    third = deposit("alice", "DAI", 50, transaction_id=new_id(), effective_at=AT + timedelta(days=2))
    fourth = Posting(
        new_id(),
        TransactionKind.ESCROW_FUND,
        place_hold("alice", "USDC", 5, hold_id=new_id()),
        AT + timedelta(days=3),
        escrow_id=escrow,
    )
    everything = [first, second, third, fourth]
    await bank.post(*everything)
    day = timedelta(days=1)
    cases: list[tuple[TransactionFilter, list[Posting]]] = [
        (TransactionFilter(), everything),
        (TransactionFilter(account="alice"), [first, third, fourth]),
        (TransactionFilter(account="alice", asset="DAI"), [third]),
        (TransactionFilter(account="bob", asset="DAI"), []),
        (TransactionFilter(asset="USDC"), [first, second, fourth]),
        (TransactionFilter(kind=TransactionKind.ESCROW_FUND), [fourth]),
        (TransactionFilter(escrow_id=escrow), [fourth]),
        (TransactionFilter(reference="two"), [second]),
        (TransactionFilter(effective_from=AT + day), [second, third, fourth]),
        (TransactionFilter(effective_to=AT + day), [first]),
        (TransactionFilter(effective_from=AT + day, effective_to=AT + 3 * day), [second, third]),
        (
            TransactionFilter("alice", "USDC", TransactionKind.DEPOSIT, None, "one", AT, AT + day),
            [first],
        ),
        (TransactionFilter(account="nobody"), []),
    ]
    async with tenant_transaction(bank.engine, bank.tenant) as connection:
        for wanted, expected in cases:
            pages: list[Posting] = []
            before: int | None = None
            while page := await ledger.list_transactions(connection, wanted, before=before, limit=2):
                pages += [each.posting for each in page]
                before = page[-1].sequence
            assert pages == expected[::-1], wanted


async def test_assets_are_there_from_the_start(bank: Bank) -> None:
    async with tenant_transaction(bank.engine, bank.tenant) as connection:
        found = {asset.symbol: asset.scale for asset in await ledger.list_assets(connection)}
        assert found.items() >= {"ETH": 18, "BTC": 8, "USDC": 6, "USDT": 6, "DAI": 18}.items()
        assert await ledger.find_asset(connection, "usdc") is None
        with pytest.raises(Refusal) as caught:
            await ledger.get_asset(connection, "DOGE")
    assert (caught.value.code, caught.value.field) == ("asset_unknown", "asset")
