"""A caller of the API, as tests use it: one key, and the answers of a real application."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import httpx
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine

from api.auth import fresh_key
from db.engine import tenant_transaction
from db.identity import NewKey, create_key
from db.ids import new_id
from domain.identity import Scope, hash_key

ALL_SCOPES = tuple(Scope)
BUYER, SELLER, ARBITER = "alice", "bob", "judy"


class Caller:
    """Speaks with one key. Paths are below ``/api/v1``; bodies are Python values or raw bytes."""

    def __init__(self, app: FastAPI, tenant: UUID, engine: AsyncEngine, key: str | None) -> None:
        self.app = app
        self.tenant = tenant
        self.engine = engine
        self.key = key

    async def key_for(
        self,
        *,
        scopes: tuple[Scope, ...] = ALL_SCOPES,
        user_id: str | None = None,
        expires_at: datetime | None = None,
    ) -> Caller:
        """Another caller of the same tenant, with a key of its own."""
        key = fresh_key()
        new = NewKey(
            new_id(), hash_key(key), key[:8], key[-4:], "test", [str(scope) for scope in scopes], user_id, expires_at
        )
        async with tenant_transaction(self.engine, self.tenant) as connection:
            await create_key(connection, self.tenant, new)
        return Caller(self.app, self.tenant, self.engine, key)

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        headers: dict[str, str] | None = None,
        **query: Any,
    ) -> httpx.Response:
        """Send one request; ``key`` is its idempotency key."""
        given = dict(headers or {})
        if self.key is not None:
            given.setdefault("X-API-Key", self.key)
        if key is not None:
            given["Idempotency-Key"] = key
        how: dict[str, Any] = {"headers": given, "params": query or None}
        if isinstance(body, bytes):
            how["content"] = body
            given.setdefault("Content-Type", "application/json")
        elif body is not None:
            how["json"] = body
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://api.test", timeout=60) as client:
            url = path if path.startswith("/") else f"/api/v1/{path}"
            return await client.request(method, url, **how)

    async def get(self, path: str, **query: Any) -> httpx.Response:
        """GET."""
        return await self.send("GET", path, **query)

    async def post(self, path: str, body: Any = None, **how: Any) -> httpx.Response:
        """POST."""
        return await self.send("POST", path, body, **how)

    async def deposit(self, user: str, amount: str, asset: str = "USDC") -> dict[str, Any]:
        """Bring money in."""
        made: dict[str, Any] = ok(await self.post(f"accounts/{user}/deposits", {"asset": asset, "amount": amount}), 201)
        return made

    async def open(self, **changes: Any) -> dict[str, Any]:
        """Open an escrow between alice and bob."""
        made: dict[str, Any] = ok(await self.post("escrows", escrow_body(**changes)), 201)
        return made

    async def command(self, escrow_id: str, name: str, actor: str, **said: Any) -> dict[str, Any]:
        """Have ``actor`` give a command that goes well."""
        after: dict[str, Any] = ok(await self.post(f"escrows/{escrow_id}/{name}", {"actor": actor, **said}))
        return after

    async def balance(self, user: str, asset: str = "USDC") -> tuple[str, str]:
        """What a user has: available and held."""
        (entry,) = ok(await self.get(f"accounts/{user}/balances", asset=asset))["items"]
        return entry["available"], entry["held"]


def escrow_body(**changes: Any) -> dict[str, Any]:
    """A request for an escrow between alice and bob; None removes a field."""
    fields = {"asset": "USDC", "buyer": {"user_id": BUYER}, "seller": {"user_id": SELLER}, "amount": "100"}
    return {name: value for name, value in (fields | changes).items() if value is not None}


def ok(response: httpx.Response, status: int = 200) -> Any:
    """The body of an answer that went well."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    return response.json()


def refused(response: httpx.Response, status: int, code: str, field: str | None = None) -> dict[str, Any]:
    """The problem that an answer is; ``field`` must be among the inputs at fault."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    problem: dict[str, Any] = response.json()
    assert (response.status_code, problem["status"], problem["code"]) == (status, status, code), response.text
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["type"] == f"urn:holdfast:problem:{code}"
    if field is not None:
        assert field in {fault["field"] for fault in problem["errors"]}, response.text
    return problem
