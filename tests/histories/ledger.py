"""Stories of single postings; see ``record``."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from temporalio.client import WorkflowHandle

from db.ids import new_id
from domain.errors import Refusal
from domain.ids import transfer_workflow_id
from tests.desk import BUYER, Desk
from workflows.ledger import TransferKind


async def deposit(desk: Desk) -> list[WorkflowHandle[Any, Any]]:
    transfer_id = new_id()
    await desk.deposit(BUYER, 5, transfer_id=transfer_id, reference="tx-1")
    return [desk.client.get_workflow_handle(transfer_workflow_id(transfer_id))]


async def refused_withdrawal(desk: Desk) -> list[WorkflowHandle[Any, Any]]:
    transfer_id = new_id()
    with suppress(Refusal):
        await desk.deposit(BUYER, 5, kind=TransferKind.WITHDRAWAL, transfer_id=transfer_id)
    return [desk.client.get_workflow_handle(transfer_workflow_id(transfer_id))]


async def reversal(desk: Desk) -> list[WorkflowHandle[Any, Any]]:
    booked = await desk.deposit(BUYER, 9)
    transfer_id = new_id()
    changes: dict[str, Any] = {"kind": TransferKind.REVERSAL, "reverses_id": booked.transaction_id, "account": None}
    await desk.deposit(BUYER, 0, transfer_id=transfer_id, **changes)
    return [desk.client.get_workflow_handle(transfer_workflow_id(transfer_id))]


LEDGER = (deposit, refused_withdrawal, reversal)
