"""Tenants and API keys. A key is answered once, when it is made; afterwards only its hash is known."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Depends
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from api.auth import SHOWN_CHARACTERS, fresh_key
from api.deps import Call, caller, poster, router
from api.fields import Input, Instant, Line, UserId
from api.idempotency import Answer, Attempt, Configuration, once
from api.pages import DEFAULT_LIMIT, CursorToken, Limit, Page, Pager
from api.problems import documented
from db import identity as db_identity
from db.audit import AuditRecord, Origin, write
from db.engine import enter_tenant
from db.identity import ApiKeyRow, NewKey
from db.ids import new_id
from domain.errors import Refusal
from domain.identity import Scope, check_grant, hash_key
from kit.clock import now

tenant_routes = router("/tenants", "identity")
key_routes = router("/keys", "identity")
ROUTERS = (tenant_routes, key_routes)

#: What the platform's operator alone may do.
OPERATOR_SCOPES = frozenset({Scope.TENANTS_WRITE, Scope.PLATFORM_WRITE})
#: What a tenant's first key may do: everything in its tenant.
FIRST_KEY_SCOPES = tuple(scope for scope in Scope if scope not in OPERATOR_SCOPES)


class NewTenantInput(Input):
    """A desk whose rows no other tenant sees."""

    name: Line


class NewKeyInput(Input):
    """A service key, or a key that is bound to one user and can act only as that user."""

    name: Line
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=len(Scope))]
    user_id: UserId | None = None
    expires_at: Instant | None = None


class KeyView(BaseModel):
    """A key, without the key itself."""

    key_id: UUID
    name: str
    prefix: str = Field(description="The key's first characters, to recognise it by")
    last_four: str
    scopes: list[str]
    user_id: str | None = Field(description="The only user that it can act as; null for a service key")
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    use_count: int = Field(description="Counted in batches, some seconds late")
    last_used_at: datetime | None


class CreatedKeyView(KeyView):
    """A key, with the key itself: keep it, it is not shown again."""

    key: str


class CreatedTenantView(BaseModel):
    """A tenant and its first key, which is not shown again."""

    tenant_id: UUID
    name: str
    created_at: datetime
    api_key: CreatedKeyView


@tenant_routes.post("", status_code=201, response_model=CreatedTenantView, responses=documented(409, 413, 415))
async def create_tenant(body: NewTenantInput, call: Annotated[Call, Depends(poster(Scope.TENANTS_WRITE))]) -> Response:
    """Make a tenant and its first key."""
    call.require_service_key()
    return await once(call, _CreateTenant(call, body), secret=True)


@key_routes.post("", status_code=201, response_model=CreatedKeyView, responses=documented(409, 413, 415))
async def create_key(body: NewKeyInput, call: Annotated[Call, Depends(poster(Scope.KEYS_WRITE))]) -> Response:
    """Make a key of your tenant; it can do nothing that the key which makes it cannot."""
    check_grant(call.principal, body.scopes, body.user_id)
    if body.expires_at is not None and body.expires_at <= now():
        raise Refusal("deadline_not_in_future", "this has passed already", field="expires_at")
    return await once(call, _CreateKey(call, body), secret=True)


@key_routes.get("")
async def list_keys(
    call: Annotated[Call, Depends(caller(Scope.KEYS_WRITE))],
    cursor: CursorToken = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[KeyView]:
    """The keys of your tenant, newest first, revoked ones included."""
    call.require_service_key()
    pager = Pager("keys", {})
    async with call.transaction() as connection:
        rows = await db_identity.list_keys(connection, before=pager.before(cursor), limit=limit + 1)
    rows, next_cursor = pager.page(rows, limit, "key_id")
    return Page(items=[_key_view(row) for row in rows], next_cursor=next_cursor)


@key_routes.delete("/{key_id}", responses=documented(404))
async def revoke_key(key_id: UUID, call: Annotated[Call, Depends(caller(Scope.KEYS_WRITE))]) -> KeyView:
    """Revoke a key; it stops within five seconds. Revoking it again changes nothing."""
    call.require_service_key()
    at = now()
    async with call.transaction() as connection:
        row = await db_identity.revoke_key(connection, key_id, at)
        if row is None:
            raise Refusal("key_unknown", "your tenant has no such key")
        if row.revoked_at == at:
            await _record(call, connection, call.principal.tenant_id, f"key:{key_id}", "key.revoked", {})
    call.services.keys.forget()
    return _key_view(row)


class _CreateKey(Configuration):
    """Writes a key, its audit record and the answer in one commit."""

    def __init__(self, call: Call, body: NewKeyInput) -> None:
        self._call = call
        self._body = body

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> Answer:
        """Everything happens here: it is configuration, and no workflow is behind it."""
        body = self._body
        tenant = self._call.principal.tenant_id
        created = await _store_key(
            connection, tenant, attempt.operation_id, body.name, body.scopes, body.user_id, body.expires_at
        )
        details: dict[str, object] = {"name": body.name, "scopes": created.scopes, "user_id": body.user_id}
        await _record(self._call, connection, tenant, f"key:{attempt.operation_id}", "key.created", details)
        return Answer(201, created)


class _CreateTenant(Configuration):
    """Writes a tenant, its first key, the audit records and the answer in one commit."""

    def __init__(self, call: Call, body: NewTenantInput) -> None:
        self._call = call
        self._body = body

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> Answer:
        """Everything happens here; the transaction visits the new tenant and returns to the caller's."""
        name = self._body.name
        if not await db_identity.create_tenant(connection, new_tenant=attempt.operation_id, name=name):
            raise Refusal("tenant_name_taken", f"there is a tenant {name!r} already", field="name")
        tenant = await db_identity.find_tenant(connection, attempt.operation_id)
        assert tenant is not None
        created = await _store_key(
            connection, attempt.operation_id, new_id(), "first key", FIRST_KEY_SCOPES, None, None
        )
        subject = f"tenant:{attempt.operation_id}"
        await _record(self._call, connection, attempt.operation_id, subject, "tenant.created", {"name": name})
        own = self._call.principal.tenant_id
        await enter_tenant(connection, own)
        await _record(self._call, connection, own, subject, "tenant.created", {"name": name})
        return Answer(
            201,
            CreatedTenantView(
                tenant_id=tenant.tenant_id,
                name=tenant.name,
                created_at=tenant.recorded_at,
                api_key=created,
            ),
        )


