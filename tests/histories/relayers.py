"""Stories of relayers; see ``record``."""

from __future__ import annotations

from typing import Any

from temporalio.client import WorkflowExecutionStatus, WorkflowHandle

from db.ids import new_id
from domain.chain.following import Ask
from domain.ids import relayer_workflow_id
from tests.chain.model import CHAINS, ModelChain, ModelDesk
from tests.chain.watching import register
from tests.desk import TASK_QUEUE, Desk
from tests.polling import eventually
from workflows.chain.relayer import RelayerWatchWorkflow
from workflows.chain.relayer_client import RelayerClient, RelayerCommand
from workflows.search import STATUS

Run = WorkflowHandle[Any, Any]


async def relayer(desk: Desk) -> list[Run]:
    """Follows, is paused, rewound and resumed, and is moved to a new run."""
    client = RelayerClient(desk.client, TASK_QUEUE)
    chain = ModelChain()
    chain.mine("a")
    source = await register(desk.engine, desk.tenant, "history", address=new_id().bytes + bytes(4))
    CHAINS["history"] = ModelDesk(chain, name="history")
    await client.start(desk.tenant, source.relayer_id)
    run: Run = desk.client.get_workflow_handle(relayer_workflow_id(source.relayer_id))

    async def follows() -> bool:
        found = (await run.describe()).typed_search_attributes
        return found.get(STATUS) == "following" and (await run.fetch_history()).events[-1].event_id > 10

    await eventually(follows)
    for ask, to_block in ((Ask.PAUSE, None), (Ask.REWIND, 0), (Ask.RESUME, None)):
        command = RelayerCommand(command_id=new_id(), ask=ask, to_block=to_block)
        await client.command(desk.tenant, source.relayer_id, command)
    first: Run = desk.client.get_workflow_handle(run.id, run_id=(await run.describe()).run_id)
    await run.signal("move")

    async def moved() -> bool:
        return (await first.describe()).status is WorkflowExecutionStatus.CONTINUED_AS_NEW

    await eventually(moved)
    await run.terminate("the story is over")
    del CHAINS["history"]
    return [first]


async def relayer_watch(desk: Desk) -> list[Run]:
    run = await desk.client.start_workflow(
        RelayerWatchWorkflow.run, id=f"relayer-watch:{new_id()}", task_queue=TASK_QUEUE
    )
    await run.result()
    return [run]


RELAYERS = (relayer, relayer_watch)
