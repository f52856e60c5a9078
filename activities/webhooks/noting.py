"""Writing down what came of attempts: those of a moment in one commit, with what they show of the endpoint."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime
from time import monotonic
from uuid import UUID

from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from activities.webhooks.messages import TurnDone
from db.audit import AuditRecord, Origin
from db.doorbell import Doorbell
from db.engine import transaction
from db.ids import new_id
from db.outbox import WEBHOOKS_TOPIC, OutboxEvent
from db.step import Left, leave
from db.webhooks import sending
from db.webhooks.sending import Outcome, Standing
from domain.errors import Unavailable
from domain.ids import webhook_workflow_id
from domain.webhooks.delivering import OURS, AttemptResult
from domain.webhooks.endpoint import DisabledReason, EndpointStatus
from domain.webhooks.health import Health, Seen

#: The attempts that end within this time share a commit.
GATHER_SECONDS = 0.03
GATHER_MAX = 512
RETRY_SECONDS = 0.5
#: How often the last success of an endpoint that does well is written.
HEALTH_SECONDS = 1.0
DISABLED_EVENT = "webhook.disabled"

_log = logging.getLogger(__name__)
_disabled = Counter("holdfast_webhook_endpoints_disabled_total", "Endpoints to which nothing is sent any more", ["why"])


class Notes:
    """What came of the attempts of one endpoint. ``engine`` sees every tenant; ``doorbell`` wakes the relay.

    A database that is away is waited for, for ``give_up_seconds``: then the deliveries' leases have ended, and they
    are sent again.
    """

    def __init__(
        self, engine: AsyncEngine, doorbell: Doorbell, whom: tuple[UUID, UUID], *, give_up_seconds: float
    ) -> None:
        self._engine = engine
        self._doorbell = doorbell
        self._whom = whom
        self._give_up_seconds = give_up_seconds
        self._came: list[tuple[Outcome, Seen]] = []
        self._writing = 0
        self._some = asyncio.Event()
        self._closing = False
        self._delivered = 0
        self._failed = 0
        self._told_at = 0.0
        self._troubled = True

    @property
    def pending(self) -> int:
        """How many are not written yet."""
        return len(self._came) + self._writing

    def add(self, outcome: Outcome, seen: Seen) -> None:
        """To be written soon."""
        self._came.append((outcome, seen))
        self._delivered += outcome.result is AttemptResult.DELIVERED
        self._failed += outcome.result is not AttemptResult.DELIVERED and outcome.result not in OURS
        self._some.set()

    def summed(self, next_at: datetime | None) -> TurnDone:
        """What the turn did."""
        return TurnDone(delivered=self._delivered, failed=self._failed, next_at=next_at)

    async def run(self, news: asyncio.Event) -> None:
        """Write what comes until closed; ``news`` is set after each commit."""
        while True:
            await self._some.wait()
            if not self._closing:
                await asyncio.sleep(GATHER_SECONDS)
            self._some.clear()
            while self._came:
                group, self._came = self._came[:GATHER_MAX], self._came[GATHER_MAX:]
                self._writing = len(group)
                await self._outlast(group)
                self._writing = 0
            news.set()
            if self._closing and not self._came:
                return

    async def close(self, running: asyncio.Task[None]) -> None:
        """Write what is left."""
        self._closing = True
        self._some.set()
        await running

    async def _outlast(self, group: Sequence[tuple[Outcome, Seen]]) -> None:
        began = monotonic()
        while True:
            try:
                await self._write(group)
            except Unavailable as absence:
                if monotonic() - began > self._give_up_seconds:
                    raise
                _log.warning("what came of deliveries is written later: %s", absence)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def _write(self, group: Sequence[tuple[Outcome, Seen]]) -> None:
        seen = [one for _, one in group]
        reason = None
        async with transaction(self._engine) as connection:
            await sending.note(connection, *self._whom, [outcome for outcome, _ in group])
            if self._tells(seen):
                reason = await self._tell(connection, seen)
        if reason is not None:
            self._doorbell.ring()
            _disabled.labels(reason).inc()
            _log.warning(
                "nothing more is sent to an endpoint: %s", reason, extra={"subscription_id": str(self._whom[1])}
            )

    def _tells(self, seen: Sequence[Seen]) -> bool:
        """Whether these attempts change what is known, or it was not written for a while."""
        bad = any(one.result is not AttemptResult.DELIVERED and one.result not in OURS for one in seen)
        return bad or self._troubled or monotonic() - self._told_at >= HEALTH_SECONDS

    async def _tell(self, connection: AsyncConnection, seen: Sequence[Seen]) -> DisabledReason | None:
        standing = await sending.lock_health(connection, *self._whom)
        health = standing.health.after(seen)
        if health != standing.health:
            await sending.set_health(connection, *self._whom, health)
        self._troubled, self._told_at = health.failing_since is not None, monotonic()
        if health.disabled is None or standing.status is not EndpointStatus.ACTIVE:
            return None
        at = max(one.at for one in seen)
        if await sending.disable(connection, *self._whom, health.disabled, at):
            await _leave_disabled(connection, *self._whom, standing, health, health.disabled, at)
        return health.disabled


async def _leave_disabled(
    connection: AsyncConnection,
    tenant: UUID,
    subscription: UUID,
    standing: Standing,
    health: Health,
    reason: DisabledReason,
    at: datetime,
) -> None:
    """The event by which its owner is told, and the audit record."""
    subject, event_id = webhook_workflow_id(subscription), new_id()
    since = health.failing_since
    facts = {
        "subscription_id": str(subscription),
        "url": standing.url.partition("?")[0],
        "reason": reason,
        "owner": standing.owner,
        "failing_since": None if since is None else since.isoformat(),
    }
    record = AuditRecord(subject, DISABLED_EVENT, at, Origin(workflow_id=subject), facts)
    event = OutboxEvent(event_id, WEBHOOKS_TOPIC, DISABLED_EVENT, subject, at, facts)
    await leave(connection, tenant, [Left(f"{subject}:disabled:{event_id}", {}, record, [event])])
