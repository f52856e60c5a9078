"""Steps of webhooks: a turn of an endpoint, and the look for endpoints that nobody works for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity
from temporalio.common import WorkflowIDConflictPolicy

from activities.ports import Outward
from activities.watching import BATCH, TASK_TIMEOUT, resume_each
from activities.webhooks.due import Dues
from activities.webhooks.lane import Lane, Pace
from activities.webhooks.messages import TakeTurn, TurnDone, WebhookRun
from activities.webhooks.noting import Notes
from db.doorbell import Doorbell
from db.engine import transaction
from db.webhooks import sending
from domain.ids import webhook_workflow_id
from domain.webhooks.endpoint import EndpointStatus

HEARTBEAT_SECONDS = 2.0
CANCEL_BATCH = 2_000
#: The feed wakes an endpoint's workflow within a second; the margin keeps the watch from doing the same work.
OVERDUE_AFTER = timedelta(seconds=30)


class WebhookActivities:
    """Turns of endpoints. ``engine`` sees every tenant; ``outward`` is the door to strangers' URLs."""

    def __init__(self, engine: AsyncEngine, doorbell: Doorbell, outward: Outward, pace: Pace | None = None) -> None:
        self._engine = engine
        self._doorbell = doorbell
        self._outward = outward
        self._pace = pace or Pace()
        self._dues = Dues(engine)

    @activity.defn(name="webhooks.take_turn")
    async def take_turn(self, turn: TakeTurn) -> TurnDone:
        """Send what is due to an endpoint until nothing is left or the turn is over; heartbeats all the while.

        An attempt is written down before its request, and what came of it after. What a turn that died leaves behind is
        due again when its lease ends.
        """
        whom = (turn.tenant_id, turn.subscription_id)
        notes = Notes(self._engine, self._doorbell, whom, give_up_seconds=self._pace.lease_seconds)
        async with _heartbeats():
            try:
                done = await Lane(self._engine, self._outward, self._dues, notes, self._pace, whom).run()
            finally:
                await self._dues.rest()
            if done.next_at is None:
                await self._cancel_deleted(*whom)
        return done

    async def _cancel_deleted(self, tenant: UUID, subscription: UUID) -> None:
        """Let what waits for a deleted endpoint end."""
        async with transaction(self._engine) as connection:
            endpoint = await sending.endpoint(connection, tenant, subscription)
        if endpoint is None or endpoint.status is not EndpointStatus.DELETED:
            return
        cancelled = CANCEL_BATCH
        while cancelled == CANCEL_BATCH:
            async with transaction(self._engine) as connection:
                cancelled = await sending.cancel_waiting(connection, tenant, subscription, most=CANCEL_BATCH)


class WebhookWatchActivities:
    """``engine`` sees every tenant."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @activity.defn(name="webhooks.resume_waiting")
    async def resume_waiting(self) -> int:
        """Wake the workflow of every endpoint whose deliveries or replays wait too long, or start it; returns how many
        there were."""
        return await resume_each(self._overdue, _resume)

    async def _overdue(self, after: UUID | None) -> Sequence[tuple[UUID, UUID]]:
        async with transaction(self._engine) as connection:
            return await sending.list_overdue(connection, after=after, margin=OVERDUE_AFTER, most=BATCH)


async def _resume(tenant_id: UUID, subscription_id: UUID) -> None:
    await activity.client().start_workflow(
        "WebhookWorkflow",
        WebhookRun(tenant_id=tenant_id, subscription_id=subscription_id),
        id=webhook_workflow_id(subscription_id),
        task_queue=activity.info().task_queue,
        task_timeout=TASK_TIMEOUT,
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        start_signal="work",
        static_summary="woken by the watch: deliveries had waited too long",
    )


@asynccontextmanager
async def _heartbeats() -> AsyncIterator[None]:
    """While a turn lasts, so that one whose process died is noticed soon."""

    async def beat() -> None:
        while True:
            activity.heartbeat()
            await asyncio.sleep(HEARTBEAT_SECONDS)

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()
