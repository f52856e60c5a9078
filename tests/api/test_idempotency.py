"""``Idempotency-Key``: one request, one effect, one answer."""

from __future__ import annotations

import asyncio
import json
from hashlib import sha256
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.requests import Request
from temporalio.testing import ActivityEnvironment

from activities.escrow.messages import ApplyCommand
from activities.escrow.steps import EscrowActivities
from api.bodies import canonical
from api.deps import Call
from api.idempotency import Answer, Attempt, Configuration, once
from db import idempotency as db_idempotency
from db.doorbell import Doorbell
from db.engine import tenant_transaction
from db.ids import new_id
from domain.identity import Principal, Scope
from kit.clock import now
from tests.api.caller import BUYER, SELLER, Caller, escrow_body, ok, refused
from workflows.escrow import CancelMessage, OriginMessage


async def begin(caller: Caller, path: str, body: Any, *, key: str, lease_seconds: int) -> Any:
    """What a request leaves that died before it was answered; its lease may have lapsed already."""
    fingerprint = sha256(b"\n".join([b"POST", f"/api/v1/{path}".encode(), canonical(body)])).digest()
    async with tenant_transaction(caller.engine, caller.tenant) as connection:
        begun = await db_idempotency.begin(
            connection,
            tenant=caller.tenant,
            caller="",
            key=key,
            fingerprint=fingerprint,
            operation_id=new_id(),
            lease_seconds=lease_seconds,
        )
    return begun.operation_id


