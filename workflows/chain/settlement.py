"""``ChainSettlementWorkflow``: one per relayer, there while final events wait to be settled; and the watch over it.

It holds no events: which is next stands in Postgres, so a run can end, get lost or be replaced at any time. A signal
says that there may be something; what is there is asked of the rows.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError

from workflows.search import STATUS, attributes, updates

with workflow.unsafe.imports_passed_through():
    from activities.chain.messages import (
        ChainSettled,
        ChainSettlementRun,
        DeliveredFinal,
        DeliverFinal,
        RecordFinal,
    )
    from activities.chain.settling import ChainSettlementActivities, ChainSettlementWatchActivities
    from activities.failures import UNAVAILABLE, refusal_of, step_failure
    from workflows.limits import STEP_RETRY, STEP_TIMEOUT
    from workflows.steps import run_step

__all__ = ["ChainSettled", "ChainSettlementRun", "ChainSettlementWatchWorkflow", "ChainSettlementWorkflow"]

#: About so many events are settled by one commit: whole blocks.
BATCH = 200

#: How long a run that has nothing left waits for more before it ends.
LINGER = timedelta(seconds=10)

#: How long a run waits for an absent server between two rounds of attempts, and after a fault.
_OUTAGE_PAUSE = timedelta(seconds=5)
_FAULT_PAUSE = timedelta(minutes=1)

_DELIVERY_TIMEOUT = timedelta(minutes=3)
_DELIVERY_LIMIT = timedelta(minutes=10)
_HEARTBEAT_TIMEOUT = timedelta(seconds=8)
_WATCH_LIMIT = timedelta(seconds=50)

_BATCHES_PER_RUN = 500

AnswerT = TypeVar("AnswerT")


@workflow.defn
class ChainSettlementWorkflow:
    """Settles a relayer's final events, batch after batch, until nothing is left."""

    @workflow.init
    def __init__(self, run: ChainSettlementRun) -> None:
        self._run = run
        self._news = True
        self._batches = 0
        self._done = ChainSettled()
        self._moving = False
        self._repeated = False

    @workflow.run
    async def run(self, run: ChainSettlementRun) -> ChainSettled:
        """Settle what is final and what becomes so; the result is how many events this run settled."""
        workflow.upsert_search_attributes(
            updates(attributes(run.tenant_id, status="working", reference=run.relayer_id))
        )
        while True:
            if self._is_full():
                workflow.continue_as_new(
                    run, initial_versioning_behavior=workflow.ContinueAsNewVersioningBehavior.AUTO_UPGRADE
                )
            self._news = False
            if await self._batch():
                continue
            if not self._news and await self._stays_quiet():
                return self._done

    @workflow.signal(description="There may be final events to settle.")
    def settle(self) -> None:
        """Sent for each piece of the chain that became final. One that comes while the run ends makes it go on."""
        self._news = True

    @workflow.signal(description="Continue as a new run on the deployment's current build.")
    def move(self) -> None:
        """Asked by operators who want to retire an old build."""
        self._moving = True

    def _is_full(self) -> bool:
        """Whether the history has grown so far that a new run should go on."""
        return self._moving or self._batches >= _BATCHES_PER_RUN or workflow.info().is_continue_as_new_suggested()

    async def _stays_quiet(self) -> bool:
        workflow.upsert_search_attributes([STATUS.value_set("waiting")])
        self._tell("nothing final is left")
        with suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: self._news or self._moving,
                timeout=LINGER,
                timeout_summary="ends unless more becomes final",
            )
        if not self._news and not self._moving:
            return True
        workflow.upsert_search_attributes([STATUS.value_set("working")])
        return False

    async def _batch(self) -> bool:
        """Settle what comes next; whether there was anything."""
        self._batches += 1
        delivered = await self._outlast(self._deliver)
        if delivered is None or not delivered.found:
            return False
        if delivered.through > delivered.after:
            recorded = await self._outlast(lambda: self._record(delivered))
            self._done = self._done.plus(recorded or ChainSettled())
            self._tell(f"settled up to event {delivered.through}")
        self._repeated = delivered.through - delivered.after < delivered.found
        if self._repeated:
            self._tell(f"event {delivered.through + 1} could not be settled and is tried again")
            await workflow.sleep(_OUTAGE_PAUSE, summary="pause: an escrow could not be reached")
        return True

    async def _deliver(self) -> DeliveredFinal:
        return await workflow.execute_activity_method(
            ChainSettlementActivities.deliver,
            DeliverFinal(run=self._run, limit=BATCH, repeated=self._repeated),
            start_to_close_timeout=_DELIVERY_TIMEOUT,
            schedule_to_close_timeout=_DELIVERY_LIMIT,
            heartbeat_timeout=_HEARTBEAT_TIMEOUT,
            retry_policy=STEP_RETRY,
            summary="carry final events to their escrows",
        )

    async def _record(self, delivered: DeliveredFinal) -> ChainSettled:
        return await run_step(
            ChainSettlementActivities.record,
            RecordFinal(
                run=self._run,
                step=f"{workflow.info().run_id}:{self._batches}",
                at=workflow.now(),
                delivered=delivered,
            ),
            summary="write what came of final events",
        )

    async def _outlast(self, attempt: Callable[[], Awaitable[AnswerT]]) -> AnswerT | None:
        """The step's answer, however long a server is away and whatever faults it meets: nothing final is given up.

        None where there is nobody to settle for, or where a new run is to go on.
        """
        while not self._moving:
            try:
                return await attempt()
            except FailureError as error:
                failure: ApplicationError = step_failure(error)
            if refusal_of(failure) is not None:
                workflow.logger.error("there is nothing to settle: %s", failure)
                return None
            if failure.type == UNAVAILABLE:
                workflow.logger.warning("settlement waits for a server: %s", failure)
                await workflow.sleep(_OUTAGE_PAUSE, summary="pause: a server does not answer")
            else:
                workflow.logger.error("settlement met a fault and goes on later: %s", failure)
                await workflow.sleep(_FAULT_PAUSE, summary="pause after a fault")
            self._repeated = True
        return None

    def _tell(self, what: str) -> None:
        done = self._done
        workflow.set_current_details(
            f"{what} · in this run {done.settled} settled, {done.unsupported} unsupported, **{done.disagreeing}** that"
            " the desk's rules disagree with"
        )


@workflow.defn
class ChainSettlementWatchWorkflow:
    """One look over the final events of all relayers."""

    @workflow.run
    async def run(self) -> int:
        """How many relayers had final events that waited too long."""
        waiting = await workflow.execute_activity_method(
            ChainSettlementWatchActivities.resume_waiting,
            start_to_close_timeout=STEP_TIMEOUT,
            schedule_to_close_timeout=_WATCH_LIMIT,
            heartbeat_timeout=_HEARTBEAT_TIMEOUT,
            retry_policy=STEP_RETRY,
            summary="wake the settlement of relayers whose final events wait",
        )
        workflow.set_current_details(f"{waiting} relayers had final events that waited too long")
        return waiting
