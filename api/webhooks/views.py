"""From rows to what is answered."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from api.webhooks.models import (
    AttemptView,
    DeliveryView,
    EndpointHealthView,
    KeyStateView,
    LatencyView,
    ReplayView,
    RequestView,
    ResponseView,
    SubscriptionView,
)
from db.webhooks import subscriptions
from db.webhooks.reports import Attempt, Delivery, Figures, ReplayState
from db.webhooks.subscriptions import KeyState, Recorded
from domain.errors import Refusal
from domain.webhooks.health import FAILING_MAX
from kit.standardwebhooks import PublicKey


async def get(connection: AsyncConnection, subscription_id: UUID) -> Recorded:
    """The endpoint of a request; refuses ``webhook_unknown``."""
    return known(await subscriptions.find(connection, subscription_id))


def known(found: Recorded | None) -> Recorded:
    """The same, for what was looked for already."""
    if found is None:
        raise Refusal("webhook_unknown", "there is no such endpoint")
    return found


def subscription_view(recorded: Recorded, keys: Sequence[KeyState] = ()) -> SubscriptionView:
    """An endpoint."""
    said = recorded.subscription
    return SubscriptionView(
        subscription_id=said.subscription_id,
        url=said.url,
        event_types=list(said.event_types),
        description=said.description,
        user_id=said.user_id,
        escrow_id=said.escrow_id,
        header_names=sorted(said.headers),
        rate_limit_per_second=said.rate_per_second,
        concurrency=said.concurrency,
        ordering=said.ordering,
        owner_user_id=said.owner_user_id,
        status=said.status,
        disabled_reason=said.disabled_reason,
        disabled_at=said.disabled_at,
        created_at=recorded.recorded_at,
        keys=[
            KeyStateView(
                key_id=key.secret_id,
                public_key=PublicKey(key.public_key).text,
                created_at=key.recorded_at,
                expires_at=key.expires_at,
            )
            for key in keys
        ],
    )


def delivery_view(delivery: Delivery, attempts: Sequence[Attempt]) -> DeliveryView:
    """A delivery with its attempts."""
    return DeliveryView(
        message_id=delivery.message_id,
        event_type=delivery.event_type,
        subject=delivery.subject,
        position=delivery.position,
        origin=delivery.origin,
        status=delivery.status,
        failures=delivery.failures,
        next_attempt_at=delivery.next_attempt_at,
        created_at=delivery.recorded_at,
        finished_at=delivery.finished_at,
        attempts=[_attempt(each, delivery.body) for each in attempts],
    )


def _attempt(attempt: Attempt, body: str) -> AttemptView:
    response = None
    if attempt.status_code is not None:
        response = ResponseView(
            status=attempt.status_code,
            headers=attempt.response_headers or {},
            body=attempt.response_body or "",
            truncated=bool(attempt.response_truncated),
        )
    return AttemptView.model_validate(
        {
            "number": attempt.number,
            "started_at": attempt.started_at,
            "finished_at": attempt.finished_at,
            "result": attempt.result,
            "duration_ms": attempt.duration_ms,
            "request": RequestView(url=attempt.url, headers=attempt.request_headers, body=body),
            "response": response,
            "error": attempt.error,
        }
    )


def replay_view(replay: ReplayState) -> ReplayView:
    """A replay."""
    return ReplayView(
        replay_id=replay.replay_id,
        from_=replay.from_at,
        to=replay.to_at,
        undelivered_only=replay.undelivered_only,
        queued=replay.queued,
        created_at=replay.recorded_at,
        finished_at=replay.finished_at,
    )


def health_view(recorded: Recorded, figures: Figures) -> EndpointHealthView:
    """How well an endpoint does."""
    since = recorded.failing_since
    latency = None
    if figures.latencies is not None:
        p50, p95, p99 = figures.latencies
        latency = LatencyView(p50=p50, p95=p95, p99=p99)
    return EndpointHealthView(
        status=recorded.subscription.status,
        disabled_reason=recorded.subscription.disabled_reason,
        last_success_at=recorded.succeeded_at,
        last_failure_at=recorded.failed_at,
        failing_since=since,
        disabled_if_failing_until=None if since is None else since + FAILING_MAX,
        paused_until=recorded.paused_until,
        waiting=figures.waiting,
        oldest_waiting_at=figures.oldest_waiting_at,
        next_attempt_at=figures.next_attempt_at,
        attempts=figures.attempts,
        delivered=figures.delivered,
        latency_ms=latency,
    )
