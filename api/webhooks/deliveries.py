"""What an endpoint got and what it answered; tests, retries and replays; how it does."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated
from uuid import UUID

from fastapi import Body, Depends, Query
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from api.deps import Call, caller, poster, router
from api.fields import Instant, Line
from api.idempotency import Answer, Attempt, Configuration, once
from api.pages import DEFAULT_LIMIT, CursorToken, Limit, Page, Pager
from api.problems import documented
from api.webhooks.models import DeliveryView, EndpointHealthView, ReplayInput, ReplayView, TestInput
from api.webhooks.routes import record, wake
from api.webhooks.views import delivery_view, get, health_view, known, replay_view
from db.webhooks import reports, subscriptions, writing
from db.webhooks.rendering import envelope
from db.webhooks.reports import Delivery, DeliveryFilter
from db.webhooks.writing import NewDelivery, Origin
from domain.errors import Refusal
from domain.identity import Scope
from domain.ids import webhook_workflow_id
from domain.webhooks.catalogue import CATALOGUE, TEST_TYPE
from domain.webhooks.delivering import DeliveryStatus, check_again, check_range
from domain.webhooks.endpoint import check_enabled
from kit.clock import now

routes = router("/webhooks", "webhooks")


@routes.get("/{subscription_id}/deliveries", responses=documented(404))
async def list_deliveries(
    subscription_id: UUID,
    call: Annotated[Call, Depends(caller(Scope.WEBHOOKS_READ))],
    status: Annotated[DeliveryStatus | None, Query()] = None,
    event_type: Annotated[Line | None, Query()] = None,
    created_from: Annotated[Instant | None, Query(description="Begun then or later")] = None,
    created_to: Annotated[Instant | None, Query(description="Begun before")] = None,
    cursor: CursorToken = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[DeliveryView]:
    """What an endpoint gets, the last begun first, with each request, its answer and how long it took. Service keys
    only."""
    call.require_service_key()
    wanted = DeliveryFilter(status, event_type, created_from, created_to)
    pager = Pager("webhook deliveries", {"subscription": subscription_id, **asdict(wanted)})
    before = pager.after(cursor) or None
    async with call.transaction() as connection:
        await get(connection, subscription_id)
        rows = await reports.list_(connection, subscription_id, wanted, before=before, limit=limit + 1)
        rows, next_cursor = pager.page(rows, limit, "sequence")
        attempts = await reports.attempts_of(connection, subscription_id, [row.message_id for row in rows])
    items = [delivery_view(row, attempts.get(row.message_id, ())) for row in rows]
    return Page(items=items, next_cursor=next_cursor)


@routes.get("/{subscription_id}/deliveries/{message_id}", responses=documented(404))
async def read_delivery(
    subscription_id: UUID, message_id: UUID, call: Annotated[Call, Depends(caller(Scope.WEBHOOKS_READ))]
) -> DeliveryView:
    """One delivery with every attempt. Service keys only."""
    call.require_service_key()
    async with call.transaction() as connection:
        await get(connection, subscription_id)
        return await _view(connection, subscription_id, message_id)


@routes.post(
    "/{subscription_id}/test",
    status_code=202,
    response_model=DeliveryView,
    responses=documented(404, 409, 413, 415),
)
async def test_webhook(
    subscription_id: UUID,
    body: Annotated[TestInput, Body(default_factory=TestInput)],
    call: Annotated[Call, Depends(poster(Scope.WEBHOOKS_WRITE))],
) -> Response:
    """Send an endpoint an event `webhook.test`, signed and tried like any other. What came of it stands with its
    deliveries. Service keys only."""
    call.require_service_key()
    answer = await once(call, _Testing(call, subscription_id, body))
    await wake(call, subscription_id)
    return answer


@routes.post(
    "/{subscription_id}/deliveries/{message_id}/retry",
    status_code=202,
    response_model=DeliveryView,
    responses=documented(404, 409),
)
async def retry_delivery(
    subscription_id: UUID, message_id: UUID, call: Annotated[Call, Depends(poster(Scope.WEBHOOKS_WRITE))]
) -> Response:
    """Send a message again that was delivered or given up: the same body under the same `webhook-id`. Service keys
    only."""
    call.require_service_key()
    answer = await once(call, _Retrying(call, subscription_id, message_id))
    await wake(call, subscription_id)
    return answer


@routes.post(
    "/{subscription_id}/replays",
    status_code=202,
    response_model=ReplayView,
    responses=documented(404, 409, 413, 415),
)
async def replay_webhook(
    subscription_id: UUID, body: ReplayInput, call: Annotated[Call, Depends(poster(Scope.WEBHOOKS_WRITE))]
) -> Response:
    """Deliver the events of a time again, or for the first time: those that the endpoint wants as it is now, under the
    ids that they always have. Service keys only."""
    call.require_service_key()
    answer = await once(call, _Replaying(call, subscription_id, body))
    await wake(call, subscription_id)
    return answer


@routes.get("/{subscription_id}/replays/{replay_id}", responses=documented(404))
async def read_replay(
    subscription_id: UUID, replay_id: UUID, call: Annotated[Call, Depends(caller(Scope.WEBHOOKS_READ))]
) -> ReplayView:
    """A replay and how far it is. Service keys only."""
    call.require_service_key()
    async with call.transaction() as connection:
        await get(connection, subscription_id)
        found = await reports.find_replay(connection, subscription_id, replay_id)
    if found is None:
        raise Refusal("replay_unknown", "there is no such replay")
    return replay_view(found)


@routes.get("/{subscription_id}/health", responses=documented(404))
async def read_webhook_health(
    subscription_id: UUID, call: Annotated[Call, Depends(caller(Scope.WEBHOOKS_READ))]
) -> EndpointHealthView:
    """How well an endpoint does: since when it fails, what waits for it, how fast it answers. Service keys only."""
    call.require_service_key()
    async with call.transaction() as connection:
        recorded = await get(connection, subscription_id)
        return health_view(recorded, await reports.figures(connection, subscription_id))


class _Testing(Configuration):
    """Begins the delivery of a test; its id is the operation's."""

    def __init__(self, call: Call, subscription_id: UUID, body: TestInput) -> None:
        self._call = call
        self._subscription_id = subscription_id
        self._body = body

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> Answer:
        """Everything happens here."""
        call, subscription_id, wanted = self._call, self._subscription_id, self._body.event_type
        check_enabled(known(await subscriptions.lock(connection, subscription_id)).subscription.status)
        if wanted is not None and wanted not in CATALOGUE:
            raise Refusal("event_type_unknown", "the catalogue has no such type", field="event_type")
        message_id, subject = attempt.operation_id, webhook_workflow_id(subscription_id)
        data = {"message": "a test that its owner asked for", "asked_for": wanted}
        body = envelope(message_id, TEST_TYPE, now(), subject, None, data)
        tenant = call.principal.tenant_id
        made = NewDelivery(tenant, subscription_id, message_id, None, TEST_TYPE, subject, body)
        await writing.add(connection, [made], Origin.TEST)
        await record(call, connection, subscription_id, "webhook.tested", {"message_id": str(message_id)})
        return await _answer(connection, subscription_id, message_id)


