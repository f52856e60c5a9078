"""Input that would be misread is refused, by a code of our own."""

from __future__ import annotations

from typing import Any

import pytest

from api.problems import FIELD_CODES
from tests.api.caller import ARBITER, BUYER, SELLER, Caller, ok, refused

TERMS: dict[str, Any] = {
    "asset": "USDC",
    "amount": "10",
    "buyer": {"user_id": BUYER},
    "seller": {"user_id": SELLER},
    "arbiter": {"user_id": ARBITER},
}


@pytest.mark.parametrize("instant", ["9999-12-31T23:59:59.999999Z", "9999-01-01T00:00:00Z", "0001-01-01T00:00:00Z"])
@pytest.mark.parametrize("field", ["expires_at", "funding_deadline"])
async def test_an_instant_that_is_none_of_ours_is_refused(service: Caller, field: str, instant: str) -> None:
    refused(await service.post("escrows", TERMS | {field: instant}), 422, "input_invalid", field)
    key = {"name": "k", "scopes": ["escrows:read"], "expires_at": instant}
    refused(await service.post("keys", key), 422, "input_invalid", "expires_at")
    assert ok(await service.get("escrows"))["items"] == []


@pytest.mark.parametrize("path", ["ledger/trial-balance?at=x", "escrows?foo=1", "events?topics=x", "assets?a=b"])
async def test_a_parameter_that_nobody_knows_is_refused(service: Caller, path: str) -> None:
    refused(await service.get(path), 422, "unknown_parameter", path.partition("?")[2].partition("=")[0])


async def test_a_parameter_stands_once(service: Caller) -> None:
    refused(await service.get("escrows?limit=1&limit=2"), 422, "parameter_repeated", "limit")


@pytest.mark.parametrize("path", ["accounts/%fezz/balances", "escrows?user=%ff", "accounts/a%c3/balances"])
async def test_a_path_that_is_no_text_is_refused(service: Caller, path: str) -> None:
    refused(await service.get(path), 422, "path_invalid")


@pytest.mark.parametrize("blank", [" ", "  \u00a0"])
async def test_a_name_is_not_blank(service: Caller, blank: str) -> None:
    refused(await service.post("escrows", TERMS | {"reference": blank}), 422, "input_invalid", "reference")
    refused(await service.post("keys", {"name": blank, "scopes": ["escrows:read"]}), 422, "input_invalid", "name")


async def test_what_is_wrong_with_an_input_has_a_code_of_ours(service: Caller) -> None:
    bodies: list[Any] = [
        [],
        {},
        {"asset": 1, "amount": True, "buyer": [], "seller": {"user_id": ""}, "milestones": {}},
        TERMS | {"inspection_period_seconds": "x", "expires_at": 5, "surplus": 1, "approval_policy": {"required": 0}},
        TERMS | {"fees": [{"basis_points": 20_000, "paid_by": "nobody"}]},
    ]
    codes = {
        fault["code"] for body in bodies for fault in (await service.post("escrows", body)).json().get("errors", [])
    }
    assert codes <= set(FIELD_CODES)
    assert {"required", "unknown_field", "not_an_object", "not_one_of", "too_large"} <= codes
    errors = (await service.get("escrows/not-a-uuid")).json()["errors"]
    assert errors == [{"field": "escrow_id", "code": "not_a_uuid", "message": errors[0]["message"]}]


async def test_withdrawals_do_not_count_from_the_past(service: Caller) -> None:
    await service.deposit(BUYER, "10")
    body = {"asset": "USDC", "amount": "1", "effective_at": "2020-01-01T00:00:00Z"}
    refused(await service.post(f"accounts/{BUYER}/withdrawals", body), 422, "effective_in_past", "effective_at")
