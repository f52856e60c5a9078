"""Alerts over HTTP: what was told to whom, and that somebody took note."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated
from uuid import UUID

from fastapi import Body, Depends, Query
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from api.alerts.models import (
    AcknowledgeInput,
    AlertDetailView,
    AlertView,
    alert_fields,
    alert_view,
    attempt_views,
)
from api.deps import Call, caller, poster, router
from api.fields import Instant, Line
from api.idempotency import Answer, Attempt, once
from api.pages import DEFAULT_LIMIT, CursorToken, Limit, Page, Pager
from api.problems import documented
from db.alerts import attempts, notifications
from db.alerts.notifications import AlertFilter, Stored
from db.ids import new_id
from domain.alerts.model import AlertType, Channel, Severity, Status
from domain.errors import Refusal
from domain.identity import Scope
from workflows.alerts import AcknowledgeAlert, OriginMessage

routes = router("/alerts", "alerts")


@routes.get("")
async def list_alerts(
    call: Annotated[Call, Depends(caller(Scope.ALERTS_READ))],
    user_id: Annotated[Line | None, Query()] = None,
    alert_type: Annotated[AlertType | None, Query()] = None,
    severity: Annotated[Severity | None, Query()] = None,
    status: Annotated[Status | None, Query()] = None,
    channel: Annotated[Channel | None, Query(description="One of its deliveries went this way")] = None,
    open_: Annotated[bool | None, Query(alias="open", description="Whether more may be sent")] = None,
    raised_from: Annotated[Instant | None, Query(description="Raised then or later")] = None,
    raised_to: Annotated[Instant | None, Query(description="Raised before")] = None,
    cursor: CursorToken = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[AlertView]:
    """The alerts, the newest first. A key that is bound to a user sees its own."""
    wanted = AlertFilter(
        user_id=call.own_user(user_id, field="user_id"),
        alert_type=alert_type,
        severity=severity,
        status=status,
        channel=channel,
        open=open_,
        raised_from=raised_from,
        raised_to=raised_to,
    )
    pager = Pager("alerts", asdict(wanted))
    async with call.transaction() as connection:
        rows = await notifications.list_(
            connection, call.principal.tenant_id, wanted, before=pager.before(cursor), limit=limit + 1
        )
    rows, next_cursor = pager.page(rows, limit, "notification_id")
    return Page(items=[alert_view(row, call.principal.user_id) for row in rows], next_cursor=next_cursor)


@routes.get("/{notification_id}", responses=documented(404))
async def read_alert(
    notification_id: UUID, call: Annotated[Call, Depends(caller(Scope.ALERTS_READ))]
) -> AlertDetailView:
    """An alert with every attempt to deliver it."""
    async with call.transaction() as connection:
        found = await visible(call, connection, notification_id)
        log = await attempts.list_of(connection, call.principal.tenant_id, notification_id)
    viewer = call.principal.user_id
    return AlertDetailView(**alert_fields(found, viewer), attempts=attempt_views(found, log, viewer))


@routes.post("/{notification_id}/ack", response_model=AlertView, responses=documented(404, 409, 413, 415))
async def acknowledge_alert(
    notification_id: UUID,
    call: Annotated[Call, Depends(poster(Scope.ALERTS_WRITE))],
    body: Annotated[AcknowledgeInput, Body(default_factory=AcknowledgeInput)],
) -> Response:
    """Take note of an alert: once this is answered, nothing more is sent. Who comes second changes nothing."""
    return await once(call, _Acknowledge(call, notification_id, body))


async def visible(call: Call, connection: AsyncConnection, notification_id: UUID) -> Stored:
    """An alert that the caller may see; a code that verifies a contact is none."""
    found = await notifications.find(connection, call.principal.tenant_id, notification_id)
    bound = call.principal.user_id
    if (
        found is None
        or found.alert.alert_type is AlertType.CONTACT_CODE
        or (bound is not None and found.alert.user_id != bound)
    ):
        raise Refusal("alert_unknown", "there is no such alert")
    return found


class _Acknowledge:
    """The operation of a POST."""

    def __init__(self, call: Call, notification_id: UUID, body: AcknowledgeInput) -> None:
        self._call = call
        self._notification_id = notification_id
        self._body = body
        self._attempt: Attempt | None = None

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> None:
        """Only who may see it may take note of it."""
        self._attempt = attempt
        await visible(self._call, connection, self._notification_id)

    async def perform(self) -> None:
        """Have it written, by the alert's workflow, between two sends."""
        call, attempt = self._call, self._attempt
        assert attempt is not None, "prepare() comes first"
        named = call.own_user(self._body.actor, field="actor")
        command = AcknowledgeAlert(
            command_id=attempt.operation_id,
            by=named or f"key {call.principal.key_id}",
            via="api",
            origin=OriginMessage(user_id=named, key_id=call.principal.key_id, request_id=call.request_id),
        )
        again = new_id() if attempt.repeated else None
        await call.services.alerts.acknowledge(
            call.principal.tenant_id, self._notification_id, command, attempt_id=again
        )

    async def answer(self, connection: AsyncConnection) -> Answer:
        """The alert after it."""
        found = await visible(self._call, connection, self._notification_id)
        return Answer(200, alert_view(found, self._call.principal.user_id))
