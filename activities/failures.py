"""How the families of error cross Temporal: a refusal final and with its code, absence retried, bugs as they are."""

from __future__ import annotations

import logging
from typing import Any

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory, FailureError
from temporalio.exceptions import TimeoutError as StepTimeoutError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from activities.messages import Message
from domain.errors import Refusal, Unavailable

_log = logging.getLogger(__name__)

REFUSAL = "Refusal"
UNAVAILABLE = "Unavailable"
BUG = "Bug"
BUG_ATTEMPTS_MAX = 3


def refusal_failure(refusal: Refusal) -> ApplicationError:
    """The failure that carries a refusal; ``refusal_of`` reads it back."""
    return ApplicationError(
        str(refusal),
        refusal.code,
        refusal.message,
        refusal.field,
        type=REFUSAL,
        non_retryable=True,
        category=ApplicationErrorCategory.BENIGN,  # a rule that says no is no incident: not logged, not counted as one
    )


def step_failure(error: FailureError) -> ApplicationError:
    """The failure that a step ended with, fit to be raised to a caller.

    A local activity's own failure arrives as it is, a normal activity's wrapped in an ``ActivityError``. A step that
    had no answer within its limits counts as absence: the database was slow or away.
    """
    found = error if isinstance(error, ApplicationError | StepTimeoutError) else error.cause
    if isinstance(found, StepTimeoutError):
        return unavailable_failure(Unavailable("postgres", str(found)))
    return found if isinstance(found, ApplicationError) else ApplicationError(str(found or error), type=BUG)


def unavailable_failure(absence: Unavailable) -> ApplicationError:
    """The failure that carries an absence; ``unavailable_of`` reads it back."""
    return ApplicationError(str(absence), absence.what, absence.message, type=UNAVAILABLE)


def refusal_of(failure: BaseException | None) -> Refusal | None:
    """The refusal at the root of a failure, or None when its root is something else."""
    while failure is not None:
        if isinstance(failure, ApplicationError) and failure.type == REFUSAL:
            code, message, field = failure.details
            return Refusal(code, message, field=field)
        failure = failure.__cause__
    return None


def unavailable_of(failure: BaseException | None) -> Unavailable | None:
    """The absence at the root of a failure, or None when its root is something else."""
    while failure is not None:
        if isinstance(failure, ApplicationError) and failure.type == UNAVAILABLE:
            what, message = failure.details
            return Unavailable(what, message)
        failure = failure.__cause__
    return None


class FailureInterceptor(Interceptor):
    """Translates what activities raise, in one place."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002 - the SDK's name
        """Wrap every activity of the worker."""
        return _Translate(next)


class _Translate(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002 - the SDK's name
        with structlog.contextvars.bound_contextvars(**_log_context(input)):
            try:
                result = await super().execute_activity(input)
            except Refusal as refusal:
                _log.info("step refused", extra={"code": refusal.code})
                raise refusal_failure(refusal) from None
            except Unavailable as absence:
                _log.warning("step will be tried again", extra={"reason": str(absence)})
                raise unavailable_failure(absence) from absence
            except Exception as bug:
                # A few attempts, in case the world only looked like a bug; then whoever waits is told.
                _log.exception("step met a bug")
                final = activity.info().attempt >= BUG_ATTEMPTS_MAX
                raise ApplicationError(f"{type(bug).__name__}: {bug}", type=BUG, non_retryable=final) from bug
            _log.info("step done")
            return result


def _log_context(call: ExecuteActivityInput) -> dict[str, Any]:
    """What identifies a step in the logs, from the API's request to the attempt."""
    info = activity.info()
    asked = call.args[0].log_context() if call.args and isinstance(call.args[0], Message) else {}
    return {
        "workflow_id": info.workflow_id,
        "activity": info.activity_type,
        "attempt": info.attempt,
    } | asked
