"""The workflow of a relayer on the real server: begun by its registration, obedient, and brought back when lost."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client, WorkflowExecutionStatus

from db import outbox
from db.engine import tenant_transaction, transaction
from db.ids import new_id
from db.outbox import SETTLEMENT_TOPIC, OutboxEvent
from domain.chain import Source
from domain.chain.addresses import write_address
from domain.chain.following import Ask
from domain.errors import Refusal
from domain.ids import relayer_workflow_id
from kit.clock import now
from tests.chain.model import CHAINS, ModelChain, ModelDesk
from tests.chain.watching import as_told, cursor, expected, register, replayed, rows, told
from tests.db.raw import sql
from tests.desk import TASK_QUEUE, Desk
from tests.polling import eventually
from workflows.chain.relayer import RelayerState, RelayerWatchWorkflow
from workflows.chain.relayer_client import RelayerClient, RelayerCommand
from workflows.search import STATUS


class Relayed:
    """A registered source, its chain and its workflow."""

    def __init__(self, desk: Desk, engine: AsyncEngine, source: Source) -> None:
        self.tenant = desk.tenant
        self.tenants = desk.engine
        self.engine = engine
        self.source = source
        self.chain = ModelChain()
        self.desk = ModelDesk(self.chain, name=source.chain)
        self.client = RelayerClient(desk.client, TASK_QUEUE)
        self.run = desk.client.get_workflow_handle(relayer_workflow_id(source.relayer_id))

    async def registered(self) -> None:
        """As the API tells it."""
        source = self.source
        data = {
            "relayer_id": source.relayer_id,
            "chain": source.chain,
            "network": source.network,
            "addresses": [write_address(source.kind, source.network, address) for address in source.addresses],
            "start_block": source.start_block,
            "follow_from": source.start_block,
            "settles": source.settles,
        }
        subject = relayer_workflow_id(self.source.relayer_id)
        event = OutboxEvent(new_id(), SETTLEMENT_TOPIC, "chain.source_registered", subject, now(), data)
        async with tenant_transaction(self.tenants, self.tenant) as connection:
            await outbox.append(connection, self.tenant, [event])

    async def ask(self, ask: Ask, **more: Any) -> RelayerState:
        command = RelayerCommand(command_id=new_id(), ask=ask, **more)
        return await self.client.command(self.tenant, self.source.relayer_id, command)

    async def reached(self, number: int) -> None:
        async def there() -> bool:
            return bool((await cursor(self.engine, self.source)).block_number == number)

        await eventually(there)

    async def agrees(self) -> None:
        held = await rows(self.engine, self.source)
        assert held == expected(self.source, self.chain.events(0, self.chain.head.number))
        assert replayed(await told(self.engine, self.source)) == as_told(held)


@pytest.fixture
async def relayed(desk: Desk, engine: AsyncEngine) -> AsyncIterator[Relayed]:
    name = f"model-{new_id().hex[-8:]}"
    made = Relayed(desk, engine, await register(desk.engine, desk.tenant, name))
    CHAINS[name] = made.desk
    made.chain.mine("a")
    yield made
    await made.run.terminate("the test is over")
    del CHAINS[name]


async def test_it_follows_from_its_registration_on_and_obeys(relayed: Relayed) -> None:
    await relayed.registered()
    await relayed.reached(1)
    found = (await relayed.run.describe()).typed_search_attributes
    assert found.get(STATUS) == "following"
    with pytest.raises(Refusal, match="relayer_not_running"):
        await relayed.ask(Ask.RESUME)
    assert (await relayed.ask(Ask.PAUSE)).status == "paused"
    relayed.chain.mine("b")
    with pytest.raises(Refusal, match="relayer_not_running"):
        await relayed.ask(Ask.PAUSE)
    back = await relayed.ask(Ask.REWIND, to_block=0)
    assert (back.block_number, back.last_sequence) == (0, 0)
    with pytest.raises(Refusal, match="block_not_reached"):
        await relayed.ask(Ask.REWIND, to_block=1)
    assert replayed(await told(relayed.engine, relayed.source)) == []
    assert (await relayed.ask(Ask.RESUME)).status == "following"
    await relayed.reached(2)
    await relayed.agrees()
    relayed.chain.drop(1)
    relayed.chain.mine("c")
    relayed.chain.mine()
    await relayed.reached(3)
    await relayed.agrees()
    async with transaction(relayed.engine) as connection:
        acts = await sql(
            connection,
            "SELECT action FROM audit_log WHERE subject = :subject ORDER BY audit_id",
            subject=relayer_workflow_id(relayed.source.relayer_id),
        )
    assert [act.action for act in acts] == [
        "relayer.paused",
        "relayer.rewound",
        "relayer.resumed",
        "chain.reorganized",
    ]


async def test_a_command_has_one_effect_however_often_it_is_sent(relayed: Relayed) -> None:
    await relayed.client.start(relayed.tenant, relayed.source.relayer_id)
    await relayed.reached(1)
    command = RelayerCommand(command_id=new_id(), ask=Ask.PAUSE)
    first = await relayed.client.command(relayed.tenant, relayed.source.relayer_id, command)
    await relayed.ask(Ask.RESUME)
    again = command.model_copy(update={"repeated": True})
    assert await relayed.client.command(relayed.tenant, relayed.source.relayer_id, again) == first
    assert (await cursor(relayed.engine, relayed.source)).status == "following"


async def test_a_relayer_that_halted_waits_until_it_is_resumed(relayed: Relayed) -> None:
    relayed.chain.mine("b")
    relayed.chain.finalize(2)
    await relayed.client.start(relayed.tenant, relayed.source.relayer_id)
    await relayed.reached(2)
    true = list(relayed.chain.blocks)
    relayed.chain.finalized = 0
    relayed.chain.drop(2)
    for name in ("x", "y", "z"):
        relayed.chain.mine(name)

    async def halted() -> bool:
        found = (await relayed.run.describe()).typed_search_attributes
        return found.get(STATUS) == "halted"

    await eventually(halted)
    relayed.chain.blocks[:] = true
    relayed.chain.mine("c")
    assert (await relayed.ask(Ask.RESUME)).status == "following"
    await relayed.reached(3)
    await relayed.agrees()


async def test_a_chain_that_does_not_answer_is_asked_again(relayed: Relayed) -> None:
    relayed.desk.away = True
    await relayed.client.start(relayed.tenant, relayed.source.relayer_id)

    async def told_of() -> bool:
        current = await relayed.run.query("__temporal_workflow_metadata", result_type=dict)
        return "could not be read" in str(current)

    await eventually(told_of)
    relayed.desk.away = False
    await relayed.reached(1)


async def test_a_lost_one_is_brought_back_and_a_moved_one_goes_on(
    relayed: Relayed, temporal: Client, owner_engine: AsyncEngine
) -> None:
    await relayed.client.start(relayed.tenant, relayed.source.relayer_id)
    await relayed.reached(1)
    await relayed.run.terminate("a test of what happens when a workflow is lost")
    relayed.chain.mine("b")

    async def brought_back() -> bool:
        """A turn that is under way does not know yet that its workflow is gone, and is heard of."""
        async with transaction(owner_engine) as connection:
            await sql(
                connection,
                "UPDATE chain_cursors SET asked_at = recorded_at - interval '1 minute',"
                " recorded_at = recorded_at - interval '1 minute' WHERE source_id = :source RETURNING 1",
                source=relayed.source.source_id,
            )
        await temporal.execute_workflow(RelayerWatchWorkflow.run, id=f"relayer-watch:{new_id()}", task_queue=TASK_QUEUE)
        return (await relayed.run.describe()).status is WorkflowExecutionStatus.RUNNING

    await eventually(brought_back)
    await relayed.reached(2)
    first = temporal.get_workflow_handle(relayed.run.id, run_id=(await relayed.run.describe()).run_id)
    await first.signal("move")

    async def moved() -> bool:
        return (await first.describe()).status is WorkflowExecutionStatus.CONTINUED_AS_NEW

    await eventually(moved)
    relayed.chain.mine("c")
    await relayed.reached(3)
    await relayed.agrees()
