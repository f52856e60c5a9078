"""Stories of margin checks; see ``record``."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from temporalio.client import WorkflowHandle

from db.ids import new_id
from domain.errors import Refusal
from domain.ids import margin_check_workflow_id
from domain.margin.model import Side
from tests.desk import BUYER, TASK_QUEUE, Desk
from workflows.margin import Cause, CheckMargin, PositionMessage
from workflows.margin.client import MarginClient


async def margin_check(desk: Desk) -> list[WorkflowHandle[Any, Any]]:
    """An account without positions, which needs no price, and one asset that nobody knows."""
    client = MarginClient(desk.client, TASK_QUEUE)
    unknown = PositionMessage(side=Side.COLLATERAL, asset="DOGE", amount_minor=1)
    runs: list[WorkflowHandle[Any, Any]] = []
    for positions in ((), (unknown,)):
        request = CheckMargin(
            tenant_id=desk.tenant, check_id=new_id(), user_id=BUYER, cause=Cause.CHECK, positions=positions
        )
        with suppress(Refusal):
            await client.check(request, summary="a story")
        runs.append(desk.client.get_workflow_handle(margin_check_workflow_id(request.check_id)))
    return runs


MARGIN = (margin_check,)
