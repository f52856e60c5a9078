"""``AlertWorkflow``: one per alert, there while something is to be sent, found out or climbed.

It holds nothing that Postgres does not: each step decides on the row, so a run can end, get lost or be replaced at any
time, and whoever has news of the alert wakes it or starts it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError, FailureError

from workflows.search import STATUS

with workflow.unsafe.imports_passed_through():
    from activities.alerts.messages import (
        AcknowledgeAlert,
        AdvanceAlert,
        AlertOutcome,
        AlertRun,
        Moved,
        OutcomeMessage,
        RecordAcknowledgement,
        SendAttempt,
    )
    from activities.alerts.sending import SendingActivities
    from activities.alerts.steps import AlertActivities
    from activities.failures import REFUSAL, UNAVAILABLE, step_failure, unavailable_failure
    from domain.alerts.delivery import Heard
    from domain.alerts.model import Status
    from domain.errors import Unavailable
    from workflows.limits import STEP_RETRY
    from workflows.steps import run_step

#: An attempt is carried out once: what is not known of it afterwards is found out, never repeated.
SEND_ONCE = RetryPolicy(maximum_attempts=1)
#: Its call ends within 12 seconds; a worker that has not answered by then is gone.
SEND_TIMEOUT = timedelta(seconds=15)
SEND_LIMIT = timedelta(seconds=45)
_FIND_LIMIT = timedelta(seconds=60)

#: How long a run waits for an absent database between two rounds of attempts, and after a fault.
_OUTAGE_PAUSE = timedelta(seconds=5)
_FAULT_PAUSE = timedelta(minutes=1)
_STEPS_PER_RUN = 500

AnswerT = TypeVar("AnswerT")


@workflow.defn
class AlertWorkflow:
    """Sends what the alert's row says is due, until nothing is left that the clock would change."""

    @workflow.init
    def __init__(self, run: AlertRun) -> None:
        self._run = run
        self._news = 0
        self._steps = 0
        self._moving = False
        self._leaving = False
        self._status: Status | None = None
        # Deciding and sending are one turn, an acknowledgement is another: when it commits, no call is on its way.
        self._turn = asyncio.Lock()

    @workflow.run
    async def run(self, run: AlertRun) -> AlertOutcome:
        """Carry the alert; the result is how it stands when this run has nothing left to do."""
        outcomes: tuple[OutcomeMessage, ...] = ()
        while True:
            news = self._news
            async with self._turn:
                moved = await self._advance(outcomes)
                outcomes = await self._carry_out(moved)
            self._tell(moved)
            if outcomes:
                continue
            if self._moving or self._is_full():
                await self._continue_as_new(run)
            if moved.next_at is None:
                await workflow.wait_condition(workflow.all_handlers_finished)
                if self._news == news:
                    return AlertOutcome(notification_id=run.notification_id, status=moved.status)
                continue
            await self._wait(moved.next_at, news)

    @workflow.update(description="Somebody took note: nothing more is sent once this is answered.")
    async def acknowledge(self, command: AcknowledgeAlert) -> AlertOutcome:
        """See ``AlertActivities.acknowledge``."""
        async with self._turn:
            outcome = await self._outlast(lambda: self._acknowledge(command))
        self._news += 1
        return outcome

    @acknowledge.validator
    def _may_acknowledge(self, command: AcknowledgeAlert) -> None:
        del command
        if self._leaving:
            raise unavailable_failure(Unavailable("temporal", "the alert's run is being renewed"))

    @workflow.signal(description="There is news of the alert: more of the same, its end, or a vendor's receipt.")
    def look(self) -> None:
        """Sent for each event that tells of news; the row has it."""
        self._news += 1

    @workflow.signal(description="Continue as a new run on the deployment's current build.")
    def move(self) -> None:
        """Asked by operators who want to retire an old build before its alerts end."""
        self._moving = True

    async def _wait(self, until: datetime, news: int) -> None:
        with suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: self._news != news or self._moving,
                timeout=max(timedelta(0), until - workflow.now()),
                timeout_summary="looks again: a retry, the next step of the policy, or what became of an attempt",
            )

    async def _advance(self, outcomes: tuple[OutcomeMessage, ...]) -> Moved:
        self._steps += 1
        asked = AdvanceAlert(
            tenant_id=self._run.tenant_id,
            notification_id=self._run.notification_id,
            step=f"{workflow.info().run_id}:{self._steps}",
            at=workflow.now(),
            outcomes=outcomes,
        )
        return await self._outlast(lambda: run_step(AlertActivities.advance, asked, summary="decide what is due"))

    async def _carry_out(self, moved: Moved) -> tuple[OutcomeMessage, ...]:
        """Send and look, all beside one another; what came of it."""
        tasks = [self._send(attempt) for attempt in moved.sends] + [self._find(attempt) for attempt in moved.looks]
        return tuple(await asyncio.gather(*tasks))

    async def _send(self, attempt: SendAttempt) -> OutcomeMessage:
        try:
            return await workflow.execute_activity_method(
                SendingActivities.send,
                attempt,
                start_to_close_timeout=SEND_TIMEOUT,
                schedule_to_close_timeout=SEND_LIMIT,
                retry_policy=SEND_ONCE,
                summary=f"{attempt.channel}: delivery {attempt.delivery}",
            )
        except FailureError as error:
            return _unsure(attempt, error, looked=False)

    async def _find(self, attempt: SendAttempt) -> OutcomeMessage:
        try:
            return await workflow.execute_activity_method(
                SendingActivities.find,
                attempt,
                start_to_close_timeout=SEND_TIMEOUT,
                schedule_to_close_timeout=_FIND_LIMIT,
                retry_policy=STEP_RETRY,
                summary=f"{attempt.channel}: what became of delivery {attempt.delivery}",
            )
        except FailureError as error:
            return _unsure(attempt, error, looked=True)

    async def _acknowledge(self, command: AcknowledgeAlert) -> AlertOutcome:
        return await run_step(
            AlertActivities.acknowledge,
            RecordAcknowledgement(
                tenant_id=self._run.tenant_id,
                notification_id=self._run.notification_id,
                command=command,
                at=workflow.now(),
            ),
            summary=f"somebody took note, via {command.via}",
        )

    async def _outlast(self, attempt: Callable[[], Awaitable[AnswerT]]) -> AnswerT:
        """The step's answer, however long the database is away and whatever faults it meets: an alert is not given up.
        Raises its refusal."""
        while True:
            try:
                return await attempt()
            except FailureError as error:
                failure: ApplicationError = step_failure(error)
            # Out here, so that a failure does not become its own cause.
            if failure.type == REFUSAL:
                raise failure
            if failure.type == UNAVAILABLE:
                workflow.logger.warning("an alert waits for the database: %s", failure)
                await workflow.sleep(_OUTAGE_PAUSE, summary="pause: the database does not answer")
            else:
                workflow.logger.error("an alert met a fault and goes on later: %s", failure)
                await workflow.sleep(_FAULT_PAUSE, summary="pause after a fault")

    def _is_full(self) -> bool:
        """Whether the history has grown so far that a new run should go on."""
        return self._steps >= _STEPS_PER_RUN or workflow.info().is_continue_as_new_suggested()

    async def _continue_as_new(self, run: AlertRun) -> None:
        self._leaving = True
        await workflow.wait_condition(workflow.all_handlers_finished)
        workflow.continue_as_new(run, initial_versioning_behavior=workflow.ContinueAsNewVersioningBehavior.AUTO_UPGRADE)

    def _tell(self, moved: Moved) -> None:
        if moved.status is not self._status:
            self._status = moved.status
            workflow.upsert_search_attributes([STATUS.value_set(moved.status)])
        then = "waits for news" if moved.next_at is None else f"looks again at {moved.next_at:%Y-%m-%d %H:%M:%S} UTC"
        workflow.set_current_details(f"**{moved.status}**{', over' if moved.over else ''} · {then}")


def _unsure(attempt: SendAttempt, error: FailureError, *, looked: bool) -> OutcomeMessage:
    """The worker was lost, or met a bug: the message may be out."""
    detail = f"the worker did not answer: {error.cause or error}"[:300]
    return OutcomeMessage(attempt_id=attempt.attempt_id, heard=Heard.UNSURE, detail=detail, looked=looked)
