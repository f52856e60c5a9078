"""Stories of prices; see ``record``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from temporalio.client import WorkflowHandle

from activities.prices.desk import PriceDesk
from crew import create_worker
from db.engine import Role, create_engine
from db.ids import new_id
from domain.ids import price_refresh_workflow_id
from domain.prices.model import Reading
from kit.temporal import DEPLOYMENT_NAME
from tests.desk import TASK_QUEUE, Desk
from tests.pricing import Told
from tools.deployment import Build, make_current
from workflows.client import PriceClient
from workflows.prices import PricePartitionsWorkflow, RefreshPrices


class Broken(Told):
    """A source that breaks its promise never to raise."""

    async def read(self) -> Sequence[Reading]:
        raise RuntimeError("a bug of this source")


async def price_refresh(desk: Desk) -> list[WorkflowHandle[Any, Any]]:
    """Two sources, of which one fails. Neither has a price, so that other tests' feeds stay as they are."""
    queue, deployment = f"{TASK_QUEUE}-{new_id()}", f"{DEPLOYMENT_NAME}-{new_id()}"
    sources = {"silent": Told("silent", {"ETH": None}), "broken": Broken("broken", {"ETH": None})}
    engine = create_engine(desk.engine.url.set(drivername="postgresql").render_as_string(False), Role.ENGINE)
    worker = create_worker(
        desk.client,
        queue,
        "1",
        tenants=desk.engine,
        engine=engine,
        deployment=deployment,
        prices=PriceDesk(dict(sources)),
    )
    refresh_id = new_id()
    async with worker:
        await make_current(desk.client, Build(deployment, "1"))
        await PriceClient(desk.client, queue).refresh(refresh_id, RefreshPrices(), summary="a story")
    await engine.dispose()
    return [desk.client.get_workflow_handle(price_refresh_workflow_id(refresh_id))]


async def price_partitions(desk: Desk) -> list[WorkflowHandle[Any, Any]]:
    run = await desk.client.start_workflow(
        PricePartitionsWorkflow.run, id=f"price-partitions:{new_id()}", task_queue=TASK_QUEUE
    )
    await run.result()
    return [run]


PRICES = (price_refresh, price_partitions)
