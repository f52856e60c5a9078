"""``SettlementWorkflow``: one per tenant, there while the tenant has settlement commands to work off.

It holds no commands: whose turn it is stands in Postgres, so a run can end, get lost or be replaced at any time. A
signal says that there may be something; what is there is asked of the lanes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import TypeVar

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError

from workflows.search import STATUS, attributes, updates

with workflow.unsafe.imports_passed_through():
    from activities.failures import UNAVAILABLE, step_failure
    from activities.settlement.escrow import SettlementEscrowActivities
    from activities.settlement.ledger import SettlementLedgerActivities
    from activities.settlement.messages import (
        BatchOutcome,
        DeliverBatch,
        Delivered,
        RecordBatch,
        SettleBatch,
        SettlementRun,
        TakeUpBatch,
    )
    from workflows.limits import STEP_RETRY
    from workflows.steps import run_step

#: One commit settles so many commands of the ledger's lane; fewer after a fault, until the faulty one stands alone.
LEDGER_BATCH = 1_000
ESCROW_BATCH = 200

#: How long a run that has nothing left waits for more before it ends.
LINGER = timedelta(seconds=10)

#: How long a lane waits for an absent server between two rounds of attempts, and after a fault.
_OUTAGE_PAUSE = timedelta(seconds=5)
_FAULT_PAUSE = timedelta(minutes=1)

_DELIVERY_TIMEOUT = timedelta(minutes=3)
_DELIVERY_LIMIT = timedelta(minutes=10)
_HEARTBEAT_TIMEOUT = timedelta(seconds=8)

_BATCHES_PER_RUN = 500

AnswerT = TypeVar("AnswerT")


class _LeftUndoneError(Exception):
    """A step did not go while the run was to end."""


@workflow.defn
class SettlementWorkflow:
    """Works a tenant's commands off, in two lanes beside one another, until nothing is left."""

    @workflow.init
    def __init__(self, run: SettlementRun) -> None:
        self._tenant_id = run.tenant_id
        self._news = 1
        self._rested = {"ledger": 0, "escrow": 0}
        self._batches = 0
        self._limit = LEDGER_BATCH
        self._done = BatchOutcome()
        self._moving = False
        self._leaving = False

    @workflow.run
    async def run(self, run: SettlementRun) -> BatchOutcome:
        """Work off what is there and what comes; the result is how many this run finished."""
        workflow.upsert_search_attributes(updates(attributes(self._tenant_id, status="working")))
        lanes = [
            asyncio.create_task(self._work_off("ledger", self._ledger_batch)),
            asyncio.create_task(self._work_off("escrow", self._escrow_batch)),
        ]
        while not self._leaving:
            await workflow.wait_condition(
                lambda: self._at_rest() or self._is_full() or any(lane.done() for lane in lanes)
            )
            self._leaving = not self._at_rest() or await self._stays_quiet()
        await asyncio.gather(*lanes)
        if self._is_full() or not self._at_rest():
            workflow.continue_as_new(
                run, initial_versioning_behavior=workflow.ContinueAsNewVersioningBehavior.AUTO_UPGRADE
            )
        return self._done

    @workflow.signal(description="There may be commands to work off.")
    def work(self) -> None:
        """Sent for each request that left commands. One that comes while the run ends makes it go on."""
        self._news += 1

    @workflow.signal(description="Continue as a new run on the deployment's current build.")
    def move(self) -> None:
        """Asked by operators who want to retire an old build."""
        self._moving = True

    def _at_rest(self) -> bool:
        """Whether both lanes found nothing since the last news."""
        return all(rested == self._news for rested in self._rested.values())

    def _is_full(self) -> bool:
        """Whether the history has grown so far that a new run should go on."""
        return self._moving or self._batches >= _BATCHES_PER_RUN or workflow.info().is_continue_as_new_suggested()

    async def _stays_quiet(self) -> bool:
        workflow.upsert_search_attributes([STATUS.value_set("waiting")])
        self._tell("nothing is left")
        with suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: not self._at_rest() or self._is_full(),
                timeout=LINGER,
                timeout_summary="ends unless more commands come",
            )
        if self._at_rest():
            return True
        workflow.upsert_search_attributes([STATUS.value_set("working")])
        return False

    async def _work_off(self, lane: str, batch: Callable[[], Awaitable[bool]]) -> None:
        """Batch after batch. What one lane finishes may be what the other waits for, so it is news for both."""
        while not self._leaving:
            news = self._news
            try:
                worked = await batch()
            except _LeftUndoneError:
                return
            if worked:
                self._news += 1
                continue
            self._rested[lane] = news
            await workflow.wait_condition(lambda: self._rested[lane] != self._news or self._leaving)

    async def _ledger_batch(self) -> bool:
        step = self._next_step("ledger")
        outcome = await self._outlast(
            lambda: run_step(
                SettlementLedgerActivities.settle,
                SettleBatch(tenant_id=self._tenant_id, step=step, at=workflow.now(), limit=self._limit),
                summary="settle commands on the ledger",
            ),
            on_fault=self._shrink,
        )
        self._limit = min(LEDGER_BATCH, 2 * self._limit)
        self._count(outcome)
        return outcome.count > 0

    async def _escrow_batch(self) -> bool:
        taking, recording = self._next_step("escrow"), self._next_step("escrow")
        taken = await self._outlast(
            lambda: run_step(
                SettlementEscrowActivities.take_up,
                TakeUpBatch(tenant_id=self._tenant_id, step=taking, at=workflow.now(), limit=ESCROW_BATCH),
                summary="take commands on escrows up",
            )
        )
        if not taken.sequences:
            return False
        delivered = await self._outlast(lambda: self._deliver(taken.sequences))
        if delivered.outcomes:
            outcome = await self._outlast(
                lambda: run_step(
                    SettlementEscrowActivities.record,
                    RecordBatch(
                        tenant_id=self._tenant_id, step=recording, at=workflow.now(), outcomes=delivered.outcomes
                    ),
                    summary="write what came of commands on escrows",
                )
            )
            self._count(outcome)
        if len(delivered.outcomes) < len(taken.sequences):
            self._tell("some escrows could not be reached and are asked again")
            await workflow.sleep(_OUTAGE_PAUSE, summary="pause: escrows could not be reached")
        return True

    async def _deliver(self, sequences: tuple[int, ...]) -> Delivered:
        return await workflow.execute_activity_method(
            SettlementEscrowActivities.deliver,
            DeliverBatch(tenant_id=self._tenant_id, sequences=sequences),
            start_to_close_timeout=_DELIVERY_TIMEOUT,
            schedule_to_close_timeout=_DELIVERY_LIMIT,
            heartbeat_timeout=_HEARTBEAT_TIMEOUT,
            retry_policy=STEP_RETRY,
            summary=f"carry {len(sequences)} commands to their escrows",
        )

    def _shrink(self) -> bool:
        """Put fewer commands into a batch after a fault, until the one that causes it stands alone and fails."""
        before, self._limit = self._limit, max(1, self._limit // 8)
        return self._limit < before

    async def _outlast(
        self, attempt: Callable[[], Awaitable[AnswerT]], *, on_fault: Callable[[], bool] = lambda: False
    ) -> AnswerT:
        """The step's answer, however long a server is away and whatever faults it meets: commands are not given up.

        ``on_fault`` says whether another attempt at once makes sense. A run that is to end leaves what does not go to
        the run after it.
        """
        while True:
            try:
                return await attempt()
            except FailureError as error:
                failure: ApplicationError = step_failure(error)
            if self._leaving:
                raise _LeftUndoneError
            if failure.type == UNAVAILABLE:
                workflow.logger.warning("settlement waits for a server: %s", failure)
                await workflow.sleep(_OUTAGE_PAUSE, summary="pause: a server does not answer")
            elif not on_fault():
                workflow.logger.error("settlement met a fault and goes on later: %s", failure)
                await workflow.sleep(_FAULT_PAUSE, summary="pause after a fault")

    def _next_step(self, lane: str) -> str:
        """A name for a step that no other step of the tenant has had."""
        self._batches += 1
        return f"{lane}:{workflow.info().run_id}:{self._batches}"

    def _count(self, outcome: BatchOutcome) -> None:
        self._done = self._done.plus(outcome)
        self._tell("working commands off")

    def _tell(self, what: str) -> None:
        done = self._done
        workflow.set_current_details(
            f"{what} · in this run {done.settled} settled, {done.rejected} rejected, {done.failed} failed"
        )
