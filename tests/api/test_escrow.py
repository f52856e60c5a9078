"""An escrow over HTTP: its life, its commands, and what is refused on the way."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from kit.clock import now
from tests.api.caller import ARBITER, BUYER, SELLER, Caller, escrow_body, ok, refused

TWO_PARTS = [{"title": "design", "amount": "30"}, {"title": "build", "amount": "70"}]


async def test_a_whole_life(service: Caller) -> None:
    await service.deposit(BUYER, "150")
    opened = await service.post("escrows", escrow_body(fees=[{"basis_points": 100, "paid_by": "seller"}]))
    escrow = ok(opened, 201)
    escrow_id, path = escrow["escrow_id"], f"escrows/{escrow['escrow_id']}"
    assert opened.headers["location"] == f"/api/v1/{path}"
    assert (escrow["status"], escrow["version"], escrow["amount"]) == ("created", 1, "100.000000")
    assert escrow["workflow_id"] == f"escrow:{escrow_id}"

    funded = await service.command(escrow_id, "fund", BUYER)
    assert (funded["status"], funded["remaining"]) == ("funded", "100.000000")
    assert await service.balance(BUYER) == ("50.000000", "100.000000")
    approved = await service.command(escrow_id, "approvals", BUYER)
    assert approved["status"] == "approved"
    assert approved["milestones"][0]["approvals"][0]["user_id"] == BUYER
    partly = await service.command(escrow_id, "release", BUYER, amount="40")
    assert partly["milestones"][0]["released"] == "40.000000"
    done = await service.command(escrow_id, "release", BUYER)
    assert (done["status"], done["released"], done["remaining"]) == ("completed", "100.000000", "0.000000")
    assert done["closed_at"] is not None
    assert await service.balance(SELLER) == ("99.000000", "0.000000")
    assert await service.balance("system:fees") == ("1.000000", "0.000000")

    assert ok(await service.get(path)) == done
    timeline = ok(await service.get(f"{path}/timeline"))["items"]
    assert [entry["actor"] for entry in timeline] == [None, *[BUYER] * 4]
    assert all(entry["workflow_id"] == f"escrow:{escrow_id}" and entry["key_id"] for entry in timeline)
    refused(await service.post(f"{path}/cancel", {"actor": BUYER}), 409, "escrow_closed")


async def test_milestones_go_their_own_ways(service: Caller) -> None:
    await service.deposit(BUYER, "100")
    escrow = await service.open(amount=None, milestones=TWO_PARTS, arbiter={"user_id": ARBITER})
    escrow_id = escrow["escrow_id"]
    await service.command(escrow_id, "approvals", BUYER, milestones=[1])
    await service.command(escrow_id, "fund", BUYER)
    disputed = await service.command(escrow_id, "dispute", SELLER, milestones=[2], reason="not\nas agreed")
    assert [part["status"] for part in disputed["milestones"]] == ["approved", "disputed"]
    assert disputed["milestones"][1]["dispute"] | {"at": None} == {
        "role": "seller",
        "user_id": SELLER,
        "reason": "not\nas agreed",
        "at": None,
    }
    await service.command(escrow_id, "release", BUYER, milestones=[1])
    done = await service.command(escrow_id, "resolution", ARBITER, milestone=2, to_seller="20.5", to_buyer=49.5)
    assert (done["status"], done["released"], done["refunded"]) == ("completed", "50.500000", "49.500000")
    assert await service.balance(SELLER) == ("50.500000", "0.000000")
    assert await service.balance(BUYER) == ("49.500000", "0.000000")


async def test_refund_and_cancel(service: Caller) -> None:
    await service.deposit(BUYER, "100")
    first = await service.open()
    await service.command(first["escrow_id"], "fund", BUYER)
    refused(await service.post(f"escrows/{first['escrow_id']}/cancel", {"actor": BUYER}), 409, "escrow_holds_money")
    part = await service.command(first["escrow_id"], "refund", SELLER, amount="0.000001")
    assert part["refunded"] == "0.000001"
    assert (await service.command(first["escrow_id"], "refund", SELLER))["status"] == "refunded"
    second = await service.open()
    assert (await service.command(second["escrow_id"], "cancel", SELLER))["status"] == "cancelled"
    assert await service.balance(BUYER) == ("100.000000", "0.000000")


@pytest.mark.parametrize(
    ("command", "said", "status", "code", "field"),
    [
        ("release", {"actor": BUYER}, 409, "milestone_not_funded", None),
        ("fund", {"actor": BUYER}, 409, "insufficient_funds", None),
        ("fund", {"actor": SELLER}, 403, "role_not_allowed", None),
        ("fund", {"actor": "mallory"}, 403, "not_a_party", None),
        ("fund", {}, 422, "actor_required", "actor"),
        ("fund", None, 422, "actor_required", "actor"),
        ("fund", {"actor": BUYER, "milestones": [2]}, 422, "milestone_unknown", "milestones.0"),
        ("fund", {"actor": BUYER, "milestones": [0]}, 422, "input_invalid", "milestones.0"),
        ("fund", {"actor": BUYER, "milestones": [1, 1]}, 422, "milestones_invalid", "milestones"),
        ("fund", {"actor": BUYER, "milestones": []}, 422, "input_invalid", "milestones"),
        ("fund", {"actor": BUYER, "amount": "1"}, 422, "input_invalid", "amount"),
        ("release", {"actor": BUYER, "amount": "0.0000001"}, 422, "amount_too_fine", "amount"),
        ("release", {"actor": BUYER, "amount": "0"}, 422, "amount_invalid", "amount"),
        ("dispute", {"actor": BUYER}, 422, "input_invalid", "reason"),
        ("dispute", {"actor": BUYER, "reason": "  "}, 422, "reason_invalid", "reason"),
        ("resolution", {"actor": BUYER, "to_seller": "1"}, 422, "input_invalid", "to_buyer"),
        ("resolution", {"actor": BUYER, "to_seller": "1", "to_buyer": "1"}, 409, "no_arbiter", None),
        ("resolution", {"actor": BUYER, "to_seller": "x", "to_buyer": "1"}, 422, "input_invalid", "to_seller"),
    ],
)
async def test_refused_commands_change_nothing(
    service: Caller, command: str, said: Any, status: int, code: str, field: str | None
) -> None:
    escrow = await service.open()
    path = f"escrows/{escrow['escrow_id']}"
    refused(await service.post(f"{path}/{command}", said), status, code, field)
    assert ok(await service.get(path)) == escrow
    assert len(ok(await service.get(f"{path}/timeline"))["items"]) == 1


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"asset": "DOGE"}, "asset_unknown", "asset"),
        ({"amount": "0.0000001"}, "amount_too_fine", "amount"),
        ({"amount": "-1"}, "input_invalid", "amount"),
        ({"amount": None}, "required", "amount"),
        ({"amount": "0"}, "amount_invalid", "amount"),
        ({"buyer": {"user_id": SELLER}}, "parties_not_distinct", "seller.user_id"),
        ({"buyer": {"user_id": "system:external"}}, "user_id_invalid", "buyer.user_id"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "deadline_not_in_future", "expires_at"),
        ({"expires_at": "2090-01-01T00:00:00"}, "input_invalid", "expires_at"),
        ({"surprise": 1}, "input_invalid", "surprise"),
        (
            {"amount": None, "milestones": [*TWO_PARTS, {"title": "x", "amount": "1e9"}]},
            "input_invalid",
            "milestones.2.amount",
        ),
    ],
)
async def test_invalid_terms_name_the_field_and_write_nothing(
    service: Caller, changes: dict[str, Any], code: str, field: str
) -> None:
    response = await service.post("escrows", escrow_body(**changes), key="the-key")
    refused(response, 422, code, field)
    assert ok(await service.get("escrows"))["items"] == []
    again = await service.post("escrows", escrow_body(), key="the-key")
    assert again.status_code == 201, "a request that was not begun leaves its key free"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (b"0.1", "0.100000000000000000"),
        (b"10.0", "10.000000000000000000"),
        (b"1e-18", "0.000000000000000001"),
        (b"123456789012345678901234567890", "123456789012345678901234567890.000000000000000000"),
        (b"1234567890123456789012.123456789012345678", "1234567890123456789012.123456789012345678"),
    ],
)
async def test_json_numbers_are_stored_to_the_last_digit(service: Caller, number: bytes, text: str) -> None:
    body = b'{"asset": "ETH", "buyer": {"user_id": "a"}, "seller": {"user_id": "b"}, "amount": %s}' % number
    escrow = ok(await service.post("escrows", body), 201)
    assert escrow["amount"] == text
    assert ok(await service.get(f"escrows/{escrow['escrow_id']}"))["milestones"][0]["amount"] == text


async def test_longest_texts_are_carried(service: Caller) -> None:
    """Workflow summaries and search attributes have limits of their own, which are no concern of a caller."""
    wide = "𝕌" * 200
    escrow = await service.open(
        buyer={"user_id": wide, "address": wide}, seller={"user_id": "s" * 200}, reference=wide, description="d" * 2000
    )
    assert (escrow["buyer"]["user_id"], escrow["reference"]) == (wide, wide)
    await service.post(f"accounts/{wide}/deposits", {"asset": "USDC", "amount": "100"})
    await service.command(escrow["escrow_id"], "fund", wide)
    disputed = await service.command(escrow["escrow_id"], "dispute", wide, reason="𝕣" * 2000)
    assert disputed["status"] == "disputed"
    assert ok(await service.get("escrows", user=wide, address=wide, reference=wide))["items"] == [disputed]


async def test_a_reference_names_one_escrow(service: Caller) -> None:
    first = await service.open(reference="order-1")
    again = ok(await service.post("escrows", escrow_body(reference="order-1", amount="100.00")))
    assert again == first
    other = await service.post("escrows", escrow_body(reference="order-1", amount="101"))
    refused(other, 409, "reference_taken", "reference")
    assert len(ok(await service.get("escrows"))["items"]) == 1


async def test_racers_with_one_reference_open_one_escrow(service: Caller) -> None:
    answers = await asyncio.gather(*(service.post("escrows", escrow_body(reference="race")) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [201]
    assert len({answer.json()["escrow_id"] for answer in answers}) == 1


async def test_lists_are_filtered(service: Caller) -> None:
    start = now()
    first = await service.open(buyer={"user_id": "ann", "address": "0xAA"}, reference="a")
    second = await service.open(asset="ETH", arbiter={"user_id": "ann"})
    third = await service.open()
    await service.command(third["escrow_id"], "cancel", BUYER)

    async def found(**filters: Any) -> list[str]:
        return [escrow["escrow_id"] for escrow in ok(await service.get("escrows", **filters))["items"]]

    ids = [third["escrow_id"], second["escrow_id"], first["escrow_id"]]
    assert await found() == ids
    assert await found(user="ann") == ids[1:]
    assert await found(address="0xAA") == ids[2:]
    assert await found(asset="ETH") == ids[1:2]
    assert await found(reference="a") == ids[2:]
    assert await found(status="cancelled") == ids[:1]
    assert await found(user="ann", status="cancelled") == []
    assert await found(created_from=start.isoformat()) == ids
    assert await found(created_from=second["created_at"], created_to=third["created_at"]) == ids[1:2]
    assert await found(created_from=(now() + timedelta(days=1)).isoformat()) == []
    refused(await service.get("escrows", status="lost"), 422, "input_invalid", "status")
    refused(await service.get("escrows", created_from="2026-01-01T00:00:00"), 422, "input_invalid", "created_from")
    refused(await service.get("escrows", user="nul\x00"), 422, "input_invalid", "user")


async def test_pages_meet_every_escrow_once(service: Caller) -> None:
    ids = [(await service.open(reference=f"r{number}"))["escrow_id"] for number in range(5)]
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = ok(await service.get("escrows", limit=2, user=BUYER, **cursor))
        seen += [escrow["escrow_id"] for escrow in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == ids[::-1]
    refused(await service.get("escrows", limit=2, **cursor), 422, "cursor_invalid", "cursor")
    refused(await service.get("escrows", limit=0), 422, "input_invalid", "limit")
    assert len(ok(await service.get("escrows", limit=10**30))["items"]) == 5
    path = f"escrows/{ids[0]}"
    await service.command(ids[0], "approvals", BUYER)
    await service.command(ids[0], "cancel", BUYER)
    page = ok(await service.get(f"{path}/timeline", limit=2))
    rest = ok(await service.get(f"{path}/timeline", limit=2, cursor=page["next_cursor"]))
    whole = ok(await service.get(f"{path}/timeline"))["items"]
    assert page["items"] + rest["items"] == whole
    assert (len(whole), rest["next_cursor"]) == (3, None)


async def test_what_an_escrow_waits_for(service: Caller) -> None:
    due = (now() + timedelta(days=3)).replace(microsecond=0)
    escrow = await service.open(funding_deadline=due.isoformat())
    path = f"escrows/{escrow['escrow_id']}"
    waiting = ok(await service.get(f"{path}/waiting"))
    assert waiting["waits"] == [
        {
            "what": "funding",
            "roles": ["buyer"],
            "commands": ["fund"],
            "milestones": [1],
            "until": due.isoformat().replace("+00:00", "Z"),
        }
    ]
    assert (waiting["next_deadline_kind"], waiting["next_deadline"]) == ("funding", waiting["waits"][0]["until"])
    await service.command(escrow["escrow_id"], "cancel", BUYER)
    closed = ok(await service.get(f"{path}/waiting"))
    assert (closed["status"], closed["waits"], closed["next_deadline"]) == ("cancelled", [], None)


async def test_what_is_not_there_is_not_found(service: Caller) -> None:
    missing = "escrows/019a0000-0000-7000-8000-000000000000"
    for path in ("", "/timeline", "/waiting"):
        refused(await service.get(missing + path), 404, "escrow_unknown")
    refused(await service.post(f"{missing}/fund", {"actor": BUYER}), 404, "escrow_unknown")
    refused(await service.get("escrows/not-a-uuid"), 422, "input_invalid", "escrow_id")


async def test_other_tenants_escrows_are_not_there(service: Caller, nobody: Caller) -> None:
    made = ok(await service.post("tenants", {"name": f"other-{service.tenant}"}), 201)
    other = Caller(service.app, made["tenant_id"], service.engine, made["api_key"]["key"])
    escrow = await service.open(reference="mine")
    refused(await other.get(f"escrows/{escrow['escrow_id']}"), 404, "escrow_unknown")
    refused(await other.post(f"escrows/{escrow['escrow_id']}/cancel", {"actor": BUYER}), 404, "escrow_unknown")
    assert ok(await other.get("escrows"))["items"] == []
    assert (await other.open(reference="mine"))["escrow_id"] != escrow["escrow_id"]


async def test_a_user_bound_key_sees_and_moves_its_own(service: Caller) -> None:
    alice = await service.key_for(user_id=BUYER)
    mine = await alice.open()
    other = await service.open(buyer={"user_id": "carol"})
    assert [escrow["escrow_id"] for escrow in ok(await alice.get("escrows"))["items"]] == [mine["escrow_id"]]
    refused(await alice.get(f"escrows/{other['escrow_id']}"), 404, "escrow_unknown")
    refused(await alice.post(f"escrows/{other['escrow_id']}/cancel"), 404, "escrow_unknown")
    refused(await alice.get("escrows", user="carol"), 403, "actor_not_allowed", "user")
    refused(
        await alice.post(f"escrows/{mine['escrow_id']}/cancel", {"actor": SELLER}), 403, "actor_not_allowed", "actor"
    )
    refused(await alice.post("escrows", escrow_body(buyer={"user_id": "carol"})), 403, "not_a_party")
    await service.open(buyer={"user_id": "carol"}, reference="carols")
    refused(
        await alice.post("escrows", escrow_body(buyer={"user_id": "carol"}, reference="carols")),
        409,
        "reference_taken",
    )
    approved = ok(await alice.post(f"escrows/{mine['escrow_id']}/approvals"))
    assert approved["milestones"][0]["approvals"][0]["user_id"] == BUYER
    assert ok(await alice.post(f"escrows/{mine['escrow_id']}/cancel", {}))["status"] == "cancelled"
