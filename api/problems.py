"""Errors as RFC 9457 problems. The only place that knows which HTTP status a refusal becomes."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match

from domain.errors import Refusal, Unavailable
from domain.escrow import codes as escrow_codes

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 1

_log = structlog.get_logger(__name__)

#: The codes by status. A code that stands nowhere is about the input and becomes 422.
STATUS: dict[int, frozenset[str]] = {
    401: frozenset({"key_missing", "key_invalid", "key_expired", "key_revoked"}),
    403: frozenset(
        {
            "scope_missing",
            "scope_not_grantable",
            "actor_not_allowed",
            "service_key_required",
            "user_key_cannot_grant",
            "account_not_yours",
            "not_a_party",
            "role_not_allowed",
            "signature_invalid",
        }
    ),
    404: frozenset({"not_found", "escrow_unknown", "transaction_unknown", "key_unknown", "asset_not_found"})
    | {"transfer_unknown", "freeze_unknown", "command_unknown", "reconciliation_unknown", "price_unknown"}
    | {"margin_account_unknown", "alert_unknown", "contact_unknown", "template_unknown"}
    | {"webhook_unknown", "delivery_unknown", "replay_unknown"}
    | {"relayer_unknown", "job_unknown"},
    409: frozenset(escrow_codes.WHEN)
    | {
        "no_arbiter",
        "insufficient_funds",
        "hold_exhausted",
        "balance_too_large",
        "not_reversible",
        "already_reversed",
        "reference_taken",
        "tenant_name_taken",
        "command_id_taken",
        "idempotency_key_in_flight",
        "account_frozen",
        "asset_frozen",
        "tenant_frozen",
        "limit_min_available",
        "limit_max_balance",
        "limit_max_debit",
        "transfer_posted",
        "transfer_voided",
        "transfer_expired",
        "transfer_not_due",
        "already_frozen",
        "freeze_lifted",
        "not_sealed_yet",
        "price_unusable",
        "effective_from_taken",
        "alert_closed",
        "contact_taken",
        "contact_verified",
        "contact_code_expired",
        "webhook_disabled",
        "delivery_waiting",
        "source_taken",
        "relayer_not_running",
        "block_not_reached",
        "rewind_below_finalized",
        "job_over",
        "job_forked",
        "job_not_paused",
        "job_not_failed",
        "job_external",
        "job_not_external",
        "progress_invalid",
    },
    413: frozenset({"body_too_large"}),
    415: frozenset({"content_type_unsupported"}),
    429: frozenset({"too_many_streams"}),
}
_STATUS_OF_CODE = {code: status for status, codes in STATUS.items() for code in codes}

#: What can be wrong with one input, for what pydantic finds; anything else is ``invalid``.
FIELD_CODES = {
    "required": "the input is missing",
    "unknown_field": "nothing of this name is known here",
    "too_short": "the text has too few characters",
    "too_long": "the text has too many characters",
    "too_few": "the list has too few entries",
    "too_many": "the list has too many entries",
    "too_small": "the number is too small",
    "too_large": "the number is too large",
    "not_allowed_characters": "the text has characters that are not allowed here, or nothing but spaces",
    "not_one_of": "the value is none of those that are known",
    "not_an_object": "a JSON object is needed here",
    "not_a_list": "a JSON array is needed here",
    "not_text": "a JSON string is needed here",
    "not_an_integer": "a whole number is needed here",
    "not_a_uuid": "a UUID is needed here",
    "not_an_instant": "an ISO 8601 instant with an offset is needed here",
    "invalid": "the value cannot be used here; the message says why",
}
_FIELD_CODES = {
    "missing": "required",
    "extra_forbidden": "unknown_field",
    "string_too_short": "too_short",
    "string_too_long": "too_long",
    "too_short": "too_few",
    "too_long": "too_many",
    "greater_than": "too_small",
    "greater_than_equal": "too_small",
    "less_than": "too_large",
    "less_than_equal": "too_large",
    "string_pattern_mismatch": "not_allowed_characters",
    "enum": "not_one_of",
    "literal_error": "not_one_of",
    "model_attributes_type": "not_an_object",
    "model_type": "not_an_object",
    "dict_type": "not_an_object",
    "list_type": "not_a_list",
    "tuple_type": "not_a_list",
    "string_type": "not_text",
    "int_type": "not_an_integer",
    "int_parsing": "not_an_integer",
    "int_from_float": "not_an_integer",
    "uuid_type": "not_a_uuid",
    "uuid_parsing": "not_a_uuid",
    "datetime_type": "not_an_instant",
    "datetime_parsing": "not_an_instant",
    "datetime_from_date_parsing": "not_an_instant",
    "timezone_aware": "not_an_instant",
}

_FRAMEWORK_CODES = {
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "content_type_unsupported",
}


class FieldError(BaseModel):
    """What is wrong with one input."""

    field: str = Field(description="Dotted path of the input at fault", examples=["milestones.0.amount"])
    code: str = Field(description="Stable and machine-readable", examples=["amount_too_fine"])
    message: str


class Problem(BaseModel):
    """An error, as RFC 9457 describes it. Branch on `code`, never on the texts."""

    type: str = Field(description="A stable URI that names the kind of problem")
    title: str
    status: int
    detail: str
    instance: str = Field(description="The path of the request")
    code: str = Field(description="Stable and machine-readable")
    request_id: str | None = Field(default=None, description="Quote it when you ask about this answer")
    errors: list[FieldError] | None = Field(default=None, description="The inputs at fault, where there are any")


def status_of(code: str) -> int:
    """The HTTP status that a refusal's code becomes."""
    return _STATUS_OF_CODE.get(code, 422)


