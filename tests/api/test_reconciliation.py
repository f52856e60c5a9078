"""Reconciliation over HTTP: asked for once, listed, read with its findings, for service keys alone."""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from db.ids import new_id
from domain.identity import Scope
from tests.activities.reconciling import tamper
from tests.api.caller import BUYER, Caller, ok, refused
from tests.polling import eventually

PATH = "ledger/reconciliations"


async def finished(service: Caller, run_id: str) -> dict[str, Any]:
    """The run once it has ended."""
    last: dict[str, Any] = {}

    async def ended() -> bool:
        last.update(ok(await service.get(f"{PATH}/{run_id}")))
        return bool(last["status"] != "running")

    await eventually(ended)
    return last


async def test_a_run_that_was_asked_for(service: Caller) -> None:
    await service.deposit(BUYER, "5")
    asked = await service.post(PATH, key="once")
    run = ok(asked, 202)
    assert asked.headers["location"] == f"/api/v1/ledger/reconciliations/{run['run_id']}"
    assert (run["extent"], run["status"], run["share_explained"]) == ("full", "running", None)
    done = await finished(service, run["run_id"])
    assert (done["status"], done["failure"], done["findings"]) == ("finished", None, {"items": [], "next_cursor": None})
    assert done["areas"]["accounts"] == {"checked": 2, "matched": 2, "explained": 0, "unexplained": 0}
    assert (done["checked"], done["matched"], done["share_explained"]) == (4, 4, "1.000000")
    assert ok(await service.post(PATH, key="once"), 202)["run_id"] == run["run_id"]
    recent = ok(await service.post(PATH, {"extent": "recent"}), 202)
    assert (await finished(service, recent["run_id"]))["extent"] == "recent"
    listed = ok(await service.get(PATH, limit=1))
    assert [item["run_id"] for item in listed["items"]] == [recent["run_id"]]
    rest = ok(await service.get(PATH, limit=1, cursor=listed["next_cursor"]))
    assert ([item["run_id"] for item in rest["items"]], rest["next_cursor"]) == ([run["run_id"]], None)


async def test_findings_are_paged_with_their_amounts(service: Caller, owner_engine: AsyncEngine) -> None:
    await service.deposit(BUYER, "5")
    change = "UPDATE accounts SET available_minor = available_minor + 1 WHERE tenant_id = :tenant AND ref = 'alice'"
    await tamper(owner_engine, change, tenant=service.tenant)
    run_id = ok(await service.post(PATH), 202)["run_id"]
    done = await finished(service, run_id)
    assert (done["checked"], done["unexplained"], done["share_explained"]) == (4, 2, "0.500000")
    first = ok(await service.get(f"{PATH}/{run_id}", limit=1))["findings"]
    second = ok(await service.get(f"{PATH}/{run_id}", limit=1, cursor=first["next_cursor"]))["findings"]
    assert second["next_cursor"] is None
    found = {item["subject"]: item for item in [*first["items"], *second["items"]]}
    assert found.keys() == {"account:alice", "asset:USDC"}
    account = found["account:alice"]
    assert (account["code"], account["expected"], account["actual"]) == ("available_differs", "5.000000", "5.000001")
    assert (account["explained"], account["explanation"], account["resolved_at"]) == (False, None, None)


async def test_who_may_and_what_is_refused(service: Caller) -> None:
    bound = await service.key_for(user_id=BUYER)
    for answer in (await bound.post(PATH), await bound.get(PATH), await bound.get(f"{PATH}/{new_id()}")):
        refused(answer, 403, "service_key_required")
    reader = await service.key_for(scopes=(Scope.LEDGER_READ,))
    refused(await reader.post(PATH), 403, "scope_missing")
    refused(await service.get(f"{PATH}/{new_id()}"), 404, "reconciliation_unknown")
    refused(await service.post(PATH, {"extent": "some"}), 422, "input_invalid", "extent")
    refused(await service.get(PATH, cursor="x"), 422, "cursor_invalid", "cursor")
