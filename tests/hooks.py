"""Webhooks as tests use them: endpoints, events that are told, turns as a worker takes them, and what was received."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import ActivityEnvironment

from activities.dispatch import Wake
from activities.ports import Outward
from activities.vendors.outward import OutwardClient
from activities.webhooks import fanout
from activities.webhooks.fanout import Fanout, FanoutConsumer
from activities.webhooks.lane import Pace
from activities.webhooks.messages import TakeTurn, TurnDone
from activities.webhooks.steps import WebhookActivities
from db.doorbell import Doorbell
from db.engine import Role, create_engine, tenant_transaction, transaction
from db.identity import create_tenant
from db.ids import new_id
from db.outbox import SETTLEMENT_TOPIC, OutboxEvent, append, number_committed
from db.webhooks import reports, subscriptions
from db.webhooks.subscriptions import NewKeys, Subscription
from domain.webhooks.addresses import Reach
from domain.webhooks.endpoint import Ordering
from kit.clock import now
from kit.standardwebhooks import PrivateKey, SharedSecret, verify
from tests.vendors.server import Asked, Reply, Vendor
from workflows.webhooks.client import wake_endpoint

LOCAL = Reach.parse("127.0.0.0/8")
QUICK = Pace(linger_seconds=0.0, deadline_seconds=2.0, lease_seconds=5.0, turn_seconds=30.0, stop_seconds=1.0)


@dataclass
class Woken:
    """Keeps whom the feed wakes."""

    wakes: list[Wake] = field(default_factory=list)

    async def wake(self, wake: Wake) -> None:
        self.wakes.append(wake)


@dataclass(frozen=True)
class Hook:
    """An endpoint with its keys."""

    subscription: Subscription
    shared: SharedSecret
    private: PrivateKey

    @property
    def id(self) -> UUID:
        return self.subscription.subscription_id

    def check(self, asked: Asked) -> str:
        """The id of a request that this endpoint's keys signed, both of them."""
        for key in (self.shared, self.private.public):
            message_id = verify(asked.headers, asked.body, [key], now=now())
        return message_id


async def subscribe(engine: AsyncEngine, tenant: UUID, url: str, *types: str, **changes: Any) -> Hook:
    """An endpoint that gets these types, everything unless said. ``changes`` replace fields."""
    shared, private = SharedSecret.generate(), PrivateKey.generate()
    made = Subscription(new_id(), url, None, types or ("*",), None, None, {}, None, 16, Ordering.NONE, None)
    made = replace(made, **changes)
    async with tenant_transaction(engine, tenant) as connection:
        await subscriptions.insert(connection, tenant, made)
        keys = NewKeys(new_id(), shared.key, private.seed, private.public.key)
        await subscriptions.add_keys(connection, tenant, made.subscription_id, keys)
    return Hook(made, shared, private)


def event(number: int = 0, type_: str = "escrow.funded", subject: str | None = None, **data: Any) -> OutboxEvent:
    """Something that happened."""
    facts = {"number": number, "buyer": "alice", "seller": "bob"} | data
    return OutboxEvent(new_id(), SETTLEMENT_TOPIC, type_, subject or f"escrow:{number}", now(), facts)


