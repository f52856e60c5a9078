"""Keys: who gets in, what for, and for how long."""

from __future__ import annotations

from datetime import timedelta

import httpx
import pytest
from starlette.datastructures import Headers

from api.auth import CACHE_SECONDS, Keys, fresh_key
from domain.errors import Refusal
from domain.identity import Scope
from kit.clock import now
from tests.api.caller import ALL_SCOPES, BUYER, Caller, escrow_body, ok, refused


def denied(response: httpx.Response, code: str) -> None:
    refused(response, 401, code)
    assert response.headers["www-authenticate"].startswith("Bearer")


async def test_a_key_comes_in_either_header(service: Caller, nobody: Caller) -> None:
    ok(await service.get("assets"))
    for scheme in ("Bearer", "bearer"):
        ok(await nobody.send("GET", "assets", headers={"Authorization": f"{scheme} {service.key}"}))


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "key_missing"),
        ({"Authorization": "Basic YTpi"}, "key_missing"),
        ({"Authorization": "Bearer "}, "key_missing"),
        ({"X-API-Key": ""}, "key_invalid"),
        ({"X-API-Key": "hf_000000000000000000000000000000000"}, "key_invalid"),
        ({"X-API-Key": "hf_é"}, "key_invalid"),
        ({"X-API-Key": fresh_key()}, "key_invalid"),
    ],
)
async def test_without_a_key_of_ours_nobody_enters(nobody: Caller, headers: dict[str, str], code: str) -> None:
    raw = {name: value.encode("latin-1") for name, value in headers.items()}
    denied(await nobody.send("GET", "assets", headers=raw), code)  # type: ignore[arg-type]
    # Neither does a stranger learn what is wrong with a body.
    denied(await nobody.send("POST", "escrows", b"{", headers=raw), code)  # type: ignore[arg-type]


async def test_every_route_but_the_probes_needs_a_key(nobody: Caller) -> None:
    described = ok(await nobody.send("GET", "/openapi.json"))
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            concrete = path.replace("{escrow_id}", "019a0000-0000-7000-8000-000000000000")
            concrete = concrete.replace("{transaction_id}", "019a0000-0000-7000-8000-000000000000")
            concrete = concrete.replace("{transfer_id}", "019a0000-0000-7000-8000-000000000000")
            response = await nobody.send(method.upper(), concrete)
            if path.startswith("/api/v1/alerts/receipts/"):
                # Vendors have no key: they sign, and what is not signed is refused.
                assert "security" not in operation
                assert response.status_code == 403
            elif path in {"/healthz", "/readyz", "/metrics"}:
                assert "security" not in operation
                assert response.status_code == 200
            else:
                assert operation["security"] == [{"apiKey": []}, {"bearer": []}]
                denied(response, "key_missing")


async def test_scopes_are_needed(service: Caller) -> None:
    reader = await service.key_for(scopes=(Scope.ESCROWS_READ,))
    ok(await reader.get("escrows"))
    refused(await reader.post("escrows", escrow_body()), 403, "scope_missing")
    refused(await reader.get("assets"), 403, "scope_missing")
    refused(await reader.get("keys"), 403, "scope_missing")
    refused(await reader.get("events"), 403, "scope_missing")
    refused(await reader.post("tenants", {"name": "x"}), 403, "scope_missing")
    refused(await reader.post(f"accounts/{BUYER}/deposits", {"asset": "USDC", "amount": "1"}), 403, "scope_missing")


async def test_a_key_is_made_used_and_revoked(service: Caller) -> None:
    response = await service.post("keys", {"name": "shop", "scopes": ["assets:read", "ledger:read"]})
    refused(response, 422, "input_invalid", "scopes.0")
    made = ok(await service.post("keys", {"name": "shop", "scopes": ["ledger:read"]}), 201)
    assert made["key"].startswith(made["prefix"])
    assert made["key"].endswith(made["last_four"])
    shop = Caller(service.app, service.tenant, service.engine, made["key"])
    ok(await shop.get("assets"))
    listed = ok(await service.get("keys"))["items"]
    assert [key["key_id"] for key in listed][:1] == [made["key_id"]]
    assert all("key" not in key for key in listed)
    revoked = ok(await service.send("DELETE", f"keys/{made['key_id']}"))
    assert revoked["revoked_at"] is not None
    denied(await shop.get("assets"), "key_revoked")
    assert ok(await service.send("DELETE", f"keys/{made['key_id']}")) == revoked
    refused(await service.send("DELETE", "keys/019a0000-0000-7000-8000-000000000000"), 404, "key_unknown")


