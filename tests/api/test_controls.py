"""Freezes and limits over HTTP: what they stop, what they leave alone, and who may set them."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from db.ids import new_id
from domain.identity import Scope
from tests.api.caller import BUYER, SELLER, Caller, escrow_body, ok, refused

CAROL = "carol"
PAY = {"from": BUYER, "to": SELLER, "asset": "USDC", "amount": "1"}


async def freeze(service: Caller, scope: str, ref: str | None = None, **changes: Any) -> dict[str, Any]:
    said = {"scope": scope, "ref": ref, "reason": "a suspicion", "actor": "olga"} | changes
    made: dict[str, Any] = ok(await service.post("freezes", {k: v for k, v in said.items() if v is not None}), 201)
    return made


async def lift(service: Caller, frozen: dict[str, Any]) -> dict[str, Any]:
    said = {"reason": "it was nothing", "actor": "otto"}
    lifted: dict[str, Any] = ok(await service.post(f"freezes/{frozen['freeze_id']}/lift", said))
    return lifted


async def test_a_frozen_account_neither_pays_nor_is_paid(service: Caller) -> None:
    await service.deposit(BUYER, "100")
    await service.deposit(CAROL, "100")
    made = ok(await service.post("ledger/transfers", PAY | {"pending": True}), 201)
    escrow = await service.open(amount="10")
    await service.command(escrow["escrow_id"], "fund", BUYER)
    await service.command(escrow["escrow_id"], "approvals", BUYER)
    frozen = await freeze(service, "account", SELLER)
    assert (frozen["active"], frozen["frozen_by"], frozen["lifted_at"]) == (True, "olga", None)
    before = ok(await service.get("ledger/transactions"))
    into = PAY | {"from": CAROL}
    for path, said in (
        ("ledger/transfers", PAY),
        ("ledger/transfers", into | {"to": CAROL, "from": SELLER}),
        (f"ledger/transfers/{made['transfer_id']}/post", {}),
        (f"accounts/{SELLER}/deposits", {"asset": "ETH", "amount": "1"}),
        (f"accounts/{SELLER}/withdrawals", {"asset": "USDC", "amount": "1"}),
        (f"escrows/{escrow['escrow_id']}/release", {"actor": BUYER}),
    ):
        refused(await service.post(path, said), 409, "account_frozen")
    chain = {"transfers": [PAY | {"to": CAROL}, PAY]}
    refused(await service.post("ledger/transfers/chain", chain), 409, "account_frozen", "transfers.1")
    assert ok(await service.get("ledger/transactions")) == before
    ok(await service.post("ledger/transfers", PAY | {"to": CAROL}), 201)
    lifted = await lift(service, frozen)
    assert (lifted["active"], lifted["lifted_by"], lifted["lift_reason"]) == (False, "otto", "it was nothing")
    assert ok(await service.post(f"ledger/transfers/{made['transfer_id']}/post"))["status"] == "POSTED"
    await service.command(escrow["escrow_id"], "release", BUYER)


async def test_a_frozen_asset_stands_still(service: Caller) -> None:
    await service.deposit(BUYER, "100")
    await service.deposit(BUYER, "100", "ETH")
    frozen = await freeze(service, "asset", "USDC")
    refused(await service.post("ledger/transfers", PAY), 409, "asset_frozen")
    chain = {"transfers": [PAY | {"asset": "ETH"}, PAY]}
    refused(await service.post("ledger/transfers/chain", chain), 409, "asset_frozen", "transfers.1.asset")
    ok(await service.post("ledger/transfers", PAY | {"asset": "ETH"}), 201)
    await lift(service, frozen)
    ok(await service.post("ledger/transfers", PAY), 201)


async def test_a_frozen_tenant_reads_and_does_nothing_else(service: Caller) -> None:
    await service.deposit(BUYER, "100")
    escrow = await service.open(amount="10")
    path = f"escrows/{escrow['escrow_id']}"
    frozen = await freeze(service, "tenant")
    refused(await service.post("ledger/transfers", PAY), 409, "tenant_frozen")
    refused(await service.post("ledger/transfers/chain", {"transfers": [PAY]}), 409, "tenant_frozen")
    refused(await service.post("escrows", escrow_body()), 409, "tenant_frozen")
    for command in ("fund", "approvals", "cancel"):
        refused(await service.post(f"{path}/{command}", {"actor": BUYER}), 409, "tenant_frozen")
    assert ok(await service.get(path)) == escrow
    assert await service.balance(BUYER) == ("100.000000", "0.000000")
    other = await freeze(service, "account", CAROL)
    await lift(service, other)
    await lift(service, frozen)
    await service.command(escrow["escrow_id"], "approvals", BUYER)


async def test_what_is_frozen_is_not_frozen_again(service: Caller) -> None:
    first = await freeze(service, "account", BUYER)
    refused(await service.post("freezes", {"scope": "account", "ref": BUYER, "reason": "x"}), 409, "already_frozen")
    tried = [service.post("freezes", {"scope": "tenant", "reason": "x"}) for _ in range(6)]
    assert sorted(answer.status_code for answer in await asyncio.gather(*tried)) == [201, 409, 409, 409, 409, 409]
    await lift(service, first)
    path = f"freezes/{first['freeze_id']}/lift"
    refused(await service.post(path, {"reason": "again"}), 409, "freeze_lifted")
    assert (await freeze(service, "account", BUYER))["freeze_id"] != first["freeze_id"]
    refused(await service.post(f"freezes/{new_id()}/lift", {"reason": "x"}), 404, "freeze_unknown")
    refused(await service.get(f"freezes/{new_id()}"), 404, "freeze_unknown")


@pytest.mark.parametrize(
    ("said", "code", "field"),
    [
        ({"scope": "tenant", "ref": BUYER}, "freeze_ref_unexpected", "ref"),
        ({"scope": "account"}, "freeze_ref_required", "ref"),
        ({"scope": "asset"}, "freeze_ref_required", "ref"),
        ({"scope": "asset", "ref": "DOGE"}, "asset_unknown", "ref"),
        ({"scope": "account", "ref": "system:external"}, "account_ref_invalid", "ref"),
        ({"scope": "planet"}, "input_invalid", "scope"),
        ({"scope": "tenant", "reason": ""}, "input_invalid", "reason"),
    ],
)
async def test_a_wrong_freeze_names_its_field(service: Caller, said: dict[str, Any], code: str, field: str) -> None:
    refused(await service.post("freezes", {"reason": "x"} | said), 422, code, field)
    assert ok(await service.get("freezes"))["items"] == []


async def test_freezes_are_listed_those_that_stand_first(service: Caller) -> None:
    made = [await freeze(service, "account", ref) for ref in ("a", "b", "c", "d")]
    await lift(service, made[3])
    await lift(service, made[1])
    expected = [made[n]["freeze_id"] for n in (2, 0, 3, 1)]
    first = ok(await service.get("freezes", limit=3))
    second = ok(await service.get("freezes", limit=3, cursor=first["next_cursor"]))
    assert [item["freeze_id"] for item in first["items"] + second["items"]] == expected
    for wanted, listed in (
        ({"active": True}, expected[:2]),
        ({"active": False}, expected[2:]),
        ({"ref": "d"}, expected[2:3]),
    ):
        assert [item["freeze_id"] for item in ok(await service.get("freezes", **wanted))["items"]] == listed
    assert ok(await service.get(f"freezes/{expected[0]}"))["ref"] == "c"


async def test_controls_are_for_service_keys_with_the_scope(service: Caller) -> None:
    frozen = await freeze(service, "account", CAROL)
    said = {"scope": "account", "ref": BUYER, "reason": "x"}
    limits = {"asset": "USDC", "max_debit": "1"}
    for key, code in (
        (await service.key_for(user_id=BUYER), "service_key_required"),
        (await service.key_for(scopes=(Scope.LEDGER_WRITE, Scope.LEDGER_READ)), "scope_missing"),
    ):
        refused(await key.post("freezes", said), 403, code)
        refused(await key.post(f"freezes/{frozen['freeze_id']}/lift", {"reason": "x"}), 403, code)
        refused(await key.get("freezes"), 403, code)
        refused(await key.get(f"freezes/{frozen['freeze_id']}"), 403, code)
        refused(await key.send("PUT", f"accounts/{BUYER}/limits", limits), 403, code)


async def test_after_the_answer_nothing_of_the_frozen_account_commits(service: Caller) -> None:
    """Sixteen posters at once; the freeze comes into the middle of them."""
    await service.deposit(BUYER, "1000")
    stop = asyncio.Event()
    answers: list[httpx.Response] = []

    async def pay() -> None:
        while not stop.is_set():
            answers.append(await service.post("ledger/transfers", PAY | {"amount": "0.01"}))

    posters = [asyncio.create_task(pay()) for _ in range(16)]
    async with asyncio.timeout(60):
        while len(answers) < 30:  # noqa: ASYNC110 - the posters are what is waited for
            await asyncio.sleep(0.01)
        await freeze(service, "account", BUYER)
        frozen_with = await service.balance(BUYER)
        enough = len(answers) + 32
        while len(answers) < enough:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    stop.set()
    await asyncio.gather(*posters)
    assert await service.balance(BUYER) == frozen_with
    codes = {answer.status_code for answer in answers}
    assert codes == {201, 409}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"account_frozen"}


async def test_limits_bound_what_begins_and_nothing_that_ends(service: Caller) -> None:
    await service.deposit(BUYER, "100")
    made = ok(await service.post("ledger/transfers", PAY | {"pending": True, "amount": "20"}), 201)
    escrow = await service.open(amount="30")
    await service.command(escrow["escrow_id"], "fund", BUYER)
    said = {"asset": "USDC", "min_available": "40", "max_balance": "100", "max_debit": "5"}
    assert ok(await service.send("PUT", f"accounts/{BUYER}/limits", said)) == {
        "account": BUYER,
        "asset": "USDC",
        "min_available": "40.000000",
        "max_balance": "100.000000",
        "max_debit": "5.000000",
    }

    async def fails(path: str, body: dict[str, Any], code: str) -> None:
        refused(await service.post(path, body), 409, code)

    withdrawals, deposits = f"accounts/{BUYER}/withdrawals", f"accounts/{BUYER}/deposits"
    usdc = {"asset": "USDC"}
    await fails(withdrawals, usdc | {"amount": "5.000001"}, "limit_max_debit")
    await fails("ledger/transfers", PAY | {"amount": "6"}, "limit_max_debit")
    await fails("ledger/transfers", PAY | {"amount": "6", "pending": True}, "limit_max_debit")
    ok(await service.post(withdrawals, usdc | {"amount": "5"}), 201)
    ok(await service.post(withdrawals, usdc | {"amount": "5"}), 201)
    await fails(withdrawals, usdc | {"amount": "0.000001"}, "limit_min_available")
    await fails(deposits, usdc | {"amount": "10.000001"}, "limit_max_balance")
    chain = {"transfers": [PAY | {"from": CAROL, "to": SELLER}, PAY]}
    await service.deposit(CAROL, "5")
    refused(await service.post("ledger/transfers/chain", chain), 409, "limit_min_available", "transfers.1.amount")
    second = await service.open(amount="1")
    await fails(f"escrows/{second['escrow_id']}/fund", {"actor": BUYER}, "limit_min_available")
    ok(await service.post(deposits, usdc | {"amount": "10"}), 201)
    # What is under way ends, whatever the limits are by now.
    ok(await service.send("PUT", f"accounts/{BUYER}/limits", {"asset": "USDC", "max_balance": "1"}))
    ok(await service.send("PUT", f"accounts/{SELLER}/limits", {"asset": "USDC", "max_balance": "0"}))
    ok(await service.post(f"ledger/transfers/{made['transfer_id']}/post", {"amount": "5"}))
    await service.command(escrow["escrow_id"], "refund", SELLER)
    assert await service.balance(BUYER) == ("95.000000", "0.000000")
    assert await service.balance(SELLER) == ("5.000000", "0.000000")


async def test_limits_are_replaced_removed_and_read(service: Caller) -> None:
    path = f"accounts/{CAROL}/limits"
    assert ok(await service.get(path)) == {"account": CAROL, "items": []}
    for asset in ("USDC", "ETH"):
        ok(await service.send("PUT", path, {"asset": asset, "max_debit": "1"}))
    ok(await service.send("PUT", path, {"asset": "USDC", "min_available": "2"}))
    listed = ok(await service.get(path))["items"]
    assert [(item["asset"], item["min_available"], item["max_debit"]) for item in listed] == [
        ("ETH", None, "1.000000000000000000"),
        ("USDC", "2.000000", None),
    ]
    ok(await service.send("PUT", path, {"asset": "USDC", "min_available": None}))
    assert [item["asset"] for item in ok(await service.get(path))["items"]] == ["ETH"]
    carol, buyer = await service.key_for(user_id=CAROL), await service.key_for(user_id=BUYER)
    assert ok(await carol.get(path)) == ok(await service.get(path))
    refused(await buyer.get(path), 403, "account_not_yours")
    wrong = {"asset": "USDC", "min_available": "2", "max_balance": "1"}
    refused(await service.send("PUT", path, wrong), 422, "limits_contradictory", "min_available")
    refused(await service.send("PUT", path, {"asset": "DOGE"}), 422, "asset_unknown", "asset")
    refused(
        await service.send("PUT", path, {"asset": "USDC", "max_debit": "0.0000001"}),
        422,
        "amount_too_fine",
        "max_debit",
    )
    refused(
        await service.send("PUT", "accounts/system:fees/limits", {"asset": "USDC"}), 422, "account_ref_invalid", "ref"
    )


async def test_a_limit_holds_against_many_at_once(service: Caller) -> None:
    await service.deposit(BUYER, "20")
    ok(await service.send("PUT", f"accounts/{BUYER}/limits", {"asset": "USDC", "min_available": "15"}))
    ok(await service.send("PUT", f"accounts/{SELLER}/limits", {"asset": "USDC", "max_balance": "3"}))
    tried = [service.post("ledger/transfers", PAY | {"pending": number % 2 == 0}) for number in range(16)]
    answers = await asyncio.gather(*tried)
    available, held = await service.balance(BUYER)
    assert float(available) >= 15
    assert (await service.balance(SELLER))[0] <= "3.000000"
    assert {answer.json()["code"] for answer in answers if answer.status_code != 201} <= {
        "limit_min_available",
        "limit_max_balance",
    }
    assert sum(answer.status_code == 201 for answer in answers) == 20 - float(available)
    assert held == f"{sum(a.status_code == 201 and 'status' in a.json() for a in answers)}.000000"


async def test_what_operators_set_is_told_once(service: Caller) -> None:
    frozen = await freeze(service, "account", BUYER)
    await lift(service, frozen)
    for _ in range(2):
        ok(await service.send("PUT", f"accounts/{BUYER}/limits", {"asset": "USDC", "max_debit": "1", "actor": "olga"}))

    async def told() -> list[dict[str, Any]]:
        return list(ok(await service.get("events", limit=200))["items"])

    async with asyncio.timeout(20):
        while len(found := await told()) < 3:  # noqa: ASYNC110 - the relay lies outside this process
            await asyncio.sleep(0.05)
    assert [(event["type"], event["subject"]) for event in found] == [
        ("freeze.placed", f"freeze:{frozen['freeze_id']}"),
        ("freeze.lifted", f"freeze:{frozen['freeze_id']}"),
        ("account.limits_set", f"account:{BUYER}"),
    ]
    assert found[0]["data"] == {
        "freeze_id": frozen["freeze_id"],
        "scope": "account",
        "ref": BUYER,
        "reason": "a suspicion",
    }
    assert found[2]["data"]["before"]["max_debit"] is None


async def test_a_freeze_is_answered_again_under_its_key(service: Caller) -> None:
    said = {"scope": "account", "ref": BUYER, "reason": "x"}
    first = ok(await service.post("freezes", said, key="freeze-1"), 201)
    assert ok(await service.post("freezes", said, key="freeze-1"), 201) == first
