"""``RelayerWorkflow``: one per followed source, there as long as it is registered; and its watch.

It holds no blocks and no cursor: where the live end stands is in Postgres, so a run can end, get lost or be replaced at
any time. Turns are taken by workers of a task queue of their own: a turn lasts, and must hold up nothing else.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError, is_cancelled_exception

from workflows.search import STATUS, attributes, updates

with workflow.unsafe.imports_passed_through():
    from activities.chain.relayer import FollowingActivities, RelayerActivities, RelayerWatchActivities
    from activities.chain.relayer_messages import CarryOut, RelayerCommand, RelayerRun, RelayerState, TurnDone
    from activities.failures import refusal_failure, refusal_of, step_failure, unavailable_failure
    from domain.chain import RelayerStatus
    from domain.chain.following import check_status
    from domain.errors import Refusal, Unavailable
    from workflows.limits import STEP_RETRY, STEP_TIMEOUT, chain_queue
    from workflows.steps import outlast, run_step

__all__ = ["RelayerCommand", "RelayerRun", "RelayerState", "RelayerWatchWorkflow", "RelayerWorkflow"]

#: A turn follows for a minute; a piece that it began with may take longer.
TURN_TIMEOUT = timedelta(minutes=3)
TURN_LIMIT = timedelta(minutes=10)
#: A worker that died is noticed so late, and another one goes on.
HEARTBEAT_TIMEOUT = timedelta(seconds=5)
FAULT_PAUSE = timedelta(seconds=5)
_TURNS_PER_RUN = 400
_NEWS_PER_RUN = 1_000
_RECENT_COMMANDS = 100
_WATCH_LIMIT = timedelta(seconds=50)


@workflow.defn
class RelayerWorkflow:
    """Has turns taken one after the other, as long as the relayer is to follow; carries operators' commands out."""

    @workflow.init
    def __init__(self, run: RelayerRun) -> None:
        self._run = run
        self._state: RelayerState | None = None
        self._lock = asyncio.Lock()
        self._recent = deque(run.recent_commands, maxlen=_RECENT_COMMANDS)
        self._news = 0
        self._turns = 0
        self._moving = False
        self._leaving = False

    @workflow.run
    async def run(self, run: RelayerRun) -> RelayerState:
        """Follow for ever; ends where there is no live end to follow, or no such relayer."""
        if not run.recent_commands:
            workflow.upsert_search_attributes(updates(attributes(run.tenant_id, reference=run.relayer_id)))
        self._hold(await outlast(self._load))
        while self._now() is not RelayerStatus.OBSERVING:
            if self._is_full():
                await self._continue_as_new()
            elif self._now() is RelayerStatus.FOLLOWING:
                await self._turn()
            else:
                await self._stand_still()
        await workflow.wait_condition(workflow.all_handlers_finished)
        return self._known()

    @workflow.update(description="Stop following; nothing is written until it is resumed.")
    async def pause(self, command: RelayerCommand) -> RelayerState:
        """Refused unless it follows. When it answers, nothing is written any more."""
        return await self._carry_out(command)

    @workflow.update(description="Go on following, also after the relayer has halted by itself.")
    async def resume(self, command: RelayerCommand) -> RelayerState:
        """Refused unless it is paused or halted."""
        return await self._carry_out(command)

    @workflow.update(description="Go back to a block that is not final, and fetch anew from there.")
    async def rewind(self, command: RelayerCommand) -> RelayerState:
        """What stood above is told as reverted, and what is fetched anew as applied."""
        return await self._carry_out(command)

    @pause.validator
    def _may_pause(self, command: RelayerCommand) -> None:
        self._judge(command)

    @resume.validator
    def _may_resume(self, command: RelayerCommand) -> None:
        self._judge(command)

    @rewind.validator
    def _may_rewind(self, command: RelayerCommand) -> None:
        self._judge(command)

    @workflow.signal(description="Look: the relayer may be known by now, or nothing was heard of its chain.")
    def look(self) -> None:
        """Sent when a source is registered, and by the watch. Who follows looks anyway."""
        self._news += 1

    @workflow.signal(description="Continue as a new run on the deployment's current build.")
    def move(self) -> None:
        """Asked by operators who want to retire an old build; a turn that is under way ends first."""
        self._moving = True

    def _judge(self, command: RelayerCommand) -> None:
        """Refuse what the relayer's status forbids, at no cost in history; a repeated command is left to its step."""
        if self._leaving:
            raise unavailable_failure(Unavailable("temporal", "the relayer's run is being renewed"))
        if self._state is None or command.repeated or command.command_id in self._recent:
            return
        try:
            check_status(self._state.status, command.ask)
        except Refusal as refusal:
            raise refusal_failure(refusal) from None

    async def _carry_out(self, command: RelayerCommand) -> RelayerState:
        self._news += 1
        self._recent.append(command.command_id)
        asked = CarryOut(tenant_id=self._run.tenant_id, relayer_id=self._run.relayer_id, command=command)
        async with self._lock:
            try:
                state = await outlast(
                    lambda: run_step(RelayerActivities.carry_out, asked, summary=f"{command.ask} the relayer")
                )
            except ApplicationError as failure:
                if refusal_of(failure) is not None:
                    # The row may say otherwise than the copy that the validator asked.
                    self._hold(await outlast(self._load))
                raise
            self._hold(state)
        return state

    async def _turn(self) -> None:
        self._turns += 1
        news = self._news
        try:
            done: TurnDone = await workflow.execute_activity_method(
                FollowingActivities.follow,
                self._run,
                task_queue=chain_queue(workflow.info().task_queue),
                start_to_close_timeout=TURN_TIMEOUT,
                schedule_to_close_timeout=TURN_LIMIT,
                heartbeat_timeout=HEARTBEAT_TIMEOUT,
                retry_policy=STEP_RETRY,
                summary="follow the live end",
            )
        except FailureError as error:
            if is_cancelled_exception(error):
                raise
            # Late rather than not at all: the next turn begins where the cursor stands, however long it takes.
            failure = step_failure(error)
            workflow.logger.error("a turn of a relayer failed and is taken again: %s", failure)
            workflow.set_current_details(f"a turn failed and is taken again: {failure.message}")
            with suppress(TimeoutError):
                await workflow.wait_condition(
                    lambda: self._moving, timeout=FAULT_PAUSE, timeout_summary="pause: the last turn failed"
                )
            return
        if news == self._news:
            self._hold(done.state)
        # Else a command came meanwhile, whose answer may be newer than what the turn saw; the next turn sees both.
        workflow.set_current_details(_told(done))

    async def _stand_still(self) -> None:
        """Wait until somebody resumes it. What the row says is asked again when somebody wants it looked at."""
        news = self._news
        workflow.set_current_details(_standing(self._known()))
        await workflow.wait_condition(
            lambda: self._now() is RelayerStatus.FOLLOWING or self._news != news or self._is_full()
        )
        if self._now() is not RelayerStatus.FOLLOWING and not self._is_full():
            async with self._lock:
                self._hold(await outlast(self._load))

    def _is_full(self) -> bool:
        return (
            self._moving
            or self._turns >= _TURNS_PER_RUN
            or self._news >= _NEWS_PER_RUN
            or workflow.info().is_continue_as_new_suggested()
        )

    async def _continue_as_new(self) -> None:
        self._leaving = True
        await workflow.wait_condition(workflow.all_handlers_finished)
        workflow.continue_as_new(
            self._run.model_copy(update={"recent_commands": tuple(self._recent)}),
            initial_versioning_behavior=workflow.ContinueAsNewVersioningBehavior.AUTO_UPGRADE,
        )

    async def _load(self) -> RelayerState:
        return await run_step(RelayerActivities.load, self._run, summary="see where the relayer stands")

    def _hold(self, state: RelayerState) -> None:
        before, self._state = self._state, state
        if before is None or before.status is not state.status:
            workflow.upsert_search_attributes([STATUS.value_set(state.status)])

    def _known(self) -> RelayerState:
        assert self._state is not None, "run() goes on only after it was loaded"
        return self._state

    def _now(self) -> RelayerStatus:
        return self._known().status


