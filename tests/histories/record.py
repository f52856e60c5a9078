"""Stories that are played on the real server, so that their histories can be recorded and replayed.

``HOLDFAST_RECORD=1 python -m pytest tests/workflows/test_replay.py -k live`` records all of them again.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID

from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle, WorkflowHistory
from temporalio.testing import TimeSkipper

from db.ids import new_id
from domain.controls import FreezeScope
from domain.errors import Refusal
from domain.ids import chain_workflow_id, reconciliation_workflow_id, transfer_workflow_id
from kit.clock import now
from tests.desk import ARBITER, BUYER, SELLER, TASK_QUEUE, Desk, terms
from tests.histories.alerts import ALERTS
from tests.histories.backfills import BACKFILLS
from tests.histories.book import BOOK
from tests.histories.chains import CHAIN_STORIES
from tests.histories.ledger import LEDGER
from tests.histories.margin import MARGIN
from tests.histories.prices import PRICES
from tests.histories.relayers import RELAYERS
from tests.histories.settlement import SETTLEMENT
from tests.histories.webhooks import WEBHOOKS
from tests.polling import eventually
from tools.fingerprints import COMMITTED as FINGERPRINTS
from workflows.client import ReconciliationClient
from workflows.escrow import (
    ApproveMessage,
    CancelMessage,
    DisputeMessage,
    FundMessage,
    PartyMessage,
    RefundMessage,
    ReleaseMessage,
    ResolveMessage,
)
from workflows.ledger import TransferKind
from workflows.reconciliation import ReconcileTenant, ReconciliationSweepWorkflow, Sweep
from workflows.retention import RetentionWorkflow
from workflows.transfers import ChainLink, ChainRequest, PostMessage, VoidMessage

HISTORIES = Path(__file__).resolve().parent
DAY = timedelta(days=1)

#: Plays a story and answers the runs whose histories it made.
Run: TypeAlias = WorkflowHandle[Any, Any]
Story: TypeAlias = Callable[[Desk], Awaitable[list[Run]]]

_TASK_OPEN = {EventType.EVENT_TYPE_WORKFLOW_TASK_SCHEDULED, EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED}
_TASK_DONE = EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
_CLOSED = {
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED,
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW,
}


async def happy_path(desk: Desk) -> list[Run]:
    await desk.deposit(BUYER, 1_000_000)
    escrow_id = await desk.open(terms(1_000_000))
    await desk.command(escrow_id, BUYER, FundMessage())
    await desk.command(escrow_id, BUYER, ApproveMessage())
    await desk.command(escrow_id, BUYER, ReleaseMessage())
    return [await _ended(desk.handle(escrow_id))]


async def refused_opening(desk: Desk) -> list[Run]:
    escrow_id = new_id()
    with suppress(Refusal):
        await desk.open(terms(expires_at=now() - DAY), escrow_id)
    with suppress(WorkflowFailureError):
        await desk.handle(escrow_id).result()
    return [desk.handle(escrow_id)]


async def refused_funding(desk: Desk) -> list[Run]:
    """The step refuses what the workflow could not know; the escrow goes on."""
    escrow_id = await desk.open(terms(1_000_000))
    with suppress(Refusal):
        await desk.command(escrow_id, BUYER, FundMessage())
    await desk.deposit(BUYER, 1_000_000)
    await desk.command(escrow_id, BUYER, FundMessage())
    await desk.command(escrow_id, SELLER, RefundMessage())
    return [await _ended(desk.handle(escrow_id))]


async def partial_releases(desk: Desk) -> list[Run]:
    await desk.deposit(BUYER, 3_000_000)
    fees = {"buyer_fee_basis_points": 250, "seller_fee_basis_points": 100}
    escrow_id = await desk.open(terms(1_000_000, 1_000_000, **fees))
    await desk.command(escrow_id, BUYER, FundMessage())
    await desk.command(escrow_id, BUYER, ApproveMessage(positions=(1,)))
    await desk.command(escrow_id, BUYER, ReleaseMessage(positions=(1,), amount_minor=400_000))
    await desk.command(escrow_id, BUYER, ReleaseMessage(positions=(1,)))
    await desk.command(escrow_id, BUYER, ApproveMessage(positions=(2,)))
    await desk.command(escrow_id, BUYER, ReleaseMessage())
    return [await _ended(desk.handle(escrow_id))]


async def dispute(desk: Desk) -> list[Run]:
    await desk.deposit(BUYER, 1_000_000)
    escrow_id = await desk.open(terms(1_000_000, arbiter=PartyMessage(user_id=ARBITER), expires_at=now() + 9 * DAY))
    await desk.command(escrow_id, BUYER, FundMessage())
    await desk.command(escrow_id, BUYER, DisputeMessage(reason="half of it is missing"))
    await desk.command(escrow_id, ARBITER, ResolveMessage(to_seller_minor=400_000, to_buyer_minor=600_000))
    return [await _ended(desk.handle(escrow_id))]


async def funding_deadline(desk: Desk) -> list[Run]:
    escrow_id = await desk.open(terms(funding_deadline=now() + 30 * DAY))
    await _skip(desk, desk.handle(escrow_id), 31 * DAY)
    return [await _ended(desk.handle(escrow_id))]


async def inspection(desk: Desk) -> list[Run]:
    await desk.deposit(BUYER, 1_000_000)
    escrow_id = await desk.open(terms(1_000_000, inspection_period_seconds=3 * 86_400))
    await desk.command(escrow_id, BUYER, FundMessage())
    await desk.command(escrow_id, BUYER, ApproveMessage())
    await _skip(desk, desk.handle(escrow_id), 4 * DAY)
    return [await _ended(desk.handle(escrow_id))]


async def expiry(desk: Desk) -> list[Run]:
    await desk.deposit(BUYER, 1_100_000)
    escrow_id = await desk.open(terms(1_000_000, buyer_fee_basis_points=1000, expires_at=now() + 60 * DAY))
    await desk.command(escrow_id, BUYER, FundMessage())
    await _skip(desk, desk.handle(escrow_id), 61 * DAY)
    return [await _ended(desk.handle(escrow_id))]


async def open_escrow(desk: Desk) -> list[Run]:
    """A run that goes on: its timer is pending when the history is taken."""
    escrow_id = await desk.open(terms(funding_deadline=now() + 30 * DAY))
    return [desk.handle(escrow_id)]


async def continued_as_new(desk: Desk) -> list[Run]:
    await desk.deposit(BUYER, 1_000_000)
    escrow_id = await desk.open(terms(1_000_000, inspection_period_seconds=86_400))
    await desk.command(escrow_id, BUYER, FundMessage())
    first = await _this_run(desk, desk.handle(escrow_id))
    await desk.handle(escrow_id).signal("move")
    await _replaced(desk.handle(escrow_id), first)
    await desk.command(escrow_id, BUYER, ApproveMessage())
    await desk.command(escrow_id, BUYER, ReleaseMessage())
    return [first, await _ended(desk.handle(escrow_id))]


async def resumed(desk: Desk) -> list[Run]:
    escrow_id = await desk.open(terms(1_000_000))
    lost = await _this_run(desk, desk.handle(escrow_id))
    await lost.terminate("a test of what happens when a workflow is lost")
    await desk.command(escrow_id, BUYER, CancelMessage())
    return [lost, await _ended(desk.handle(escrow_id))]


async def transfer(desk: Desk) -> list[Run]:
    await desk.deposit(BUYER, 9)
    transfer_id = new_id()
    await desk.deposit(BUYER, 5, kind=TransferKind.TRANSFER, counterparty=SELLER, transfer_id=transfer_id)
    return [desk.client.get_workflow_handle(transfer_workflow_id(transfer_id))]


async def chain(desk: Desk) -> list[Run]:
    """Booked, and refused."""
    await desk.deposit(BUYER, 9)
    runs = []
    for amount_minor in (9, 8):
        links = (
            ChainLink(source=BUYER, target=SELLER, asset="USDC", amount_minor=amount_minor),
            ChainLink(source=SELLER, target=BUYER, asset="USDC", amount_minor=2),
        )
        request = ChainRequest(tenant_id=desk.tenant, chain_id=new_id(), links=links)
        with suppress(Refusal):
            await desk.transfers.chain(request, summary="2 linked transfers")
        runs.append(desk.client.get_workflow_handle(chain_workflow_id(request.chain_id)))
    return runs


async def pending_posted(desk: Desk) -> list[Run]:
    await desk.deposit(BUYER, 9)
    transfer_id = await desk.pend(9, timeout_seconds=86_400)
    await desk.resolve(transfer_id, PostMessage(amount_minor=5))
    return [await _ended(desk.pending_handle(transfer_id))]


async def pending_expired(desk: Desk) -> list[Run]:
    await desk.deposit(BUYER, 9)
    transfer_id = await desk.pend(9, timeout_seconds=86_400)
    await _skip(desk, desk.pending_handle(transfer_id), 2 * DAY)
    return [await _ended(desk.pending_handle(transfer_id))]


async def pending_refused(desk: Desk) -> list[Run]:
    transfer_id = new_id()
    with suppress(Refusal):
        await desk.pend(9, transfer_id)
    with suppress(WorkflowFailureError):
        await desk.pending_handle(transfer_id).result()
    return [desk.pending_handle(transfer_id)]


async def pending_resumed(desk: Desk) -> list[Run]:
    """Lost, brought back by a command that a freeze refuses, and continued as a new run."""
    await desk.deposit(BUYER, 9)
    transfer_id = await desk.pend(9, timeout_seconds=86_400)
    handle = desk.pending_handle(transfer_id)
    await handle.terminate("a test of what happens when a workflow is lost")
    frozen = await desk.freeze(FreezeScope.ACCOUNT, SELLER)
    with suppress(Refusal):
        await desk.resolve(transfer_id, PostMessage())
    await desk.lift(frozen)
    first = await _this_run(desk, handle)
    await handle.signal("move")
    await _replaced(handle, first)
    await desk.resolve(transfer_id, VoidMessage())
    return [first, await _ended(handle)]


async def pending_frozen(desk: Desk) -> list[Run]:
    await desk.deposit(BUYER, 9)
    transfer_id = await desk.pend(9, timeout_seconds=3_600)
    frozen = await desk.freeze(FreezeScope.TENANT)
    await _skip(desk, desk.pending_handle(transfer_id), timedelta(hours=1, minutes=2))
    await desk.lift(frozen)
    await _skip(desk, desk.pending_handle(transfer_id), timedelta(minutes=6))
    return [await _ended(desk.pending_handle(transfer_id))]


async def frozen_deadline(desk: Desk) -> list[Run]:
    await desk.deposit(BUYER, 1_000_000)
    escrow_id = await desk.open(terms(1_000_000, inspection_period_seconds=3_600))
    await desk.command(escrow_id, BUYER, FundMessage())
    await desk.command(escrow_id, BUYER, ApproveMessage())
    frozen = await desk.freeze(FreezeScope.ASSET, "USDC")
    await _skip(desk, desk.handle(escrow_id), timedelta(hours=1, minutes=2))
    await desk.lift(frozen)
    await _skip(desk, desk.handle(escrow_id), timedelta(minutes=6))
    return [await _ended(desk.handle(escrow_id))]


async def retention(desk: Desk) -> list[Run]:
    workflow_id = f"retention:{new_id()}"
    run = await desk.client.start_workflow(RetentionWorkflow.run, id=workflow_id, task_queue=TASK_QUEUE)
    return [await _ended(run)]


async def reconciliation(desk: Desk) -> list[Run]:
    await desk.deposit(BUYER, 5)
    request = ReconcileTenant(tenant_id=desk.tenant, run_id=new_id())
    await ReconciliationClient(desk.client, TASK_QUEUE).start(request, summary="a story")
    return [await _ended(desk.client.get_workflow_handle(reconciliation_workflow_id(desk.tenant, request.run_id)))]


async def reconciliation_sweep(desk: Desk) -> list[Run]:
    await desk.deposit(BUYER, 5)
    run = await desk.client.start_workflow(
        ReconciliationSweepWorkflow.run,
        Sweep(full=True, after=UUID(int=desk.tenant.int - 1)),
        id=f"reconciliation-sweep:{new_id()}",
        task_queue=TASK_QUEUE,
    )
    return [await _ended(run)]


STORIES: dict[str, Story] = {
    story.__name__: story
    for story in (
        happy_path,
        refused_opening,
        refused_funding,
        partial_releases,
        dispute,
        funding_deadline,
        inspection,
        expiry,
        open_escrow,
        continued_as_new,
        resumed,
        *LEDGER,
        retention,
        transfer,
        chain,
        pending_posted,
        pending_expired,
        pending_refused,
        pending_resumed,
        pending_frozen,
        frozen_deadline,
        reconciliation,
        reconciliation_sweep,
        *SETTLEMENT,
        *MARGIN,
        *BOOK,
        *PRICES,
        *ALERTS,
        *WEBHOOKS,
        *RELAYERS,
        *BACKFILLS,
        *CHAIN_STORIES,
    )
}


async def play(story: str, desk: Desk) -> dict[str, WorkflowHistory]:
    """The histories that a story makes today, by file name."""
    runs = await STORIES[story](desk)
    names = [f"{story}.json"] if len(runs) == 1 else [f"{story}.{number}.json" for number in range(1, len(runs) + 1)]
    return {name: await _fetched(run) for name, run in zip(names, runs, strict=True)}


def committed(story: str = "*") -> list[Path]:
    """The files of recorded histories, of one story or of all."""
    files = {*HISTORIES.glob(f"{story}.json"), *HISTORIES.glob(f"{story}.[0-9].json")}
    return sorted(file for file in files if file != FINGERPRINTS)


def load(file: Path) -> WorkflowHistory:
    """A recorded history."""
    text = file.read_text(encoding="utf-8")
    started = json.loads(text)["events"][0]["workflowExecutionStartedEventAttributes"]
    return WorkflowHistory.from_json(started["workflowId"], text)


def save(name: str, history: WorkflowHistory) -> None:
    """Record a history, without the names of the machine that it was made on."""
    plain = _scrubbed(json.loads(history.to_json()))
    text = json.dumps(plain, separators=(",", ":"), ensure_ascii=False)
    (HISTORIES / name).write_text(f"{text}\n", encoding="utf-8")


def is_settled(history: WorkflowHistory) -> bool:
    """Whether the history ends between workflow tasks. The replayer hangs on one that ends within a task."""
    for event in reversed(history.events):
        if event.event_type in _CLOSED or event.event_type == _TASK_DONE:
            return True
        if event.event_type in _TASK_OPEN:
            return False
    return False


def _scrubbed(value: Any) -> Any:
    """Worker identities and their sticky queues hold a host's name, stack traces hold paths; replaying needs none."""
    if isinstance(value, dict):
        kept = {key: _scrubbed(each) for key, each in value.items() if key not in ("identity", "stackTrace")}
        return kept | {"name": "sticky"} if kept.get("kind") == "TASK_QUEUE_KIND_STICKY" else kept
    return [_scrubbed(each) for each in value] if isinstance(value, list) else value


async def _fetched(run: Run) -> WorkflowHistory:
    last: list[WorkflowHistory] = []

    async def settled() -> bool:
        last[:] = [await run.fetch_history()]
        return is_settled(last[0])

    await eventually(settled)
    return last[0]


async def _ended(run: Run) -> Run:
    await run.result()
    return run


async def _this_run(desk: Desk, handle: Run) -> Run:
    """The run that is now under way; the handle itself follows the runs after it."""
    found = await handle.describe()
    return desk.client.get_workflow_handle(found.id, run_id=found.run_id)


async def _replaced(handle: Run, run: Run) -> None:
    async def replaced() -> bool:
        found = await handle.describe()
        return found.run_id != run.run_id and found.status is WorkflowExecutionStatus.RUNNING

    await eventually(replaced)


async def _skip(desk: Desk, run: Run, time: timedelta) -> None:
    await TimeSkipper(desk.client).fast_forward(run, time)
