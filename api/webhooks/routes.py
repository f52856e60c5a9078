"""Endpoints: made, read, changed, deleted, and given new keys. Configuration, one commit each."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import Body, Depends, Query
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.responses import Response

from api.deps import Call, caller, poster, router
from api.idempotency import Answer, Attempt, Configuration, once
from api.pages import DEFAULT_LIMIT, CursorToken, Limit, Page, Pager
from api.problems import documented
from api.webhooks.models import (
    Catalogue,
    EventKindView,
    RotationInput,
    SubscriptionInput,
    SubscriptionPatch,
    SubscriptionView,
    SubscriptionWithSecret,
)
from api.webhooks.views import get, known, subscription_view
from db import audit
from db.audit import AuditRecord, Origin
from db.ids import new_id
from db.webhooks import subscriptions
from db.webhooks.subscriptions import NewKeys, Subscription
from domain.errors import Refusal, Unavailable
from domain.identity import Scope
from domain.ids import is_user_id, webhook_workflow_id
from domain.webhooks.catalogue import CATALOGUE, check_event_types, envelope_schema
from domain.webhooks.endpoint import DisabledReason, EndpointStatus, check_headers
from domain.webhooks.urls import target_of
from kit.clock import now
from kit.standardwebhooks import PrivateKey, SharedSecret


class _SubscriptionId(StringConvertor):
    """An id at the end of a path: not the name of the catalogue, at which there is nothing to change."""

    regex = "(?!event-types$)[^/]+"


register_url_convertor("webhook_id", _SubscriptionId())

routes = router("/webhooks", "webhooks")

#: What may not be taken away by null.
_ALWAYS_THERE = ("url", "event_types", "headers", "concurrency", "ordering", "enabled")


@routes.post("", status_code=201, response_model=SubscriptionWithSecret, responses=documented(409, 413, 415))
async def create_webhook(
    body: SubscriptionInput, call: Annotated[Call, Depends(poster(Scope.WEBHOOKS_WRITE))]
) -> Response:
    """Let an endpoint have events from now on. Service keys only.

    Requests are signed as Standard Webhooks 1.0 has it, `v1` and `v1a` side by side. The secret is in this answer and
    in no other.
    """
    call.require_service_key()
    return await once(call, _Creating(call, body), secret=True)


@routes.get("")
async def list_webhooks(
    call: Annotated[Call, Depends(caller(Scope.WEBHOOKS_READ))],
    status: Annotated[EndpointStatus | None, Query()] = None,
    cursor: CursorToken = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[SubscriptionView]:
    """Endpoints, the newest first. Service keys only."""
    call.require_service_key()
    pager = Pager("webhooks", {"status": status})
    async with call.transaction() as connection:
        rows = await subscriptions.list_(connection, status=status, before=pager.before(cursor), limit=limit + 1)
    rows, next_cursor = pager.page(rows, limit, "subscription_id")
    return Page(items=[subscription_view(row) for row in rows], next_cursor=next_cursor)


@routes.get("/event-types")
async def list_event_types(_: Annotated[Call, Depends(caller(Scope.WEBHOOKS_READ))]) -> Catalogue:
    """Every type of event with the JSON Schema of what an endpoint gets."""
    items = [
        EventKindView(
            type=kind.type, description=kind.description, everybodys=kind.everybodys, schema_=envelope_schema(kind)
        )
        for kind in CATALOGUE.values()
    ]
    return Catalogue(items=items)


@routes.get("/{subscription_id:webhook_id}", responses=documented(404))
async def read_webhook(
    subscription_id: UUID, call: Annotated[Call, Depends(caller(Scope.WEBHOOKS_READ))]
) -> SubscriptionView:
    """One endpoint. Service keys only."""
    call.require_service_key()
    async with call.transaction() as connection:
        return await _view(connection, subscription_id)


@routes.patch("/{subscription_id:webhook_id}", responses=documented(404, 413, 415))
async def change_webhook(
    subscription_id: UUID,
    body: SubscriptionPatch,
    call: Annotated[Call, Depends(caller(Scope.WEBHOOKS_WRITE))],
) -> SubscriptionView:
    """Change an endpoint; what is on its way is not held up. Service keys only.

    One that was disabled is enabled again by `enabled: true`, and gets what waited. Events that happened meanwhile are
    not among that: ask for a replay.
    """
    call.require_service_key()
    async with call.transaction() as connection:
        before = known(await subscriptions.lock(connection, subscription_id)).subscription
        after = _changed(call, before, body)
        if after != before:
            await subscriptions.update(connection, after)
            action = "webhook.changed"
            if after.status is not before.status:
                action = "webhook.enabled" if after.status is EndpointStatus.ACTIVE else "webhook.stopped"
            await record(call, connection, subscription_id, action, _facts(after))
        view = await _view(connection, subscription_id)
    await wake(call, subscription_id)
    return view


@routes.delete("/{subscription_id:webhook_id}", responses=documented(404))
async def delete_webhook(
    subscription_id: UUID, call: Annotated[Call, Depends(caller(Scope.WEBHOOKS_WRITE))]
) -> SubscriptionView:
    """Send nothing more to an endpoint, and forget it; what waits for it is cancelled. Service keys only."""
    call.require_service_key()
    async with call.transaction() as connection:
        recorded = known(await subscriptions.lock(connection, subscription_id))
        gone = replace(
            recorded.subscription,
            status=EndpointStatus.DELETED,
            disabled_reason=DisabledReason.ASKED,
            disabled_at=now(),
        )
        await subscriptions.update(connection, gone)
        await subscriptions.retire_keys(connection, subscription_id, now())
        await record(call, connection, subscription_id, "webhook.deleted", {})
    await wake(call, subscription_id)
    return subscription_view(replace(recorded, subscription=gone))


@routes.post(
    "/{subscription_id}/rotate-secret",
    response_model=SubscriptionWithSecret,
    responses=documented(404, 409, 413, 415),
)
async def rotate_webhook_secret(
    subscription_id: UUID,
    body: Annotated[RotationInput, Body(default_factory=RotationInput)],
    call: Annotated[Call, Depends(poster(Scope.WEBHOOKS_WRITE))],
) -> Response:
    """Give an endpoint new keys. Requests carry the signatures of the old ones too until the overlap is over. The new
    secret is in this answer and in no other. Service keys only."""
    call.require_service_key()
    return await once(call, _Rotating(call, subscription_id, body), secret=True)


class _Creating(Configuration):
    """Writes an endpoint with its first keys."""

    def __init__(self, call: Call, body: SubscriptionInput) -> None:
        self._call = call
        self._body = body

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> Answer:
        """Everything happens here."""
        call, body = self._call, self._body
        made = _checked(
            call,
            Subscription(
                subscription_id=attempt.operation_id,
                url=body.url,
                description=body.description,
                event_types=tuple(body.event_types),
                user_id=body.user_id,
                escrow_id=body.escrow_id,
                headers=body.headers,
                rate_per_second=body.rate_limit_per_second,
                concurrency=body.concurrency,
                ordering=body.ordering,
                owner_user_id=body.owner_user_id,
            ),
        )
        await subscriptions.insert(connection, call.principal.tenant_id, made)
        secret = await _new_keys(call, connection, made.subscription_id)
        await record(call, connection, made.subscription_id, "webhook.created", _facts(made))
        view = await _view(connection, made.subscription_id)
        headers = {"Location": f"/api/v1/webhooks/{made.subscription_id}"}
        return Answer(201, SubscriptionWithSecret(**view.model_dump(), secret=secret), headers)


class _Rotating(Configuration):
    """Writes new keys beside those that there are."""

    def __init__(self, call: Call, subscription_id: UUID, body: RotationInput) -> None:
        self._call = call
        self._subscription_id = subscription_id
        self._body = body

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> Answer:  # noqa: ARG002 - the keys' id is theirs
        """Everything happens here."""
        call, subscription_id = self._call, self._subscription_id
        known(await subscriptions.lock(connection, subscription_id))
        hours = self._body.overlap_hours
        await subscriptions.retire_keys(connection, subscription_id, now() + timedelta(hours=hours))
        secret = await _new_keys(call, connection, subscription_id)
        await record(call, connection, subscription_id, "webhook.secret_rotated", {"overlap_hours": hours})
        view = await _view(connection, subscription_id)
        return Answer(200, SubscriptionWithSecret(**view.model_dump(), secret=secret))


async def _new_keys(call: Call, connection: AsyncConnection, subscription_id: UUID) -> str:
    shared, private = SharedSecret.generate(), PrivateKey.generate()
    keys = NewKeys(new_id(), shared.key, private.seed, private.public.key)
    await subscriptions.add_keys(connection, call.principal.tenant_id, subscription_id, keys)
    return shared.text


def _changed(call: Call, before: Subscription, body: SubscriptionPatch) -> Subscription:
    said = {name: getattr(body, name) for name in body.model_fields_set}
    for name in _ALWAYS_THERE:
        if name in said and said[name] is None:
            raise Refusal("required", f"{name} cannot be taken away", field=name)
    changes: dict[str, Any] = {name: value for name, value in said.items() if name != "enabled"}
    if "rate_limit_per_second" in changes:
        changes["rate_per_second"] = changes.pop("rate_limit_per_second")
    if "event_types" in changes:
        changes["event_types"] = tuple(changes["event_types"])
    if said.get("enabled") is True:
        changes |= {"status": EndpointStatus.ACTIVE, "disabled_reason": None, "disabled_at": None}
    if said.get("enabled") is False and before.status is EndpointStatus.ACTIVE:
        changes |= {
            "status": EndpointStatus.DISABLED,
            "disabled_reason": DisabledReason.ASKED,
            "disabled_at": now(),
        }
    return _checked(call, replace(before, **changes))


def _checked(call: Call, said: Subscription) -> Subscription:
    """The subscription, with its URL as it will be called; refuses what no endpoint may be told to be."""
    check_event_types(said.event_types)
    check_headers(said.headers)
    for name in ("user_id", "owner_user_id"):
        user = getattr(said, name)
        if user is not None and not is_user_id(user):
            raise Refusal("user_id_invalid", "this cannot be a user's id", field=name)
    return replace(said, url=target_of(said.url, call.services.reach).url)


async def _view(connection: AsyncConnection, subscription_id: UUID) -> SubscriptionView:
    recorded = await get(connection, subscription_id)
    return subscription_view(recorded, await subscriptions.keys_of(connection, subscription_id))


async def record(
    call: Call, connection: AsyncConnection, subscription_id: UUID, action: str, facts: dict[str, Any]
) -> None:
    """Leave the audit record of what an owner did."""
    origin = Origin(key_id=call.principal.key_id, request_id=call.request_id)
    said = AuditRecord(webhook_workflow_id(subscription_id), action, now(), origin, facts)
    await audit.write(connection, call.principal.tenant_id, said)


async def wake(call: Call, subscription_id: UUID) -> None:
    """Have the endpoint looked at now. Where Temporal does not answer, the watch does it later."""
    with suppress(Unavailable):
        await call.services.webhooks.wake(call.principal.tenant_id, subscription_id)


def _facts(said: Subscription) -> dict[str, Any]:
    return {
        "url": said.url.partition("?")[0],
        "event_types": list(said.event_types),
        "user_id": said.user_id,
        "escrow_id": None if said.escrow_id is None else str(said.escrow_id),
        "header_names": sorted(said.headers),
        "rate_per_second": said.rate_per_second,
        "concurrency": said.concurrency,
        "ordering": said.ordering,
        "status": said.status,
    }