async def test_another_process_forgets_a_revoked_key_in_time(service: Caller) -> None:
    made = ok(await service.post("keys", {"name": "shop", "scopes": ["ledger:read"]}), 201)
    clock = [0.0]
    elsewhere = Keys(service.engine, clock=lambda: clock[0])
    headers = Headers({"X-API-Key": made["key"]})
    await elsewhere.principal(headers)
    ok(await service.send("DELETE", f"keys/{made['key_id']}"))
    clock[0] = CACHE_SECONDS
    with pytest.raises(Refusal, match="key_revoked"):
        await elsewhere.principal(headers)


async def test_a_key_expires(service: Caller) -> None:
    past = (now() - timedelta(seconds=1)).isoformat()
    said = {"name": "brief", "scopes": ["ledger:read"]}
    refused(await service.post("keys", said | {"expires_at": past}), 422, "deadline_not_in_future", "expires_at")
    later = (now() + timedelta(days=1)).isoformat()
    assert ok(await service.post("keys", said | {"expires_at": later}), 201)["expires_at"] is not None
    expired = await service.key_for(expires_at=now() - timedelta(seconds=1))
    denied(await expired.get("assets"), "key_expired")


async def test_a_key_grants_no_more_than_it_has(service: Caller) -> None:
    granter = await service.key_for(scopes=(Scope.KEYS_WRITE, Scope.LEDGER_READ))
    refused(await granter.post("keys", {"name": "x", "scopes": ["escrows:read"]}), 403, "scope_not_grantable", "scopes")
    refused(await granter.post("keys", {"name": "x", "scopes": []}), 422, "input_invalid", "scopes")
    bound = await service.key_for(user_id=BUYER)
    refused(await bound.post("keys", {"name": "x", "scopes": ["escrows:read"]}), 403, "user_key_cannot_grant")
    refused(await bound.get("keys"), 403, "service_key_required")
    refused(await bound.post("tenants", {"name": "x"}), 403, "service_key_required")
    refused(
        await service.post("keys", {"name": "x", "scopes": ["escrows:read"], "user_id": "system:x"}),
        422,
        "user_id_invalid",
        "user_id",
    )
    made = ok(await granter.post("keys", {"name": "x", "scopes": ["ledger:read"], "user_id": BUYER}), 201)
    assert (made["user_id"], made["scopes"]) == (BUYER, ["ledger:read"])


async def test_a_tenant_and_its_first_key(service: Caller) -> None:
    name = f"desk-{service.tenant}"
    made = ok(await service.post("tenants", {"name": name}, key="k"), 201)
    refused(await service.post("tenants", {"name": name}), 409, "tenant_name_taken", "name")
    assert ok(await service.post("tenants", {"name": name}, key="k"), 201) == made
    desk = Caller(service.app, made["tenant_id"], service.engine, made["api_key"]["key"])
    assert set(made["api_key"]["scopes"]) == {str(scope) for scope in ALL_SCOPES} - {"tenants:write", "platform:write"}
    escrow = await desk.open()
    refused(await service.get(f"escrows/{escrow['escrow_id']}"), 404, "escrow_unknown")
    assert len(ok(await desk.get("keys"))["items"]) == 1
    refused(await desk.post("tenants", {"name": "another"}), 403, "scope_missing")


async def test_uses_are_counted(service: Caller) -> None:
    keys: Keys = service.app.state.services.keys
    for _ in range(3):
        ok(await service.get("assets"))
    await keys.flush()
    (listed,) = ok(await service.get("keys"))["items"]
    assert listed["use_count"] in {3, 4}, "the request that asks may be among them"
    assert listed["last_used_at"] is not None
