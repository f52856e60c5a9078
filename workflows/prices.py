"""Prices: refreshed from every source (``PriceRefreshWorkflow``), and their history's partitions made ahead."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.prices.messages import (
        AskSource,
        PartitionsKept,
        RecordPrices,
        RefreshOutcome,
        RefreshPrices,
        SourceSaid,
        SourceVerdict,
    )
    from activities.prices.steps import PriceActivities
    from workflows.limits import STEP_RETRY, STEP_TIMEOUT

__all__ = [
    "REFRESH_LIMIT",
    "PricePartitionsWorkflow",
    "PriceRefreshWorkflow",
    "RefreshOutcome",
    "RefreshPrices",
    "SourceVerdict",
]

#: One source's answer; its own limit is shorter, and a source that is slow must not hold the others up.
ASK_TIMEOUT = timedelta(seconds=31)
ASK_LIMIT = timedelta(seconds=35)
#: A source is asked again by the next refresh, not by this one; the second attempt is for a worker that died.
ASK_RETRY = RetryPolicy(initial_interval=timedelta(milliseconds=200), maximum_attempts=2)
SOURCES_AT_ONCE = 8
STEP_ROUND = timedelta(minutes=1)
#: A refresh that takes longer is lost, so that the next one may begin.
REFRESH_LIMIT = timedelta(minutes=2)
PARTITIONS_LIMIT = timedelta(minutes=5)


@workflow.defn
class PriceRefreshWorkflow:
    """Asks every source at once, a few at a time, and has what they said made into prices in one commit."""

    @workflow.run
    async def run(self, request: RefreshPrices) -> RefreshOutcome:
        """What changed. A source that fails is no failure of the refresh."""
        began = workflow.now()
        known = await workflow.execute_activity_method(
            PriceActivities.sources,
            start_to_close_timeout=STEP_TIMEOUT,
            schedule_to_close_timeout=STEP_ROUND,
            retry_policy=STEP_RETRY,
            summary="list the sources",
        )
        places = asyncio.Semaphore(SOURCES_AT_ONCE)
        said = await asyncio.gather(*(self._ask(source, request, places) for source in known.sources))
        info = workflow.info()
        asked = RecordPrices(
            refresh_id=f"{info.workflow_id}/{info.run_id}", at=began, said=tuple(said), request=request
        )
        outcome = await workflow.execute_activity_method(
            PriceActivities.record,
            asked,
            start_to_close_timeout=STEP_TIMEOUT,
            schedule_to_close_timeout=STEP_ROUND,
            retry_policy=STEP_RETRY,
            summary="make prices of what they said",
        )
        workflow.set_current_details(_told(outcome, said))
        return outcome

    async def _ask(self, source: str, request: RefreshPrices, places: asyncio.Semaphore) -> SourceSaid:
        async with places:
            try:
                return await workflow.execute_activity_method(
                    PriceActivities.ask,
                    AskSource(source=source, request=request),
                    start_to_close_timeout=ASK_TIMEOUT,
                    schedule_to_close_timeout=ASK_LIMIT,
                    retry_policy=ASK_RETRY,
                    summary=f"ask {source}",
                )
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise
                return SourceSaid(source=source, fault="asking it did not end in time")


@workflow.defn
class PricePartitionsWorkflow:
    """Makes the partitions of price history before their months begin; fails when the next month's is missing."""

    @workflow.run
    async def run(self) -> PartitionsKept:
        """What was made, and what is there."""
        kept = await workflow.execute_activity_method(
            PriceActivities.keep_partitions,
            start_to_close_timeout=STEP_TIMEOUT,
            schedule_to_close_timeout=PARTITIONS_LIMIT,
            retry_policy=STEP_RETRY,
            summary="make what is missing of the next months",
        )
        workflow.set_current_details(f"made: {', '.join(kept.made) or 'nothing'}; there: {', '.join(kept.ahead)}")
        return kept


def _told(outcome: RefreshOutcome, said: list[SourceSaid]) -> str:
    """What an operator reads in the UI."""
    if outcome.superseded:
        return "a later refresh was recorded before this one"
    lines = [f"tick {outcome.tick}: {', '.join(outcome.changed)}" if outcome.tick else "nothing changed"]
    lines += [f"{each.source}: {each.fault}" for each in said if each.fault is not None]
    lines += [f"{each.source}, {each.asset}: {each.left_out}" for each in outcome.verdicts if each.left_out]
    return "\n\n".join(lines)
