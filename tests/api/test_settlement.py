"""Taking settlement commands: durable before the answer, answered alike again, refused by field, read back."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import UUID

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from db.engine import tenant_transaction
from db.ids import new_id
from domain.identity import Scope
from tests.api.caller import Caller, ok, refused

INGEST = "commands/ingest"


def body(**changes: Any) -> dict[str, Any]:
    """A deposit of ten USDC for alice; None removes a field."""
    fields = {"command_id": f"cmd-{new_id()}", "account_ref": "alice", "asset_symbol": "USDC", "amount": "10"}
    return {name: value for name, value in (fields | changes).items() if value is not None}


async def rows(engine: AsyncEngine, tenant: UUID, query: str) -> list[Any]:
    async with tenant_transaction(engine, tenant) as connection:
        return list((await connection.execute(text(query))).all())


async def send_lines(caller: Caller, lines: list[bytes], **how: Any) -> tuple[httpx.Response, list[dict[str, Any]]]:
    """The answer to lines, and what it says line by line."""
    headers = {"Content-Type": "application/x-ndjson"}
    response = await caller.post(INGEST, b"\n".join(lines), headers=headers, **how)
    assert response.status_code == 202, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    return response, [json.loads(line) for line in response.content.splitlines()]


async def test_a_command_is_durable_when_it_is_answered(service: Caller, tenants_engine: AsyncEngine) -> None:
    asked = body(description="wire of Monday")
    taken = ok(await service.post(INGEST, asked), 202)
    assert taken | {"received_at": ""} == {
        "command_id": asked["command_id"],
        "workflow_id": f"settlement:{service.tenant}",
        "status": "RECEIVED",
        "kind": "deposit",
        "account_ref": "alice",
        "counterparty_ref": None,
        "asset_symbol": "USDC",
        "amount": "10.000000",
        "escrow_id": None,
        "milestones": None,
        "description": "wire of Monday",
        "received_at": "",
    }
    [row] = await rows(tenants_engine, service.tenant, "SELECT * FROM settlement_commands")
    assert (row.command_id, row.kind, row.amount_minor) == (asked["command_id"], "deposit", 10_000_000)
    assert (str(row.amount_numeric), row.actor_user) == ("10", None)
    assert row.transaction_id is not None
    events = await rows(tenants_engine, service.tenant, "SELECT * FROM outbox WHERE type = 'commands.received'")
    span = {"count": 1, "first_sequence": row.sequence, "last_sequence": row.sequence}
    assert [(event.subject, event.data) for event in events] == [(f"settlement:{service.tenant}", span)]
    audit = await rows(tenants_engine, service.tenant, "SELECT * FROM audit_log WHERE action = 'commands.received'")
    assert [(entry.details, entry.request_id) for entry in audit] == [(span, row.request_id)]


@pytest.mark.parametrize(
    "same", [{"amount": 10.0}, {"amount": "10.00"}, {"amount": None, "amount_numeric": 10}, {"kind": "deposit"}]
)
async def test_the_same_command_is_answered_alike(service: Caller, same: dict[str, Any]) -> None:
    asked = body()
    first = await service.post(INGEST, asked)
    again = await service.post(INGEST, {k: v for k, v in (asked | same).items() if v is not None})
    assert (again.status_code, again.content) == (first.status_code, first.content)


@pytest.mark.parametrize(
    "other", [{"amount": "11"}, {"account_ref": "bob"}, {"kind": "withdrawal"}, {"description": "x"}]
)
async def test_another_command_under_the_same_id_is_refused(service: Caller, other: dict[str, Any]) -> None:
    asked = body()
    ok(await service.post(INGEST, asked), 202)
    refused(await service.post(INGEST, asked | other), 409, "command_id_taken", "command_id")
    found = ok(await service.get(f"commands/{asked['command_id']}"))
    assert (found["amount"], found["kind"], found["account_ref"]) == ("10.000000", "deposit", "alice")


ESCROW = "0198a5a0-0000-7000-8000-000000000000"


@pytest.mark.parametrize(
    ("wrong", "code", "field"),
    [
        ({"command_id": ""}, "input_invalid", "command_id"),
        ({"command_id": None}, "input_invalid", "command_id"),
        ({"command_id": "a/b"}, "input_invalid", "command_id"),
        ({"command_id": "ingest"}, "input_invalid", "command_id"),
        ({"command_id": "x" * 129}, "input_invalid", "command_id"),
        ({"amount": "-1"}, "input_invalid", "amount"),
        ({"amount": -0.5}, "input_invalid", "amount"),
        ({"amount": "ten"}, "input_invalid", "amount"),
        ({"amount": True}, "input_invalid", "amount"),
        ({"amount": None}, "input_invalid", "amount"),
        ({"amount": "0"}, "amount_invalid", "amount"),
        ({"amount": "0.0000001"}, "amount_too_fine", "amount"),
        ({"asset_symbol": "DOGE"}, "asset_unknown", "asset_symbol"),
        ({"asset_symbol": None}, "input_invalid", "asset_symbol"),
        ({"account_ref": None}, "input_invalid", "account_ref"),
        ({"account_ref": "system:fees"}, "account_ref_invalid", "account_ref"),
        ({"surplus": 1}, "input_invalid", "surplus"),
        ({"kind": "gift"}, "input_invalid", "kind"),
        ({"kind": "transfer"}, "required", "counterparty_ref"),
        ({"kind": "transfer", "counterparty_ref": "alice"}, "counterparty_same", "counterparty_ref"),
        ({"kind": "transfer", "counterparty_ref": "system:fees"}, "account_ref_invalid", "counterparty_ref"),
        ({"counterparty_ref": "bob"}, "field_not_for_kind", "counterparty_ref"),
        ({"milestones": [1]}, "field_not_for_kind", "milestones"),
        ({"kind": "escrow_release"}, "required", "escrow_id"),
        ({"kind": "deposit", "escrow_id": ESCROW}, "field_not_for_kind", "escrow_id"),
        ({"escrow_id": "not-an-id"}, "input_invalid", "escrow_id"),
        ({"escrow_id": ESCROW, "milestones": []}, "input_invalid", "milestones"),
        ({"escrow_id": ESCROW, "description": "x"}, "field_not_for_kind", "description"),
    ],
    ids=str,
)
async def test_what_cannot_be_carried_out_is_refused_by_field(
    service: Caller, tenants_engine: AsyncEngine, wrong: dict[str, Any], code: str, field: str
) -> None:
    refused(await service.post(INGEST, body(**wrong)), 422, code, field)
    _, [line] = await send_lines(service, [json.dumps(body(**wrong)).encode()])
    assert (line["status"], line["problem"]["code"]) == (422, code)
    assert field in {fault["field"] for fault in line["problem"]["errors"]}
    for table in ("settlement_commands", "outbox", "audit_log"):
        assert await rows(tenants_engine, service.tenant, f"SELECT * FROM {table}") == []


async def test_kinds_are_guessed_from_what_is_named(service: Caller) -> None:
    assert ok(await service.post(INGEST, body(escrow_id=ESCROW)), 202)["kind"] == "escrow_fund"
    assert ok(await service.post(INGEST, body()), 202)["kind"] == "deposit"


async def test_racers_with_one_id_are_one_command(service: Caller, tenants_engine: AsyncEngine) -> None:
    asked = body()
    answers = await asyncio.gather(*(service.post(INGEST, asked) for _ in range(32)))
    assert {(answer.status_code, answer.content) for answer in answers} == {(202, answers[0].content)}
    assert len(await rows(tenants_engine, service.tenant, "SELECT * FROM settlement_commands")) == 1
    events = await rows(tenants_engine, service.tenant, "SELECT * FROM outbox WHERE type = 'commands.received'")
    assert len(events) == 1


async def test_an_idempotency_key_is_honoured(service: Caller, tenants_engine: AsyncEngine) -> None:
    asked = body()
    first = await service.post(INGEST, asked, key="k")
    again = await service.post(INGEST, asked, key="k")
    assert again.headers["idempotency-replayed"] == "true"
    assert again.content == first.content
    refused(await service.post(INGEST, body(), key="k"), 422, "idempotency_key_reused", "Idempotency-Key")
    lines = [json.dumps(body()).encode(), b"{"]
    bulk, _ = await send_lines(service, lines, key="lines")
    repeated, _ = await send_lines(service, lines, key="lines")
    assert repeated.headers["idempotency-replayed"] == "true"
    assert repeated.content == bulk.content


async def test_a_bad_line_spoils_only_itself(service: Caller, tenants_engine: AsyncEngine) -> None:
    good, standing = body(), body()
    ok(await service.post(INGEST, standing), 202)
    lines = [
        json.dumps(good).encode(),
        b"{not json",
        b'{"command_id": "\xff\xfe"}',
        b"",
        json.dumps(good).encode() + b"\r",
        json.dumps(good | {"amount": "11"}).encode(),
        json.dumps(standing | {"amount": "11"}).encode(),
        json.dumps(standing).encode(),
        b"[]",
        json.dumps(body(amount="-1")).encode(),
        json.dumps(body(account_ref="bob")).encode(),
        b'{"command_id": "twice", "command_id": "twice"}',
    ]
    _, said = await send_lines(service, [*lines, b""])
    assert [(line["line"], line["status"]) for line in said] == [
        (1, 202),
        (2, 422),
        (3, 422),
        (5, 202),
        (6, 409),
        (7, 409),
        (8, 202),
        (9, 422),
        (10, 422),
        (11, 202),
        (12, 422),
    ]
    by_line = {line["line"]: line for line in said}
    assert by_line[1]["command"] == by_line[5]["command"] == ok(await service.post(INGEST, good), 202)
    assert by_line[2]["problem"]["code"] == by_line[3]["problem"]["code"] == "body_invalid"
    assert by_line[6]["problem"]["code"] == "command_id_taken"
    assert by_line[7]["command_id"] == standing["command_id"]
    assert by_line[9]["problem"]["errors"][0]["code"] == "not_an_object"
    assert by_line[10]["problem"]["instance"] == "/api/v1/commands/ingest"
    assert len(await rows(tenants_engine, service.tenant, "SELECT * FROM settlement_commands")) == 3


async def test_lines_are_one_commit_and_keep_their_order(service: Caller, tenants_engine: AsyncEngine) -> None:
    asked = [body(amount=str(number)) for number in range(1, 3_001)]
    lines = [json.dumps(one).encode() for one in asked]
    first, said = await send_lines(service, lines)
    assert {line["status"] for line in said} == {202}
    found = await rows(tenants_engine, service.tenant, "SELECT command_id FROM settlement_commands ORDER BY sequence")
    assert [row.command_id for row in found] == [one["command_id"] for one in asked]
    events = await rows(tenants_engine, service.tenant, "SELECT data FROM outbox WHERE type = 'commands.received'")
    assert [event.data["count"] for event in events] == [3_000]
    again, _ = await send_lines(service, lines)
    assert again.content == first.content
    events = await rows(tenants_engine, service.tenant, "SELECT data FROM outbox WHERE type = 'commands.received'")
    assert len(events) == 1


async def test_lists_that_share_ids_in_other_orders_do_not_deadlock(service: Caller) -> None:
    lines = [json.dumps(body()).encode() for _ in range(300)]
    answers = await asyncio.gather(*(send_lines(service, lines[:: 1 if n % 2 else -1]) for n in range(8)))
    assert {line["status"] for _, said in answers for line in said} == {202}


async def test_lines_have_limits(service: Caller) -> None:
    headers = {"Content-Type": "application/x-ndjson"}
    refused(await service.post(INGEST, b"x\n" * 10_001, headers=headers), 422, "too_many_lines", "body")
    refused(await service.post(INGEST, b"\n \n", headers=headers), 422, "body_invalid", "body")
    refused(await service.post(INGEST, b" " * (8 * 1024 * 1024 + 1), headers=headers), 413, "body_too_large")
    refused(await service.post(INGEST, b" " * (1024 * 1024 + 1)), 413, "body_too_large")
    refused(await service.post("escrows", b"{}", headers=headers), 415, "content_type_unsupported")


async def test_a_users_key_commands_its_own_account(service: Caller) -> None:
    alice = await service.key_for(user_id="alice")
    refused(await alice.post(INGEST, body()), 403, "service_key_required", "kind")
    refused(
        await alice.post(INGEST, body(kind="withdrawal", account_ref="bob")), 403, "account_not_yours", "account_ref"
    )
    taken = ok(await alice.post(INGEST, body(kind="withdrawal")), 202)
    _, said = await send_lines(alice, [json.dumps(body()).encode(), json.dumps(body(kind="withdrawal")).encode()])
    assert [line["status"] for line in said] == [403, 202]
    bob = await service.key_for(user_id="bob")
    refused(await bob.get(f"commands/{taken['command_id']}"), 404, "command_unknown")
    assert ok(await bob.get("commands"))["items"] == []
    refused(await bob.get("commands", account_ref="alice"), 403, "actor_not_allowed", "account_ref")
    assert len(ok(await alice.get("commands"))["items"]) == 2
    reader = await service.key_for(scopes=(Scope.COMMANDS_READ,))
    refused(await reader.post(INGEST, body()), 403, "scope_missing")
    refused(await service.get("commands/nothing"), 404, "command_unknown")


async def test_the_intake_is_no_command(service: Caller) -> None:
    answer = await service.send("DELETE", INGEST)
    refused(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


async def test_commands_are_filtered_and_paged(service: Caller) -> None:
    wanted = [
        body(),
        body(kind="withdrawal", account_ref="bob"),
        body(escrow_id=ESCROW, asset_symbol="USDT"),
        body(account_ref="bob"),
    ]
    for one in wanted:
        ok(await service.post(INGEST, one), 202)
    ids = [one["command_id"] for one in wanted][::-1]

    async def listed(**filters: Any) -> list[str]:
        return [item["command_id"] for item in ok(await service.get("commands", **filters))["items"]]

    assert await listed() == ids
    assert await listed(account_ref="bob") == [ids[0], ids[2]]
    assert await listed(kind="withdrawal") == [ids[2]]
    assert await listed(escrow_id=ESCROW) == [ids[1]] == await listed(asset_symbol="USDT")
    moments = [item["received_at"] for item in ok(await service.get("commands"))["items"]]
    assert await listed(received_from=moments[1]) == ids[:2]
    assert await listed(received_to=moments[1]) == ids[2:]
    assert await listed(status="FAILED") == []
    first = ok(await service.get("commands", limit=3))
    second = ok(await service.get("commands", limit=3, cursor=first["next_cursor"]))
    assert [item["command_id"] for item in first["items"] + second["items"]] == ids
    assert second["next_cursor"] is None
    refused(await service.get("commands", limit=3, kind="deposit", cursor=first["next_cursor"]), 422, "cursor_invalid")