async def test_the_same_request_gets_the_same_bytes(service: Caller) -> None:
    first = await service.post("escrows", escrow_body(), key="k1")
    again = await service.post("escrows", escrow_body(), key="k1")
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["location"] == first.headers["location"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert len(ok(await service.get("escrows"))["items"]) == 1


async def test_an_answer_is_kept_though_the_world_went_on(service: Caller) -> None:
    await service.deposit(BUYER, "100")
    escrow = await service.open()
    path = f"escrows/{escrow['escrow_id']}"
    first = await service.post(f"{path}/fund", {"actor": BUYER}, key="fund")
    await service.command(escrow["escrow_id"], "refund", SELLER)
    again = await service.post(f"{path}/fund", {"actor": BUYER}, key="fund")
    assert (again.status_code, again.content) == (200, first.content)
    assert await service.balance(BUYER) == ("100.000000", "0.000000")


async def test_spacing_does_not_make_another_request(service: Caller) -> None:
    first = await service.post(f"accounts/{BUYER}/deposits", b'{"asset":"USDC","amount":1.50}', key="k")
    again = await service.post(f"accounts/{BUYER}/deposits", b'{ "amount": 1.50, "asset": "USDC" }', key="k")
    assert again.content == first.content
    assert await service.balance(BUYER) == ("1.500000", "0.000000")


async def test_another_body_or_path_under_the_key_is_refused(service: Caller) -> None:
    ok(await service.post(f"accounts/{BUYER}/deposits", {"asset": "USDC", "amount": "1"}, key="k"), 201)
    for path, amount in ((BUYER, "2"), (SELLER, "1")):
        other = await service.post(f"accounts/{path}/deposits", {"asset": "USDC", "amount": amount}, key="k")
        refused(other, 422, "idempotency_key_reused", "Idempotency-Key")
    assert await service.balance(BUYER) == ("1.000000", "0.000000")
    assert await service.balance(SELLER) == ("0.000000", "0.000000")


async def test_a_refusal_is_an_answer_too(service: Caller) -> None:
    escrow = await service.open()
    path = f"escrows/{escrow['escrow_id']}/fund"
    first = await service.post(path, {"actor": BUYER}, key="k")
    refused(first, 409, "insufficient_funds")
    await service.deposit(BUYER, "100")
    again = await service.post(path, {"actor": BUYER}, key="k")
    assert (again.status_code, again.content) == (409, first.content)
    assert again.headers["content-type"] == "application/problem+json"
    ok(await service.post(path, {"actor": BUYER}, key="another"))


async def test_racers_have_one_effect(service: Caller) -> None:
    said = {"asset": "USDC", "amount": "3"}
    answers = await asyncio.gather(*(service.post(f"accounts/{BUYER}/deposits", said, key="race") for _ in range(8)))
    done = [answer for answer in answers if answer.status_code == 201]
    for answer in answers:
        if answer not in done:
            refused(answer, 409, "idempotency_key_in_flight", "Idempotency-Key")
    assert len({answer.content for answer in done}) == 1
    assert await service.balance(BUYER) == ("3.000000", "0.000000")


async def test_a_request_in_flight_is_not_done_again(service: Caller) -> None:
    await begin(service, "escrows", escrow_body(), key="k", lease_seconds=600)
    refused(await service.post("escrows", escrow_body(), key="k"), 409, "idempotency_key_in_flight")
    refused(await service.post("escrows", escrow_body(amount="2"), key="k"), 422, "idempotency_key_reused")
    assert ok(await service.get("escrows"))["items"] == []


async def test_a_request_that_died_before_its_effect_is_done_under_its_name(service: Caller) -> None:
    operation_id = await begin(service, "escrows", escrow_body(), key="k", lease_seconds=-1)
    escrow = ok(await service.post("escrows", escrow_body(), key="k"), 201)
    assert escrow["escrow_id"] == str(operation_id)


async def test_a_request_that_died_after_its_effect_meets_it(service: Caller) -> None:
    """Opening, moving money, and a command that ended its escrow: none happens twice."""
    first = await service.post("escrows", escrow_body(), key="k")
    deposit = {"asset": "USDC", "amount": "100"}
    await service.post(f"accounts/{BUYER}/deposits", deposit, key="d")
    path = f"escrows/{first.json()['escrow_id']}"
    funded = await service.post(f"{path}/fund", {"actor": BUYER}, key="f")
    refunded = await service.post(f"{path}/refund", {"actor": SELLER}, key="r")
    assert refunded.json()["status"] == "refunded"
    await unanswer(service)
    assert ok(await service.post("escrows", escrow_body(), key="k"), 201)["escrow_id"] == first.json()["escrow_id"]
    ok(await service.post(f"accounts/{BUYER}/deposits", deposit, key="d"), 201)
    assert ok(await service.post(f"{path}/fund", {"actor": BUYER}, key="f"))["version"] == 3
    assert ok(await service.post(f"{path}/refund", {"actor": SELLER}, key="r")) == refunded.json()
    assert funded.json()["version"] == 2
    assert await service.balance(BUYER) == ("100.000000", "0.000000")
    assert len(ok(await service.get("ledger/transactions"))["items"]) == 3


async def test_a_command_that_its_workflow_never_heard_of_is_brought_to_its_notice(service: Caller) -> None:
    """Its step was committed, and then the server forgot the update."""
    escrow_id = UUID((await service.open())["escrow_id"])
    path = f"escrows/{escrow_id}/cancel"
    operation_id = await begin(service, path, {"actor": BUYER}, key="k", lease_seconds=-1)
    cancel = ApplyCommand(
        tenant_id=service.tenant,
        escrow_id=escrow_id,
        step=str(operation_id),
        command=CancelMessage(),
        origin=OriginMessage(user_id=BUYER),
        at=now(),
    )
    await ActivityEnvironment().run(EscrowActivities(service.engine, Doorbell(service.engine)).apply, cancel)
    assert ok(await service.post(path, {"actor": BUYER}, key="k"))["status"] == "cancelled"
    handle = service.app.state.services.temporal.get_workflow_handle(f"escrow:{escrow_id}")
    async with asyncio.timeout(20):
        assert (await handle.result())["status"] == "cancelled"


async def unanswer(caller: Caller) -> None:
    """Take the tenant's stored answers away, as if each request had died right before it was answered."""
    async with tenant_transaction(caller.engine, caller.tenant) as connection:
        await connection.execute(
            db_idempotency.idempotency_keys.update().values(
                status=None, headers=None, body=None, locked_until=db_idempotency.idempotency_keys.c.recorded_at
            )
        )


class _Told(BaseModel):
    by: str


class _Overtaken(Configuration):
    """A request that is so slow that it is taken for dead; who takes it over is answered before it."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._operation_id: UUID | None = None

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> None:
        self._operation_id = attempt.operation_id

    async def perform(self) -> None:
        assert self._operation_id is not None
        async with self._call.transaction() as connection:
            await db_idempotency.finish(
                connection,
                tenant=self._call.principal.tenant_id,
                caller="",
                key="k",
                operation_id=self._operation_id,
                response=Answer(201, _Told(by="the one that took over")).render(),
            )

    async def answer(self, connection: AsyncConnection) -> Answer:
        return Answer(201, _Told(by="the slow one"))


async def test_a_request_and_the_one_that_took_it_over_tell_the_same(service: Caller) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"{}"}

    scope = {"type": "http", "method": "POST", "path": "/x", "headers": [], "app": service.app, "state": {}}
    principal = Principal(tenant_id=service.tenant, key_id=new_id(), scopes=frozenset())
    call = Call(Request(scope, receive), principal, service.app.state.services, "k")
    answer = await once(call, _Overtaken(call))
    assert json.loads(bytes(answer.body)) == {"by": "the one that took over"}


async def test_keys_of_different_users_do_not_meet(service: Caller) -> None:
    alice, bob = await service.key_for(user_id=BUYER), await service.key_for(user_id=SELLER)
    answers = [await caller.post("escrows", escrow_body(), key="1") for caller in (service, alice, bob)]
    assert len({ok(answer, 201)["escrow_id"] for answer in answers}) == 3


async def test_a_new_key_is_replayed_but_not_stored(service: Caller) -> None:
    said = {"name": "mine", "scopes": ["escrows:read"]}
    first = await service.post("keys", said, key="k")
    again = await service.post("keys", said, key="k")
    assert (again.status_code, again.content) == (201, first.content)
    secret = first.json()["key"].encode()
    async with tenant_transaction(service.engine, service.tenant) as connection:
        rows = (await connection.execute(db_idempotency.idempotency_keys.select())).all()
    assert [row.key for row in rows] == ["k"]
    assert secret not in bytes(rows[0].body)
    other = await service.key_for(scopes=(Scope.KEYS_WRITE, Scope.ESCROWS_READ))
    refused(await other.post("keys", said, key="k"), 422, "idempotency_key_reused")
    assert len(ok(await service.get("keys"))["items"]) == 3


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\tbed"])
async def test_what_is_no_key_is_refused(service: Caller, key: str) -> None:
    response = await service.post("escrows", escrow_body(), key=key)
    refused(response, 422, "input_invalid", "Idempotency-Key")


async def test_longest_key(service: Caller) -> None:
    ok(await service.post("escrows", escrow_body(), key=" ~" * 127 + "x"), 201)
