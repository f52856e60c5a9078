"""The dispatcher on the real server: events start workflows once, and wake the ones that run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
from temporalio import workflow
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.consuming import Consumer
from activities.dispatch import CONSUMER, Dispatcher, Listener, TenantEvent, Wake
from activities.relay import Relay
from db.consumers import standing
from db.engine import transaction
from domain.errors import Unavailable
from tests.db.feeds import FOR_EVER, Feeds, running
from tests.db.raw import sql
from tests.polling import eventually
from workflows.search import attributes
from workflows.waking import Waker

QUEUE = "dispatch-test"


@workflow.defn
class OnceWorkflow:
    @workflow.run
    async def run(self, number: int) -> int:
        return number


@workflow.defn
class LaneWorkflow:
    """Ends when it is told to, and says how often it was woken."""

    def __init__(self) -> None:
        self.woken: list[int] = []
        self.done = False

    @workflow.run
    async def run(self, subject: str) -> list[int]:
        await workflow.wait_condition(lambda: self.done)
        return self.woken

    @workflow.signal
    def wake(self, number: int) -> None:
        self.woken.append(number)
        self.done = number < 0

    @workflow.query
    def seen(self) -> list[int]:
        return self.woken


def once(event: TenantEvent) -> Wake:
    return Wake(
        workflow=OnceWorkflow.run,
        workflow_id=f"once:{event.event_id}",
        argument=event.data["number"],
        summary="once",
        search_attributes=attributes(event.tenant_id),
    )


def lane(event: TenantEvent) -> Wake:
    return Wake(
        workflow=LaneWorkflow.run,
        workflow_id=f"lane:{event.tenant_id}:{event.subject}",
        argument=event.subject,
        summary="a lane",
        search_attributes=attributes(event.tenant_id),
        signal="wake",
        signal_argument=event.data["number"],
    )


@pytest.fixture(scope="module")
async def queue(temporal: Client) -> AsyncIterator[Client]:
    worker = Worker(
        temporal,
        task_queue=QUEUE,
        workflows=[OnceWorkflow, LaneWorkflow],
        workflow_runner=UnsandboxedWorkflowRunner(),
    )
    async with worker:
        yield temporal


def dispatching(feeds: Feeds, client: Client, listener: Listener) -> Consumer:
    listeners: Mapping[str, Listener] = {"test.told": listener}
    dispatcher = Dispatcher(listeners, Waker(client, QUEUE))
    return Consumer(feeds.engine, feeds.url, CONSUMER, dispatcher, poll_seconds=FOR_EVER)


@asynccontextmanager
async def at_work(feeds: Feeds, consumer: Consumer) -> AsyncIterator[None]:
    async with running(Relay(feeds.engine, feeds.url, consumers=[consumer], poll_seconds=FOR_EVER)):
        yield


async def stands_at(feeds: Feeds, wanted: int) -> bool:
    async with transaction(feeds.engine) as connection:
        stands = await standing(connection, CONSUMER)
    return stands is not None and stands.position == wanted


async def exists(client: Client, workflow_id: str) -> bool:
    try:
        await client.get_workflow_handle(workflow_id).describe()
    except RPCError:
        return False
    return True


async def test_an_event_starts_its_workflow_once(feeds: Feeds, queue: Client) -> None:
    told = [await feeds.tell("escrow:1", number) for number in range(3)]
    consumer = dispatching(feeds, queue, once)
    async with at_work(feeds, consumer):
        await eventually(lambda: stands_at(feeds, 3))
    results = [await queue.get_workflow_handle(f"once:{each}").result() for each in told]
    assert results == [0, 1, 2]
    runs = [(await queue.get_workflow_handle(f"once:{each}").describe()).run_id for each in told]
    # A crash between delivery and cursor: the page comes again, after the runs have ended.
    async with transaction(feeds.engine) as connection:
        await sql(connection, "UPDATE feed_consumers SET position = 0")
    async with at_work(feeds, dispatching(feeds, queue, once)):
        await eventually(lambda: stands_at(feeds, 3))
    assert [(await queue.get_workflow_handle(f"once:{each}").describe()).run_id for each in told] == runs


async def test_a_lane_is_started_by_its_first_event_and_woken_by_the_next(feeds: Feeds, queue: Client) -> None:
    handle = queue.get_workflow_handle(f"lane:{feeds.tenant}:lane")
    async with at_work(feeds, dispatching(feeds, queue, lane)):
        await feeds.tell("lane", 1)
        await eventually(lambda: exists(queue, handle.id))
        first = (await handle.describe()).run_id

        async def saw(*numbers: int) -> bool:
            return set(numbers) <= set(await handle.query(LaneWorkflow.seen))

        await eventually(lambda: saw(1))
        await feeds.tell("lane", 2)
        await eventually(lambda: saw(1, 2))
        await feeds.tell("lane", -1)
        assert await handle.result() == [1, 2, -1]
        await feeds.tell("lane", 4)
        again = queue.get_workflow_handle(handle.id)

        async def runs_again() -> bool:
            found = await again.describe()
            return found.run_id != first and found.status is WorkflowExecutionStatus.RUNNING

        await eventually(runs_again)
        await feeds.tell("lane", -2)
        assert await again.result() == [4, -2]


async def test_wakes_of_one_lane_in_one_page_are_one(feeds: Feeds, queue: Client) -> None:
    for number in range(1, 200):
        await feeds.tell("lane", number)
    await feeds.tell("other", 7)
    while await feeds.number():
        pass
    async with at_work(feeds, dispatching(feeds, queue, lane)):
        await eventually(lambda: stands_at(feeds, 200))
    for subject, number in (("lane", 199), ("other", 7)):
        handle = queue.get_workflow_handle(f"lane:{feeds.tenant}:{subject}")
        await handle.signal(LaneWorkflow.wake, -1)
        assert await handle.result() == [number, -1]


async def test_from_commit_to_workflow_it_takes_moments(feeds: Feeds, queue: Client) -> None:
    took_seconds: list[float] = []
    async with at_work(feeds, dispatching(feeds, queue, once)):
        await feeds.tell("warm", 0)
        await eventually(lambda: stands_at(feeds, 1))
        for number in range(10):
            told = await feeds.tell("escrow:1", number)
            began = time.perf_counter()
            while not await exists(queue, f"once:{told}"):  # noqa: ASYNC110 - the workflow is on the server
                await asyncio.sleep(0.002)
            took_seconds.append(time.perf_counter() - began)
    assert sorted(took_seconds)[5] < 2, "it polls in an hour, so this is the bell's doing"


async def test_while_temporal_is_away_the_cursor_stays_and_the_feed_goes_on(feeds: Feeds, queue: Client) -> None:
    class Away:
        up = False

        async def wake(self, wake: Wake) -> None:
            if not self.up:
                raise Unavailable("temporal", "away")
            await Waker(queue, QUEUE).wake(wake)

    away = Away()
    consumer = Consumer(feeds.engine, feeds.url, CONSUMER, Dispatcher({"test.told": once}, away))
    async with at_work(feeds, consumer):
        told = [await feeds.tell("escrow:1", number) for number in range(3)]
        await eventually(lambda: feeds.sees(told[2]))
        assert await stands_at(feeds, 0)
        away.up = True
        await eventually(lambda: stands_at(feeds, 3))
    assert [await queue.get_workflow_handle(f"once:{each}").result() for each in told] == [0, 1, 2]


async def test_a_listener_with_a_bug_holds_nobody_up(feeds: Feeds, queue: Client) -> None:
    def careless(event: TenantEvent) -> Wake:
        if event.data["number"] == 1:
            raise KeyError("missing")
        if event.data["number"] == 2:
            # What the server never takes: an id beyond its limit.
            return Wake(OnceWorkflow.run, "x" * 2_000, 0, "too long", attributes(event.tenant_id))
        return once(event)

    told = [await feeds.tell("escrow:1", number) for number in range(4)]
    async with at_work(feeds, dispatching(feeds, queue, careless)):
        await eventually(lambda: stands_at(feeds, 4))
    async with transaction(feeds.engine) as connection:
        rows = await sql(connection, "SELECT event_id, error FROM feed_faults ORDER BY position")
    assert [row[0] for row in rows] == told[1:3]
    assert "KeyError" in rows[0][1]
    assert [await queue.get_workflow_handle(f"once:{told[n]}").result() for n in (0, 3)] == [0, 3]
