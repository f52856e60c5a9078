"""The workflow of an endpoint on the real server: it is there while something waits, and is brought back when lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from db.engine import transaction
from db.ids import new_id
from db.webhooks.writing import NewDelivery, Origin, add
from domain.ids import webhook_workflow_id
from tests.db.raw import sql
from tests.desk import BUYER, TASK_QUEUE, Desk
from tests.hooks import received, subscribe
from tests.polling import eventually
from tests.vendors.server import Reply, Vendor, vendor
from workflows.search import STATUS, TENANT
from workflows.webhooks import WebhookWatchWorkflow


@pytest.fixture
async def receiver() -> AsyncIterator[Vendor]:
    async with vendor() as made:
        made.say(b"ok")
        yield made


async def test_it_is_there_while_something_waits(desk: Desk, receiver: Vendor, temporal: Client) -> None:
    receiver.answer = lambda _: Reply(b"", 429 if len(receiver.asked) < 2 else 200, {"Retry-After": "1"})
    hook = await subscribe(desk.engine, desk.tenant, receiver.url, "ledger.*")
    await desk.deposit(BUYER, 5)
    run = temporal.get_workflow_handle(webhook_workflow_id(hook.id))

    async def waits() -> bool:
        if not receiver.asked:
            return False
        found = (await run.describe()).typed_search_attributes
        return found.get(STATUS) == "waiting" and found.get(TENANT) == str(desk.tenant)

    await eventually(waits)
    done = await run.result()
    assert (done["delivered"], done["failed"]) == (1, 1)
    assert len(set(received(receiver))) == 1


async def test_an_event_that_comes_meanwhile_does_not_wait_for_the_next_attempt(
    desk: Desk, receiver: Vendor, temporal: Client, engine: AsyncEngine
) -> None:
    hook = await subscribe(desk.engine, desk.tenant, receiver.url, "ledger.*")
    receiver.answer = lambda _: Reply(b"", 429, {"Retry-After": "1"})
    await desk.deposit(BUYER, 5)
    run = temporal.get_workflow_handle(webhook_workflow_id(hook.id))

    async def put_off() -> bool:
        """As after many failures; the run learns of it when its timer fires, or before."""
        return bool(await move(engine, hook.id, "WHERE failures = 1", "1 hour"))

    await eventually(put_off)
    receiver.say(b"ok")
    await desk.deposit(BUYER, 6)

    async def delivered() -> bool:
        return len(receiver.asked) == 2

    await eventually(delivered)
    assert len(set(received(receiver))) == 2
    assert (await run.describe()).status is WorkflowExecutionStatus.RUNNING
    await run.terminate("the test is over")


async def test_the_watch_finds_what_nobody_works_for(
    desk: Desk, receiver: Vendor, temporal: Client, engine: AsyncEngine
) -> None:
    hook = await subscribe(desk.engine, desk.tenant, receiver.url, "nothing*")
    message = new_id()
    async with transaction(engine) as connection:
        made = NewDelivery(desk.tenant, hook.id, message, None, "webhook.test", "x", "{}")
        await add(connection, [made], Origin.TEST)
    assert not await looked(temporal, hook.id), "it has waited for no more than a moment"
    await move(engine, hook.id, "", "-1 minute")
    assert await looked(temporal, hook.id)

    async def delivered() -> bool:
        return received(receiver) == [str(message)]

    await eventually(delivered)


async def looked(temporal: Client, subscription: UUID) -> bool:
    """Whether the endpoint has a workflow after a look of the watch."""
    await temporal.execute_workflow(WebhookWatchWorkflow.run, id=f"webhook-watch:{new_id()}", task_queue=TASK_QUEUE)
    try:
        await temporal.get_workflow_handle(webhook_workflow_id(subscription)).describe()
    except RPCError as error:
        assert error.status is RPCStatusCode.NOT_FOUND
        return False
    return True


async def move(engine: AsyncEngine, subscription: UUID, which: str, by: str) -> list[object]:
    """Let the next attempt be due so much later than now."""
    query = (
        f"UPDATE webhook_deliveries SET next_attempt_at = clock_timestamp() + CAST(CAST(:by AS text) AS interval)"
        f" {which or 'WHERE true'} AND status = 'waiting' AND subscription_id = :id RETURNING 1"
    )
    async with transaction(engine) as connection:
        return await sql(connection, query, by=by, id=subscription)
