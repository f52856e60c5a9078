"""Turns of endpoints on a real database, against real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from activities.webhooks.lane import Pace
from db.webhooks import sending
from db.engine import transaction
from domain.webhooks.delivering import DELAYS, DeliveryStatus
from domain.webhooks.endpoint import Ordering
from kit.clock import now
from tests.databases import migrated_database
from tests.hooks import QUICK, Hooks, event, hooking, numbers, received
from tests.vendors.server import Asked, Reply, Vendor, vendor
from tools.local.postgres import EmbeddedPostgres


@pytest.fixture
def hooks_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    with migrated_database(postgres) as url:
        yield url


@pytest.fixture
async def hooks(hooks_url: str) -> AsyncIterator[Hooks]:
    async with hooking(hooks_url) as made:
        yield made


@pytest.fixture
async def receiver() -> AsyncIterator[Vendor]:
    async with vendor() as made:
        made.say(b"thanks", 200)
        yield made


async def test_an_event_reaches_who_wants_it(hooks: Hooks, receiver: Vendor) -> None:
    hook = await hooks.subscribe(f"{receiver.url}/in?x=1", "escrow.*", headers={"X-Desk": "7"})
    told = event(3, reason="ä €")
    await hooks.tell(told, event(4, "ledger.deposited"))
    done = await hooks.turn(hook)
    assert (done.delivered, done.failed, done.next_at) == (1, 0, None)
    [asked] = receiver.asked
    assert (asked.method, asked.path, asked.query) == ("POST", "/in", [("x", "1")])
    assert asked.headers["x-desk"] == "7"
    assert asked.headers["content-type"] == "application/json"
    assert hook.check(asked) == str(told.event_id)
    body = json.loads(asked.body)
    assert body == {
        "id": str(told.event_id),
        "type": "escrow.funded",
        "timestamp": body["timestamp"],
        "subject": "escrow:3",
        "position": 1,
        "data": dict(told.data),
    }
    [delivery] = await hooks.deliveries(hook)
    [attempt] = delivery.attempts
    assert (delivery.status, delivery.failures, delivery.body) == (DeliveryStatus.DELIVERED, 0, asked.body.decode())
    assert (attempt.result, attempt.status_code, attempt.response_body) == ("delivered", 200, "thanks")
    assert attempt.request_headers is not None
    assert attempt.request_headers["webhook-signature"] == asked.headers["webhook-signature"]
    assert attempt.request_headers["X-Desk"] == "(hidden)"


async def test_thousands_arrive_once_each(hooks: Hooks, receiver: Vendor) -> None:
    hook = await hooks.subscribe(receiver.url)
    told = [event(number) for number in range(2_000)]
    await hooks.tell(*told)
    done = await hooks.turn(hook)
    assert done.delivered == 2_000
    assert sorted(received(receiver)) == sorted(str(each.event_id) for each in told)
    assert {each.status for each in await hooks.deliveries(hook)} == {DeliveryStatus.DELIVERED}
