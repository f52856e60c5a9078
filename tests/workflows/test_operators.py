"""What an operator reads in the Temporal UI: ids, summaries, plain-language details, attributes to filter by."""

from __future__ import annotations

from datetime import timedelta

from temporalio.api.common.v1 import Payload
from temporalio.api.sdk.v1 import WorkflowMetadata
from temporalio.client import Client

from domain.escrow import Status
from kit.clock import now
from tests.desk import ARBITER, BUYER, Desk, terms
from tests.polling import eventually
from workflows.escrow import ApproveMessage, DisputeMessage, FundMessage, PartyMessage
from workflows.search import VALUE_BYTES_MAX, shortened


async def details(desk: Desk, escrow_id: object) -> str:
    metadata: WorkflowMetadata = await desk.handle(escrow_id).query(  # type: ignore[arg-type]
        "__temporal_workflow_metadata", result_type=WorkflowMetadata
    )
    return metadata.current_details


async def test_the_details_say_what_it_waits_for_and_until_when(desk: Desk) -> None:
    await desk.deposit(BUYER, 3_000_000)
    expiry = now() + timedelta(days=40)
    escrow_id = await desk.open(
        terms(
            1_000_000, 1_500_000, expires_at=expiry, arbiter=PartyMessage(user_id=ARBITER), inspection_period_seconds=60
        )
    )
    told = await details(desk, escrow_id)
    assert told.startswith("**CREATED** · 2.5 USDC · alice → bob · arbiter judy")
    assert f"Waits for the buyer (alice) to fund all milestones until **{expiry:%Y-%m-%d %H:%M:%S} UTC**" in told
    await desk.command(escrow_id, BUYER, FundMessage())
    await desk.command(escrow_id, BUYER, ApproveMessage(positions=(1,)))
    told = await details(desk, escrow_id)
    assert "Inspection of milestone 1: the buyer (alice) may release or dispute until" in told
    assert "Waits for approval of milestone 2 by the buyer (alice)" in told
    await desk.command(escrow_id, BUYER, DisputeMessage(reason="a scratch\non it", positions=(1,)))
    told = await details(desk, escrow_id)
    assert "Disputed: waits for the arbiter (judy) to resolve milestone 1, without a deadline." in told
    assert "disputed by alice: a scratch on it" in told


async def test_timers_and_steps_carry_summaries(desk: Desk) -> None:
    await desk.deposit(BUYER, 1_000_000)
    escrow_id = await desk.open(terms(1_000_000, inspection_period_seconds=86_400))
    await desk.command(escrow_id, BUYER, FundMessage())
    await desk.command(escrow_id, BUYER, ApproveMessage())
    history = await desk.handle(escrow_id).fetch_history()
    said = [text_of(event.user_metadata.summary) for event in history.events if event.user_metadata.HasField("summary")]
    assert "a test's escrow" in said
    assert "record the escrow" in said
    assert "fund by alice" in said
    assert "inspection of milestone 1 ends: what is left goes to bob" in said


async def test_escrows_are_found_by_their_attributes(desk: Desk, temporal: Client) -> None:
    await desk.deposit(BUYER, 1_000_000)
    escrow_id = await desk.open(terms(1_000_000, reference="r-1"))
    await desk.command(escrow_id, BUYER, FundMessage())
    query = (
        f"Tenant = '{desk.tenant}' AND BusinessStatus = '{Status.FUNDED}' AND Asset = 'USDC'"
        f" AND Users = 'bob' AND Reference = 'r-1' AND WorkflowType = 'EscrowWorkflow'"
    )

    async def listed() -> bool:
        return [found.id async for found in temporal.list_workflows(query)] == [f"escrow:{escrow_id}"]

    await eventually(listed)


def test_attributes_are_cut_to_what_the_server_takes() -> None:
    assert shortened("plain") == "plain"
    assert len(shortened("x" * 1000)) == VALUE_BYTES_MAX
    assert len(shortened("\U0001f600" * 200)) == VALUE_BYTES_MAX // 12


def text_of(payload: Payload) -> str:
    return payload.data.decode().strip('"')
