"""What the clock would do to something frozen waits without a fuss, and happens after the lift."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle
from temporalio.testing import TimeSkipper

from domain.controls import FreezeScope
from domain.errors import Refusal
from domain.escrow import Status
from domain.ledger import Balance
from domain.transfers import TransferStatus
from kit.clock import now
from tests.desk import BUYER, SELLER, Desk, terms
from workflows.escrow import ApproveMessage, FundMessage
from workflows.limits import FROZEN_PAUSE_MAX
from workflows.transfers import PostMessage

DAY = timedelta(days=1)
#: So long beyond what is due, a look each 15 seconds would leave several hundred events.
FROZEN_FOR = timedelta(minutes=20)
HISTORY_EVENTS_MAX = 100


@pytest.fixture
def skipper(desk: Desk) -> TimeSkipper:
    return TimeSkipper(desk.client)


async def told(handle: WorkflowHandle[Any, Any]) -> str:
    """What operators read in the Temporal UI."""
    metadata: WorkflowMetadata = await handle.query("__temporal_workflow_metadata", result_type=WorkflowMetadata)
    return metadata.current_details


@pytest.mark.parametrize(
    ("scope", "ref"), [(FreezeScope.ACCOUNT, SELLER), (FreezeScope.ASSET, "USDC"), (FreezeScope.TENANT, None)]
)
async def test_a_deadline_of_an_escrow_acts_after_the_lift(
    desk: Desk, skipper: TimeSkipper, scope: FreezeScope, ref: str | None
) -> None:
    await desk.deposit(BUYER, 100)
    escrow_id = await desk.open(terms(100, inspection_period_seconds=86_400))
    await desk.command(escrow_id, BUYER, FundMessage())
    await desk.command(escrow_id, BUYER, ApproveMessage())
    frozen = await desk.freeze(scope, ref)
    handle = desk.handle(escrow_id)
    await skipper.fast_forward(handle, DAY + FROZEN_FOR)
    assert (await desk.row(escrow_id)).status is Status.APPROVED
    found = await handle.describe()
    assert found.status is WorkflowExecutionStatus.RUNNING
    assert found.history_length < HISTORY_EVENTS_MAX
    assert f"**frozen** ({scope}_frozen)" in await told(handle)
    await desk.lift(frozen)
    await skipper.fast_forward(handle, FROZEN_PAUSE_MAX)
    assert (await handle.result()).status is Status.COMPLETED
    assert await desk.balance(SELLER) == Balance(100)


async def test_an_expiry_acts_after_the_lift(desk: Desk, skipper: TimeSkipper) -> None:
    await desk.deposit(BUYER, 100)
    transfer_id = await desk.pend(100, timeout_seconds=86_400)
    frozen = await desk.freeze(FreezeScope.ACCOUNT, BUYER)
    with pytest.raises(Refusal) as refused:
        await desk.resolve(transfer_id, PostMessage())
    assert refused.value.code == "account_frozen"
    handle = desk.pending_handle(transfer_id)
    await skipper.fast_forward(handle, DAY + FROZEN_FOR)
    assert (await desk.pending(transfer_id)).status is TransferStatus.PENDING
    with pytest.raises(Refusal) as refused:
        await desk.resolve(transfer_id, PostMessage())
    assert refused.value.code == "transfer_expired", "a freeze gives nobody more time"
    assert (await handle.describe()).history_length < HISTORY_EVENTS_MAX
    assert "**frozen** (account_frozen)" in await told(handle)
    await desk.lift(frozen)
    await skipper.fast_forward(handle, FROZEN_PAUSE_MAX)
    assert (await handle.result()).status is TransferStatus.EXPIRED
    assert await desk.balance(BUYER) == Balance(100)


async def test_an_escrow_is_not_opened_in_a_frozen_tenant(desk: Desk) -> None:
    frozen = await desk.freeze(FreezeScope.TENANT)
    with pytest.raises(Refusal) as refused:
        await desk.open(terms(funding_deadline=now() + DAY))
    assert refused.value.code == "tenant_frozen"
    await desk.lift(frozen)
    assert (await desk.row(await desk.open(terms()))).status is Status.CREATED
