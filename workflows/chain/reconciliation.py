"""``ChainReconciliationWorkflow``: what every contract says of its money against events and ledger; on a schedule."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import FailureError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.chain.books import BooksReadingActivities, ChainBooksActivities
    from activities.chain.messages import BooksCompared, BooksSweep, CompareBooks, SettlingSource, SourcesWanted
    from activities.failures import step_failure
    from workflows.limits import STEP_RETRY, STEP_TIMEOUT, chain_queue

__all__ = ["BooksSweep", "ChainReconciliationWorkflow"]

RELAYERS_PER_RUN = 100
RELAYERS_AT_ONCE = 4

#: One attempt to read what a contract says, in every token; and for how long a chain that does not answer is asked.
_READ_TIMEOUT = timedelta(minutes=1)
_READ_LIMIT = timedelta(minutes=5)
_STEP_ROUND = timedelta(minutes=5)


@workflow.defn
class ChainReconciliationWorkflow:
    """One look at all contracts, a few at a time; one that cannot be read does not keep the others waiting."""

    @workflow.run
    async def run(self, sweep: BooksSweep) -> BooksSweep:
        """How many relayers and tokens were compared, how many differ, and how many could not be read."""
        found = await workflow.execute_activity_method(
            ChainBooksActivities.list_settling,
            SourcesWanted(after=sweep.after, limit=RELAYERS_PER_RUN),
            start_to_close_timeout=STEP_TIMEOUT,
            schedule_to_close_timeout=_STEP_ROUND,
            retry_policy=STEP_RETRY,
            summary="list the next relayers",
        )
        for first in range(0, len(found), RELAYERS_AT_ONCE):
            ends = await asyncio.gather(*(self._compare(each) for each in found[first : first + RELAYERS_AT_ONCE]))
            read = [end for end in ends if end is not None]
            sweep = BooksSweep(
                after=found[min(first + RELAYERS_AT_ONCE, len(found)) - 1].source_id,
                relayers=sweep.relayers + len(ends),
                tokens=sweep.tokens + sum(end.tokens for end in read),
                differing=sweep.differing + sum(end.differing for end in read),
                unread=sweep.unread + ends.count(None) + sum(end.unread > 0 for end in read),
            )
            workflow.set_current_details(
                f"{sweep.tokens} tokens of {sweep.relayers} contracts compared, **{sweep.differing}** differ and nobody"
                f" knows why, {sweep.unread} contracts could not be read, or not wholly"
            )
        if found:
            workflow.continue_as_new(sweep)
        return sweep

    async def _compare(self, source: SettlingSource) -> BooksCompared | None:
        """What became of one contract; None where it could not be read."""
        try:
            read = await workflow.execute_activity_method(
                BooksReadingActivities.read,
                source.run,
                task_queue=chain_queue(workflow.info().task_queue),
                start_to_close_timeout=_READ_TIMEOUT,
                schedule_to_close_timeout=_READ_LIMIT,
                retry_policy=STEP_RETRY,
                summary=f"read what {source.run.relayer_id} says of its money",
            )
            if not read.books:
                return BooksCompared(unread=read.unread)
            compared = await workflow.execute_activity_method(
                ChainBooksActivities.compare,
                CompareBooks(
                    run=source.run,
                    step=f"{workflow.info().run_id}:{source.source_id}",
                    at=workflow.now(),
                    read=read,
                ),
                start_to_close_timeout=STEP_TIMEOUT,
                schedule_to_close_timeout=_STEP_ROUND,
                retry_policy=STEP_RETRY,
                summary=f"compare it with events and ledger: {source.run.relayer_id}",
            )
            return compared.model_copy(update={"unread": read.unread})
        except FailureError as error:
            if is_cancelled_exception(error):
                raise
            workflow.logger.error("books could not be compared: %s", step_failure(error))
            return None
