"""Settlement commands against the ledger: a transaction exactly where one is settled, and none that waits for ever.

The rows are written as they would stand, without the event that would have them worked off.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from db.ids import new_id
from kit.clock import now
from tests.activities.reconciling import Reconciler, tamper
from tests.activities.steps import Steps
from tests.desk import BUYER

MINUTE = timedelta(minutes=1)


@pytest.fixture
def reconciler(tenants_engine: AsyncEngine, engine: AsyncEngine, tenant: UUID) -> Reconciler:
    return Reconciler(tenants_engine, engine, tenant, keys=2)


async def write(
    owner: AsyncEngine, tenant: UUID, name: str, status: str = "SETTLED", received_at: datetime | None = None
) -> UUID:
    """A deposit of 7 to alice, as it stands; answers the id of its transaction."""
    transaction_id = new_id()
    await tamper(
        owner,
        "INSERT INTO settlement_commands (tenant_id, command_id, workflow_id, kind, account_ref, asset_symbol,"
        " amount_numeric, amount_minor, fingerprint, transaction_id, status, code, received_at, processing_at,"
        " finished_at) SELECT :tenant, :name, 'settlement', 'deposit', 'alice', 'USDC', 0.000007, 7, sha256('x'),"
        " :transaction, :status, CASE WHEN :status = 'REJECTED' THEN 'x' END, :at,"
        " CASE WHEN :status <> 'RECEIVED' THEN now() END, CASE WHEN :status IN ('SETTLED', 'REJECTED') THEN now() END",
        tenant=tenant,
        name=name,
        transaction=transaction_id,
        status=status,
        at=received_at or now(),
    )
    return transaction_id


async def test_a_command_has_its_transaction_when_it_is_settled_and_never_else(
    steps: Steps, reconciler: Reconciler, owner_engine: AsyncEngine
) -> None:
    settled = await write(owner_engine, steps.tenant, "settled")
    missing = await write(owner_engine, steps.tenant, "missing")
    rejected = await write(owner_engine, steps.tenant, "rejected", "REJECTED")
    await steps.deposit(BUYER, 7, transfer_id=settled)
    outcome = await reconciler.run()
    assert await reconciler.codes(outcome.run_id) == {("command_transaction_missing", "command:missing")}
    await steps.deposit(BUYER, 8, transfer_id=missing)
    await steps.deposit(BUYER, 7, transfer_id=rejected)
    outcome = await reconciler.run(full=False)
    standing = {
        (each.finding.code, each.finding.subject, each.finding.expected, each.finding.actual)
        for each in await reconciler.findings(outcome.run_id)
        if each.resolved_at is None
    }
    assert standing == {
        ("command_amount_differs", "command:missing", 7, 8),
        ("command_transaction_unexpected", "command:rejected", 0, 1),
    }


async def test_a_command_without_an_outcome_is_explained_for_a_while(
    steps: Steps, reconciler: Reconciler, owner_engine: AsyncEngine
) -> None:
    await steps.deposit(BUYER, 5)
    for minutes, name in {0: "now", 5: "late", 60: "lost"}.items():
        status = "PROCESSING" if minutes else "RECEIVED"
        await write(owner_engine, steps.tenant, name, status, received_at=now() - minutes * MINUTE)
    outcome = await reconciler.run()
    found = {each.finding.subject: each.finding.explanation for each in await reconciler.findings(outcome.run_id)}
    assert {subject: why is not None for subject, why in found.items()} == {
        "command:late": True,
        "command:lost": False,
    }
    assert (outcome.explained, outcome.unexplained) == (1, 1)
