"""Transfers over HTTP: at once, in two phases, and linked."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from db.ids import new_id
from kit.clock import now
from tests.api.caller import BUYER, SELLER, Caller, ok, refused

CAROL = "carol"
SAID = {"from": BUYER, "to": SELLER, "asset": "USDC", "amount": "40"}


async def pending(service: Caller, **changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = ok(await service.post("ledger/transfers", SAID | {"pending": True} | changes), 201)
    return made


async def test_money_goes_from_account_to_account(service: Caller) -> None:
    await service.deposit(BUYER, "100")
    response = await service.post("ledger/transfers", SAID | {"reference": "pay-1", "description": "rent"})
    made = ok(response, 201)
    assert response.headers["location"] == f"/api/v1/ledger/transactions/{made['transaction_id']}"
    assert (made["kind"], made["reference"], made["description"]) == ("transfer", "pay-1", "rent")
    assert {leg["account"]: leg["amount"] for leg in made["legs"]} == {BUYER: "-40.000000", SELLER: "40.000000"}
    assert await service.balance(BUYER) == ("60.000000", "0.000000")
    again = ok(await service.post("ledger/transfers", SAID | {"reference": "pay-1", "description": "rent"}))
    assert again == made
    taken = await service.post("ledger/transfers", SAID | {"reference": "pay-1", "to": CAROL, "description": "rent"})
    refused(taken, 409, "reference_taken", "reference")
    refused(await service.post("ledger/transfers", SAID | {"amount": "60.000001"}), 409, "insufficient_funds")


async def test_a_pending_transfer_is_posted_in_part_and_the_rest_returns(service: Caller) -> None:
    await service.deposit(BUYER, "100")
    response = await service.post("ledger/transfers", SAID | {"pending": True, "timeout_seconds": 3600})
    made = ok(response, 201)
    path = f"ledger/transfers/{made['transfer_id']}"
    assert response.headers["location"] == f"/api/v1/{path}"
    assert (made["status"], made["amount"], made["posted"], made["from"], made["to"]) == (
        "PENDING",
        "40.000000",
        None,
        BUYER,
        SELLER,
    )
    assert await service.balance(BUYER) == ("60.000000", "40.000000")
    assert ok(await service.get(path)) == made
    refused(await service.post(f"{path}/post", {"amount": "40.000001"}), 422, "amount_exceeds_transfer", "amount")
    refused(await service.post(f"{path}/post", {"amount": "0"}), 422, "amount_invalid", "amount")
    posted = ok(await service.post(f"{path}/post", {"amount": "15"}))
    assert (posted["status"], posted["posted"]) == ("POSTED", "15.000000")
    assert posted["resolved_at"] is not None
    assert await service.balance(BUYER) == ("85.000000", "0.000000")
    assert await service.balance(SELLER) == ("15.000000", "0.000000")
    for command in ("post", "void"):
        refused(await service.post(f"{path}/{command}"), 409, "transfer_posted")
    kinds = [
        ok(await service.get(f"ledger/transactions/{posted[name]}"))["kind"]
        for name in ("hold_transaction_id", "resolution_transaction_id")
    ]
    assert kinds == ["transfer_hold", "transfer_post"]


async def test_a_void_returns_everything_and_is_answered_again(service: Caller) -> None:
    await service.deposit(BUYER, "40")
    path = f"ledger/transfers/{(await pending(service))['transfer_id']}"
    first = ok(await service.post(f"{path}/void", key="void-1"))
    assert first["status"] == "VOIDED"
    assert ok(await service.post(f"{path}/void", key="void-1")) == first
    refused(await service.post(f"{path}/post"), 409, "transfer_voided")
    assert await service.balance(BUYER) == ("40.000000", "0.000000")


async def test_a_reference_names_one_pending_transfer(service: Caller) -> None:
    await service.deposit(BUYER, "100")
    said = SAID | {"pending": True, "reference": "hold-1", "timeout_seconds": 60}
    answers = await asyncio.gather(*(service.post("ledger/transfers", said) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 201]
    assert await service.balance(BUYER) == ("60.000000", "40.000000")
    for change in ({"amount": "41"}, {"timeout_seconds": 61}, {"to": CAROL}):
        refused(await service.post("ledger/transfers", said | change), 409, "reference_taken", "reference")


async def test_racers_with_one_reference_get_it_also_when_the_money_is_gone(service: Caller) -> None:
    await service.deposit(BUYER, "40")
    said = SAID | {"pending": True, "reference": "hold-1"}
    answers = await asyncio.gather(*(service.post("ledger/transfers", said) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [201]


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"to": BUYER}, "transfer_to_itself", "to"),
        ({"from": "system:external"}, "account_ref_invalid", "from"),
        ({"to": "system:fees"}, "account_ref_invalid", "to"),
        ({"asset": "DOGE"}, "asset_unknown", "asset"),
        ({"amount": "0"}, "amount_invalid", "amount"),
        ({"amount": "0.0000001"}, "amount_too_fine", "amount"),
        ({"from": ""}, "input_invalid", "from"),
        ({"timeout_seconds": 60}, "expiry_needs_pending", "timeout_seconds"),
        ({"pending": True, "timeout_seconds": 0}, "input_invalid", "timeout_seconds"),
        ({"pending": True, "timeout_seconds": 366 * 86_400 + 1}, "input_invalid", "timeout_seconds"),
        ({"pending": True, "expires_at": "2020-01-01T00:00:00Z"}, "expiry_not_in_future", "expires_at"),
        ({"pending": True, "expires_at": "2999-01-01T00:00:00Z"}, "expiry_too_late", "expires_at"),
        (
            {"pending": True, "expires_at": "2999-01-01T00:00:00Z", "timeout_seconds": 60},
            "expiry_ambiguous",
            "timeout_seconds",
        ),
    ],
)
async def test_what_is_wrong_is_named_and_nothing_is_written(
    service: Caller, change: dict[str, Any], code: str, field: str
) -> None:
    refused(await service.post("ledger/transfers", SAID | change), 422, code, field)
    assert ok(await service.get("ledger/transactions"))["items"] == []


async def test_without_an_expiry_it_waits_the_longest_time_that_there_is(service: Caller) -> None:
    await service.deposit(BUYER, "40")
    made = await pending(service)
    late = (now() + timedelta(days=366)).isoformat()
    assert late[:10] >= made["expires_at"][:10] > (now() + timedelta(days=364)).isoformat()[:10]


async def test_bound_keys_pay_and_resolve_their_own(service: Caller) -> None:
    await service.deposit(BUYER, "100")
    buyer, seller, carol = [await service.key_for(user_id=user) for user in (BUYER, SELLER, CAROL)]
    refused(await seller.post("ledger/transfers", SAID), 403, "account_not_yours")
    made = ok(await buyer.post("ledger/transfers", SAID | {"pending": True}), 201)
    path = f"ledger/transfers/{made['transfer_id']}"
    assert ok(await seller.get(path))["status"] == "PENDING", "who is to be paid sees it"
    refused(await carol.get(path), 404, "transfer_unknown")
    refused(await carol.post(f"{path}/post"), 404, "transfer_unknown")
    for command in ("post", "void"):
        refused(await seller.post(f"{path}/{command}"), 403, "account_not_yours")
    assert ok(await buyer.post(f"{path}/post"))["status"] == "POSTED"
    assert [item["transfer_id"] for item in ok(await seller.get("ledger/transfers"))["items"]] == [made["transfer_id"]]
    assert ok(await carol.get("ledger/transfers"))["items"] == []
    refused(await carol.get("ledger/transfers", account=BUYER), 403, "actor_not_allowed", "account")
    refused(await service.get(f"ledger/transfers/{new_id()}"), 404, "transfer_unknown")


async def test_transfers_are_filtered_and_paged(service: Caller) -> None:
    await service.deposit(BUYER, "100")
    made = [await pending(service, amount="1", to=to, reference=to) for to in ("u1", "u2", "u3", "u4")]
    ids = [each["transfer_id"] for each in reversed(made)]
    ok(await service.post(f"ledger/transfers/{ids[0]}/void"))
    first = ok(await service.get("ledger/transfers", limit=3))
    second = ok(await service.get("ledger/transfers", limit=3, cursor=first["next_cursor"]))
    assert [item["transfer_id"] for item in first["items"] + second["items"]] == ids
    assert second["next_cursor"] is None

    async def listed(**wanted: Any) -> list[str]:
        return [item["transfer_id"] for item in ok(await service.get("ledger/transfers", **wanted))["items"]]

    assert await listed(status="VOIDED") == ids[:1]
    assert await listed(status="PENDING") == ids[1:]
    assert await listed(account="u2") == [ids[2]]
    assert await listed(account=BUYER, limit=2) == ids[:2]
    assert await listed(reference="u3") == [ids[1]]
    assert await listed(asset="ETH") == []


async def test_a_chain_spends_what_its_earlier_links_bring(service: Caller) -> None:
    await service.deposit(BUYER, "10")
    links = [
        {"from": BUYER, "to": SELLER, "asset": "USDC", "amount": "10", "description": "first"},
        {"from": SELLER, "to": CAROL, "asset": "USDC", "amount": "7"},
    ]
    made = ok(await service.post("ledger/transfers/chain", {"transfers": links, "reference": "chain-1"}), 201)
    assert [each["kind"] for each in made["transactions"]] == ["transfer", "transfer"]
    assert [each["description"] for each in made["transactions"]] == ["first", None]
    assert await service.balance(SELLER) == ("3.000000", "0.000000")
    assert await service.balance(CAROL) == ("7.000000", "0.000000")
    assert ok(await service.post("ledger/transfers/chain", {"transfers": links, "reference": "chain-1"})) == made
    for other in (links[:1], links[::-1], [*links, links[1]], [links[0] | {"amount": "9"}, links[1]]):
        answer = await service.post("ledger/transfers/chain", {"transfers": other, "reference": "chain-1"})
        refused(answer, 409, "reference_taken", "reference")


async def test_a_refused_chain_names_the_link_and_writes_nothing(service: Caller) -> None:
    await service.deposit(BUYER, "10")
    good = {"from": BUYER, "to": SELLER, "asset": "USDC", "amount": "1"}
    before = ok(await service.get("ledger/transactions"))

    async def fails(bad: dict[str, Any], status: int, code: str, field: str) -> None:
        links = [good, good, good, good | bad, good]
        refused(await service.post("ledger/transfers/chain", {"transfers": links}), status, code, field)

    await fails({"amount": "8"}, 409, "insufficient_funds", "transfers.3.amount")
    await fails({"from": CAROL}, 409, "insufficient_funds", "transfers.3.amount")
    await fails({"asset": "DOGE"}, 422, "asset_unknown", "transfers.3.asset")
    await fails({"amount": "0"}, 422, "amount_invalid", "transfers.3.amount")
    await fails({"to": BUYER}, 422, "transfer_to_itself", "transfers.3.to")
    await fails({"pending": True}, 422, "input_invalid", "transfers.3.pending")
    assert ok(await service.get("ledger/transactions")) == before
    buyer = await service.key_for(user_id=BUYER)
    links = [good, {**good, "from": SELLER, "to": BUYER}]
    answer = await buyer.post("ledger/transfers/chain", {"transfers": links})
    refused(answer, 403, "account_not_yours", "transfers.1.from")
    for count in (0, 101):
        refused(await service.post("ledger/transfers/chain", {"transfers": [good] * count}), 422, "input_invalid")


async def test_a_chain_is_booked_once_per_idempotency_key(service: Caller) -> None:
    await service.deposit(BUYER, "10")
    said = {"transfers": [{"from": BUYER, "to": SELLER, "asset": "USDC", "amount": "1"}] * 100}
    refused(await service.post("ledger/transfers/chain", said), 409, "insufficient_funds", "transfers.10.amount")
    said["transfers"] = said["transfers"][:10]
    first = await service.post("ledger/transfers/chain", said, key="once")
    again = await service.post("ledger/transfers/chain", said, key="once")
    assert ok(first, 201) == ok(again, 201)
    assert len({each["transaction_id"] for each in first.json()["transactions"]}) == 10
    assert await service.balance(SELLER) == ("10.000000", "0.000000")


async def test_events_and_the_audit_tell_what_became_of_a_transfer(service: Caller) -> None:
    await service.deposit(BUYER, "40")
    transfer_id = (await pending(service))["transfer_id"]
    ok(await service.post(f"ledger/transfers/{transfer_id}/post", {"amount": "10", "actor": "operator"}))

    async def told() -> list[dict[str, Any]]:
        items = ok(await service.get("events", limit=200))["items"]
        return [item for item in items if item["subject"] == f"transfer:{transfer_id}"]

    async with asyncio.timeout(20):
        while len(found := await told()) < 2:  # noqa: ASYNC110 - the relay lies outside this process
            await asyncio.sleep(0.05)
    assert [event["type"] for event in found] == ["transfer.pending", "transfer.posted"]
    assert found[1]["data"]["posted"] == "10.000000"
