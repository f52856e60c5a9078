"""``EscrowWorkflow``: one per escrow, as long-lived as the escrow.

Its state is a copy of what Postgres holds, kept to judge commands without a round trip and to know the next deadline.
A run can therefore always be replaced: a new one loads the escrow and goes on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from workflows.search import STATUS, escrow_attributes, updates

with workflow.unsafe.imports_passed_through():
    from activities.escrow.messages import (
        ApplyCommand,
        CommandMessage,
        EscrowCommand,
        EscrowOutcome,
        FollowedMessage,
        OpenEscrow,
        PassDeadlineMessage,
        RecordOpening,
        judge,
    )
    from activities.escrow.snapshot import EscrowSnapshot
    from activities.escrow.steps import EscrowActivities
    from activities.failures import refusal_failure, refusal_of, unavailable_failure
    from activities.messages import OriginMessage
    from domain.controls import FROZEN
    from domain.errors import Refusal, Unavailable
    from domain.escrow import CLOSED, CODES, Deadline, Escrow, next_deadline
    from workflows.escrow.waiting import Waiting, details, short, timer_summary, waiting
    from workflows.limits import FROZEN_PAUSE, FROZEN_PAUSE_MAX
    from workflows.steps import outlast, run_step

_Asked = CommandMessage | PassDeadlineMessage

#: How long a run waits before it tries a deadline again that met a bug.
_OVERDUE_PAUSE = timedelta(minutes=1)

_COMMANDS_PER_RUN = 1_000

#: So many command ids are remembered, also across runs: a repeated one is answered from its receipt.
_RECENT_COMMANDS = 100


@workflow.defn
class EscrowWorkflow:
    """Records the escrow, judges and orders its commands, and acts when its deadlines pass."""

    @workflow.init
    def __init__(self, opening: OpenEscrow) -> None:
        self._opening = opening
        self._escrow: Escrow | None = None
        self._failure: ApplicationError | None = None
        self._lock = asyncio.Lock()
        self._recent = deque(opening.recent_commands, maxlen=_RECENT_COMMANDS)
        self._commands = 0
        self._doubtful = False
        self._moving = False
        self._leaving = False
        self._pause = FROZEN_PAUSE
        self._sitting_out = False
        # A step's commit may outlive the task that carried it: the server forgets a task whose end it did not hear, and
        # with it an update that only that task knew. So the copy of a run that was rebuilt from its history may be
        # behind the row. Read by validators alone, which leave no history and are never replayed.
        self._rebuilt = workflow.unsafe.is_replaying()

    @workflow.run
    async def run(self, opening: OpenEscrow) -> EscrowOutcome:
        """Carry the escrow from its opening to its end; the result is how it ended."""
        try:
            self._hold(await self._open(workflow.now()))
        except ApplicationError as failure:
            # Handlers that wait for the opening answer with this, too.
            self._failure = failure
            await workflow.wait_condition(workflow.all_handlers_finished)
            raise
        while not self._closed():
            if self._doubtful:
                await self._reload()
            elif self._moving or self._is_full():
                await self._continue_as_new(opening)
            else:
                await self._wait()
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

    @workflow.update(description="A chain passed a deadline, whoever called for it.")
    async def pass_deadline(self, command: EscrowCommand) -> EscrowOutcome:
        """See ``domain.escrow.PassDeadline``. The desk's own clock needs no update."""
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

    @pass_deadline.validator
    def _may_pass_deadline(self, command: EscrowCommand) -> None:
        self._judge(command)

    @workflow.query(description="What the escrow waits for, and until when.")
    def waiting(self) -> Waiting | None:
        """None until the escrow is recorded."""
        return None if self._escrow is None else waiting(self._escrow)

    @workflow.signal(description="Continue as a new run on the deployment's current build.")
    def move(self) -> None:
        """Asked by operators who want to retire an old build before its escrows end."""
        self._moving = True

    @workflow.signal(description="Load the escrow again: a command took effect that this run may not know of.")
    def reload(self) -> None:
        """Sent where somebody met the effect of a command whose end the server never heard, or a deadline without any.

        A run that waits for the end of a freeze knows what is overdue, and looks when it is over.
        """
        self._doubtful = self._doubtful or not self._sitting_out

    def _judge(self, command: EscrowCommand) -> None:
        """Refuse what the rules refuse, at no cost in history.

        Left to the step, which knows the truth and its receipts: a command that may have taken effect before, and any
        command while the copy held here is missing, rebuilt or doubtful.
        """
        if self._leaving:
            raise unavailable_failure(Unavailable("temporal", "the escrow's run is being renewed"))
        if self._escrow is None or self._rebuilt or self._doubtful:
            return
        if command.repeated or command.command_id in self._recent:
            return
        try:
            judge(self._escrow, command, workflow.now())
        except Refusal as refusal:
            raise refusal_failure(refusal) from None

    async def _carry_out(self, command: EscrowCommand) -> EscrowOutcome:
        at = workflow.now() if command.followed is None else command.followed.at
        self._commands += 1
        self._recent.append(command.command_id)
        await self._recorded()
        # Two handlers at once would both start from the state before either.
        async with self._lock:
            try:
                step = str(command.command_id)
                self._hold(await self._apply(step, command.command, command.origin, at, command.followed))
            except ApplicationError as failure:
                refusal = refusal_of(failure)
                # The rules let it pass on the copy and the step did not on the row, or it is not known what it did.
                # A doubt that another command raised stands until the copy is loaded again.
                if refusal is None or refusal.code in CODES:
                    self._doubtful = True
                raise
        return self._outcome()

    async def _recorded(self) -> None:
        await workflow.wait_condition(lambda: self._escrow is not None or self._failure is not None)
        if self._failure is not None:
            raise self._failure

    async def _wait(self) -> None:
        """Wait for the next deadline and let it act, or until something happened that changes what to wait for."""
        escrow = self._state()
        deadline = next_deadline(escrow)
        if deadline is not None and deadline.at <= workflow.now():
            await self._pass(deadline)
            return
        try:
            await workflow.wait_condition(
                lambda: self._state().version != escrow.version or self._doubtful or self._moving or self._is_full(),
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
                self._hold(await self._apply(f"deadline:{escrow.version}", PassDeadlineMessage(), OriginMessage(), at))
                self._pause = FROZEN_PAUSE
                return
            except ApplicationError as failure:
                refusal = refusal_of(failure)
                frozen = refusal.code if refusal is not None and refusal.code in FROZEN else None
                if frozen is None:
                    workflow.logger.error("a deadline could not be acted on and is tried again: %s", failure)
                    self._doubtful = True
        if frozen is not None:
            await self._sit_out(escrow, frozen)
            return
        await workflow.sleep(_OVERDUE_PAUSE, summary="pause before the deadline is tried again")

    async def _sit_out(self, escrow: Escrow, frozen: str) -> None:
        """Wait a while for the end of a freeze; longer each time, so that a long freeze is no long history."""
        workflow.logger.info("a deadline waits for the end of a freeze: %s", frozen)
        workflow.set_current_details(
            f"{details(escrow)}\n\nA deadline has passed and waits: **frozen** ({frozen}). It acts after the lift."
        )
        pause, self._pause = self._pause, min(2 * self._pause, FROZEN_PAUSE_MAX)
        self._sitting_out = True
        try:
            await workflow.wait_condition(
                lambda: self._state().version != escrow.version or self._doubtful or self._moving or self._is_full(),
                timeout=pause,
                timeout_summary=f"pause before the next look: {frozen}",
            )
        except TimeoutError:
            return
        finally:
            self._sitting_out = False

    async def _reload(self) -> None:
        async with self._lock:
            self._hold(await self._open(workflow.now()))
            self._doubtful = False

    def _is_full(self) -> bool:
        """Whether the history has grown so far that a new run should go on; the server takes 2,000 updates a run."""
        return self._commands >= _COMMANDS_PER_RUN or workflow.info().is_continue_as_new_suggested()

    async def _continue_as_new(self, opening: OpenEscrow) -> None:
        self._leaving = True
        await workflow.wait_condition(workflow.all_handlers_finished)
        if self._closed():
            return
        workflow.continue_as_new(
            OpenEscrow(tenant_id=opening.tenant_id, escrow_id=opening.escrow_id, recent_commands=tuple(self._recent)),
            initial_versioning_behavior=workflow.ContinueAsNewVersioningBehavior.AUTO_UPGRADE,
        )

    async def _open(self, at: datetime) -> EscrowSnapshot:
        return await outlast(
            lambda: run_step(
                EscrowActivities.open,
                RecordOpening(opening=self._opening, at=at),
                summary="record the escrow" if self._opening.terms is not None else "load the escrow",
            )
        )

    async def _apply(
        self, step: str, command: _Asked, origin: OriginMessage, at: datetime, followed: FollowedMessage | None = None
    ) -> EscrowSnapshot:
        kind = command.kind.replace("_", " ")
        by = "the clock" if origin.user_id is None else short(origin.user_id)
        asked = ApplyCommand(
            tenant_id=self._opening.tenant_id,
            escrow_id=self._opening.escrow_id,
            step=step,
            command=command,
            origin=origin,
            at=at,
            followed=followed,
        )
        return await outlast(lambda: run_step(EscrowActivities.apply, asked, summary=f"{kind} by {by}"))

    def _hold(self, snapshot: EscrowSnapshot) -> None:
        if not workflow.unsafe.is_replaying():
            self._rebuilt = False
        before, after = self._escrow, snapshot.to_escrow()
        if before is not None and after.version < before.version:
            return
        self._escrow = after
        if before is None and self._opening.terms is None:
            # A run that resumes was not started by somebody who knows the terms.
            workflow.upsert_search_attributes(updates(escrow_attributes(self._opening.tenant_id, after)))
        elif before is None or before.status != after.status:
            workflow.upsert_search_attributes([STATUS.value_set(after.status)])
        workflow.set_current_details(details(after))

    def _state(self) -> Escrow:
        assert self._escrow is not None, "run() waits only after the escrow is recorded"
        return self._escrow

    def _closed(self) -> bool:
        return self._state().status in CLOSED

    def _outcome(self) -> EscrowOutcome:
        escrow = self._state()
        return EscrowOutcome(escrow_id=escrow.escrow_id, status=escrow.status, version=escrow.version)
