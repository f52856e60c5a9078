"""What a tenant decides about margin, and what assets count for, which the platform decides. One commit each."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Query
from sqlalchemy.ext.asyncio import AsyncConnection
from starlette.responses import Response

from api.deps import Call, caller, poster, router
from api.fields import Instant
from api.idempotency import Answer, Attempt, Configuration, once
from api.margin.models import (
    AssetSharesInput,
    EscrowCollateral,
    ParametersInput,
    ParametersView,
    SettingsInput,
    SettingsView,
)
from api.margin.views import parameters_view, parse_ratio
from api.problems import documented
from db import audit
from db.audit import AuditRecord, Origin
from db.ids import new_id
from db.margin import escrows, parameters
from db.outbox import MARGIN_TOPIC, OutboxEvent
from db.step import Left, leave
from domain.errors import Refusal
from domain.identity import Scope
from domain.margin.market import check_effective_from, check_parameters
from domain.margin.model import Parameters
from kit.clock import now

routes = router("/margin", "margin")


@routes.get("/settings")
async def read_settings(call: Annotated[Call, Depends(caller(Scope.MARGIN_READ))]) -> SettingsView:
    """What the tenant decided about margin."""
    async with call.transaction() as connection:
        found = await escrows.setting(connection, call.principal.tenant_id)
    return SettingsView(escrow_collateral=EscrowCollateral(found))


@routes.put("/settings", responses=documented(413, 415))
async def set_settings(body: SettingsInput, call: Annotated[Call, Depends(caller(Scope.MARGIN_WRITE))]) -> SettingsView:
    """Decide whose collateral the money in funded escrows is; accounts of parties to open escrows are looked at for it.
    Service keys only."""
    call.require_service_key()
    tenant_id = call.principal.tenant_id
    async with call.transaction() as connection:
        before = await escrows.setting(connection, tenant_id)
        if before != body.escrow_collateral:
            await escrows.set_setting(connection, tenant_id, body.escrow_collateral)
            facts = {"escrow_collateral": {"before": before, "after": body.escrow_collateral}}
            record = _record(call, "margin:settings", "margin.settings_set", facts)
            event = OutboxEvent(new_id(), MARGIN_TOPIC, record.action, record.subject, record.at, facts)
            await leave(connection, tenant_id, [Left(f"margin:settings:{event.event_id}", {}, record, [event])])
    return SettingsView(escrow_collateral=body.escrow_collateral)


@routes.get("/parameters")
async def read_parameters(
    call: Annotated[Call, Depends(caller(Scope.MARGIN_READ))],
    at: Annotated[Instant | None, Query(description="The version in force then; by default now")] = None,
) -> ParametersView:
    """What assets count for, and from which health factors on users are told."""
    async with call.transaction() as connection:
        return parameters_view(await parameters.in_force(connection, at or now()))


@routes.post("/parameters", status_code=201, response_model=ParametersView, responses=documented(409, 413, 415))
async def add_parameters(
    body: ParametersInput, call: Annotated[Call, Depends(poster(Scope.PLATFORM_WRITE))]
) -> Response:
    """Set what assets count for, for every tenant, from now or later on: a new version, the whole set. Versions are
    never changed, and each snapshot names its own. Service keys only."""
    call.require_service_key()
    return await once(call, _Version(call, body))


class _Version(Configuration):
    """A new version of the parameters."""

    def __init__(self, call: Call, body: ParametersInput) -> None:
        self._call = call
        self._body = body

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> Answer:  # noqa: ARG002 - the protocol's
        """Everything happens here."""
        call, body, at = self._call, self._body, now()
        known = await call.services.assets.all(connection)
        for symbol in body.assets:
            if symbol not in known:
                message = f"there is no asset {symbol!r}; see GET /api/v1/assets"
                raise Refusal("asset_unknown", message, field=f"assets.{symbol}")
        assets = {symbol: _parameters(symbol, said) for symbol, said in body.assets.items()}
        check_parameters(assets)
        effective_from = body.effective_from or at
        check_effective_from(effective_from, at)
        version = await parameters.add(connection, effective_from=effective_from, note=body.note, assets=assets)
        view = parameters_view(await parameters.get(connection, version))
        facts = view.model_dump(mode="json")
        record = _record(call, f"margin:parameters:{version}", "margin.parameters_set", facts)
        await audit.write(connection, call.principal.tenant_id, record)
        return Answer(201, view)


def _record(call: Call, subject: str, action: str, facts: dict[str, Any]) -> AuditRecord:
    origin = Origin(key_id=call.principal.key_id, request_id=call.request_id)
    return AuditRecord(subject, action, now(), origin, facts)


def _parameters(symbol: str, said: AssetSharesInput) -> Parameters:
    def bps(name: str) -> int:
        return parse_ratio(getattr(said, name), f"assets.{symbol}.{name}")

    return Parameters(
        ltv_bps=bps("ltv"),
        liquidation_threshold_bps=bps("liquidation_threshold"),
        liquidation_bonus_bps=bps("liquidation_bonus"),
        borrow_rate_bps=bps("borrow_rate"),
    )
