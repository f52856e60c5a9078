"""``WebhookWorkflow``: one per endpoint, there while the endpoint has deliveries waiting; and its watch.

It holds no deliveries: what is due stands in Postgres, so a run can end, get lost or be replaced at any time. Turns are
taken by workers of a task queue of their own, so that an endpoint that hangs holds nobody up.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import FailureError, is_cancelled_exception

from workflows.search import STATUS

with workflow.unsafe.imports_passed_through():
    from activities.failures import step_failure
    from activities.webhooks.messages import TakeTurn, TurnDone, WebhookRun
    from activities.webhooks.steps import WebhookActivities, WebhookWatchActivities
    from workflows.limits import STEP_RETRY, STEP_TIMEOUT, webhook_queue

#: A turn claims for a minute, and what it began may take one deadline more.
TURN_TIMEOUT = timedelta(minutes=3)
TURN_LIMIT = timedelta(minutes=10)
HEARTBEAT_TIMEOUT = timedelta(seconds=8)
#: How long a turn that failed is waited with.
FAULT_PAUSE = timedelta(seconds=5)
_TURNS_PER_RUN = 200
#: Signals are in the history and count towards the server's own limit, which it does not warn of.
_SIGNALS_PER_RUN = 2_000
_WATCH_LIMIT = timedelta(seconds=50)


@workflow.defn
class WebhookWorkflow:
    """Gives an endpoint turn after turn, until nothing waits for it."""

    @workflow.init
    def __init__(self, run: WebhookRun) -> None:
        self._run = run
        self._news = 1
        self._turns = 0
        self._moving = False

    @workflow.run
    async def run(self, _: WebhookRun) -> WebhookRun:
        """Work off what is there and what comes; the result says how much it was."""
        over = False
        while not over and not self._is_full():
            news = self._news
            workflow.upsert_search_attributes([STATUS.value_set("working")])
            next_at = await self._turn()
            if next_at is not None and self._news == news and not self._is_full():
                await self._wait(news, next_at)
            over = next_at is None and self._news == news
        if self._is_full():
            workflow.continue_as_new(
                self._run, initial_versioning_behavior=workflow.ContinueAsNewVersioningBehavior.AUTO_UPGRADE
            )
        await workflow.wait_condition(workflow.all_handlers_finished)
        return self._run

    @workflow.signal(description="There may be something to deliver.")
    def work(self) -> None:
        """Sent when there is something new, or something has changed. During a turn it makes another turn."""
        self._news += 1

    @workflow.signal(description="Continue as a new run on the deployment's current build.")
    def move(self) -> None:
        """Asked by operators who want to retire an old build."""
        self._moving = True

    def _is_full(self) -> bool:
        return (
            self._moving
            or self._turns >= _TURNS_PER_RUN
            or self._news >= _SIGNALS_PER_RUN
            or workflow.info().is_continue_as_new_suggested()
        )

    async def _wait(self, news: int, next_at: datetime) -> None:
        """Until the next attempt is due, or there is something new."""
        pause = next_at - workflow.now()
        if pause <= timedelta(0):
            return
        workflow.upsert_search_attributes([STATUS.value_set("waiting")])
        with suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: self._news != news or self._moving, timeout=pause, timeout_summary="until the next attempt"
            )

    async def _turn(self) -> datetime | None:
        """One turn; answers when the next is due, None when nothing waits."""
        self._turns += 1
        run = self._run
        try:
            done: TurnDone = await workflow.execute_activity_method(
                WebhookActivities.take_turn,
                TakeTurn(tenant_id=run.tenant_id, subscription_id=run.subscription_id),
                task_queue=webhook_queue(workflow.info().task_queue),
                start_to_close_timeout=TURN_TIMEOUT,
                schedule_to_close_timeout=TURN_LIMIT,
                heartbeat_timeout=HEARTBEAT_TIMEOUT,
                retry_policy=STEP_RETRY,
                summary="deliver what is due",
            )
        except FailureError as error:
            if is_cancelled_exception(error):
                raise
            # Late rather than not at all: the next turn begins anew, however long it takes.
            failure = step_failure(error)
            workflow.logger.error("a turn of an endpoint failed and is given again: %s", failure)
            workflow.set_current_details(f"a turn failed and is given again: {failure.message}")
            return workflow.now() + FAULT_PAUSE
        self._run = run.model_copy(
            update={"delivered": run.delivered + done.delivered, "failed": run.failed + done.failed}
        )
        workflow.set_current_details(
            f"{self._run.delivered} delivered, {self._run.failed} attempts failed; "
            + ("nothing waits" if done.next_at is None else f"next attempt at {done.next_at.isoformat()}")
        )
        return done.next_at


@workflow.defn
class WebhookWatchWorkflow:
    """One look over the endpoints of all tenants."""

    @workflow.run
    async def run(self) -> int:
        """How many endpoints had deliveries that waited too long."""
        waiting = await workflow.execute_activity_method(
            WebhookWatchActivities.resume_waiting,
            start_to_close_timeout=STEP_TIMEOUT,
            schedule_to_close_timeout=_WATCH_LIMIT,
            heartbeat_timeout=timedelta(seconds=10),
            retry_policy=STEP_RETRY,
            summary="wake the workflows of endpoints whose deliveries wait",
        )
        workflow.set_current_details(f"{waiting} endpoints had deliveries that waited too long")
        return waiting
