"""What an operator stops and bounds: freezes, and the limits of accounts. Both are configuration: one commit each."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Path, Query
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from api.deps import Call, caller, poster, router
from api.fields import Amount, DecimalText, Input, Line, Prose, Symbol, UserId
from api.idempotency import Answer, Attempt, Configuration, once
from api.ledger.routes import own_account
from api.pages import DEFAULT_LIMIT, CursorToken, Limit, Page, Pager
from api.problems import documented
from db import controls as db_controls
from db.audit import AuditRecord, Origin
from db.controls import AccountLimits, FreezeFilter, FreezeRecord
from db.ids import new_id
from db.outbox import SETTLEMENT_TOPIC, OutboxEvent
from db.step import Left, leave
from domain.controls import Freeze, FreezeScope, check_free, check_lift, check_limits, check_subject
from domain.errors import Refusal
from domain.identity import Scope
from domain.ledger import check_account_ref
from domain.money import format_minor, parse_minor
from kit.clock import now

freeze_routes = router("/freezes", "controls")
limit_routes = router("/accounts", "controls")
ROUTERS = (freeze_routes, limit_routes)

AccountRef = Annotated[Line, Path(description="A user's id", examples=["alice"])]
MaybeDecimal = Annotated[DecimalText | None, Field(description="Null is no limit")]


class FreezeInput(Input):
    """What is stopped, and why."""

    scope: FreezeScope
    ref: Line | None = Field(
        default=None, description="The account's ref or the asset's symbol; for the whole tenant leave it out"
    )
    reason: Prose
    actor: UserId | None = Field(default=None, description="The operator, as the audit log names them")


class LiftInput(Input):
    """Why a freeze is lifted."""

    reason: Prose
    actor: UserId | None = Field(default=None, description="The operator, as the audit log names them")


class FreezeView(BaseModel):
    """A freeze: while it is active, nothing moves that it names."""

    freeze_id: UUID
    scope: FreezeScope
    ref: str | None
    active: bool
    reason: str
    frozen_at: datetime
    frozen_by: str | None
    lift_reason: str | None
    lifted_at: datetime | None
    lifted_by: str | None


class LimitsInput(Input):
    """The limits of an account in one asset, all three; one that is left out or null is none."""

    asset: Symbol
    min_available: Amount | None = Field(default=None, description="A debit leaves this much available")
    max_balance: Amount | None = Field(
        default=None, description="A credit brings what is available and held together to this at most"
    )
    max_debit: Amount | None = Field(default=None, description="One posting takes at most this from what is available")
    actor: UserId | None = Field(default=None, description="The operator, as the audit log names them")


class LimitsView(BaseModel):
    """The limits of an account in one asset."""

    account: str
    asset: str
    min_available: MaybeDecimal
    max_balance: MaybeDecimal
    max_debit: MaybeDecimal


class LimitsList(BaseModel):
    """The limits of an account, for each asset in which it has any."""

    account: str
    items: list[LimitsView]


@freeze_routes.post("", status_code=201, response_model=FreezeView, responses=documented(409, 413, 415))
async def freeze(body: FreezeInput, call: Annotated[Call, Depends(poster(Scope.CONTROLS_WRITE))]) -> Response:
    """Stop an account, an asset or the whole tenant: after the answer, no movement of it commits. Service keys only.

    Requests for it are refused with `account_frozen`, `asset_frozen` or `tenant_frozen`. What the clock would do, as a
    deadline or an expiry, waits and happens after the lift.
    """
    call.require_service_key()
    return await once(call, _Placing(call, body))


@freeze_routes.post("/{freeze_id}/lift", response_model=FreezeView, responses=documented(404, 409, 413, 415))
async def lift_freeze(
    freeze_id: UUID, body: LiftInput, call: Annotated[Call, Depends(poster(Scope.CONTROLS_WRITE))]
) -> Response:
    """Let what the freeze stopped move again. Service keys only."""
    call.require_service_key()
    return await once(call, _Lifting(call, freeze_id, body))


@freeze_routes.get("")
async def list_freezes(
    call: Annotated[Call, Depends(caller(Scope.CONTROLS_WRITE))],
    active: Annotated[bool | None, Query()] = None,
    scope: Annotated[FreezeScope | None, Query()] = None,
    ref: Annotated[Line | None, Query()] = None,
    cursor: CursorToken = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[FreezeView]:
    """Freezes: those that stand first, then the newest. Service keys only."""
    call.require_service_key()
    wanted = FreezeFilter(active=active, scope=scope, ref=ref)
    pager = Pager("freezes", asdict(wanted))
    before = _before(pager.position(cursor))
    async with call.transaction() as connection:
        rows = await db_controls.list_(connection, wanted, before=before, limit=limit + 1)
    rows, next_cursor = pager.page(rows, limit, "position")
    return Page(items=[_freeze_view(row) for row in rows], next_cursor=next_cursor)


@freeze_routes.get("/{freeze_id}", responses=documented(404))
async def read_freeze(freeze_id: UUID, call: Annotated[Call, Depends(caller(Scope.CONTROLS_WRITE))]) -> FreezeView:
    """One freeze. Service keys only."""
    call.require_service_key()
    async with call.transaction() as connection:
        return _freeze_view(await _get(connection, freeze_id))


@limit_routes.put("/{ref:path}/limits", responses=documented(413, 415))
async def set_limits(
    ref: AccountRef, body: LimitsInput, call: Annotated[Call, Depends(caller(Scope.CONTROLS_WRITE))]
) -> LimitsView:
    """Replace the limits of an account, which need not exist yet. Service keys only.

    They bind deposits, withdrawals, transfers and the funding of escrows. What ends something that is under way is
    never held up by a limit.
    """
    call.require_service_key()
    check_account_ref(ref, field="ref")
    tenant_id = call.principal.tenant_id
    async with call.transaction() as connection:
        asset = await call.services.assets.get(connection, body.asset)

        def minor(amount: str | None, name: str) -> int | None:
            return None if amount is None else parse_minor(amount, asset.scale, field=name)

        wanted = AccountLimits(
            asset,
            minor(body.min_available, "min_available"),
            minor(body.max_balance, "max_balance"),
            minor(body.max_debit, "max_debit"),
        )
        check_limits(wanted.min_available_minor, wanted.max_balance_minor)
        before = await db_controls.lock_limits(connection, tenant_id, ref, asset)
        after = _limits_view(ref, wanted)
        if before != wanted:
            await db_controls.set_limits(connection, ref, wanted)
            facts = after.model_dump(mode="json") | {"before": _limits_view(ref, before).model_dump(mode="json")}
            origin = _origin(call, body.actor)
            record = AuditRecord(f"account:{ref}", "account.limits_set", now(), origin, facts)
            await _told(connection, tenant_id, new_id(), record)
    return after


@limit_routes.get("/{ref:path}/limits")
async def read_limits(ref: AccountRef, call: Annotated[Call, Depends(caller(Scope.LEDGER_READ))]) -> LimitsList:
    """The limits of an account; a key that is bound to a user sees those of its own."""
    account = own_account(call, ref)
    async with call.transaction() as connection:
        found = await db_controls.list_limits(connection, account)
    return LimitsList(account=account, items=[_limits_view(account, limits) for limits in found])


class _Placing(Configuration):
    """Puts a freeze. Movements that are under way are waited for, later ones see it."""

    def __init__(self, call: Call, body: FreezeInput) -> None:
        self._call = call
        self._body = body

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> Answer:
        """Everything happens here."""
        call, body = self._call, self._body
        check_subject(body.scope, body.ref)
        if body.scope is FreezeScope.ASSET and body.ref not in await call.services.assets.all(connection):
            raise Refusal("asset_unknown", "there is no such asset; see GET /api/v1/assets", field="ref")
        tenant_id = call.principal.tenant_id
        await db_controls.halt(connection, tenant_id)
        check_free(await db_controls.find_active(connection, body.scope, body.ref))
        placed = Freeze(attempt.operation_id, body.scope, body.ref, body.reason, frozen_at=now())
        await db_controls.place(connection, tenant_id, placed)
        record = _freeze_record(call, placed, "freeze.placed", placed.frozen_at, body)
        await _told(connection, tenant_id, attempt.operation_id, record)
        view = _freeze_view(await _get(connection, placed.freeze_id))
        return Answer(201, view, {"Location": f"/api/v1/freezes/{placed.freeze_id}"})


class _Lifting(Configuration):
    """Lifts a freeze."""

    def __init__(self, call: Call, freeze_id: UUID, body: LiftInput) -> None:
        self._call = call
        self._freeze_id = freeze_id
        self._body = body

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> Answer:
        """Everything happens here."""
        call, body, at = self._call, self._body, now()
        tenant_id = call.principal.tenant_id
        await db_controls.halt(connection, tenant_id)
        standing = (await _get(connection, self._freeze_id)).freeze
        check_lift(standing)
        await db_controls.lift(connection, self._freeze_id, reason=body.reason, at=at)
        record = _freeze_record(call, standing, "freeze.lifted", at, body)
        await _told(connection, tenant_id, attempt.operation_id, record)
        return Answer(200, _freeze_view(await _get(connection, self._freeze_id)))


async def _get(connection: AsyncConnection, freeze_id: UUID) -> FreezeRecord:
    found = await db_controls.find(connection, freeze_id)
    if found is None:
        raise Refusal("freeze_unknown", "there is no such freeze")
    return found


async def _told(connection: AsyncConnection, tenant_id: UUID, operation_id: UUID, record: AuditRecord) -> None:
    """Leave the audit record and the event of what an operator set, in the commit that sets it."""
    event = OutboxEvent(new_id(), SETTLEMENT_TOPIC, record.action, record.subject, record.at, record.details)
    left = Left(f"{record.subject}:{record.action}:{operation_id}", {}, record, [event])
    await leave(connection, tenant_id, [left])


def _freeze_record(call: Call, freeze: Freeze, action: str, at: datetime, body: FreezeInput | LiftInput) -> AuditRecord:
    facts = {"freeze_id": str(freeze.freeze_id), "scope": freeze.scope, "ref": freeze.ref, "reason": body.reason}
    return AuditRecord(f"freeze:{freeze.freeze_id}", action, at, _origin(call, body.actor), facts)


def _origin(call: Call, actor: str | None) -> Origin:
    return Origin(user_id=actor, key_id=call.principal.key_id, request_id=call.request_id)


def _before(position: str | None) -> tuple[bool, UUID] | None:
    """The position that a cursor holds; its checksum says that it is one of ours."""
    if position is None:
        return None
    active, _, freeze_id = position.partition(":")
    return active == "1", UUID(freeze_id)


def _freeze_view(record: FreezeRecord) -> FreezeView:
    freeze = record.freeze
    return FreezeView(
        freeze_id=freeze.freeze_id,
        scope=freeze.scope,
        ref=freeze.ref,
        active=freeze.active,
        reason=freeze.reason,
        frozen_at=freeze.frozen_at,
        frozen_by=record.frozen_by,
        lift_reason=freeze.lift_reason,
        lifted_at=freeze.lifted_at,
        lifted_by=record.lifted_by,
    )


def _limits_view(account: str, limits: AccountLimits) -> LimitsView:
    def text(minor: int | None) -> str | None:
        return None if minor is None else format_minor(minor, limits.asset.scale)

    return LimitsView(
        account=account,
        asset=limits.asset.symbol,
        min_available=text(limits.min_available_minor),
        max_balance=text(limits.max_balance_minor),
        max_debit=text(limits.max_debit_minor),
    )
