"""Alerts on the real servers: an event of margin reaches the mailbox, climbs, is acknowledged, and is over."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError
from temporalio.worker import Worker

from db import outbox
from db.alerts.attempts import Phase
from db.alerts.notifications import Stored
from db.doorbell import Doorbell
from db.engine import tenant_transaction, transaction
from db.ids import new_id
from db.outbox import MARGIN_TOPIC, SETTLEMENT_TOPIC, OutboxEvent
from domain.alerts.model import OPERATORS, Channel, DeliveryState, Ending, Policy, Severity, Status, Step
from domain.errors import Refusal
from domain.ids import alert_workflow_id
from kit.clock import now
from tests.alerting import ADDRESSES, QUICK, SLOW, USER, Alerting
from tests.desk import TASK_QUEUE
from tests.polling import eventually
from workflows.alerts import AcknowledgeAlert
from workflows.alerts.client import AlertClient
from workflows.alerts.watch import AlertWatchWorkflow


@pytest.fixture
def alerting(worker: Worker, tenants_engine: AsyncEngine, tenant: UUID) -> Alerting:
    return Alerting(tenants_engine, tenant)


@pytest.fixture
def client(temporal: Client) -> AlertClient:
    return AlertClient(temporal, TASK_QUEUE)


def noted(by: str = USER) -> AcknowledgeAlert:
    return AcknowledgeAlert(command_id=new_id(), by=by, via="api")


def all_delivered(found: list[Stored]) -> bool:
    return bool(found) and all(one.status is Status.DELIVERED and settled(one) for one in found)


def settled(found: Stored) -> bool:
    return {each.state for each in found.alert.deliveries} <= {DeliveryState.DELIVERED, DeliveryState.CANCELLED}


async def test_an_event_of_margin_reaches_its_user(alerting: Alerting) -> None:
    await alerting.contact(Channel.EMAIL)
    [event_id] = await alerting.happen("margin_warning")
    [found] = await alerting.until(all_delivered)
    assert (found.alert.margin_event_id, found.alert.severity) == (event_id, Severity.MEDIUM)
    [mail] = await alerting.box()
    assert (mail.channel, mail.address) == ("email", ADDRESSES[Channel.EMAIL])
    assert mail.subject == "Margin warning: health 1.1900"
    assert "Repay 1000.000000 USDC" in mail.body
    assert found.message_body == mail.body
    begun, ended = await alerting.log(found.notification_id)
    assert (begun.entry.phase, begun.entry.attempt_id) == ("begun", mail.message_id)
    assert (ended.entry.phase, ended.entry.outcome, ended.entry.reference) == (
        "ended",
        "delivered",
        str(mail.message_id),
    )
    assert begun.recorded_at < mail.recorded_at < ended.recorded_at


async def test_what_is_acknowledged_is_quiet(alerting: Alerting, client: AlertClient, temporal: Client) -> None:
    await alerting.contact(Channel.EMAIL)
    await alerting.policy("margin_call", SLOW)
    await alerting.happen("margin_call")
    [found] = await alerting.until(all_delivered)
    command = noted()
    outcome = await client.acknowledge(alerting.tenant, found.notification_id, command)
    assert (outcome.status, outcome.acknowledged_by) == (Status.ACKNOWLEDGED, USER)
    assert await client.acknowledge(alerting.tenant, found.notification_id, command) == outcome
    second = await client.acknowledge(alerting.tenant, found.notification_id, noted("bob"))
    assert second == outcome, "who comes second is told who was first"
    run = temporal.get_workflow_handle(alert_workflow_id(found.notification_id))
    await run.result()
    assert len(await alerting.box()) == 1
    after = await client.acknowledge(alerting.tenant, found.notification_id, noted("carol"))
    assert after.acknowledged_by == USER, "a run that is gone comes back to answer"
    assert [one.entry.phase for one in await alerting.log(found.notification_id)] == ["begun", "ended", "acknowledged"]


async def test_it_climbs_until_its_steps_are_done(alerting: Alerting, client: AlertClient) -> None:
    await alerting.contact(Channel.EMAIL)
    await alerting.contact(Channel.SMS)
    await alerting.policy("margin_call", QUICK)
    await alerting.happen("margin_call")

    def climbed(found: list[Stored]) -> bool:
        return len(found) == 1 and len(found[0].alert.deliveries) == 6 and all_delivered(found)

    [found] = await alerting.until(climbed)
    assert [(each.step, each.channel) for each in found.alert.deliveries] == [
        (0, "email"),
        (1, "email"),
        (1, "sms"),
        (2, "email"),
        (3, "email"),
        (3, "sms"),
    ]
    assert found.alert.step_at is None
    texts = [one.body for one in await alerting.box() if one.channel == "sms"]
    assert all(len(text) <= 160 and "Reply OK" in text for text in texts)
    outcome = await client.acknowledge(alerting.tenant, found.notification_id, noted())
    assert outcome.status is Status.ACKNOWLEDGED


async def test_an_acknowledgement_ends_the_climb(alerting: Alerting, client: AlertClient) -> None:
    await alerting.contact(Channel.EMAIL)
    await alerting.policy("margin_call", Policy(must_acknowledge=True, steps=QUICK.steps, repeat=50, repeat_seconds=1))
    await alerting.happen("margin_call")
    [found] = await alerting.until(lambda found: bool(found) and len(found[0].alert.deliveries) >= 3)
    await client.acknowledge(alerting.tenant, found.notification_id, noted())
    before = len(await alerting.box())
    await asyncio.sleep(2.5)  # two more steps would have come
    assert len(await alerting.box()) == before
    log = await alerting.log(found.notification_id)
    place = [one.entry.phase for one in log].index(Phase.ACKNOWLEDGED)
    assert Phase.BEGUN not in [one.entry.phase for one in log[place:]]


async def test_a_recovery_closes_the_alert_and_says_so(alerting: Alerting, client: AlertClient) -> None:
    await alerting.contact(Channel.EMAIL)
    await alerting.contact(Channel.SMS)
    await alerting.policy("liquidation_imminent", SLOW)
    await alerting.happen("liquidation_imminent")
    [first] = await alerting.until(all_delivered)
    await alerting.happen("margin_recovered")
    first, over = await alerting.until(lambda found: len(found) == 2 and all_delivered(found))
    assert (first.alert.ended, over.alert.alert_type) == (Ending.RECOVERED, "margin_recovered")
    assert [each.channel for each in over.alert.deliveries] == ["email", "sms"], "on the ways that were used"
    with pytest.raises(Refusal, match="alert_closed"):
        await client.acknowledge(alerting.tenant, first.notification_id, noted())
    await alerting.happen("margin_recovered", "margin_warning")
    await alerting.until(lambda found: len(found) == 3)
    assert [one.alert.alert_type for one in await alerting.alerts()][-1] == "margin_warning", "nothing was to close"


async def test_bursts_are_one_alert_and_a_worse_one_breaks_the_window(alerting: Alerting) -> None:
    await alerting.contact(Channel.EMAIL)
    window = Policy(window_seconds=3)
    await alerting.policy("margin_warning", window)
    await alerting.policy("margin_call", SLOW)
    await alerting.happen(*["margin_warning"] * 5)
    [one] = await alerting.until(all_delivered)
    assert one.alert.occurrences == 5
    await alerting.happen("margin_warning", "margin_warning")

    def told_again(found: list[Stored]) -> bool:
        return len(found) == 1 and found[0].alert.told == 7 and all_delivered(found)

    await alerting.until(told_again)
    first, second = await alerting.box()
    assert "happened 5 times" in first.body
    assert "happened 7 times" in second.body
    await alerting.happen("margin_warning")
    await alerting.happen("margin_call")

    def called(found: list[Stored]) -> bool:
        return any(one.alert.alert_type == "margin_call" and one.status is Status.DELIVERED for one in found)

    found = await alerting.until(called)
    # Ids that are made in one millisecond have no order.
    assert sorted((one.alert.alert_type.value, one.alert.ended) for one in found if one.alert.ended) == [
        ("margin_warning", Ending.SUPERSEDED),
        ("margin_warning", Ending.SUPERSEDED),
    ]


async def test_who_has_no_contact_is_an_alert_that_failed_and_costs_no_workflow(
    alerting: Alerting, temporal: Client
) -> None:
    await alerting.happen("margin_call")
    [found] = await alerting.until(lambda found: bool(found) and found[0].status is Status.FAILED)
    assert (found.failure_reason, found.next_at) == ("no_verified_contact", None)
    await alerting.contact(Channel.SMS, user="desk")
    await alerting.policy(
        "liquidation_due", Policy(must_acknowledge=True, steps=(Step(to=("user", "desk")), Step(999)))
    )
    await alerting.happen("liquidation_due")
    _, second = await alerting.until(lambda found: len(found) == 2 and all_delivered(found[1:]))
    assert [each.user_id for each in second.alert.deliveries] == ["desk"]
    with pytest.raises(RPCError, match="not found"):
        await temporal.get_workflow_handle(alert_workflow_id(found.notification_id)).describe()


async def test_every_event_is_there_once(alerting: Alerting, tenants_engine: AsyncEngine) -> None:
    await alerting.contact(Channel.EMAIL)
    await alerting.policy("margin_call", SLOW)
    await alerting.happen("margin_call")
    await alerting.until(all_delivered)
    async with tenant_transaction(tenants_engine, alerting.tenant) as connection:
        rows = await connection.execute(text("SELECT type FROM outbox WHERE topic = 'alerts.events.v1' ORDER BY 1"))
        assert list(rows.scalars()) == ["alert.delivered", "alert.raised"]


async def test_a_lost_run_is_brought_back(alerting: Alerting, temporal: Client, owner_engine: AsyncEngine) -> None:
    await alerting.contact(Channel.EMAIL)
    await alerting.policy("margin_call", QUICK)
    await alerting.policy("margin_call", Policy(must_acknowledge=True, steps=QUICK.steps, repeat=9, repeat_seconds=1))
    await alerting.happen("margin_call")
    [found] = await alerting.until(lambda found: bool(found) and len(found[0].alert.deliveries) >= 2)
    run = temporal.get_workflow_handle(alert_workflow_id(found.notification_id))
    await run.terminate("a test of what happens when a run is lost")
    before = len((await alerting.get(found.notification_id)).alert.deliveries)
    async with transaction(owner_engine) as connection:
        await connection.execute(
            text(
                "UPDATE alert_notifications SET next_at = next_at - interval '1 hour'"
                " WHERE next_at IS NOT NULL AND tenant_id = :tenant"
            ),
            {"tenant": alerting.tenant},
        )
    woken = await temporal.execute_workflow(AlertWatchWorkflow.run, id=f"watch-{new_id()}", task_queue=TASK_QUEUE)
    assert woken >= 1
    await alerting.until(lambda found: len(found[0].alert.deliveries) > before)

    async def runs() -> bool:
        return (await run.describe()).status in (WorkflowExecutionStatus.RUNNING, WorkflowExecutionStatus.COMPLETED)

    await eventually(runs)
    assert {each.state for each in (await alerting.get(found.notification_id)).alert.deliveries} <= {
        DeliveryState.DELIVERED,
        DeliveryState.SENDING,
    }


async def test_an_endpoint_that_was_disabled_is_told_to_its_owner(alerting: Alerting) -> None:
    """To the operators where it has none; not to who did it; several within the window are one."""
    await alerting.contact(Channel.EMAIL)
    await alerting.contact(Channel.EMAIL, "ops@example.com", user=OPERATORS)
    said = {"subscription_id": str(new_id()), "url": "https://example.com/hooks", "reason": "failing", "owner": None}
    changes: list[dict[str, str]] = [{"owner": USER}, {}, {"reason": "gone"}, {"owner": USER, "reason": "asked"}]
    events = [
        OutboxEvent(new_id(), "webhooks.events.v1", "webhook.disabled", "webhook:1", now(), said | change)
        for change in changes
    ]
    async with tenant_transaction(alerting.engine, alerting.tenant) as connection:
        await outbox.append(connection, alerting.tenant, events)
    Doorbell(alerting.engine).ring()
    found = await alerting.until(lambda found: len(found) == 2 and all_delivered(found))
    assert sorted((one.alert.user_id, one.alert.occurrences) for one in found) == [(USER, 1), (OPERATORS, 2)]
    [mail] = [one for one in await alerting.box() if one.address == "ops@example.com"]
    assert "https://example.com/hooks" in mail.body


async def test_what_the_auditor_found_is_told_to_the_operators(alerting: Alerting) -> None:
    """Somebody has to take note; the user, who could do nothing about it, hears nothing."""
    await alerting.contact(Channel.EMAIL)
    await alerting.contact(Channel.EMAIL, "ops@example.com", user=OPERATORS)
    levels = {"told_level": "HEALTHY", "strict_level": "MARGIN_CALL", "rearmed_level": "MARGIN_CALL"}
    said = levels | {"user_id": USER, "price_tick": 1, "parameter_version": 1}
    event = OutboxEvent(new_id(), MARGIN_TOPIC, "margin.audit_disagreed", f"margin:{USER}", now(), said)
    async with tenant_transaction(alerting.engine, alerting.tenant) as connection:
        await outbox.append(connection, alerting.tenant, [event])
    Doorbell(alerting.engine).ring()
    [found] = await alerting.until(all_delivered)
    assert (found.alert.user_id, found.alert.severity, found.alert.policy.must_acknowledge) == (OPERATORS, "high", True)
    [mail] = await alerting.box()
    assert mail.address == "ops@example.com"
    assert "Account: alice\nTold: HEALTHY\nComputed: MARGIN_CALL" in mail.body


@pytest.mark.parametrize(
    ("type_", "severity", "said", "words"),
    [
        (
            "chain.relayer_halted",
            "critical",
            {"relayer_id": "dev:0xaa", "reason": "block 7 was final"},
            "Relayer: dev:0xaa\nReason: block 7 was final",
        ),
        (
            "chain.provider_accused",
            "medium",
            {"chain": "dev", "provider": "a", "reason": "event 3 is missing", "relayer_id": None},
            "Chain: dev\nProvider: a\nReason: event 3 is missing",
        ),
        (
            "chain.event_disagreed",
            "high",
            {
                "relayer_id": "dev:0xaa",
                "consumer_id": "01a218cd-d24a-7672-8eb0-e907a7634772",
                "kind": "Released",
                "subject": "0x0e",
                "code": "milestone_not_approved",
                "reason": "it is not approved",
            },
            "Relayer: dev:0xaa\nEvent: Released\nId on chain: 0x0e\nReason: it is not approved",
        ),
        (
            "chain.books_differ",
            "critical",
            {
                "relayer_id": "dev:0xaa",
                "token": "0x00",
                "block_number": 9,
                **dict.fromkeys(("balance", "held", "owed", "ledger_held", "ledger_owed", "explained"), "0"),
                "unexplained": "-1",
                "detail": "held (nothing explains it) -1",
            },
            "Relayer: dev:0xaa\nToken: 0x00\nBlock: 9\nUnexplained: -1\nReason: held (nothing explains it) -1",
        ),
        (
            "backfill.failed",
            "medium",
            {
                "job_id": "01a218cd-d24a-7672-8eb0-e907a7634772",
                "name": "dev:0xaa",
                "from_block": 1,
                "to_block": 9,
                "covered_blocks": 3,
                "events_written": 0,
                "error": "nobody has those blocks",
            },
            "Name: dev:0xaa\nFrom block: 1\nTo block: 9\nReason: nobody has those blocks",
        ),
    ],
)
async def test_operators_are_told_of_chains(
    alerting: Alerting, type_: str, severity: str, said: dict[str, Any], words: str
) -> None:
    await alerting.contact(Channel.EMAIL, "ops@example.com", user=OPERATORS)
    event = OutboxEvent(new_id(), SETTLEMENT_TOPIC, type_, "relayer:dev:0xaa", now(), said)
    async with tenant_transaction(alerting.engine, alerting.tenant) as connection:
        await outbox.append(connection, alerting.tenant, [event])
    Doorbell(alerting.engine).ring()
    [found] = await alerting.until(all_delivered)
    assert (found.alert.user_id, found.alert.severity) == (OPERATORS, severity)
    [mail] = await alerting.box()
    assert words in mail.body


async def test_an_event_that_cannot_be_read_holds_up_nobody(alerting: Alerting, engine: AsyncEngine) -> None:
    await alerting.contact(Channel.EMAIL)
    [bad] = await alerting.happen("margin_warning", data={"severity": "nonsense"})
    await alerting.happen("margin_warning")
    [found] = await alerting.until(all_delivered, limit_seconds=40)
    assert found.alert.occurrences == 1
    async with transaction(engine) as connection:
        left_out = await connection.scalar(
            text("SELECT count(*) FROM feed_faults WHERE consumer = 'alerts' AND event_id = :id"), {"id": bad}
        )
    assert left_out == 1