class _Retrying(Configuration):
    """Begins a delivery again."""

    def __init__(self, call: Call, subscription_id: UUID, message_id: UUID) -> None:
        self._call = call
        self._subscription_id = subscription_id
        self._message_id = message_id

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> Answer:  # noqa: ARG002 - the delivery has its id
        """Everything happens here."""
        subscription_id, message_id = self._subscription_id, self._message_id
        check_enabled(known(await subscriptions.lock(connection, subscription_id)).subscription.status)
        check_again(_known(await reports.lock(connection, subscription_id, message_id)).status)
        await reports.begin_again(connection, subscription_id, message_id)
        facts = {"message_id": str(message_id)}
        await record(self._call, connection, subscription_id, "webhook.delivery_retried", facts)
        return await _answer(connection, subscription_id, message_id)


class _Replaying(Configuration):
    """Takes a replay down; the endpoint's workflow works it off."""

    def __init__(self, call: Call, subscription_id: UUID, body: ReplayInput) -> None:
        self._call = call
        self._subscription_id = subscription_id
        self._body = body

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> Answer:
        """Everything happens here."""
        call, subscription_id, body = self._call, self._subscription_id, self._body
        check_range(body.from_, body.to)
        check_enabled(known(await subscriptions.lock(connection, subscription_id)).subscription.status)
        replay = await reports.add_replay(
            connection,
            call.principal.tenant_id,
            subscription_id,
            attempt.operation_id,
            from_at=body.from_,
            to_at=body.to,
            undelivered_only=body.undelivered_only,
        )
        facts = {"replay_id": str(replay.replay_id), "from": body.from_.isoformat(), "to": body.to.isoformat()}
        await record(call, connection, subscription_id, "webhook.replayed", facts)
        headers = {"Location": f"/api/v1/webhooks/{subscription_id}/replays/{replay.replay_id}"}
        return Answer(202, replay_view(replay), headers)


async def _view(connection: AsyncConnection, subscription_id: UUID, message_id: UUID) -> DeliveryView:
    found = _known(await reports.find(connection, subscription_id, message_id))
    attempts = await reports.attempts_of(connection, subscription_id, [message_id])
    return delivery_view(found, attempts.get(message_id, ()))


async def _answer(connection: AsyncConnection, subscription_id: UUID, message_id: UUID) -> Answer:
    view = await _view(connection, subscription_id, message_id)
    return Answer(202, view, {"Location": f"/api/v1/webhooks/{subscription_id}/deliveries/{message_id}"})


def _known(found: Delivery | None) -> Delivery:
    if found is None:
        raise Refusal("delivery_unknown", "this endpoint has no such delivery")
    return found
