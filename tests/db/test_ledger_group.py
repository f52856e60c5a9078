"""Many postings in one statement and one commit: each caller has its own answer, and nobody waits for company."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime
from uuid import UUID

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from db import ledger
from db.audit import AuditRecord, Origin
from db.doorbell import Doorbell
from db.engine import Role, create_engine, tenant_transaction, transaction
from db.identity import create_tenant
from db.ids import new_id
from db.ledger.group import Entry, PostingGroup
from db.outbox import SETTLEMENT_TOPIC, OutboxEvent
from db.step import Left
from domain.errors import Refusal, Unavailable
from domain.ledger import Posting, TransactionKind, deposit, transfer, withdrawal
from tests.db.raw import sql
from tests.polling import eventually

AT = datetime(2026, 5, 1, tzinfo=UTC)


class Counterparties:
    """A tenant whose postings go through one group; counts the commits that they took."""

    def __init__(self, engine: AsyncEngine, tenant: UUID, *, entries_max: int = 1_000) -> None:
        self.engine = engine
        self.tenant = tenant
        self.group = PostingGroup(engine, Doorbell(engine), entries_max=entries_max)

    async def post(self, *postings: Posting, step_id: str | None = None) -> str:
        """The id that the step answered, its own or that of its first attempt."""
        named = step_id or f"transfer:{postings[0].transaction_id}"
        facts = {"transaction_id": str(postings[0].transaction_id)}
        audit = AuditRecord("account:test", "test.moved", AT, Origin(), facts)
        told = OutboxEvent(new_id(), SETTLEMENT_TOPIC, "test.moved", "account:test", AT, facts)
        answer = await self.group.post(self.tenant, Entry(postings, Left(named, facts, audit, [told])))
        return str(answer["transaction_id"])

    async def code(self, *postings: Posting, step_id: str | None = None) -> str:
        """How a posting ended, by refusal code."""
        try:
            await self.post(*postings, step_id=step_id)
        except Refusal as refusal:
            return refusal.code
        return "done"

    async def rows(self) -> dict[str, int]:
        async with tenant_transaction(self.engine, self.tenant) as connection:
            tables = ("ledger_transactions", "audit_log", "outbox", "receipts")
            return {table: int((await sql(connection, f"SELECT count(*) FROM {table}"))[0][0]) for table in tables}

    async def available(self, account: str, asset: str = "USDC") -> int:
        async with tenant_transaction(self.engine, self.tenant) as connection:
            found = await ledger.balances(connection, account, asset=asset)
        return found[0].balance.available_minor if found else 0


def arrives(account: str, amount_minor: int, *, reference: str | None = None) -> Posting:
    return deposit(account, "USDC", amount_minor, transaction_id=new_id(), effective_at=AT, reference=reference)


def leaves(account: str, amount_minor: int) -> Posting:
    return withdrawal(account, "USDC", amount_minor, transaction_id=new_id(), effective_at=AT)


def moves(source: str, target: str, amount_minor: int) -> Posting:
    return transfer(source, target, "USDC", amount_minor, transaction_id=new_id(), effective_at=AT)


@pytest.fixture
def parties(tenants_engine: AsyncEngine, tenant: UUID) -> Counterparties:
    return Counterparties(tenants_engine, tenant)


async def test_each_chain_of_a_batch_has_its_own_answer(tenants_engine: AsyncEngine, tenant: UUID) -> None:
    chains = [
        [arrives("alice", 100)],
        [leaves("alice", 101)],
        [moves("alice", "bob", 60), moves("bob", "carol", 60)],
        [moves("alice", "bob", 10), leaves("alice", 31)],
        [leaves("alice", 40)],
        [moves("carol", "alice", 60, )],
    ]  # fmt: skip
    async with tenant_transaction(tenants_engine, tenant) as connection:
        answers = await ledger.post_each(connection, tenant, chains)
    assert [None if answer is None else answer.code for answer in answers] == [
        None,
        "insufficient_funds",
        None,
        "insufficient_funds",
        None,
        None,
    ]
    async with tenant_transaction(tenants_engine, tenant) as connection:
        posted = await sql(connection, "SELECT transaction_id FROM ledger_transactions ORDER BY sequence")
        balances = {
            name: (await ledger.balances(connection, name))[0].balance.available_minor for name in ("alice", "carol")
        }
    standing = [posting for chain, answer in zip(chains, answers, strict=True) if answer is None for posting in chain]
    assert [row[0] for row in posted] == [posting.transaction_id for posting in standing], "in the order given"
    assert balances == {"alice": 60, "carol": 0}


async def test_a_reference_is_taken_once_within_a_batch_and_across(tenants_engine: AsyncEngine, tenant: UUID) -> None:
    async def codes(*references: str) -> list[str | None]:
        async with tenant_transaction(tenants_engine, tenant) as connection:
            chains = [[arrives("alice", 1, reference=reference)] for reference in references]
            return [
                None if answer is None else answer.code for answer in await ledger.post_each(connection, tenant, chains)
            ]

    assert await codes("a", "b", "a") == [None, None, "reference_taken"]
    assert await codes("c", "b") == [None, "reference_taken"]


async def test_thousands_are_one_statement(tenants_engine: AsyncEngine, tenant: UUID) -> None:
    statements: list[str] = []
    event.listen(
        tenants_engine.sync_engine, "before_cursor_execute", lambda *said: statements.append(str(said[2])), named=False
    )
    async with tenant_transaction(tenants_engine, tenant) as connection:
        await ledger.post_each(connection, tenant, [[arrives(f"user-{n % 50}", n + 1)] for n in range(3_000)])
    assert len([said for said in statements if "INSERT INTO ledger_legs" in said]) == 1
    async with tenant_transaction(tenants_engine, tenant) as connection:
        assert (await sql(connection, "SELECT count(*), sum(amount_minor) FROM ledger_legs"))[0] == (6_000, 0)


async def test_callers_share_commits_and_have_their_own_answers(parties: Counterparties) -> None:
    await parties.post(arrives("alice", 30))
    ended = Counter(await asyncio.gather(*(parties.code(leaves("alice", 1)) for _ in range(64))))
    assert ended == {"done": 30, "insufficient_funds": 34}
    assert await parties.available("alice") == 0
    assert await parties.rows() == {"ledger_transactions": 31, "audit_log": 31, "outbox": 31, "receipts": 31}
    async with tenant_transaction(parties.engine, parties.tenant) as connection:
        commits = (await sql(connection, "SELECT count(DISTINCT xmin::text) FROM ledger_transactions"))[0][0]
    assert commits < 10, "each posting had a commit of its own"


async def test_an_idle_ledger_writes_at_once(parties: Counterparties) -> None:
    """One caller after another: each has its own commit, in its own time."""
    for _ in range(3):
        await parties.post(arrives("alice", 1))
    async with tenant_transaction(parties.engine, parties.tenant) as connection:
        assert (await sql(connection, "SELECT count(DISTINCT xmin::text) FROM ledger_transactions"))[0][0] == 3


async def test_a_step_is_booked_once_however_often_it_is_tried(parties: Counterparties) -> None:
    attempts = [arrives("alice", 5) for _ in range(8)]
    answers = await asyncio.gather(*(parties.post(attempt, step_id="transfer:same") for attempt in attempts))
    assert set(answers) == {str(attempts[0].transaction_id)}
    assert await parties.post(arrives("alice", 5), step_id="transfer:same") == answers[0]
    assert await parties.available("alice") == 5


async def test_two_processes_book_a_step_once(tenants_engine: AsyncEngine, tenant: UUID) -> None:
    groups = [Counterparties(tenants_engine, tenant) for _ in range(4)]
    answers = await asyncio.gather(
        *(group.post(arrives("alice", 5), step_id=f"transfer:{n}") for n in range(25) for group in groups)
    )
    assert len(set(answers)) == 25
    assert await groups[0].available("alice") == 125


async def test_one_that_breaks_the_statement_spoils_only_itself(parties: Counterparties) -> None:
    """A transaction id that is taken is a bug of its caller, found only when the statement is run."""
    taken = arrives("alice", 1)
    await parties.post(taken)
    broken = Posting(taken.transaction_id, TransactionKind.DEPOSIT, taken.legs, AT)
    postings = [arrives("bob", 1), broken, arrives("bob", 2)]
    steps = [parties.post(posting, step_id=f"step-{n}") for n, posting in enumerate(postings)]
    answers = await asyncio.gather(*steps, return_exceptions=True)
    assert [isinstance(answer, BaseException) for answer in answers] == [False, True, False]
    assert await parties.available("bob") == 3


async def test_tenants_do_not_wait_for_one_another(
    tenants_engine: AsyncEngine, tenant: UUID, parties: Counterparties
) -> None:
    """While one tenant's commit waits for a lock, another tenant's goes through the same group."""
    other = new_id()
    async with transaction(tenants_engine) as connection:
        assert await create_tenant(connection, new_tenant=other, name=f"test-{other}")
    await parties.post(arrives("alice", 1))
    async with tenant_transaction(tenants_engine, tenant) as blocker:
        await sql(blocker, "SELECT 1 FROM accounts WHERE ref = 'alice' FOR UPDATE")
        stuck = asyncio.create_task(parties.post(arrives("alice", 1)))
        theirs = Counterparties(tenants_engine, other)
        theirs.group = parties.group
        await asyncio.wait_for(theirs.post(arrives("alice", 7)), 3)
        assert not stuck.done()
    await asyncio.wait_for(stuck, 5)
    assert (await parties.available("alice"), await theirs.available("alice")) == (2, 7)


async def test_a_group_is_bounded(tenants_engine: AsyncEngine, tenant: UUID) -> None:
    parties = Counterparties(tenants_engine, tenant, entries_max=4)
    await asyncio.gather(*(parties.post(arrives("alice", 1)) for _ in range(20)))
    async with tenant_transaction(tenants_engine, tenant) as connection:
        sizes = await sql(connection, "SELECT count(*) FROM ledger_transactions GROUP BY xmin::text")
    assert max(int(row[0]) for row in sizes) <= 4


async def test_a_database_that_is_away_is_told_to_every_caller(tenants_engine: AsyncEngine, tenant: UUID) -> None:
    away = create_engine("postgresql://nobody@127.0.0.1:1/none", Role.APP)
    parties = Counterparties(away, tenant)
    answers = await asyncio.gather(*(parties.post(arrives("alice", 1)) for _ in range(5)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable] * 5


async def test_a_caller_that_gives_up_holds_nobody(parties: Counterparties) -> None:
    first = asyncio.create_task(parties.post(arrives("alice", 1)))
    second = asyncio.create_task(parties.post(arrives("alice", 1)))
    await asyncio.sleep(0)
    second.cancel()
    await first
    await parties.post(arrives("alice", 1))

    async def drained() -> bool:
        return not parties.group._waiting

    await eventually(drained)
    assert await parties.available("alice") >= 2
