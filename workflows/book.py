"""``BookWorkflow``: one for the platform, there while the margin book has something to do; its watch and its auditor.

It holds no accounts and no prices: a round revalues every shard at whatever is newest, so ticks that come meanwhile are
one more round, and a run can end, get lost or be replaced at any time.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import datetime, timedelta

from temporalio import workflow
from temporalio.exceptions import FailureError, is_cancelled_exception

from workflows.search import STATUS

with workflow.unsafe.imports_passed_through():
    from activities.book.audit import BookAuditActivities
    from activities.book.messages import BookAudit, BookPlan, BookRun, Revalued, RevalueGroup
    from activities.book.steps import BookActivities
    from activities.book.watch import BookWatchActivities
    from activities.failures import step_failure
    from workflows.limits import STEP_RETRY, STEP_TIMEOUT

__all__ = ["BookAudit", "BookAuditWorkflow", "BookRun", "BookWatchWorkflow", "BookWorkflow", "Revalued"]

#: How long a run that has nothing left waits for another tick before it ends.
LINGER = timedelta(seconds=60)
#: A group's revaluation, its first load and a crash's transitions included; it heartbeats all the while.
GROUP_TIMEOUT = timedelta(minutes=10)
GROUP_LIMIT = timedelta(minutes=20)
HEARTBEAT_TIMEOUT = timedelta(seconds=8)
PLAN_LIMIT = timedelta(minutes=5)
AUDIT_TIMEOUT = timedelta(hours=1)
AUDIT_LIMIT = timedelta(hours=2)
_WATCH_LIMIT = timedelta(seconds=50)
#: How long a round that failed waits for the next.
_FAULT_PAUSE = timedelta(seconds=5)
_ROUNDS_PER_RUN = 200


@workflow.defn
class BookWorkflow:
    """Revalues the margin book at every tick, until no tick comes any more and nobody waits for a cooldown's end."""

    @workflow.init
    def __init__(self, run: BookRun) -> None:
        self._news = 1
        self._rounds = 0
        self._before = run.rounds
        self._moving = False

    @workflow.run
    async def run(self, _: BookRun) -> BookRun:
        """Round after round; the result is how many there were."""
        over = False
        while not over and not self._is_full():
            news = self._news
            workflow.upsert_search_attributes([STATUS.value_set("working")])
            due = await self._round()
            if self._news == news and not self._is_full():
                workflow.upsert_search_attributes([STATUS.value_set("waiting")])
                await self._news_or(news, due)
            over = self._news == news and due is None
        rounds = BookRun(rounds=self._before + self._rounds)
        if self._is_full():
            workflow.continue_as_new(
                rounds, initial_versioning_behavior=workflow.ContinueAsNewVersioningBehavior.AUTO_UPGRADE
            )
        await workflow.wait_condition(workflow.all_handlers_finished)
        return rounds

    @workflow.signal(description="Prices changed, or parameters: the book is revalued.")
    def ticked(self) -> None:
        """Sent for each tick. One that comes during a round is another round, however many they are."""
        self._news += 1

    @workflow.signal(description="Continue as a new run on the deployment's current build.")
    def move(self) -> None:
        """Asked by operators who want to retire an old build."""
        self._moving = True

    def _is_full(self) -> bool:
        return self._moving or self._rounds >= _ROUNDS_PER_RUN or workflow.info().is_continue_as_new_suggested()

    async def _news_or(self, news: int, due: datetime | None) -> None:
        """Wait for another tick, or until it is time to look again."""
        pause = LINGER if due is None else max(due - workflow.now(), timedelta(milliseconds=100))
        with suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: self._news != news or self._moving,
                timeout=pause,
                timeout_summary="ends unless prices change" if due is None else "until a cooldown ends",
            )

    async def _round(self) -> datetime | None:
        """Revalue everything once; answers when to look again though no price changes."""
        self._rounds += 1
        began = workflow.now()
        try:
            plan = await self._plan()
            ends = await asyncio.gather(*(self._revalue(shards) for shards in plan.groups))
        except FailureError as error:
            if is_cancelled_exception(error):
                raise
            # Accounts are told late rather than not at all: the next round begins anew, however long it takes.
            failure = step_failure(error)
            workflow.logger.error("the book could not be revalued and is tried again: %s", failure)
            workflow.set_current_details(f"could not be revalued and is tried again: {failure.message}")
            return workflow.now() + _FAULT_PAUSE
        workflow.set_current_details(_told(ends, workflow.now() - began))
        if any(each.superseded for each in ends):
            return workflow.now()
        return min((each.due_at for each in ends if each.due_at is not None), default=None)

    async def _plan(self) -> BookPlan:
        return await workflow.execute_activity_method(
            BookActivities.plan,
            start_to_close_timeout=STEP_TIMEOUT,
            schedule_to_close_timeout=PLAN_LIMIT,
            retry_policy=STEP_RETRY,
            summary="see what there is to revalue",
        )

    async def _revalue(self, shards: tuple[int, ...]) -> Revalued:
        return await workflow.execute_activity_method(
            BookActivities.revalue,
            RevalueGroup(shards=shards),
            start_to_close_timeout=GROUP_TIMEOUT,
            schedule_to_close_timeout=GROUP_LIMIT,
            heartbeat_timeout=HEARTBEAT_TIMEOUT,
            retry_policy=STEP_RETRY,
            summary=f"revalue shard {shards[0]} and {len(shards) - 1} more",
        )


@workflow.defn
class BookWatchWorkflow:
    """One look at whether the book is behind."""

    @workflow.run
    async def run(self) -> bool:
        """Whether it was, and was woken."""
        behind = await workflow.execute_activity_method(
            BookWatchActivities.wake_behind,
            start_to_close_timeout=STEP_TIMEOUT,
            schedule_to_close_timeout=_WATCH_LIMIT,
            retry_policy=STEP_RETRY,
            summary="wake the book when it is behind",
        )
        workflow.set_current_details("the book was behind and was woken" if behind else "the book is not behind")
        return behind


@workflow.defn
class BookAuditWorkflow:
    """Recomputes every account's level in Postgres, apart from the book, and tells what disagrees."""

    @workflow.run
    async def run(self) -> BookAudit:
        """How many accounts there were, and how many had been told wrong."""
        found = await workflow.execute_activity_method(
            BookAuditActivities.audit,
            start_to_close_timeout=AUDIT_TIMEOUT,
            schedule_to_close_timeout=AUDIT_LIMIT,
            heartbeat_timeout=timedelta(minutes=1),
            retry_policy=STEP_RETRY,
            summary="recompute levels in the database",
        )
        workflow.set_current_details(f"{found.accounts} accounts recomputed, **{found.disagreeing} disagree**")
        return found


def _told(ends: list[Revalued], took: timedelta) -> str:
    """What an operator reads in the UI."""
    sums = {
        name: sum(getattr(each, name) for each in ends)
        for name in ("accounts", "candidates", "transitions", "left", "waiting", "unvalued")
    }
    lines = [
        f"tick {min(each.tick for each in ends)}, parameters {min(each.version for each in ends)}:"
        f" {sums['accounts']} accounts, {sums['candidates']} candidates, **{sums['transitions']} told**,"
        f" {took // timedelta(milliseconds=1)} ms",
        f"{sums['waiting']} wait for the end of a cooldown, {sums['left']} had changed meanwhile",
    ]
    if sums["unvalued"]:
        lines.append(f"**{sums['unvalued']} cannot be valued**: an asset does not count, or has no usable price")
    lines += ["a part was superseded by a newer tick"] if any(each.superseded for each in ends) else []
    return "\n\n".join(lines)
