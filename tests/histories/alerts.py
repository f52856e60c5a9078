"""Stories of alerts; see ``record``."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from temporalio.client import WorkflowHandle

from db.ids import new_id
from domain.alerts.model import Channel
from domain.ids import alert_workflow_id
from tests.alerting import QUICK, SLOW, USER, Alerting
from tests.desk import TASK_QUEUE, Desk
from workflows.alerts import AcknowledgeAlert
from workflows.alerts.client import AlertClient
from workflows.alerts.watch import AlertWatchWorkflow


async def alert_acknowledged(desk: Desk) -> list[WorkflowHandle[Any, Any]]:
    """Sent, and somebody takes note."""
    alerting = Alerting(desk.engine, desk.tenant)
    await alerting.contact(Channel.EMAIL)
    await alerting.policy("margin_call", SLOW)
    await alerting.happen("margin_call")
    [found] = await alerting.until(lambda found: bool(found) and found[0].sent_at is not None)
    note = AcknowledgeAlert(command_id=new_id(), by=USER, via="api")
    await AlertClient(desk.client, TASK_QUEUE).acknowledge(desk.tenant, found.notification_id, note)
    return [await _ended(desk, found.notification_id)]


async def alert_climbs(desk: Desk) -> list[WorkflowHandle[Any, Any]]:
    """Every step of its policy, on two ways."""
    alerting = Alerting(desk.engine, desk.tenant)
    await alerting.contact(Channel.EMAIL)
    await alerting.contact(Channel.SMS)
    await alerting.policy("margin_call", QUICK)
    await alerting.happen("margin_call")
    [found] = await alerting.until(lambda found: bool(found) and found[0].alert.climbed == 4)
    return [await _ended(desk, found.notification_id)]


async def alert_watch(desk: Desk) -> list[WorkflowHandle[Any, Any]]:
    run = await desk.client.start_workflow(AlertWatchWorkflow.run, id=f"alert-watch:{new_id()}", task_queue=TASK_QUEUE)
    await run.result()
    return [run]


async def _ended(desk: Desk, notification_id: UUID) -> WorkflowHandle[Any, Any]:
    run: WorkflowHandle[Any, Any] = desk.client.get_workflow_handle(alert_workflow_id(notification_id))
    await run.result()
    return run


ALERTS = (alert_acknowledged, alert_climbs, alert_watch)
