"""Commands while servers are away and workflows are lost: they are taken, and carried out when it is over.

On a database of their own, where no other test's relay hears of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client

from api.main import create_app
from crew import create_relay, create_worker
from db.engine import Role, create_engine, transaction
from db.identity import create_tenant
from db.ids import new_id
from kit.settings import ApiSettings
from kit.temporal import connect
from tests.api.caller import Caller, ok
from tests.cable import Cable
from tests.commands import command, finished, read, take, wake
from tests.databases import migrated_database
from tests.desk import BUYER, SELLER, Desk, terms
from tests.polling import eventually
from tools.deployment import Build, make_current
from tools.local.postgres import EmbeddedPostgres
from tools.local.temporal import TemporalDevServer
from workflows.settlement import SettlementWatchWorkflow


@dataclass(frozen=True)
class House:
    """A worker with a task queue and a database of its own; ``cable`` leads it to Temporal, ``wire`` to Postgres."""

    queue: str
    url: str
    cable: Cable
    wire: Cable
    client: Client
    tenants: AsyncEngine
    engine: AsyncEngine
    tenant: UUID

    @asynccontextmanager
    async def relaying(self) -> AsyncIterator[None]:
        """With the relay beside the worker, which wakes workflows when events say so."""
        relay = asyncio.create_task(create_relay(self.client, self.queue, self.url, engine=self.engine).run())
        try:
            yield
        finally:
            relay.cancel()
            await asyncio.gather(relay, return_exceptions=True)


@pytest.fixture
async def house(
    postgres: EmbeddedPostgres, temporal: Client, temporal_server: TemporalDevServer
) -> AsyncIterator[House]:
    name = f"house_{new_id().hex}"
    async with AsyncExitStack() as stack:
        url = await asyncio.to_thread(stack.enter_context, migrated_database(postgres))
        cable = await stack.enter_async_context(Cable(f"tcp://{temporal_server.address}"))
        wire = await stack.enter_async_context(Cable(url))
        tenants, engine = create_engine(url, Role.APP, pool_size=10), create_engine(url, Role.ENGINE, pool_size=6)
        cut_off = create_engine(wire.url, Role.APP, pool_size=10)
        for opened in (tenants, engine, cut_off):
            stack.push_async_callback(opened.dispose)
        client = await connect(cable.url.removeprefix("tcp://"))
        worker = create_worker(client, name, "only", tenants=cut_off, engine=engine, deployment=name)
        await stack.enter_async_context(worker)
        await make_current(client, Build(name, "only"))
        tenant = new_id()
        async with transaction(tenants) as connection:
            assert await create_tenant(connection, new_tenant=tenant, name="house")
        yield House(name, url, cable, wire, client, tenants, engine, tenant)
        cable.mend()
        wire.mend()


async def test_commands_are_taken_while_temporal_is_down_and_run_when_it_is_back(house: House) -> None:
    far = Desk(house.tenant, house.client, house.tenants, house.queue)
    escrow_id = await far.open(terms(1_000_000))
    settings = ApiSettings(
        database_url=house.url,
        temporal_address=house.cable.url.removeprefix("tcp://"),
        temporal_task_queue=house.queue,
        database_pool_size=5,
    )
    app = create_app(settings)
    async with house.relaying(), app.router.lifespan_context(app):
        service = await Caller(app, house.tenant, house.tenants, None).key_for()
        house.cable.cut()
        asked = [
            {"command_id": "in", "account_ref": BUYER, "asset_symbol": "USDC", "amount": "1.5"},
            {
                "command_id": "fund",
                "account_ref": BUYER,
                "asset_symbol": "USDC",
                "amount": 1,
                "escrow_id": str(escrow_id),
            },
            {"command_id": "out", "kind": "withdrawal", "account_ref": BUYER, "asset_symbol": "USDC", "amount": "0.6"},
        ]
        for body in asked:
            ok(await service.post("commands/ingest", body), 202)
        await asyncio.sleep(2)  # the outage is the test
        assert ok(await service.get("commands/in"))["status"] == "RECEIVED"
        house.cable.mend()

        async def ended() -> bool:
            return not ok(await service.get("commands", status="RECEIVED"))["items"]

        await eventually(ended, limit_seconds=60)

        async def all_finished() -> bool:
            found = ok(await service.get("commands"))["items"]
            return {item["status"] for item in found} <= {"SETTLED", "REJECTED"}

        await eventually(all_finished, limit_seconds=60)
        found = {item["command_id"]: item for item in ok(await service.get("commands"))["items"]}
        assert {name: item["status"] for name, item in found.items()} == {
            "in": "SETTLED",
            "fund": "SETTLED",
            "out": "REJECTED",
        }
        assert found["out"]["code"] == "insufficient_funds"
        assert ok(await service.get(f"ledger/transactions/{found['in']['transaction_id']}"))["kind"] == "deposit"
        assert ok(await service.get(f"ledger/transactions/{found['fund']['transaction_id']}"))["kind"] == "escrow_fund"


async def test_a_database_that_is_away_is_waited_for(house: House) -> None:
    far = Desk(house.tenant, house.client, house.tenants, house.queue)
    commands = [command("deposit", 1, f"user-{number}") for number in range(50)]
    commands += [command("escrow_fund", 1, BUYER, escrow_id=await far.open(terms(1))) for _ in range(5)]
    await take(house.tenants, house.tenant, [command("deposit", 5), *commands])
    house.wire.cut()
    await wake(house.client, house.tenant, house.queue)
    await asyncio.sleep(3)  # the outage is the test
    assert (await read(house.tenants, house.tenant, commands[0])).status == "RECEIVED"
    house.wire.mend()
    found = await finished(house.tenants, house.tenant, commands, limit_seconds=60)
    assert {one.status for one in found} == {"SETTLED"}


async def test_commands_whose_workflow_is_lost_are_found(house: House) -> None:
    """No relay runs here, so nothing hears of the commands; then a run of their workflow is terminated."""
    received = command("deposit", 3)
    await take(house.tenants, house.tenant, [received])
    assert await _watched(house) == 0, "it may only just have come"
    await _age(house)
    assert await _watched(house) == 1
    [found] = await finished(house.tenants, house.tenant, [received])
    assert found.status == "SETTLED"
    assert await _watched(house) == 0


async def test_what_was_taken_up_by_a_lost_run_is_carried_out_once(house: House) -> None:
    far = Desk(house.tenant, house.client, house.tenants, house.queue)
    escrow_id = await far.open(terms(100))
    await far.deposit(BUYER, 100)
    funding = command("escrow_fund", 100, escrow_id=escrow_id)
    refund = command("escrow_refund", 100, SELLER, escrow_id=escrow_id)
    await take(house.tenants, house.tenant, [funding, refund])
    with psycopg.connect(house.url) as holder:
        holder.execute("SELECT FROM escrows WHERE escrow_id = %s FOR UPDATE", [escrow_id])
        run = await wake(house.client, house.tenant, house.queue)

        async def under_way() -> bool:
            """The funding was accepted, behind the update that waited for the opening."""
            events = (await far.handle(escrow_id).fetch_history()).events
            accepted = [one.HasField("workflow_execution_update_accepted_event_attributes") for one in events]
            return accepted.count(True) == 2

        await eventually(under_way)
        assert (await read(house.tenants, house.tenant, funding)).status == "PROCESSING"
        await run.terminate("a test of what happens when a run is lost")
    await wake(house.client, house.tenant, house.queue)
    found = await finished(house.tenants, house.tenant, [funding, refund], limit_seconds=60)
    assert {one.status for one in found} == {"SETTLED"}
    row = await far.row(escrow_id)
    assert (row.status, row.version) == ("refunded", 3)


async def _watched(house: House) -> int:
    return await house.client.execute_workflow(
        SettlementWatchWorkflow.run, id=f"watch-{new_id()}", task_queue=house.queue
    )


async def _age(house: House) -> None:
    """Let the commands have been received a minute earlier."""
    with psycopg.connect(house.url) as connection:
        connection.execute("UPDATE settlement_commands SET received_at = received_at - interval '1 minute'")
