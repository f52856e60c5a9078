"""``BackfillWorkflow``: one per job, from what is to be fetched to the look at the end.

What is covered and where chunks stand is in Postgres; the workflow holds where the job stands, and orders. A run can
therefore always be replaced: a new one loads the job and goes on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError, is_cancelled_exception

from workflows.search import STATUS

with workflow.unsafe.imports_passed_through():
    from activities.chain.backfill import BackfillActivities
    from activities.chain.backfill_messages import (
        ApplyBackfillCommand,
        BackfillCommand,
        BackfillPlan,
        BackfillRun,
        BackfillState,
        BackfillVerified,
        ChunkFilled,
        EndBackfill,
        FillChunk,
        PlanBackfill,
    )
    from activities.chain.jobs import FillingActivities
    from activities.failures import refusal_failure, refusal_of, step_failure, unavailable_failure
    from domain.chain.jobs import OVER, WORKING, JobStatus, command
    from domain.errors import Refusal, Unavailable
    from workflows.limits import CHAIN_RETRY, backfill_queue
    from workflows.steps import run_step

#: Chunks of a job that are under way at once.
CHUNKS_AT_ONCE = 3
#: A chunk may be long, and its turn may come late; what counts is that it heartbeats.
CHUNK_TIMEOUT = timedelta(hours=12)
CHUNK_LIMIT = timedelta(hours=24)
HEARTBEAT_TIMEOUT = timedelta(seconds=8)
#: Looks at the chain's end, and at everything that is stored of a range.
LOOK_TIMEOUT = timedelta(minutes=30)
LOOK_LIMIT = timedelta(hours=24)
#: So long a job waits for what other jobs are at, or for blocks to become final, before it looks again.
WAIT_FIRST, WAIT_MAX = timedelta(seconds=1), timedelta(seconds=30)
#: A database that is away does not end a job.
OUTAGE_PAUSE = timedelta(seconds=10)
_COMMANDS_PER_RUN = 500
_CHUNKS_PER_RUN = 2_000
_RECENT_COMMANDS = 100


@workflow.defn
class BackfillWorkflow:
    """Carries a backfill job to its end, and takes it up again when it is retried."""

    @workflow.init
    def __init__(self, run: BackfillRun) -> None:
        self._run = run
        self._state: BackfillState | None = None
        self._failure: ApplicationError | None = None
        self._lock = asyncio.Lock()
        self._recent = deque(run.recent_commands, maxlen=_RECENT_COMMANDS)
        self._commands = 0
        self._chunks = 0
        self._pause = WAIT_FIRST
        self._moving = False
        self._leaving = False
        self._shown: str | None = None

    @workflow.run
    async def run(self, _: BackfillRun) -> BackfillState:
        """Fill and verify until the job is over; the result is how it stands then."""
        try:
            self._hold(await self._load())
        except ApplicationError as failure:
            # Handlers that wait for the job answer with this, too.
            self._failure = failure
            await workflow.wait_condition(workflow.all_handlers_finished)
            raise
        while True:
            while self._held().status not in OVER:
                if self._is_full():
                    await self._continue_as_new()
                elif self._held().status is JobStatus.PAUSED:
                    self._tell("paused")
                    await workflow.wait_condition(lambda: self._held().status is not JobStatus.PAUSED or self._moving)
                else:
                    await self._work()
            await workflow.wait_condition(workflow.all_handlers_finished)
            if self._held().status in OVER:
                return self._held()

    @workflow.update(description="Stop for a while; what is filled stays.")
    async def pause(self, asked: BackfillCommand) -> BackfillState:
        """See ``domain.chain.jobs.command``."""
        return await self._carry_out(asked)

    @workflow.update(description="Go on.")
    async def resume(self, asked: BackfillCommand) -> BackfillState:
        """See ``domain.chain.jobs.command``."""
        return await self._carry_out(asked)

    @workflow.update(description="End the job; what is filled stays.")
    async def cancel(self, asked: BackfillCommand) -> BackfillState:
        """See ``domain.chain.jobs.command``."""
        return await self._carry_out(asked)

    @workflow.update(description="Take a job up again that failed or was cancelled.")
    async def retry(self, asked: BackfillCommand) -> BackfillState:
        """See ``domain.chain.jobs.command``."""
        return await self._carry_out(asked)

    @pause.validator
    def _may_pause(self, asked: BackfillCommand) -> None:
        self._judge(asked)

    @resume.validator
    def _may_resume(self, asked: BackfillCommand) -> None:
        self._judge(asked)

    @cancel.validator
    def _may_cancel(self, asked: BackfillCommand) -> None:
        self._judge(asked)

    @retry.validator
    def _may_retry(self, asked: BackfillCommand) -> None:
        self._judge(asked)

    @workflow.signal(description="Continue as a new run on the deployment's current build.")
    def move(self) -> None:
        """Asked by operators who want to retire an old build before its jobs end."""
        self._moving = True

    def _judge(self, asked: BackfillCommand) -> None:
        """Refuse what the rules refuse, at no cost in history. A command that may have taken effect is the step's."""
        if self._leaving:
            raise unavailable_failure(Unavailable("temporal", "the job's run is being renewed"))
        if self._state is None or asked.repeated or asked.command_id in self._recent:
            return
        try:
            command(self._state.status, asked.command)
        except Refusal as refusal:
            raise refusal_failure(refusal) from None

    async def _carry_out(self, asked: BackfillCommand) -> BackfillState:
        at = workflow.now()
        self._commands += 1
        self._recent.append(asked.command_id)
        await workflow.wait_condition(lambda: self._state is not None or self._failure is not None)
        if self._failure is not None:
            raise self._failure
        async with self._lock:
            self._pause = WAIT_FIRST
            after = await run_step(
                BackfillActivities.command,
                ApplyBackfillCommand(run=self._run, command=asked, at=at),
                summary=f"record the command: {asked.command}",
            )
            self._hold(after)
        return after

    async def _work(self) -> None:
        """One round: lay out, fill, and where nothing is left, verify. An operator's word ends it at once."""
        attempt = self._held().attempt
        try:
            plan = await self._plan()
            if plan.stopped:
                self._hold(await self._load())
            elif plan.not_final:
                self._tell(f"block {self._held().to_block} is not final yet")
                await self._wait("until the end of the range is final")
            elif plan.chunks:
                self._pause = WAIT_FIRST
                await self._fill(plan)
            elif plan.missing:
                self._tell(f"{plan.others} blocks are being filled by other jobs")
                await self._wait("until other jobs have filled what they are at")
            else:
                await self._verify(attempt)
        except FailureError as error:
            if is_cancelled_exception(error):
                raise
            failure = step_failure(error)
            refusal = refusal_of(failure)
            told = str(failure) if refusal is None else str(refusal)
            workflow.logger.error("a backfill job failed: %s", told)
            await self._end(attempt, told)

    async def _plan(self) -> BackfillPlan:
        return await workflow.execute_activity_method(
            FillingActivities.plan,
            PlanBackfill(run=self._run, at=workflow.now()),
            task_queue=backfill_queue(workflow.info().task_queue),
            start_to_close_timeout=LOOK_TIMEOUT,
            schedule_to_close_timeout=LOOK_LIMIT,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=CHAIN_RETRY,
            summary="lay out what is not covered",
        )

    async def _fill(self, plan: BackfillPlan) -> None:
        """Fill the chunks of a plan, several at a time; they write in their order by themselves."""
        waiting, under_way = deque(range(plan.chunks)), dict[int, workflow.ActivityHandle[ChunkFilled]]()
        self._set_status(JobStatus.RUNNING)
        done = 0
        try:
            while (waiting or under_way) and self._works():
                while waiting and len(under_way) < CHUNKS_AT_ONCE:
                    number = waiting.popleft()
                    under_way[number] = self._start(plan, number)
                await workflow.wait_condition(
                    lambda: not self._works() or any(handle.done() for handle in under_way.values())
                )
                for number in [number for number, handle in under_way.items() if handle.done()]:
                    filled: ChunkFilled = under_way.pop(number).result()
                    if filled.stopped:
                        self._hold(await self._load())
                        return
                    if not filled.done:
                        waiting.appendleft(number)
                        continue
                    done += 1
                    self._tell(f"{done} of {plan.chunks} chunks; {_progress(self._held(), filled)}")
        finally:
            for handle in under_way.values():
                handle.cancel()

    def _start(self, plan: BackfillPlan, number: int) -> workflow.ActivityHandle[ChunkFilled]:
        self._chunks += 1
        return workflow.start_activity_method(
            FillingActivities.fill,
            FillChunk(run=self._run, chunk_no=number, expected_events=plan.expected_events),
            task_queue=backfill_queue(workflow.info().task_queue),
            start_to_close_timeout=CHUNK_TIMEOUT,
            schedule_to_close_timeout=CHUNK_LIMIT,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=CHAIN_RETRY,
            summary=f"fill chunk {number} of {plan.chunks}",
        )

    async def _verify(self, attempt: int) -> None:
        self._set_status(JobStatus.VERIFYING)
        self._tell("everything is covered; looking at it again")
        found: BackfillVerified = await workflow.execute_activity_method(
            FillingActivities.verify,
            self._run,
            task_queue=backfill_queue(workflow.info().task_queue),
            start_to_close_timeout=LOOK_TIMEOUT,
            schedule_to_close_timeout=LOOK_LIMIT,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=CHAIN_RETRY,
            summary="compare coverage, numbers and the contract's counter",
        )
        if found.stopped:
            self._hold(await self._load())
        elif not found.missing:
            await self._end(attempt, None if found.error is None else f"verification_failed: {found.error}")

    async def _end(self, attempt: int, error: str | None) -> None:
        asked = EndBackfill(run=self._run, attempt=attempt, at=workflow.now(), error=error)
        async with self._lock:
            while True:
                try:
                    ended = await run_step(
                        BackfillActivities.end,
                        asked,
                        summary="record that the job is complete" if error is None else "record that the job failed",
                    )
                    break
                except FailureError as failure:
                    if is_cancelled_exception(failure):
                        raise
                    workflow.logger.error("the end of a job could not be recorded yet: %s", failure)
                    await workflow.sleep(OUTAGE_PAUSE, summary="pause before the job's end is recorded")
            self._hold(ended)
        self._tell(f"{ended.status}" + ("" if ended.error is None else f": {ended.error}"))

    async def _load(self) -> BackfillState:
        while True:
            try:
                return await run_step(BackfillActivities.load, self._run, summary="load the job")
            except FailureError as error:
                failure = step_failure(error)
                if is_cancelled_exception(error) or refusal_of(failure) is not None:
                    raise
                await workflow.sleep(OUTAGE_PAUSE, summary="pause before the job is loaded again")

    async def _wait(self, why: str) -> None:
        pause, self._pause = self._pause, min(2 * self._pause, WAIT_MAX)
        try:
            await workflow.wait_condition(lambda: not self._works() or self._moving, timeout=pause, timeout_summary=why)
        except TimeoutError:
            return

    def _works(self) -> bool:
        return self._held().status in WORKING and not self._moving

    def _is_full(self) -> bool:
        return (
            self._moving
            or self._commands >= _COMMANDS_PER_RUN
            or self._chunks >= _CHUNKS_PER_RUN
            or workflow.info().is_continue_as_new_suggested()
        )

    async def _continue_as_new(self) -> None:
        self._leaving = True
        await workflow.wait_condition(workflow.all_handlers_finished)
        workflow.continue_as_new(
            self._run.model_copy(update={"recent_commands": tuple(self._recent)}),
            initial_versioning_behavior=workflow.ContinueAsNewVersioningBehavior.AUTO_UPGRADE,
        )

    def _held(self) -> BackfillState:
        assert self._state is not None, "run() loads it first"
        return self._state

    def _hold(self, state: BackfillState) -> None:
        self._state = state
        self._set_status(state.status)

    def _set_status(self, status: JobStatus) -> None:
        """Where it stands, for who filters by it."""
        if self._shown != status:
            self._shown = status
            workflow.upsert_search_attributes([STATUS.value_set(status)])

    def _tell(self, what: str) -> None:
        state = self._held()
        workflow.set_current_details(f"{state.name}, blocks {state.from_block} to {state.to_block}\n\n{what}")


def _progress(job: BackfillState, filled: ChunkFilled) -> str:
    """What an operator reads in the UI."""
    share = 100 * filled.covered_blocks // max(1, job.total_blocks)
    told = f"{filled.covered_blocks} of {job.total_blocks} blocks covered ({share} %), {filled.events_written} events"
    if filled.blocks_per_second is not None and filled.events_per_second is not None:
        told += f"; {filled.blocks_per_second:.0f} blocks and {filled.events_per_second:.0f} events a second"
    return told if filled.eta_at is None else f"{told}; ends about {filled.eta_at:%Y-%m-%d %H:%M:%S} UTC"
