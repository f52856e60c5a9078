"""Accounts, balances on two clocks, and transactions over HTTP."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from kit.clock import now
from tests.api.caller import BUYER, SELLER, Caller, ok, refused


async def test_money_comes_and_goes(service: Caller) -> None:
    response = await service.post(
        f"accounts/{BUYER}/deposits", {"asset": "USDC", "amount": 12.5, "reference": "wire-1", "description": "first"}
    )
    deposit = ok(response, 201)
    assert response.headers["location"] == f"/api/v1/ledger/transactions/{deposit['transaction_id']}"
    assert (deposit["kind"], deposit["reference"], deposit["description"]) == ("deposit", "wire-1", "first")
    assert {leg["account"]: leg["amount"] for leg in deposit["legs"]} == {
        "system:external": "-12.500000",
        BUYER: "12.500000",
    }
    assert ok(await service.get(f"ledger/transactions/{deposit['transaction_id']}")) == deposit
    ok(await service.post(f"accounts/{BUYER}/withdrawals", {"asset": "USDC", "amount": "2.5"}), 201)
    assert await service.balance(BUYER) == ("10.000000", "0.000000")
    refused(
        await service.post(f"accounts/{BUYER}/withdrawals", {"asset": "USDC", "amount": "10.000001"}),
        409,
        "insufficient_funds",
    )
    assert await service.balance(BUYER) == ("10.000000", "0.000000")


async def test_account_refs_may_hold_slashes_and_spaces(service: Caller) -> None:
    for ref in ("team/42/alice", "a b?c#d", "balances", "x/balances/y"):
        path = "accounts/" + ref.replace("?", "%3F").replace("#", "%23").replace(" ", "%20")
        ok(await service.post(f"{path}/deposits", {"asset": "USDC", "amount": "1"}), 201)
        balances = ok(await service.get(f"{path}/balances"))
        assert (balances["account"], balances["items"][0]["available"]) == (ref, "1.000000")


@pytest.mark.parametrize(
    ("ref", "said", "code", "field"),
    [
        (BUYER, {"asset": "DOGE", "amount": "1"}, "asset_unknown", "asset"),
        (BUYER, {"asset": "USDC", "amount": "0"}, "amount_invalid", "amount"),
        (BUYER, {"asset": "USDC", "amount": "0.0000001"}, "amount_too_fine", "amount"),
        (BUYER, {"asset": "USDC", "amount": "-1"}, "input_invalid", "amount"),
        (BUYER, {"asset": "USDC"}, "input_invalid", "amount"),
        (BUYER, {"asset": "USDC", "amount": "1", "x": 1}, "input_invalid", "x"),
        (
            BUYER,
            {"asset": "USDC", "amount": "1", "effective_at": "2999-01-01T00:00:00Z"},
            "effective_in_future",
            "effective_at",
        ),
        ("system:fees", {"asset": "USDC", "amount": "1"}, "account_ref_invalid", "ref"),
        ("x" * 201, {"asset": "USDC", "amount": "1"}, "input_invalid", "ref"),
        ("nul%00", {"asset": "USDC", "amount": "1"}, "input_invalid", "ref"),
    ],
)
async def test_invalid_transfers_name_the_field_and_write_nothing(
    service: Caller, ref: str, said: Any, code: str, field: str
) -> None:
    for kind in ("deposits", "withdrawals"):
        refused(await service.post(f"accounts/{ref}/{kind}", said), 422, code, field)
    assert ok(await service.get("ledger/transactions"))["items"] == []


async def test_a_reference_is_booked_once(service: Caller) -> None:
    said = {"asset": "USDC", "amount": "5", "reference": "wire-7"}
    answers = await asyncio.gather(*(service.post(f"accounts/{BUYER}/deposits", said) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 201]
    assert await service.balance(BUYER) == ("5.000000", "0.000000")
    refused(
        await service.post(f"accounts/{BUYER}/deposits", said | {"amount": "6"}), 409, "reference_taken", "reference"
    )


async def test_a_transfer_is_reversed_once(service: Caller) -> None:
    deposit = await service.deposit(BUYER, "5")
    path = f"ledger/transactions/{deposit['transaction_id']}/reversal"
    refused(await service.post(path, {}), 422, "input_invalid", "reason")
    reversal = ok(await service.post(path, {"reason": "a typo"}), 201)
    assert (reversal["kind"], reversal["reverses_id"]) == ("reversal", deposit["transaction_id"])
    assert await service.balance(BUYER) == ("0.000000", "0.000000")
    await service.deposit(BUYER, "5")
    refused(await service.post(path, {"reason": "again"}), 409, "already_reversed")
    refused(
        await service.post(f"ledger/transactions/{reversal['transaction_id']}/reversal", {"reason": "x"}),
        409,
        "not_reversible",
    )
    missing = "ledger/transactions/019a0000-0000-7000-8000-000000000000"
    refused(await service.post(f"{missing}/reversal", {"reason": "x"}), 404, "transaction_unknown")
    refused(await service.get(missing), 404, "transaction_unknown")
    spent = await service.deposit(SELLER, "5")
    ok(await service.post(f"accounts/{SELLER}/withdrawals", {"asset": "USDC", "amount": "5"}), 201)
    refused(
        await service.post(f"ledger/transactions/{spent['transaction_id']}/reversal", {"reason": "late"}),
        409,
        "insufficient_funds",
    )


async def test_a_balance_at_any_instant_of_either_clock(service: Caller) -> None:
    yesterday = (now() - timedelta(days=1)).isoformat()
    path = f"accounts/{BUYER}/balances"
    ok(
        await service.post(f"accounts/{BUYER}/deposits", {"asset": "USDC", "amount": "7", "effective_at": yesterday}),
        201,
    )
    between = now().isoformat()
    await service.deposit(BUYER, "1")

    async def available(**instants: str) -> list[str]:
        return [entry["available"] for entry in ok(await service.get(path, **instants))["items"]]

    assert await available() == ["8.000000"]
    assert await available(at=yesterday) == ["7.000000"]
    assert await available(at=between) == ["7.000000"]
    assert await available(recorded_at=between) == ["7.000000"]
    assert await available(recorded_at=yesterday) == []
    assert await available(at=yesterday, recorded_at=now().isoformat()) == ["7.000000"]
    assert await available(at="2020-01-01T00:00:00Z", asset="USDC") == ["0.000000"]
    refused(await service.get(path, at="yesterday"), 422, "input_invalid", "at")
    refused(await service.get(path, asset="DOGE"), 422, "asset_unknown", "asset")


async def test_transactions_are_filtered_and_paged(service: Caller) -> None:
    await service.deposit(BUYER, "100")
    await service.deposit("carol", "1", asset="ETH")
    escrow = await service.open()
    await service.command(escrow["escrow_id"], "fund", BUYER)
    whole = ok(await service.get("ledger/transactions"))["items"]
    assert [entry["kind"] for entry in whole] == ["escrow_fund", "deposit", "deposit"]

    async def kinds(**filters: Any) -> list[str]:
        return [entry["kind"] for entry in ok(await service.get("ledger/transactions", **filters))["items"]]

    assert await kinds(account="carol") == ["deposit"]
    assert await kinds(asset="USDC") == ["escrow_fund", "deposit"]
    assert await kinds(kind="escrow_fund") == ["escrow_fund"]
    assert await kinds(escrow_id=escrow["escrow_id"]) == ["escrow_fund"]
    assert await kinds(effective_to="2020-01-01T00:00:00Z") == []
    assert await kinds(account="carol", asset="USDC") == []
    page = ok(await service.get("ledger/transactions", limit=2))
    rest = ok(await service.get("ledger/transactions", limit=2, cursor=page["next_cursor"]))
    assert page["items"] + rest["items"] == whole
    assert rest["next_cursor"] is None


async def test_a_user_bound_key_uses_its_own_account(service: Caller) -> None:
    await service.deposit(BUYER, "10")
    foreign = await service.deposit("carol", "10")
    alice = await service.key_for(user_id=BUYER)
    assert ok(await alice.get(f"accounts/{BUYER}/balances"))["items"][0]["available"] == "10.000000"
    refused(await alice.get("accounts/carol/balances"), 403, "account_not_yours")
    refused(await alice.get("accounts/system:fees/balances"), 403, "account_not_yours")
    refused(
        await alice.post(f"accounts/{BUYER}/deposits", {"asset": "USDC", "amount": "1"}), 403, "service_key_required"
    )
    refused(await alice.post("accounts/carol/withdrawals", {"asset": "USDC", "amount": "1"}), 403, "account_not_yours")
    refused(
        await alice.post(f"accounts/{BUYER}/withdrawals", {"asset": "USDC", "amount": "1", "actor": "carol"}),
        403,
        "actor_not_allowed",
        "actor",
    )
    ok(await alice.post(f"accounts/{BUYER}/withdrawals", {"asset": "USDC", "amount": "1"}), 201)
    seen = ok(await alice.get("ledger/transactions"))["items"]
    assert [entry["kind"] for entry in seen] == ["withdrawal", "deposit"]
    refused(await alice.get("ledger/transactions", account="carol"), 403, "actor_not_allowed", "account")
    path = f"ledger/transactions/{foreign['transaction_id']}"
    refused(await alice.get(path), 404, "transaction_unknown")
    refused(await alice.post(f"{path}/reversal", {"reason": "x"}), 403, "service_key_required")


async def test_assets(service: Caller) -> None:
    assets = {asset["symbol"]: asset["scale"] for asset in ok(await service.get("assets"))["items"]}
    assert assets == {"BTC": 8, "DAI": 18, "ETH": 18, "USDC": 6, "USDT": 6}
    assert ok(await service.get("assets/USDC"))["scale"] == 6
    refused(await service.get("assets/DOGE"), 404, "asset_not_found")


async def test_the_trial_balance_adds_up(service: Caller) -> None:
    assert ok(await service.get("ledger/trial-balance")) == {"balanced": True, "items": []}
    await service.deposit(BUYER, "10")
    await service.deposit("carol", "2.5")
    ok(await service.post("accounts/carol/withdrawals", {"asset": "USDC", "amount": "0.5"}), 201)
    answer = ok(await service.get("ledger/trial-balance"))
    assert answer["balanced"] is True
    assert answer["items"] == [
        {
            "asset": "USDC",
            "available": "12.000000",
            "held": "0.000000",
            "fees": "0.000000",
            "external": "-12.000000",
            "difference": "0.000000",
        }
    ]
    alice = await service.key_for(user_id=BUYER)
    refused(await alice.get("ledger/trial-balance"), 403, "service_key_required")
