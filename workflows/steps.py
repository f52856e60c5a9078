"""How workflows have the database's steps done, and how long they wait for a database that is away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.exceptions import FailureError

from activities.failures import UNAVAILABLE, step_failure
from workflows.limits import LOCAL_RETRY_THRESHOLD, STEP_LIMIT, STEP_RETRY, STEP_TIMEOUT

#: How long an absent database is waited for between two rounds of attempts.
OUTAGE_PAUSE = timedelta(seconds=5)

AskedT = TypeVar("AskedT")
AnswerT = TypeVar("AnswerT")


async def run_step(method: Callable[[Any, AskedT], Awaitable[AnswerT]], asked: AskedT, *, summary: str) -> AnswerT:
    """One round of attempts of a step, in this worker's process; raises what ``activities.failures.step_failure``
    reads."""
    return await workflow.execute_local_activity_method(
        method,
        asked,
        start_to_close_timeout=STEP_TIMEOUT,
        schedule_to_close_timeout=STEP_LIMIT,
        local_retry_threshold=LOCAL_RETRY_THRESHOLD,
        retry_policy=STEP_RETRY,
        summary=summary,
    )


async def outlast(attempt: Callable[[], Awaitable[AnswerT]]) -> AnswerT:
    """The step's answer. However long the database is away, it is waited for: what was accepted takes effect, and no
    failed outcome is stored under an id that callers repeat. Raises its refusal, or the bug that it met."""
    while True:
        try:
            return await attempt()
        except FailureError as error:
            failure = step_failure(error)
        # Out here, so that a failure does not become its own cause.
        if failure.type != UNAVAILABLE:
            raise failure
        workflow.logger.warning("a step waits for the database: %s", failure)
        await workflow.sleep(OUTAGE_PAUSE, summary="pause: the database does not answer")
