"""The baseline of a lifecycle: a workflow of the escrow's shape whose steps do nothing.

The same messages of the same size, four updates with validators, a lock, a local activity, one upsert of a search
attribute per update and a timer while a deadline stands; no rules, no translation into the domain, no database.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

from temporalio import activity, workflow

from workflows.search import STATUS

with workflow.unsafe.imports_passed_through():
    from activities.escrow.messages import (
        ApplyCommand,
        EscrowCommand,
        EscrowOutcome,
        OpenEscrow,
        PartyMessage,
        RecordOpening,
    )
    from activities.escrow.snapshot import AssetMessage, EscrowSnapshot, MilestoneMessage
    from domain.escrow import MilestoneStatus, Role, Status
    from workflows.limits import LOCAL_RETRY_THRESHOLD, STEP_LIMIT, STEP_RETRY, STEP_TIMEOUT

TASK_QUEUE = "bench-bare"
DEPLOYMENT = "bench-bare"
BUILD = "bare"

#: As many characters as an escrow's own description of where it stands.
_DETAILS = "- nothing is decided here, and nothing is written\n" * 5
_STATUSES = (Status.CREATED, Status.FUNDED, Status.APPROVED, Status.COMPLETED)
_VERSION_AT_END = 4

_ID, _AT = UUID(int=0x019AA000_0000_7000_8000_000000000000), datetime(2026, 1, 1, microsecond=123456, tzinfo=UTC)
_SNAPSHOT = EscrowSnapshot(
    escrow_id=_ID,
    asset=AssetMessage(symbol="USDC", scale=6, chain="ethereum", contract="0x" + "0" * 40),
    buyer=PartyMessage(user_id="buyer-000"),
    seller=PartyMessage(user_id="seller-000"),
    policy_roles=(Role.BUYER,),
    policy_required=1,
    fee_account="system:fees",
    expires_at=_AT,
    reference="bench-00000000000000000000000000",
    milestones=(
        MilestoneMessage(
            milestone_id=_ID, title="Full amount", amount_minor=1_000, status=MilestoneStatus.FUNDED, funded_at=_AT
        ),
    ),
    status=Status.FUNDED,
    version=2,
    created_at=_AT,
    updated_at=_AT,
)


@workflow.defn
class BareWorkflow:
    """Create, fund, approve, release, with nothing behind it."""

    @workflow.init
    def __init__(self, opening: OpenEscrow) -> None:
        self._opening = opening
        self._snapshot: EscrowSnapshot | None = None
        self._version = 0
        self._lock = asyncio.Lock()

    @workflow.run
    async def run(self, opening: OpenEscrow) -> EscrowOutcome:
        """Until the fourth command."""
        self._hold(
            await workflow.execute_local_activity_method(
                BareActivities.open,
                RecordOpening(opening=opening, at=workflow.now()),
                start_to_close_timeout=STEP_TIMEOUT,
                schedule_to_close_timeout=STEP_LIMIT,
                local_retry_threshold=LOCAL_RETRY_THRESHOLD,
                retry_policy=STEP_RETRY,
                summary="record nothing",
            )
        )
        while self._version < _VERSION_AT_END:
            version = self._version
            awaits_expiry = version < _VERSION_AT_END - 1
            await workflow.wait_condition(
                lambda seen=version: self._version != seen,  # type: ignore[misc]
                timeout=timedelta(days=30) if awaits_expiry else None,
                timeout_summary="expiry" if awaits_expiry else None,
            )
        await workflow.wait_condition(workflow.all_handlers_finished)
        return self._outcome()

    @workflow.update
    async def opened(self) -> EscrowOutcome:
        """Wait for the first step."""
        await workflow.wait_condition(lambda: self._snapshot is not None)
        return self._outcome()

    @workflow.update
    async def fund(self, command: EscrowCommand) -> EscrowOutcome:
        """The second command."""
        return await self._carry_out(command)

    @workflow.update
    async def approve(self, command: EscrowCommand) -> EscrowOutcome:
        """The third."""
        return await self._carry_out(command)

    @workflow.update
    async def release(self, command: EscrowCommand) -> EscrowOutcome:
        """The fourth and last."""
        return await self._carry_out(command)

    @fund.validator
    def _may_fund(self, command: EscrowCommand) -> None:
        pass

    @approve.validator
    def _may_approve(self, command: EscrowCommand) -> None:
        pass

    @release.validator
    def _may_release(self, command: EscrowCommand) -> None:
        pass

    async def _carry_out(self, command: EscrowCommand) -> EscrowOutcome:
        at = workflow.now()
        await workflow.wait_condition(lambda: self._snapshot is not None)
        async with self._lock:
            self._hold(
                await workflow.execute_local_activity_method(
                    BareActivities.apply,
                    ApplyCommand(
                        tenant_id=self._opening.tenant_id,
                        escrow_id=self._opening.escrow_id,
                        step=str(command.command_id),
                        command=command.command,
                        origin=command.origin,
                        at=at,
                    ),
                    start_to_close_timeout=STEP_TIMEOUT,
                    schedule_to_close_timeout=STEP_LIMIT,
                    local_retry_threshold=LOCAL_RETRY_THRESHOLD,
                    retry_policy=STEP_RETRY,
                    summary="do nothing",
                )
            )
        return self._outcome()

    def _hold(self, snapshot: EscrowSnapshot) -> None:
        self._snapshot = snapshot
        self._version += 1
        workflow.upsert_search_attributes([STATUS.value_set(_STATUSES[self._version - 1])])
        workflow.set_current_details(_DETAILS)

    def _outcome(self) -> EscrowOutcome:
        return EscrowOutcome(
            escrow_id=self._opening.escrow_id, status=_STATUSES[self._version - 1], version=self._version
        )


class BareActivities:
    """Steps that take and give messages of the real ones' sizes, and do nothing."""

    @activity.defn(name="bare.open")
    async def open(self, request: RecordOpening) -> EscrowSnapshot:
        """Something of the size of an escrow."""
        return _SNAPSHOT

    @activity.defn(name="bare.apply")
    async def apply(self, request: ApplyCommand) -> EscrowSnapshot:
        """The same."""
        return _SNAPSHOT
