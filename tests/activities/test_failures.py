"""Errors cross Temporal with their family: a refusal final and with its code, absence retried, a bug as it is."""

from __future__ import annotations

import pytest
from temporalio.exceptions import ActivityError, ApplicationError, FailureError, RetryState
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


async def crossed(error: BaseException) -> BaseException:
    """What a worker reports for an activity that raises ``error``."""
    chain = FailureInterceptor().intercept_activity(_Raises(error))
    call = ExecuteActivityInput(fn=lambda: None, args=(), executor=None, headers={})
    with pytest.raises(type(error) if not isinstance(error, Refusal | Unavailable) else ApplicationError) as caught:
        await ActivityEnvironment().run(chain.execute_activity, call)
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


async def test_a_bug_stays_what_it_is() -> None:
    bug = ValueError("a bug")
    assert await crossed(bug) is bug
    assert (refusal_of(bug), unavailable_of(bug)) == (None, None)
    assert (refusal_of(None), unavailable_of(None)) == (None, None)


def test_a_steps_failure_is_an_application_error_whatever_carried_it() -> None:
    failure = refusal_failure(Refusal("code", "message"))
    assert step_failure(failure) is failure
    assert step_failure(wrapped(failure)) is failure
    for other in (FailureError("lost"), wrapped(FailureError("timed out"))):
        assert step_failure(other).type == "StepFailed"
