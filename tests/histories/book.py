"""Stories of the margin book; see ``record``. They revalue whatever accounts there are, at whatever prices."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio.client import WorkflowExecutionStatus, WorkflowHandle
from temporalio.testing import TimeSkipper

from db.ids import new_id
from tests.desk import TASK_QUEUE, Desk
from tests.polling import eventually
from workflows.book import BookAuditWorkflow, BookRun, BookWatchWorkflow, BookWorkflow
from workflows.search import STATUS

Run = WorkflowHandle[Any, Any]


async def book(desk: Desk) -> list[Run]:
    """Two rounds, and the end when no tick comes any more."""
    run = await _started(desk)
    await run.signal("ticked")
    await _waiting(run)
    await TimeSkipper(desk.client).fast_forward(run, timedelta(minutes=2))
    await run.result()
    return [run]


async def book_moved(desk: Desk) -> list[Run]:
    """A run that is asked to move hands over to a new one."""
    run = await _started(desk)
    found = await run.describe()
    first: Run = desk.client.get_workflow_handle(found.id, run_id=found.run_id)
    await run.signal("move")

    async def moved() -> bool:
        return (await first.describe()).status is WorkflowExecutionStatus.CONTINUED_AS_NEW

    await eventually(moved)
    last: Run = desk.client.get_workflow_handle(found.id)
    await _waiting(last)
    await TimeSkipper(desk.client).fast_forward(last, timedelta(minutes=2))
    await last.result()
    return [first, last]


async def book_watch(desk: Desk) -> list[Run]:
    run = await desk.client.start_workflow(BookWatchWorkflow.run, id=f"book-watch:{new_id()}", task_queue=TASK_QUEUE)
    await run.result()
    return [run]


async def book_audit(desk: Desk) -> list[Run]:
    run = await desk.client.start_workflow(BookAuditWorkflow.run, id=f"book-audit:{new_id()}", task_queue=TASK_QUEUE)
    await run.result()
    return [run]


async def _started(desk: Desk) -> Run:
    run = await desk.client.start_workflow(
        BookWorkflow.run, BookRun(), id=f"book:{new_id()}", task_queue=TASK_QUEUE, start_signal="ticked"
    )
    await _waiting(run)
    return run


async def _waiting(run: Run) -> None:
    async def waits() -> bool:
        return (await run.describe()).typed_search_attributes.get(STATUS) == "waiting"

    await eventually(waits)


BOOK = (book, book_moved, book_watch, book_audit)
