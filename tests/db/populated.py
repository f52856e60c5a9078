"""A tenant with rows in every table, all of them made by the code itself."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import ActivityEnvironment

from activities.escrow.messages import ApproveMessage, DisputeMessage, FundMessage, ReleaseMessage
from activities.transfers.messages import OpenPendingTransfer, PendingTerms, RecordPending
from activities.transfers.steps import PendingTransferActivities
from db import controls, idempotency, identity
from db.alerts import attempts, notifications
from db.alerts.attempts import Entry, Phase
from db.doorbell import Doorbell
from db.engine import tenant_transaction, transaction
from db.ids import new_id
from db.margin import escrows
from db.reconciliation import runs
from db.webhooks import reports, writing
from db.webhooks.writing import NewDelivery
from domain.alerts.model import Alert, AlertType, Channel, Policy, Preferences, Severity
from domain.controls import Freeze, FreezeScope
from domain.identity import Scope, hash_key
from domain.reconciliation import Finding
from domain.webhooks.endpoint import DisabledReason, EndpointStatus
from tests.activities.margin import Checks, owes, owns
from tests.activities.reconciling import Reconciler
from tests.activities.steps import T0, Steps
from tests.alerting import Alerting
from tests.chain.rows import fetch, follow
from tests.commands import command, take
from tests.desk import BUYER, SELLER, terms
from tests.hooks import subscribe


async def populate(engine: AsyncEngine) -> UUID:
    """A new tenant whose desk has been busy; both tenants made so use the same names for their own things. Assets need
    prices."""
    tenant = new_id()
    async with transaction(engine) as connection:
        assert await identity.create_tenant(connection, new_tenant=tenant, name=f"populated-{tenant}")
    steps = Steps(engine, tenant, ActivityEnvironment())
    deposit = await steps.deposit(BUYER, 9_000_000, reference="wire-1")
    await steps.withdraw(BUYER, 1_000, reference="payout-1")
    await steps.reverse((await steps.deposit(SELLER, 5)).transaction_id)
    assert deposit.transaction_id is not None
    wanted = terms(1_000_000, 2_000_000, seller_fee_basis_points=100, reference="order-1", inspection_period_seconds=60)
    escrow = await steps.open(wanted)
    await steps.apply(escrow, BUYER, FundMessage())
    await steps.apply(escrow, BUYER, ApproveMessage(positions=(1,)))
    await steps.apply(escrow, BUYER, ReleaseMessage(positions=(1,)))
    await steps.apply(escrow, SELLER, DisputeMessage(reason="no answer", positions=(2,)))
    await steps.open(terms(7))
    await take(engine, tenant, [command("deposit", command_id="cmd-1")])
    await _transfers_and_freezes(engine, tenant, steps)
    await _reconciled(engine, tenant)
    await Checks(engine, tenant).check(owns("ETH", 1), owes("USDC", 1_500))
    async with tenant_transaction(engine, tenant) as connection:
        await escrows.set_setting(connection, tenant, "buyer")
    await _hooked(engine, tenant)
    await _alerted(engine, tenant)
    await follow(engine, tenant)
    async with tenant_transaction(engine, tenant) as connection:
        key = identity.NewKey(new_id(), hash_key(f"key of {tenant}"), "hf_", "last", "first", [Scope.ESCROWS_READ])
        await identity.create_key(connection, tenant, key)
        for name in ("answered", "in flight"):
            claim = await idempotency.begin(
                connection,
                tenant=tenant,
                caller="",
                key=name,
                fingerprint=bytes(32),
                operation_id=new_id(),
                lease_seconds=int(timedelta(minutes=1).total_seconds()),
            )
            if name == "answered":
                answer = idempotency.StoredResponse(201, {"X": "1"}, b"{}")
                await idempotency.finish(
                    connection, tenant=tenant, caller="", key=name, operation_id=claim.operation_id, response=answer
                )
    return tenant


async def publish(engine: AsyncEngine, *tenants: UUID) -> None:
    """What the relay's side leaves: ``engine`` is the role that sees every tenant."""
    for tenant in tenants:
        await fetch(engine, tenant)
    async with transaction(engine) as connection:
        await connection.execute(
            text(
                "INSERT INTO publications (tenant_id, event_id, stream, sequence)"
                " SELECT tenant_id, event_id, 'test', outbox_id FROM outbox WHERE tenant_id = ANY(:tenants)"
            ),
            {"tenants": list(tenants)},
        )
        await connection.execute(
            text(
                "INSERT INTO margin_audit_findings (tenant_id, finding_id, user_id, account_version, told_level,"
                " strict_level, rearmed_level, price_tick, parameter_version)"
                " SELECT tenant_id, uuidv7(), user_id, version, 0, 1, 1, 1, 1 FROM margin_accounts"
                " WHERE tenant_id = ANY(:tenants)"
            ),
            {"tenants": list(tenants)},
        )
        await connection.execute(
            text(
                "INSERT INTO webhook_attempts (tenant_id, subscription_id, message_id, number, url, started_at)"
                " SELECT tenant_id, subscription_id, message_id, 1, 'https://example.com/', now()"
                " FROM webhook_deliveries WHERE tenant_id = ANY(:tenants)"
            ),
            {"tenants": list(tenants)},
        )
        await connection.execute(
            text(
                "INSERT INTO mailbox_messages (tenant_id, message_id, channel, address, body)"
                " SELECT tenant_id, attempt_id, 'email', 'alice@example.com', 'a text' FROM alert_attempts"
                " WHERE phase = 'begun' AND tenant_id = ANY(:tenants) ON CONFLICT DO NOTHING"
            ),
            {"tenants": list(tenants)},
        )


