"""What a caller of a workflow is told when the run ends at the very moment at which there is more news of it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from temporalio import activity, workflow
from temporalio.client import Client, WithStartWorkflowOperation
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from db.ids import new_id
from domain.errors import Unavailable
from workflows import caller
from workflows.caller import Caller


@workflow.defn
class Ending:
    """Ends with the first command that it takes; while it takes it, news arrives."""

    def __init__(self) -> None:
        self._over = False

    @workflow.run
    async def run(self) -> int:
        await workflow.wait_condition(lambda: self._over and workflow.all_handlers_finished())
        return 0

    @workflow.update
    async def end(self, asked: str) -> str:
        taken = await workflow.execute_local_activity_method(News.arrives, start_to_close_timeout=timedelta(seconds=5))
        self._over = True
        return f"{asked}, at attempt {taken}"

    @workflow.signal
    def look(self) -> None:
        """News."""


class News:
    """Arrives in the middle of the first ``times`` attempts."""

    def __init__(self, client: Client, times: int) -> None:
        self._client = client
        self._times = times
        self.attempts = 0

    @activity.defn
    async def arrives(self) -> int:
        self.attempts += 1
        if self.attempts <= self._times:
            await self._client.get_workflow_handle(str(activity.info().workflow_id)).signal(Ending.look)
        return self.attempts


async def asked(client: Client, news: News) -> str:
    queue = f"ending-{new_id()}"
    async with Worker(
        client,
        task_queue=queue,
        workflows=[Ending],
        activities=[news.arrives],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        return await Caller(client, queue)._command(
            f"ending:{queue}",
            Ending.end,
            "end it",
            new_id(),
            None,
            lambda: WithStartWorkflowOperation(
                Ending.run, id=f"ending:{queue}", task_queue=queue, id_conflict_policy=WorkflowIDConflictPolicy.FAIL
            ),
            str,
        )


async def test_a_command_that_the_server_threw_away_is_sent_again(temporal: Client) -> None:
    """A task that ends the run while a signal waits fails, and the command in it with it."""
    news = News(temporal, times=1)
    assert await asked(temporal, news) == "end it, at attempt 2"


async def test_one_that_is_thrown_away_for_ever_is_unavailable(
    temporal: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caller, "RENEWALS_MAX", 3)
    news = News(temporal, times=99)
    with pytest.raises(Unavailable, match="unexpected workflow task failure"):
        await asked(temporal, news)
    assert news.attempts <= 3
