"""Commands that reach a relayer's workflow while a turn is under way; its steps are doubles that wait to be let go."""

from __future__ import annotations

import asyncio

from temporalio import activity
from temporalio.client import Client
from temporalio.worker import Worker

from activities.chain.relayer_messages import CarryOut, RelayerCommand, RelayerRun, RelayerState, TurnDone
from db.ids import new_id
from domain.chain import RelayerStatus
from domain.chain.following import Ask
from workflows.chain.relayer import RelayerWorkflow
from workflows.limits import chain_queue
from workflows.registry import workflow_runner

LIMIT_SECONDS = 15
_AFTER = {Ask.PAUSE: RelayerStatus.PAUSED, Ask.RESUME: RelayerStatus.FOLLOWING}


class Steps:
    """A first turn that saw a pause and tells of it late; every other one follows."""

    def __init__(self) -> None:
        self.turns = 0
        self.began, self.told, self.again = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @activity.defn(name="relayer.load")
    async def load(self, run: RelayerRun) -> RelayerState:
        return RelayerState(relayer_id=run.relayer_id, status=RelayerStatus.FOLLOWING)

    @activity.defn(name="relayer.carry_out")
    async def carry_out(self, asked: CarryOut) -> RelayerState:
        return RelayerState(relayer_id=asked.relayer_id, status=_AFTER[asked.command.ask])

    @activity.defn(name="relayer.follow")
    async def follow(self, run: RelayerRun) -> TurnDone:
        self.turns += 1
        if self.turns > 1:
            self.again.set()
            await activity.wait_for_worker_shutdown()
        self.began.set()
        async with asyncio.timeout(LIMIT_SECONDS):
            while not self.told.is_set():
                activity.heartbeat()
                await asyncio.sleep(0.1)
        return TurnDone(state=RelayerState(relayer_id=run.relayer_id, status=RelayerStatus.PAUSED))


async def test_a_turn_that_saw_a_pause_does_not_undo_the_resume_after_it(temporal: Client) -> None:
    steps, queue = Steps(), f"relayer-{new_id()}"
    run = RelayerRun(tenant_id=new_id(), relayer_id="model:0x01")
    async with (
        Worker(
            temporal,
            task_queue=queue,
            workflows=[RelayerWorkflow],
            workflow_runner=workflow_runner(),
            activities=[steps.load, steps.carry_out],
        ),
        Worker(temporal, task_queue=chain_queue(queue), activities=[steps.follow]),
        asyncio.timeout(3 * LIMIT_SECONDS),
    ):
        handle = await temporal.start_workflow(RelayerWorkflow.run, run, id=queue, task_queue=queue)
        await steps.began.wait()
        for ask in (Ask.PAUSE, Ask.RESUME):
            await handle.execute_update(ask.value, RelayerCommand(command_id=new_id(), ask=ask))
        steps.told.set()
        async with asyncio.timeout(LIMIT_SECONDS):
            await steps.again.wait()
        await handle.terminate("the test is over")
