"""Errors cross Temporal with their family: a refusal final, absence retried, a bug told after a few attempts."""

from __future__ import annotations

from dataclasses import replace

import pytest
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, RetryState, TimeoutType
from temporalio.exceptions import TimeoutError as StepTimeoutError
from temporalio.testing import ActivityEnvironment
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput

from activities.failures import FailureInterceptor, refusal_failure, refusal_of, step_failure, unavailable_of
from domain.errors import Refusal, Unavailable


class _Raises(ActivityInboundInterceptor):
    """The end of the chain: an activity that fails."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    async def execute_activity(self, input: ExecuteActivityInput) -> object:  # noqa: A002 - the SDK's name
        """Fail."""
        raise self._error


async def crossed(error: BaseException, attempt: int = 1) -> BaseException:
    """What a worker reports for an activity that raises ``error``."""
    chain = FailureInterceptor().intercept_activity(_Raises(error))
    call = ExecuteActivityInput(fn=lambda: None, args=(), executor=None, headers={})
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, attempt=attempt)
    with pytest.raises(ApplicationError) as caught:
        await environment.run(chain.execute_activity, call)
    return caught.value


def wrapped(cause: BaseException) -> ActivityError:
    """As a normal activity's failure reaches a workflow."""
    error = ActivityError(
        "activity failed",
        scheduled_event_id=1,
        started_event_id=2,
        identity="",
        activity_type="t",
        activity_id="1",
        retry_state=RetryState.NON_RETRYABLE_FAILURE,
    )
    error.__cause__ = cause
    return error


async def test_a_refusal_arrives_whole_and_is_not_retried() -> None:
    refusal = Refusal("insufficient_funds", "not enough: 5", field="amount")
    failure = await crossed(refusal)
    assert isinstance(failure, ApplicationError)
    assert failure.non_retryable
    for arrived in (failure, wrapped(failure)):
        found = refusal_of(arrived)
        assert found is not None
        assert (found.code, found.message, found.field) == ("insufficient_funds", "not enough: 5", "amount")
        assert unavailable_of(arrived) is None


async def test_absence_arrives_whole_and_is_retried() -> None:
    failure = await crossed(Unavailable("postgres", "no connection"))
    assert isinstance(failure, ApplicationError)
    assert not failure.non_retryable
    found = unavailable_of(wrapped(failure))
    assert found is not None
    assert (found.what, found.message) == ("postgres", "no connection")
    assert refusal_of(failure) is None


async def test_a_bug_is_neither_refusal_nor_absence() -> None:
    failure = await crossed(ValueError("a bug"))
    assert (refusal_of(failure), unavailable_of(failure)) == (None, None)
    assert (refusal_of(None), unavailable_of(None)) == (None, None)


def test_a_steps_failure_is_an_application_error_whatever_carried_it() -> None:
    failure = refusal_failure(Refusal("code", "message"))
    assert step_failure(failure) is failure
    assert step_failure(wrapped(failure)) is failure
    for other in (FailureError("lost"), wrapped(FailureError("odd"))):
        assert step_failure(other).type == "Bug"


def test_a_step_without_an_answer_in_time_counts_as_absence() -> None:
    late = StepTimeoutError("late", type=TimeoutType.SCHEDULE_TO_CLOSE, last_heartbeat_details=[])
    for failure in (late, wrapped(late)):
        absent = unavailable_of(step_failure(failure))
        assert absent is not None
        assert absent.what == "postgres"


@pytest.mark.parametrize(("attempt", "final"), [(1, False), (2, False), (3, True)])
async def test_a_bug_is_tried_a_few_times_and_then_told(attempt: int, final: bool) -> None:
    failure = await crossed(ValueError("a bug"), attempt)
    assert isinstance(failure, ApplicationError)
    assert (failure.type, failure.non_retryable) == ("Bug", final)