@workflow.defn
class RelayerWatchWorkflow:
    """One look over the relayers of all tenants."""

    @workflow.run
    async def run(self) -> int:
        """How many should follow and were silent."""
        silent = await workflow.execute_activity_method(
            RelayerWatchActivities.bring_back,
            start_to_close_timeout=STEP_TIMEOUT,
            schedule_to_close_timeout=_WATCH_LIMIT,
            heartbeat_timeout=timedelta(seconds=10),
            retry_policy=STEP_RETRY,
            summary="bring back relayers that hear nothing of their chain",
        )
        workflow.set_current_details(f"{silent} relayers had heard nothing of their chain")
        return silent


def _told(done: TurnDone) -> str:
    """What an operator reads in the UI."""
    state = done.state
    if state.status is not RelayerStatus.FOLLOWING:
        return _standing(state)
    lines = [
        f"**block {state.block_number}**"
        + ("" if state.head_number is None else f" of {state.head_number}, {_lag(state)} behind")
        + f"; confirmed {state.confirmed_number}, final {state.finalized_number}",
        f"last turn: {done.blocks} blocks, {done.events} events, {done.reorgs} reorganisations,"
        f" {done.reverted} events reverted",
    ]
    if done.fault is not None:
        lines.append(f"**the chain could not be read**: {done.fault}")
    return "\n\n".join(lines)


def _standing(state: RelayerState) -> str:
    why = "" if state.reason is None else f": {state.reason}"
    return f"**{state.status}**{why}\n\nstands at block {state.block_number}, final {state.finalized_number}"


def _lag(state: RelayerState) -> int:
    return max(0, (state.head_number or 0) - state.block_number)
