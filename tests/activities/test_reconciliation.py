"""Reconciliation on the real database: a clean book agrees, every tampering is found and named, and nothing is found
that is only in motion."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.escrow.messages import (
    ApproveMessage,
    CancelMessage,
    DisputeMessage,
    FundMessage,
    PassDeadlineMessage,
    RefundMessage,
    ReleaseMessage,
    ResolveMessage,
)
from db import ledger
from db.engine import tenant_transaction
from db.ids import new_id
from domain.ledger import Posting, TransactionKind, place_hold
from kit.clock import now
from tests.activities.reconciling import Reconciler, tamper
from tests.activities.steps import FEES, JUDGED, Steps
from tests.desk import ARBITER, BUYER, SELLER, terms

MINUTE = timedelta(minutes=1)


@pytest.fixture
def reconciler(tenants_engine: AsyncEngine, engine: AsyncEngine, tenant: UUID) -> Reconciler:
    return Reconciler(tenants_engine, engine, tenant, ledger=7, keys=3, escrows=2)


async def stories(steps: Steps) -> dict[str, UUID]:
    """Escrows at every stage of their lives, with fees that do not divide."""
    await steps.deposit(BUYER, 90_000_000)
    await steps.withdraw(BUYER, 1_000)
    await steps.reverse((await steps.deposit(SELLER, 5)).transaction_id)
    made: dict[str, UUID] = {}

    async def play(name: str, *commands: tuple[str | None, Any], **changes: Any) -> None:
        made[name] = await steps.open(terms(1_000_003, 777_777, **FEES, **changes))
        for user, command in commands:
            await steps.apply(made[name], user, command)

    fund, approve = (BUYER, FundMessage()), (BUYER, ApproveMessage())
    await play("created")
    await play("cancelled", (BUYER, CancelMessage()))
    await play("funded", fund)
    await play("half funded", (BUYER, FundMessage(positions=(1,))))
    await play("approved", fund, approve)
    await play("completed", fund, approve, (BUYER, ReleaseMessage()))
    parts = [(BUYER, ReleaseMessage(positions=(1,), amount_minor=amount)) for amount in (1, 333_333, 7)]
    await play("partly released", fund, approve, *parts, (SELLER, RefundMessage(positions=(1,), amount_minor=99)))
    await play("refunded", fund, (SELLER, RefundMessage()))
    await play("disputed", fund, (BUYER, DisputeMessage(reason="late")), **JUDGED)
    split = (ARBITER, ResolveMessage(to_seller_minor=400_000, to_buyer_minor=600_003, position=1))
    await play("resolved", fund, (BUYER, DisputeMessage(reason="late")), split, **JUDGED)
    made["expired"] = await steps.open(terms(10, 11, expires_at=now() + MINUTE))
    await steps.apply(made["expired"], BUYER, FundMessage(positions=(1,)))
    await steps.apply(made["expired"], None, PassDeadlineMessage(), at=now() + 2 * MINUTE)
    return made


async def test_a_busy_desk_agrees_with_its_ledger(steps: Steps, reconciler: Reconciler) -> None:
    made = await stories(steps)
    for full in (True, False, True):
        outcome = await reconciler.run(full=full)
        assert await reconciler.codes(outcome.run_id) == set()
        assert (outcome.explained, outcome.unexplained, outcome.share_explained) == (0, 0, "1.000000")
    posted = len(await steps.transactions())
    [row] = await steps.sql("SELECT * FROM reconciliation_runs WHERE run_id = :run", run=outcome.run_id)
    assert (row.status, row.is_full) == ("finished", True)
    checked = {area: figures["checked"] for area, figures in row.areas.items()}
    [(accounts, holds)] = await steps.sql("SELECT (SELECT count(*) FROM accounts), (SELECT count(*) FROM holds)")
    assert checked == {
        "ledger": posted,
        "accounts": accounts,
        "holds": holds,
        "escrows": len(made),
        "transfers": 0,
        "commands": 0,
        "assets": 1,
    }
    assert outcome.checked == sum(checked.values())


async def test_a_run_leaves_events_and_audit(steps: Steps, reconciler: Reconciler) -> None:
    await steps.deposit(BUYER, 5)
    outcome = await reconciler.run()
    subject = f"reconciliation:{outcome.run_id}"
    acts = await steps.sql("SELECT action, workflow_id FROM audit_log WHERE subject = :s ORDER BY audit_id", s=subject)
    workflow_id = f"reconciliation:{steps.tenant}:{outcome.run_id}"
    assert [tuple(act) for act in acts] == [
        ("ledger.reconciliation_started", workflow_id),
        ("ledger.reconciled", workflow_id),
    ]
    [event] = await steps.sql("SELECT topic, type, data FROM outbox WHERE subject = :s", s=subject)
    assert (event.topic, event.type) == ("settlement.events.v1", "ledger.reconciled")
    assert event.data["share_explained"] == "1.000000"
    assert event.data["areas"]["ledger"] == {"checked": 1, "explained": 0, "unexplained": 0}


#: What is edited behind the code's back, what must be found, and on which subject.
TAMPERINGS: dict[str, tuple[str, set[tuple[str, str]]]] = {
    "a balance": (
        "UPDATE accounts SET available_minor = available_minor + 1 WHERE tenant_id = :tenant AND ref = 'bob'",
        {("available_differs", "account:bob"), ("trial_balance_differs", "asset:USDC")},
    ),
    "a held balance": (
        "UPDATE accounts SET available_minor = available_minor + 1, held_minor = held_minor - 1"
        " WHERE tenant_id = :tenant AND ref = 'alice'",
        {("available_differs", "account:alice"), ("held_differs", "account:alice")},
    ),
    "a leg": (
        "UPDATE ledger_legs SET amount_minor = amount_minor + 1 WHERE tenant_id = :tenant AND transaction_id ="
        " :release AND amount_minor > 0 AND account_id ="
        " (SELECT account_id FROM accounts WHERE tenant_id = :tenant AND ref = 'bob')",
        {
            ("legs_unbalanced", "transaction:{release}"),
            ("available_differs", "account:bob"),
            ("escrow_paid_differs", "escrow:{completed}"),
        },
    ),
    "a leg that is gone": (
        "DELETE FROM ledger_legs WHERE tenant_id = :tenant AND transaction_id = :release AND leg_no = 1",
        {
            ("legs_missing", "transaction:{release}"),
            ("legs_unbalanced", "transaction:{release}"),
            ("held_differs", "account:alice"),
            ("hold_remaining_differs", "hold:{hold}"),
            ("escrow_paid_differs", "escrow:{completed}"),
        },
    ),
    "a hold": (
        "UPDATE holds SET remaining_minor = remaining_minor - 1 WHERE tenant_id = :tenant AND hold_id = :held",
        {("hold_remaining_differs", "hold:{held}"), ("milestone_remaining_differs", "escrow:{funded}")},
    ),
    "what a hold took in": (
        "UPDATE holds SET placed_minor = placed_minor + 1 WHERE tenant_id = :tenant AND hold_id = :held",
        {("hold_placed_differs", "hold:{held}"), ("milestone_placed_differs", "escrow:{funded}")},
    ),
    "a hold that is nobody's": (
        "UPDATE holds SET escrow_id = NULL WHERE tenant_id = :tenant AND hold_id = :held",
        {("hold_orphaned", "hold:{held}")},
    ),
    "what was released": (
        "UPDATE escrow_milestones SET released_minor = released_minor + 5 WHERE tenant_id = :tenant"
        " AND escrow_id = :partly AND position = 1",
        {
            ("milestone_remaining_differs", "escrow:{partly}"),
            ("escrow_paid_differs", "escrow:{partly}"),
        },
    ),
    "what was refunded of a milestone that is closed": (
        "UPDATE escrow_milestones SET released_minor = 0, refunded_minor = 5 WHERE tenant_id = :tenant"
        " AND escrow_id = :completed AND position = 1",
        {
            ("milestone_settled_differs", "escrow:{completed}"),
            ("escrow_paid_differs", "escrow:{completed}"),
        },
    ),
    "an escrow's status": (
        "UPDATE escrows SET status = 'approved' WHERE tenant_id = :tenant AND escrow_id = :funded",
        {("escrow_status_differs", "escrow:{funded}")},
    ),
    "an escrow closed over its money": (
        "WITH e AS (UPDATE escrows SET status = 'cancelled', closed_at = now() WHERE tenant_id = :tenant"
        " AND escrow_id = :funded) UPDATE escrow_milestones SET status = 'cancelled', closed_at = now()"
        " WHERE tenant_id = :tenant AND escrow_id = :funded",
        {
            ("milestone_settled_differs", "escrow:{funded}"),
            ("closed_escrow_holds", "escrow:{funded}"),
            ("escrow_paid_differs", "escrow:{funded}"),
        },
    ),
    "an event": (
        "DELETE FROM outbox WHERE tenant_id = :tenant AND subject = 'escrow:' || CAST(CAST(:completed AS uuid) AS text)"
        " AND data -> 'transactions' ? 'escrow_release'",
        {("movement_untold", "escrow:{completed}")},
    ),
    "an audit record": (
        "DELETE FROM audit_log WHERE tenant_id = :tenant AND subject = 'escrow:'"
        " || CAST(CAST(:completed AS uuid) AS text) AND action = 'escrow.release'",
        {("movement_untold", "escrow:{completed}")},
    ),
    "a whole transaction": (
        "WITH l AS (DELETE FROM ledger_legs WHERE tenant_id = :tenant AND transaction_id = :release)"
        " DELETE FROM ledger_transactions WHERE tenant_id = :tenant AND transaction_id = :release",
        {
            ("available_differs", "account:bob"),
            ("available_differs", "account:system:fees"),
            ("held_differs", "account:alice"),
            ("hold_remaining_differs", "hold:{hold}"),
            ("hold_remaining_differs", "hold:{hold_2}"),
            ("escrow_paid_differs", "escrow:{completed}"),
        },
    ),
}


@pytest.mark.parametrize("name", TAMPERINGS)
async def test_what_is_edited_is_found_and_named(
    steps: Steps, reconciler: Reconciler, owner_engine: AsyncEngine, name: str
) -> None:
    made = await stories(steps)
    assert (await reconciler.run()).unexplained == 0
    statement, wanted = TAMPERINGS[name]
    ids: dict[str, Any] = {
        "tenant": steps.tenant,
        "funded": made["funded"],
        "completed": made["completed"],
        "partly": made["partly released"],
    }
    ids["release"] = next(
        each.posting.transaction_id
        for each in await steps.transactions()
        if each.posting.escrow_id == made["completed"] and each.posting.kind is TransactionKind.ESCROW_RELEASE
    )
    milestones = "SELECT milestone_id FROM escrow_milestones WHERE escrow_id = :escrow ORDER BY position"
    ids["hold"], ids["hold_2"] = [row[0] for row in await steps.sql(milestones, escrow=made["completed"])]
    ids["held"] = (await steps.sql(milestones, escrow=made["funded"]))[0][0]
    await tamper(owner_engine, statement, **{key: value for key, value in ids.items() if f":{key}" in statement})
    outcome = await reconciler.run()
    found = await reconciler.findings(outcome.run_id)
    assert {(each.finding.code, each.finding.subject) for each in found} == {
        (code, subject.format(**ids)) for code, subject in wanted
    }
    assert all(each.finding.explanation is None for each in found)
    assert outcome.unexplained == len({each.finding.subject for each in found})
    assert outcome.share_explained < "1.000000"
    told = await steps.sql("SELECT data ->> 'finding_id' FROM outbox WHERE type = 'ledger.difference_found'")
    assert {UUID(row[0]) for row in told} == {each.finding_id for each in found}


async def test_amounts_are_told_and_a_difference_is_told_once_and_resolved(
    steps: Steps, reconciler: Reconciler, owner_engine: AsyncEngine
) -> None:
    await steps.deposit(BUYER, 5_000_000)
    change = "UPDATE accounts SET available_minor = available_minor + :by WHERE tenant_id = :tenant AND ref = 'alice'"
    await tamper(owner_engine, change, tenant=steps.tenant, by=1)
    first, second = await reconciler.run(), await reconciler.run(full=False)
    [finding] = [each for each in await reconciler.findings(second.run_id) if each.area == "accounts"]
    assert (finding.finding.expected, finding.finding.actual, finding.finding.asset) == (5_000_000, 5_000_001, "USDC")
    assert (finding.first_run_id, finding.last_run_id, finding.resolved_at) == (first.run_id, second.run_id, None)
    told = await steps.sql("SELECT subject, data FROM outbox WHERE type = 'ledger.difference_found' ORDER BY subject")
    assert [row.subject for row in told] == ["account:alice", "asset:USDC"]
    assert (told[0].data["expected"], told[0].data["actual"]) == ("5.000000", "5.000001")
    await tamper(owner_engine, change, tenant=steps.tenant, by=-1)
    assert (await reconciler.run(full=False)).unexplained == 0
    assert [each.resolved_at is None for each in await reconciler.findings(second.run_id)] == [False, False]


async def test_a_run_that_reads_what_is_new_does_not_absolve_the_old(
    steps: Steps, reconciler: Reconciler, owner_engine: AsyncEngine
) -> None:
    posted = (await steps.deposit(BUYER, 5)).transaction_id
    change = "UPDATE ledger_transactions SET leg_count = 3 WHERE tenant_id = :tenant AND transaction_id = :id"
    await tamper(owner_engine, change, tenant=steps.tenant, id=posted)
    wanted = {("legs_missing", f"transaction:{posted}")}
    assert await reconciler.codes((await reconciler.run()).run_id) == wanted
    assert (await reconciler.run(full=False)).checked == 3, "two accounts and an asset; no transaction is new"
    open_ = await steps.sql("SELECT code FROM reconciliation_findings WHERE resolved_at IS NULL")
    assert [row.code for row in open_] == ["legs_missing"]


async def test_a_deadline_that_waits_is_explained_until_it_waited_too_long(
    steps: Steps, reconciler: Reconciler
) -> None:
    await steps.deposit(BUYER, 5)
    late = {
        minutes: await steps.open(terms(5, expires_at=now() - minutes * MINUTE), at=now() - 120 * MINUTE)
        for minutes in (1, 10, 60)
    }
    outcome = await reconciler.run()
    found = {each.finding.subject: each.finding for each in await reconciler.findings(outcome.run_id)}
    assert {subject: each.explanation is not None for subject, each in found.items()} == {
        f"escrow:{late[10]}": True,
        f"escrow:{late[60]}": False,
    }
    assert {each.code for each in found.values()} == {"escrow_overdue"}
    assert (outcome.checked, outcome.explained, outcome.unexplained) == (7, 1, 1)
    assert outcome.share_explained == "0.857142"
    async with tenant_transaction(steps.engine, steps.tenant) as connection:
        await connection.execute(
            text(
                "INSERT INTO freezes (tenant_id, freeze_id, scope, ref, reason, frozen_at)"
                " VALUES (:tenant, :id, 'account', 'bob', 'court order', now())"
            ),
            {"tenant": steps.tenant, "id": new_id()},
        )
    outcome = await reconciler.run()
    assert (outcome.explained, outcome.unexplained, outcome.share_explained) == (2, 0, "1.000000")
    assert all("freeze" in (each.finding.explanation or "") for each in await reconciler.findings(outcome.run_id))


async def test_a_transfer_in_two_phases_is_compared_with_its_hold(steps: Steps, reconciler: Reconciler) -> None:
    await steps.deposit(BUYER, 100)
    transfer_id, held_by = new_id(), new_id()
    async with tenant_transaction(steps.engine, steps.tenant) as connection:
        legs = place_hold(BUYER, "USDC", 40, hold_id=transfer_id)
        await ledger.post(connection, steps.tenant, [Posting(held_by, TransactionKind.TRANSFER_HOLD, legs, now())])
    outcome = await reconciler.run()
    assert await reconciler.codes(outcome.run_id) == {("hold_orphaned", f"hold:{transfer_id}")}
    async with tenant_transaction(steps.engine, steps.tenant) as connection:
        await connection.execute(
            text(
                "INSERT INTO pending_transfers (tenant_id, transfer_id, debit_ref, credit_ref, asset, amount_minor,"
                " status, expires_at, created_at, hold_transaction_id) VALUES (:tenant, :id, 'alice', 'bob', 'USDC',"
                " 40, 'PENDING', now() + interval '1 hour', now(), :transaction)"
            ),
            {"tenant": steps.tenant, "id": transfer_id, "transaction": held_by},
        )
    assert (await reconciler.run()).unexplained == 0
    async with tenant_transaction(steps.engine, steps.tenant) as connection:
        await connection.execute(
            text(
                "UPDATE pending_transfers SET status = 'POSTED', posted_minor = 40, resolved_at = now(),"
                " resolution_transaction_id = :none WHERE transfer_id = :id"
            ),
            {"id": transfer_id, "none": new_id()},
        )
    outcome = await reconciler.run()
    subject = f"transfer:{transfer_id}"
    assert await reconciler.codes(outcome.run_id) == {
        ("transfer_hold_differs", subject),
        ("transfer_paid_differs", subject),
    }


async def test_one_tenants_books_say_nothing_of_anothers(
    steps: Steps, reconciler: Reconciler, tenants_engine: AsyncEngine, engine: AsyncEngine
) -> None:
    await steps.deposit(BUYER, 5)
    await reconciler.run()
    async with tenant_transaction(tenants_engine, new_id()) as connection:
        for table in ("runs", "bases", "accounts"):
            assert (await connection.execute(text(f"SELECT 1 FROM reconciliation_{table}"))).all() == []


async def test_old_sums_go_when_a_full_run_replaced_them(steps: Steps, reconciler: Reconciler) -> None:
    await stories(steps)
    for _ in range(2):
        last = await reconciler.run()
    for table in ("bases", "accounts", "holds"):
        books = await steps.sql(f"SELECT DISTINCT base_id FROM reconciliation_{table}")
        assert [row.base_id for row in books] == [last.run_id]