@dataclass
class Hooks:
    """A database of its own with a tenant in it."""

    url: str
    tenants: AsyncEngine
    engine: AsyncEngine
    tenant: UUID
    woken: Woken = field(default_factory=Woken)
    doors: list[OutwardClient] = field(default_factory=list)

    async def subscribe(self, url: str, *types: str, **changes: Any) -> Hook:
        return await subscribe(self.tenants, self.tenant, url, *types, **changes)

    async def tell(self, *events: OutboxEvent, tenant: UUID | None = None) -> Sequence[UUID]:
        """Commit events, and hand them on as the relay and the consumer do."""
        async with transaction(self.engine) as connection:
            await append(connection, tenant or self.tenant, events)
        await self.fan_out()
        return [each.event_id for each in events]

    async def fan_out(self) -> None:
        """One pass of the consumer over everything."""
        async with transaction(self.engine) as connection:
            await number_committed(connection, limit=10_000)
        consumer = FanoutConsumer(
            self.engine, self.url, fanout.CONSUMER, Fanout(self.engine, self.woken, wake_endpoint)
        )
        while await consumer.pass_once():
            pass
        await consumer._leadership.release()

    def process(self, pace: Pace = QUICK, outward: Outward | None = None) -> WebhookActivities:
        """The steps of a worker's process."""
        if outward is None:
            self.doors.append(OutwardClient(allow=LOCAL))
            outward = self.doors[-1]
        return WebhookActivities(self.engine, Doorbell(self.engine), outward, pace)

    async def turn(
        self,
        hook: Hook,
        pace: Pace = QUICK,
        *,
        outward: Outward | None = None,
        process: WebhookActivities | None = None,
    ) -> TurnDone:
        """A turn, as a worker takes it."""
        steps = process or self.process(pace, outward)
        asked = TakeTurn(tenant_id=self.tenant, subscription_id=hook.id)
        return await ActivityEnvironment().run(steps.take_turn, asked)

    async def deliveries(self, hook: Hook) -> list[reports.Delivery]:
        """Every delivery of an endpoint with its attempts, in the order of writing."""
        async with tenant_transaction(self.tenants, self.tenant) as connection:
            found = await reports.list_(connection, hook.id, reports.DeliveryFilter(), before=None, limit=10_000)
            attempts = await reports.attempts_of(connection, hook.id, [each.message_id for each in found])
        return [replace(each, attempts=attempts.get(each.message_id, ())) for each in found[::-1]]

    async def rotate(self, hook: Hook) -> Hook:
        """New keys beside the old ones."""
        shared, private = SharedSecret.generate(), PrivateKey.generate()
        async with tenant_transaction(self.tenants, self.tenant) as connection:
            await subscriptions.retire_keys(connection, hook.id, now() + timedelta(hours=1))
            keys = NewKeys(new_id(), shared.key, private.seed, private.public.key)
            await subscriptions.add_keys(connection, self.tenant, hook.id, keys)
        return Hook(hook.subscription, shared, private)

    async def make_due(self, hook: Hook) -> None:
        """Let time pass until everything that waits is due."""
        await self.sql(
            "UPDATE webhook_deliveries SET next_attempt_at = clock_timestamp() - interval '1 millisecond'"
            " WHERE subscription_id = :id AND status = 'waiting'",
            id=hook.id,
        )

    async def sql(self, query: str, **parameters: Any) -> list[Any]:
        """As the role that sees every tenant."""
        async with transaction(self.engine) as connection:
            done = await connection.execute(text(query), parameters)
            return list(done.all()) if done.returns_rows else []


@asynccontextmanager
async def hooking(url: str) -> AsyncIterator[Hooks]:
    """Webhooks in a migrated database that nobody else works in."""
    tenants = create_engine(url, Role.APP, pool_size=5)
    engine = create_engine(url, Role.ENGINE, pool_size=10)
    tenant = new_id()
    async with transaction(tenants) as connection:
        await create_tenant(connection, new_tenant=tenant, name="hooks")
    made = Hooks(url, tenants, engine, tenant)
    yield made
    await asyncio.gather(tenants.dispose(), engine.dispose(), *(door.close() for door in made.doors))


def received(receiver: Vendor) -> list[str]:
    """The ids of what arrived, in that order."""
    return [asked.headers["webhook-id"] for asked in receiver.asked]


def numbers(receiver: Vendor) -> list[int]:
    """The numbers of the events that arrived, in that order."""
    return [json.loads(asked.body)["data"]["number"] for asked in receiver.asked]


def failing(status: int = 500, **how: Any) -> Any:
    """What a receiver answers that fails."""
    return lambda _: Reply(b"no", status, **how)