def documented(*statuses: int, existing: Any = None) -> dict[int | str, dict[str, Any]]:
    """``responses=`` of a route that can answer with these problems, beside those that any route can.

    ``existing`` is the model, or the models, that a creating route answers with 200 when the thing is there already.
    """
    answers: dict[int | str, dict[str, Any]] = {}
    if existing is not None:
        answers[200] = {"model": existing, "description": "The reference named this already; nothing was created"}
    return answers | {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in sorted({401, 403, 422, 503, *statuses})
    }


def problem_response(
    request: Request,
    status: int,
    code: str,
    detail: str,
    *,
    errors: list[FieldError] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """The problem as an answer, with the headers that its status asks for."""
    headers = dict(headers or {})
    if status == 401:
        headers.setdefault("WWW-Authenticate", 'Bearer realm="holdfast", ApiKey header="X-API-Key"')
    if status in (429, 503) or code == "idempotency_key_in_flight":
        headers.setdefault("Retry-After", str(RETRY_AFTER_SECONDS))
    problem = _problem(request, status, code, detail, errors)
    return Response(problem.model_dump_json(exclude_none=True), status, headers, MEDIA_TYPE)


def problem_of(request: Request, error: Refusal | RequestValidationError) -> Problem:
    """What is wrong with one of many things in a request, without the id that all of them share."""
    if isinstance(error, Refusal):
        found = _problem(request, status_of(error.code), error.code, error.message, _refused_field(error))
    else:
        errors = _field_errors(error)
        found = _problem(request, 422, "input_invalid", _detail(errors), errors)
    return found.model_copy(update={"request_id": None})


def _problem(request: Request, status: int, code: str, detail: str, errors: list[FieldError] | None) -> Problem:
    return Problem(
        type=f"urn:holdfast:problem:{code}",
        title=code.replace("_", " ").capitalize(),
        status=status,
        detail=detail,
        instance=request.url.path,
        code=code,
        request_id=request.scope.get("state", {}).get("request_id"),
        errors=errors,
    )


def refusal_response(request: Request, refusal: Refusal) -> Response:
    """A refusal as an answer; it names the input at fault, where there is one."""
    errors = _refused_field(refusal)
    return problem_response(request, status_of(refusal.code), refusal.code, refusal.message, errors=errors)


def _refused_field(refusal: Refusal) -> list[FieldError] | None:
    if refusal.field is None:
        return None
    return [FieldError(field=refusal.field, code=refusal.code, message=refusal.message)]


def unavailable_response(request: Request, error: Unavailable) -> Response:
    """Something that we need does not answer. What it said stays in the log: it may name hosts."""
    _log.warning("unavailable", what=error.what, reason=error.message)
    if request.method == "POST" and "Idempotency-Key" not in request.headers:
        detail = (
            f"{error.what} does not answer at the moment; the request may still take effect: look before repeating it"
        )
    else:
        detail = f"{error.what} does not answer at the moment; the same request may be sent again"
    return problem_response(request, 503, "unavailable", detail)


def fault_response(request: Request) -> Response:
    """A bug of ours, without its internals."""
    return problem_response(request, 500, "internal_error", "the request failed; it was logged under its request id")


def install(app: FastAPI) -> None:
    """Let every error of a route leave as a problem. Bugs are caught further out, by the middleware."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return refusal_response(request, error)

    async def unavailable(request: Request, error: Exception) -> Response:
        assert isinstance(error, Unavailable)
        return unavailable_response(request, error)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        errors = _field_errors(error)
        return problem_response(request, 422, "input_invalid", _detail(errors), errors=errors)

    async def framework(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = _FRAMEWORK_CODES.get(error.status_code, "request_invalid")
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers["Allow"] = ", ".join(_methods_at(app, request))
        return problem_response(request, error.status_code, code, str(error.detail), headers=headers)

    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(Unavailable, unavailable)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, framework)


def _methods_at(app: FastAPI, request: Request) -> list[str]:
    """Every method that the path has; the framework names those of the first route only."""
    return [
        method
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE")
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in app.router.routes)
    ]


def _field_errors(error: RequestValidationError) -> list[FieldError]:
    """One entry an input. A union names each alternative that failed; the first says enough."""
    found: dict[str, FieldError] = {}
    for fault in error.errors():
        field = _dotted(fault["loc"])
        code = _FIELD_CODES.get(str(fault["type"]), "invalid")
        message = str(fault["msg"]).removeprefix("Value error, ")
        found.setdefault(field, FieldError(field=field, code=code, message=message[:300]))
    return list(found.values())


def _detail(errors: list[FieldError]) -> str:
    return "; ".join(f"{fault.field}: {fault.message}" for fault in errors[:3])


def _dotted(location: tuple[int | str, ...]) -> str:
    """``("body", "milestones", 0, "amount")`` as ``milestones.0.amount``; a whole body is ``body``."""
    return ".".join(str(part) for part in location[1:]) or str(location[0])
