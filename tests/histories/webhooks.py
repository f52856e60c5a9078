"""Stories of webhooks; see ``record``."""

from __future__ import annotations

from typing import Any

from temporalio.client import WorkflowExecutionStatus, WorkflowHandle
from temporalio.service import RPCError

from db.ids import new_id
from domain.ids import webhook_workflow_id
from tests.desk import BUYER, TASK_QUEUE, Desk
from tests.hooks import subscribe
from tests.polling import eventually
from tests.vendors.server import Asked, Reply, vendor
from workflows.search import STATUS
from workflows.webhooks import WebhookWatchWorkflow

Run = WorkflowHandle[Any, Any]


async def webhook(desk: Desk) -> list[Run]:
    """An attempt that fails, a wait, an attempt that is delivered, and the end."""
    async with vendor() as receiver:
        busy = iter([Reply(b"", 429, {"Retry-After": "1"})])
        receiver.answer = lambda _: next(busy, Reply(b"", 200))
        run = await _started(desk, receiver.url)
        await run.result()
    return [run]


async def webhook_moved(desk: Desk) -> list[Run]:
    """A run that is asked to move while it waits hands over to a new one."""

    def fails(_: Asked) -> Reply:
        return Reply(b"", 429, {"Retry-After": "1"})

    async with vendor() as receiver:
        receiver.answer = fails
        run = await _started(desk, receiver.url)

        async def waits() -> bool:
            return (await run.describe()).typed_search_attributes.get(STATUS) == "waiting"

        await eventually(waits)
        first: Run = desk.client.get_workflow_handle(run.id, run_id=(await run.describe()).run_id)
        receiver.say(b"ok")
        await run.signal("move")

        async def moved() -> bool:
            return (await first.describe()).status is WorkflowExecutionStatus.CONTINUED_AS_NEW

        await eventually(moved)
        await run.result()
    return [first, run]


async def webhook_watch(desk: Desk) -> list[Run]:
    run = await desk.client.start_workflow(
        WebhookWatchWorkflow.run, id=f"webhook-watch:{new_id()}", task_queue=TASK_QUEUE
    )
    await run.result()
    return [run]


async def _started(desk: Desk, url: str) -> Run:
    """The run that the feed starts for something that happened."""
    hook = await subscribe(desk.engine, desk.tenant, url, "ledger.*")
    await desk.deposit(BUYER, 5)
    run: Run = desk.client.get_workflow_handle(webhook_workflow_id(hook.id))

    async def there() -> bool:
        try:
            await run.describe()
        except RPCError:
            return False
        return True

    await eventually(there)
    return run


WEBHOOKS = (webhook, webhook_moved, webhook_watch)