async def _hooked(engine: AsyncEngine, tenant: UUID) -> None:
    """An endpoint to which nothing is sent, with a delivery and a replay."""
    hook = await subscribe(
        engine,
        tenant,
        "https://example.com/",
        status=EndpointStatus.DISABLED,
        disabled_reason=DisabledReason.ASKED,
        disabled_at=T0,
    )
    async with tenant_transaction(engine, tenant) as connection:
        delivery = NewDelivery(tenant, hook.id, new_id(), None, "webhook.test", f"webhook:{hook.id}", "{}")
        await writing.add(connection, [delivery], writing.Origin.TEST)
        await reports.add_replay(
            connection, tenant, hook.id, new_id(), from_at=T0, to_at=T0 + timedelta(days=1), undelivered_only=True
        )


async def _alerted(engine: AsyncEngine, tenant: UUID) -> None:
    """An alert on its way to a contact, with wishes and a policy."""
    alerting = Alerting(engine, tenant)
    await alerting.contact(Channel.EMAIL)
    await alerting.wishes(Preferences(locale="de"))
    await alerting.policy("margin_call", Policy())
    told = Alert(
        tenant, new_id(), BUYER, AlertType.CALL, Severity.HIGH, Policy(), {"health_score": "1.1"}, raised_at=T0
    )
    async with tenant_transaction(engine, tenant) as connection:
        await notifications.add(connection, [(told, bytes(32))])
        begun = Entry(new_id(), told.notification_id, Phase.BEGUN, 1, T0, attempt_id=new_id(), channel=Channel.EMAIL)
        await attempts.append(connection, tenant, [begun])


async def _reconciled(engine: AsyncEngine, tenant: UUID) -> None:
    """A run over the tenant's books, with something that it found."""
    reconciler = Reconciler(engine, engine, tenant)
    request, plan = await reconciler.begin()
    compared = [await reconciler.compare(request, plan, area) for area in plan.areas]
    found = Finding("hold_orphaned", f"hold:{tenant}", "a finding for tests", asset="USDC", expected=0, actual=1)
    async with tenant_transaction(engine, tenant) as connection:
        await runs.record(connection, tenant, request.run_id, "holds", [found])
    await reconciler.finish(request, plan, compared)


async def _transfers_and_freezes(engine: AsyncEngine, tenant: UUID, steps: Steps) -> None:
    """A transfer that is pending, and a freeze that stands in nobody's way."""
    pending = PendingTransferActivities(engine, Doorbell(engine))
    wanted = PendingTerms(source=BUYER, target=SELLER, asset="USDC", amount_minor=7)
    opening = OpenPendingTransfer(tenant_id=tenant, transfer_id=new_id(), terms=wanted)
    await steps.environment.run(pending.open, RecordPending(opening=opening, at=T0))
    async with tenant_transaction(engine, tenant) as connection:
        await controls.place(connection, tenant, Freeze(new_id(), FreezeScope.ACCOUNT, "mallory", "stolen key", T0))
