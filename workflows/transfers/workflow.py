"""``PendingTransferWorkflow``: one per transfer in two phases, from the money set apart to its end.

Its state is a copy of what Postgres holds, kept to judge commands without a round trip and to know the expiry. A run
can therefore always be replaced: a new one loads the transfer and goes on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from workflows.search import STATUS, attributes, updates

with workflow.unsafe.imports_passed_through():
    from activities.failures import refusal_failure, refusal_of, unavailable_failure
    from activities.messages import OriginMessage
    from activities.transfers.messages import (
        ApplyResolution,
        ExpireMessage,
        OpenPendingTransfer,
        PendingOutcome,
        PendingSnapshot,
        RecordPending,
        ResolutionMessage,
        TransferCommand,
        to_resolution,
    )
    from activities.transfers.steps import PendingTransferActivities
    from domain.controls import FROZEN
    from domain.errors import Refusal, Unavailable
    from domain.transfers import CODES, PendingTransfer, TransferStatus, resolve
    from workflows.limits import FROZEN_PAUSE, FROZEN_PAUSE_MAX
    from workflows.steps import outlast, run_step
    from workflows.transfers.waiting import details, timer_summary

#: How long a run waits before it tries an expiry again that met a bug.
_OVERDUE_PAUSE = timedelta(minutes=1)

_COMMANDS_PER_RUN = 1_000

#: So many command ids are remembered, also across runs: a repeated one is answered from its receipt.
_RECENT_COMMANDS = 100


@workflow.defn
class PendingTransferWorkflow:
    """Sets the money apart, resolves the transfer once, and gives the money back when its expiry passes."""

    @workflow.init
    def __init__(self, opening: OpenPendingTransfer) -> None:
        self._opening = opening
        self._transfer: PendingTransfer | None = None
        self._failure: ApplicationError | None = None
        self._lock = asyncio.Lock()
        self._recent = deque(opening.recent_commands, maxlen=_RECENT_COMMANDS)
        self._commands = 0
        self._doubtful = False
        self._moving = False
        self._leaving = False
        self._pause = FROZEN_PAUSE

    @workflow.run
    async def run(self, opening: OpenPendingTransfer) -> PendingOutcome:
        """Carry the transfer to its end; the result is how it ended."""
        try:
            self._hold(await self._open(workflow.now()))
        except ApplicationError as failure:
            # Handlers that wait for the opening answer with this, too.
            self._failure = failure
            await workflow.wait_condition(workflow.all_handlers_finished)
            raise
        while not self._resolved():
            if self._doubtful:
                await self._reload()
            elif self._moving or self._is_full():
                await self._continue_as_new(opening)
            else:
                await self._wait()
        await workflow.wait_condition(workflow.all_handlers_finished)
        return self._outcome()

    @workflow.update(description="Wait until the money is set apart.")
    async def opened(self) -> PendingOutcome:
        """How it began. Setting the money apart itself is ``run``'s: an update may get lost before it is accepted."""
        await self._recorded()
        return self._outcome()

    @workflow.update(description="The money, or part of it, goes to the other account.")
    async def post(self, command: TransferCommand) -> PendingOutcome:
        """See ``domain.transfers.Post``."""
        return await self._carry_out(command)

    @workflow.update(description="The money goes back.")
    async def void(self, command: TransferCommand) -> PendingOutcome:
        """See ``domain.transfers.Void``."""
        return await self._carry_out(command)

    @post.validator
    def _may_post(self, command: TransferCommand) -> None:
        self._judge(command)

    @void.validator
    def _may_void(self, command: TransferCommand) -> None:
        self._judge(command)

    @workflow.signal(description="Continue as a new run on the deployment's current build.")
    def move(self) -> None:
        """Asked by operators who want to retire an old build before its transfers end."""
        self._moving = True

    def _judge(self, command: TransferCommand) -> None:
        """Refuse what the rules refuse, at no cost in history.

        Left to the step, which knows the truth and its receipts: a command that may have taken effect before, and any
        command while the copy held here is missing or doubtful.
        """
        if self._leaving:
            raise unavailable_failure(Unavailable("temporal", "the transfer's run is being renewed"))
        if self._transfer is None or self._doubtful or command.repeated or command.command_id in self._recent:
            return
        try:
            resolve(self._transfer, to_resolution(command.command), at=workflow.now())
        except Refusal as refusal:
            raise refusal_failure(refusal) from None

    async def _carry_out(self, command: TransferCommand) -> PendingOutcome:
        at = workflow.now()
        self._commands += 1
        self._recent.append(command.command_id)
        await self._recorded()
        # Two handlers at once would both start from the state before either.
        async with self._lock:
            try:
                self._hold(await self._resolve(str(command.command_id), command.command, command.origin, at))
            except ApplicationError as failure:
                refusal = refusal_of(failure)
                # The rules let it pass on the copy and the step did not on the row, or it is not known what it did.
                if refusal is None or refusal.code in CODES:
                    self._doubtful = True
                raise
        return self._outcome()

    async def _recorded(self) -> None:
        await workflow.wait_condition(lambda: self._transfer is not None or self._failure is not None)
        if self._failure is not None:
            raise self._failure

    async def _wait(self) -> None:
        """Wait for the expiry and let it act, or until something happened that changes what to wait for."""
        transfer = self._state()
        if transfer.expires_at <= workflow.now():
            await self._expire()
            return
        try:
            await workflow.wait_condition(
                self._is_disturbed,
                timeout=transfer.expires_at - workflow.now(),
                timeout_summary=timer_summary(transfer),
            )
        except TimeoutError:
            await self._expire()

    async def _expire(self) -> None:
        async with self._lock:
            if self._resolved():
                return
            # A timer may fire a fraction before the instant that it stands for.
            at = max(workflow.now(), self._state().expires_at)
            try:
                self._hold(await self._resolve("expiry", ExpireMessage(), OriginMessage(), at))
                return
            except ApplicationError as failure:
                refusal = refusal_of(failure)
                frozen = refusal.code if refusal is not None and refusal.code in FROZEN else None
                if frozen is None:
                    workflow.logger.error("an expiry could not be acted on and is tried again: %s", failure)
                    self._doubtful = True
        if frozen is not None:
            await self._sit_out(frozen)
            return
        await workflow.sleep(_OVERDUE_PAUSE, summary="pause before the expiry is tried again")

    async def _sit_out(self, frozen: str) -> None:
        """Wait a while for the end of a freeze; longer each time, so that a long freeze is no long history."""
        workflow.logger.info("an expiry waits for the end of a freeze: %s", frozen)
        workflow.set_current_details(details(self._state(), frozen))
        pause, self._pause = self._pause, min(2 * self._pause, FROZEN_PAUSE_MAX)
        try:
            await workflow.wait_condition(
                self._is_disturbed, timeout=pause, timeout_summary=f"pause before the next look: {frozen}"
            )
        except TimeoutError:
            return

    def _is_disturbed(self) -> bool:
        return self._resolved() or self._doubtful or self._moving or self._is_full()

    async def _reload(self) -> None:
        async with self._lock:
            self._hold(await self._open(workflow.now()))
            self._doubtful = False

    def _is_full(self) -> bool:
        """Whether the history has grown so far that a new run should go on; the server takes 2,000 updates a run."""
        return self._commands >= _COMMANDS_PER_RUN or workflow.info().is_continue_as_new_suggested()

    async def _continue_as_new(self, opening: OpenPendingTransfer) -> None:
        self._leaving = True
        await workflow.wait_condition(workflow.all_handlers_finished)
        if self._resolved():
            return
        workflow.continue_as_new(
            OpenPendingTransfer(
                tenant_id=opening.tenant_id, transfer_id=opening.transfer_id, recent_commands=tuple(self._recent)
            ),
            initial_versioning_behavior=workflow.ContinueAsNewVersioningBehavior.AUTO_UPGRADE,
        )

    async def _open(self, at: datetime) -> PendingSnapshot:
        return await outlast(
            lambda: run_step(
                PendingTransferActivities.open,
                RecordPending(opening=self._opening, at=at),
                summary="set the money apart" if self._opening.terms is not None else "load the transfer",
            )
        )

    async def _resolve(
        self, step: str, command: ResolutionMessage | ExpireMessage, origin: OriginMessage, at: datetime
    ) -> PendingSnapshot:
        asked = ApplyResolution(
            tenant_id=self._opening.tenant_id,
            transfer_id=self._opening.transfer_id,
            step=step,
            command=command,
            origin=origin,
            at=at,
        )
        return await outlast(
            lambda: run_step(PendingTransferActivities.resolve, asked, summary=f"{command.kind} the transfer")
        )

    def _hold(self, snapshot: PendingSnapshot) -> None:
        before, after = self._transfer, snapshot.to_transfer()
        if before is not None and before.status is not TransferStatus.PENDING:
            return
        self._transfer = after
        if before is None and self._opening.terms is None:
            # A run that resumes was not started by somebody who knows the terms.
            workflow.upsert_search_attributes(
                updates(
                    attributes(
                        self._opening.tenant_id,
                        status=after.status,
                        asset=after.asset.symbol,
                        reference=after.reference,
                        users=(after.source, after.target),
                    )
                )
            )
        elif before is None or before.status != after.status:
            workflow.upsert_search_attributes([STATUS.value_set(after.status)])
        workflow.set_current_details(details(after))

    def _state(self) -> PendingTransfer:
        assert self._transfer is not None, "run() waits only after the transfer is recorded"
        return self._transfer

    def _resolved(self) -> bool:
        return self._state().status is not TransferStatus.PENDING

    def _outcome(self) -> PendingOutcome:
        transfer = self._state()
        return PendingOutcome(transfer_id=transfer.transfer_id, status=transfer.status)
