"""``EscrowWorkflow``: one per escrow, as long-lived as the escrow.

Its state is a copy of what Postgres holds, kept to judge commands without a round trip and to know the next deadline.
A run can therefore always be replaced: a new one loads the escrow and goes on.
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError

from workflows.search import STATUS

with workflow.unsafe.imports_passed_through():
    from activities.escrow.messages import (
        ApplyCommand,
        CommandMessage,
        EscrowCommand,
        EscrowOutcome,
        OpenEscrow,
        PassDeadlineMessage,
        RecordOpening,
        to_command,
    )
    from activities.escrow.snapshot import EscrowSnapshot
    from activities.escrow.steps import EscrowActivities
    from activities.failures import refusal_failure, step_failure
    from activities.messages import OriginMessage
    from domain.errors import Refusal
    from domain.escrow import CLOSED, Deadline, Escrow, decide, next_deadline
    from workflows.escrow.waiting import Waiting, details, short, timer_summary, waiting
    from workflows.limits import LOCAL_RETRY_THRESHOLD, STEP_LIMIT, STEP_RETRY, STEP_TIMEOUT

#: How long a run waits before it tries an overdue deadline again, after all attempts of a step failed.
_OVERDUE_PAUSE = timedelta(minutes=1)


@workflow.defn
class EscrowWorkflow:
    """Records the escrow, judges and orders its commands, and acts when its deadlines pass."""

    @workflow.init
    def __init__(self, opening: OpenEscrow) -> None:
        self._opening = opening
        self._escrow: Escrow | None = None
        self._failure: ApplicationError | None = None
        self._lock = asyncio.Lock()
        self._moving = False

    @workflow.run
    async def run(self, opening: OpenEscrow) -> EscrowOutcome:
        """Carry the escrow from its opening to its end; the result is how it ended."""
        try:
            self._hold(await self._open())
        except FailureError as error:
            # Handlers that wait for the opening answer with this; the run ends as refused or unavailable.
            self._failure = step_failure(error)
            await workflow.wait_condition(workflow.all_handlers_finished)
            raise self._failure from error
        while not self._closed():
            await self._wait()
            if self._moving and not self._closed():
                await workflow.wait_condition(workflow.all_handlers_finished)
                workflow.continue_as_new(
                    OpenEscrow(tenant_id=opening.tenant_id, escrow_id=opening.escrow_id),
                    initial_versioning_behavior=workflow.ContinueAsNewVersioningBehavior.AUTO_UPGRADE,
                )
        await workflow.wait_condition(workflow.all_handlers_finished)
        return self._outcome()

    @workflow.update(description="Wait until the escrow is recorded.")
    async def opened(self) -> EscrowOutcome:
        """How the opening went. The opening itself is ``run``'s: an update may get lost before it is accepted."""
        await self._recorded()
        return self._outcome()

    @workflow.update(description="The buyer places the price on hold.")
    async def fund(self, command: EscrowCommand) -> EscrowOutcome:
        """See ``domain.escrow.Fund``."""
        return await self._carry_out(command)

    @workflow.update(description="A role says that milestones were delivered.")
    async def approve(self, command: EscrowCommand) -> EscrowOutcome:
        """See ``domain.escrow.Approve``."""
        return await self._carry_out(command)

    @workflow.update(description="The seller is paid, in part or whole.")
    async def release(self, command: EscrowCommand) -> EscrowOutcome:
        """See ``domain.escrow.Release``."""
        return await self._carry_out(command)

    @workflow.update(description="The buyer is paid back, in part or whole.")
    async def refund(self, command: EscrowCommand) -> EscrowOutcome:
        """See ``domain.escrow.Refund``."""
        return await self._carry_out(command)

    @workflow.update(description="A party stops milestones.")
    async def dispute(self, command: EscrowCommand) -> EscrowOutcome:
        """See ``domain.escrow.Dispute``."""
        return await self._carry_out(command)

    @workflow.update(description="The arbiter splits what is left.")
    async def resolve(self, command: EscrowCommand) -> EscrowOutcome:
        """See ``domain.escrow.Resolve``."""
        return await self._carry_out(command)

    @workflow.update(description="An escrow without money ends.")
    async def cancel(self, command: EscrowCommand) -> EscrowOutcome:
        """See ``domain.escrow.Cancel``."""
        return await self._carry_out(command)

    @fund.validator
    def _may_fund(self, command: EscrowCommand) -> None:
        self._judge(command)

    @approve.validator
    def _may_approve(self, command: EscrowCommand) -> None:
        self._judge(command)

    @release.validator
    def _may_release(self, command: EscrowCommand) -> None:
        self._judge(command)

    @refund.validator
    def _may_refund(self, command: EscrowCommand) -> None:
        self._judge(command)

    @dispute.validator
    def _may_dispute(self, command: EscrowCommand) -> None:
        self._judge(command)

    @resolve.validator
    def _may_resolve(self, command: EscrowCommand) -> None:
        self._judge(command)

    @cancel.validator
    def _may_cancel(self, command: EscrowCommand) -> None:
        self._judge(command)

    @workflow.query(description="What the escrow waits for, and until when.")
    def waiting(self) -> Waiting | None:
        """None until the escrow is recorded."""
        return None if self._escrow is None else waiting(self._escrow)

    @workflow.signal(description="Continue as a new run on the deployment's current build.")
    def move(self) -> None:
        """Asked by operators who want to retire an old build before its escrows end."""
        self._moving = True

    def _judge(self, command: EscrowCommand) -> None:
        """Refuse what the rules refuse, at no cost in history. Unrecorded escrows are judged by the step alone."""
        if self._escrow is None:
            return
        try:
            decide(self._escrow, to_command(command.command), user_id=command.origin.user_id or "", at=workflow.now())
        except Refusal as refusal:
            raise refusal_failure(refusal) from refusal

    async def _carry_out(self, command: EscrowCommand) -> EscrowOutcome:
        await self._recorded()
        # Two handlers at once would both start from the state before either.
        async with self._lock:
            try:
                await self._apply(str(command.command_id), command.command, command.origin, workflow.now())
            except FailureError as error:
                raise step_failure(error) from error
        return self._outcome()

    async def _recorded(self) -> None:
        await workflow.wait_condition(lambda: self._escrow is not None or self._failure is not None)
        if self._failure is not None:
            raise self._failure

    async def _wait(self) -> None:
        """Wait for the next deadline and let it act, or until a command changed what to wait for."""
        escrow = self._state()
        deadline = next_deadline(escrow)
        if workflow.info().is_continue_as_new_suggested():
            self._moving = True
        if deadline is not None and deadline.at <= workflow.now():
            await self._pass(deadline)
            return
        try:
            await workflow.wait_condition(
                lambda: self._moving or self._state().version != escrow.version,
                timeout=None if deadline is None else deadline.at - workflow.now(),
                timeout_summary=None if deadline is None else timer_summary(escrow, deadline),
            )
        except TimeoutError:
            assert deadline is not None, "only a deadline sets a timeout"
            await self._pass(deadline)

    async def _pass(self, deadline: Deadline) -> None:
        async with self._lock:
            escrow = self._state()
            if next_deadline(escrow) != deadline:
                return
            # A timer may fire a fraction before the instant that it stands for.
            at = max(workflow.now(), deadline.at)
            try:
                await self._apply(f"deadline:{escrow.version}", PassDeadlineMessage(), OriginMessage(), at)
                return
            except FailureError as error:
                workflow.logger.warning("a deadline could not be acted on and is tried again: %s", error)
        await workflow.sleep(_OVERDUE_PAUSE, summary="pause before the deadline is tried again")
        self._hold(await self._open())

    async def _open(self) -> EscrowSnapshot:
        return await workflow.execute_local_activity_method(
            EscrowActivities.open,
            RecordOpening(opening=self._opening, at=workflow.now()),
            start_to_close_timeout=STEP_TIMEOUT,
            schedule_to_close_timeout=STEP_LIMIT,
            local_retry_threshold=LOCAL_RETRY_THRESHOLD,
            retry_policy=STEP_RETRY,
            summary="record the escrow" if self._opening.terms is not None else "load the escrow",
        )

    async def _apply(
        self, step: str, command: CommandMessage | PassDeadlineMessage, origin: OriginMessage, at: datetime
    ) -> None:
        kind = command.kind.replace("_", " ")
        by = "the clock" if origin.user_id is None else short(origin.user_id)
        snapshot = await workflow.execute_local_activity_method(
            EscrowActivities.apply,
            ApplyCommand(
                tenant_id=self._opening.tenant_id,
                escrow_id=self._opening.escrow_id,
                step=step,
                command=command,
                origin=origin,
                at=at,
            ),
            start_to_close_timeout=STEP_TIMEOUT,
            schedule_to_close_timeout=STEP_LIMIT,
            local_retry_threshold=LOCAL_RETRY_THRESHOLD,
            retry_policy=STEP_RETRY,
            summary=f"{kind} by {by}",
        )
        self._hold(snapshot)

    def _hold(self, snapshot: EscrowSnapshot) -> None:
        before, self._escrow = self._escrow, snapshot.to_escrow()
        if before is None or before.status != self._escrow.status:
            workflow.upsert_search_attributes([STATUS.value_set(self._escrow.status)])
        workflow.set_current_details(details(self._escrow))

    def _state(self) -> Escrow:
        assert self._escrow is not None, "run() waits only after the escrow is recorded"
        return self._escrow

    def _closed(self) -> bool:
        return self._state().status in CLOSED

    def _outcome(self) -> EscrowOutcome:
        escrow = self._state()
        return EscrowOutcome(escrow_id=escrow.escrow_id, status=escrow.status, version=escrow.version)