async def _store_key(
    connection: AsyncConnection,
    tenant: UUID,
    key_id: UUID,
    name: str,
    scopes: tuple[Scope, ...] | list[Scope],
    user_id: str | None,
    expires_at: datetime | None,
) -> CreatedKeyView:
    key = fresh_key()
    row = await db_identity.create_key(
        connection,
        tenant,
        NewKey(
            key_id=key_id,
            key_hash=hash_key(key),
            prefix=key[:SHOWN_CHARACTERS],
            last_four=key[-4:],
            name=name,
            scopes=sorted({scope.value for scope in scopes}),
            user_id=user_id,
            expires_at=expires_at,
        ),
    )
    return CreatedKeyView(key=key, **_key_view(row).model_dump())


async def _record(
    call: Call, connection: AsyncConnection, tenant: UUID, subject: str, action: str, details: dict[str, object]
) -> None:
    origin = Origin(user_id=call.principal.user_id, key_id=call.principal.key_id, request_id=call.request_id)
    await write(connection, tenant, AuditRecord(subject, action, now(), origin, details))


def _key_view(row: ApiKeyRow) -> KeyView:
    return KeyView(
        key_id=row.key_id,
        name=row.name,
        prefix=row.prefix,
        last_four=row.last_four,
        scopes=row.scopes,
        user_id=row.user_id,
        created_at=row.recorded_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        use_count=row.use_count,
        last_used_at=row.last_used_at,
    )
