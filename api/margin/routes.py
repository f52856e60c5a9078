"""Margin accounts: their health now and before, what their users were told, and what would be."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import Depends, Path, Query
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.responses import Response

from api.deps import Call, caller, poster, router
from api.fields import Instant, Line
from api.idempotency import once
from api.ledger.routes import own_account
from api.margin.checks import Check, with_events
from api.margin.models import (
    AccountInput,
    AccountView,
    HealthInput,
    HealthView,
    MarginEventView,
    SimulationInput,
    SimulationView,
)
from api.margin.simulation import simulate as simulated
from api.margin.views import account_view, event_view, health_view
from api.pages import DEFAULT_LIMIT, CursorToken, Limit, Page, Pager
from api.problems import documented
from db.margin import accounts, reports
from db.margin.reports import EventFilter
from domain.errors import Refusal
from domain.identity import Scope
from domain.margin.model import Severity
from domain.margin.telling import EventType


class _UserName(PathConvertor):
    """A user's id at the end of a path: not with the name of what is read of the account behind it."""

    regex = ".*(?<!/risk)"


register_url_convertor("margin_user", _UserName())

routes = router("/margin", "margin")

UserPath = Annotated[Line, Path(description="The user whose account it is", examples=["alice"])]


@routes.post("/health", response_model=HealthView, responses=documented(404, 409, 413, 415))
async def check_health(body: HealthInput, call: Annotated[Call, Depends(poster(Scope.MARGIN_WRITE))]) -> Response:
    """Compute the health of an account now, and keep it as a snapshot; its user is told where that is due.

    Positions that come along become the account's, which is opened where there is none, and the book follows them from
    then on. A key that is bound to a user checks that user's account.
    """
    user = own_account(call, body.user_id)
    return await once(call, Check(call, user, body))


@routes.post("/simulate", responses=documented(404, 409, 413, 415))
async def simulate(body: SimulationInput, call: Annotated[Call, Depends(poster(Scope.MARGIN_READ))]) -> SimulationView:
    """What a check would find with other positions, other prices, or both. Nothing is written, nobody is told."""
    if body.user_id is not None:
        own_account(call, body.user_id)
    async with call.transaction() as connection:
        return await simulated(call, connection, body)


@routes.get("/events")
async def list_margin_events(
    call: Annotated[Call, Depends(caller(Scope.MARGIN_READ))],
    user_id: Annotated[Line | None, Query()] = None,
    event_type: Annotated[EventType | None, Query()] = None,
    severity: Annotated[Severity | None, Query()] = None,
    published: Annotated[bool | None, Query(description="Whether it has left")] = None,
    created_from: Annotated[Instant | None, Query(description="Raised then or later")] = None,
    created_to: Annotated[Instant | None, Query(description="Raised before")] = None,
    cursor: CursorToken = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[MarginEventView]:
    """What users were told, the newest first. A key that is bound to a user sees its own."""
    wanted = EventFilter(
        user=call.own_user(user_id, field="user_id"),
        event_type=event_type,
        severity=severity,
        published=published,
        created_from=created_from,
        created_to=created_to,
    )
    pager = Pager("margin events", asdict(wanted))
    async with call.transaction() as connection:
        rows = await reports.list_events(connection, wanted, before=pager.before(cursor), limit=limit + 1)
    rows, next_cursor = pager.page(rows, limit, "event_id")
    return Page(items=[event_view(row) for row in rows], next_cursor=next_cursor)


@routes.get("/health/{user_id:path}/history", responses=documented(404))
async def list_health(
    user_id: UserPath,
    call: Annotated[Call, Depends(caller(Scope.MARGIN_READ))],
    calculated_from: Annotated[Instant | None, Query(alias="from", description="Calculated then or later")] = None,
    calculated_to: Annotated[Instant | None, Query(alias="to", description="Calculated before")] = None,
    cursor: CursorToken = None,
    limit: Limit = DEFAULT_LIMIT,
) -> Page[HealthView]:
    """The snapshots of an account, the newest first."""
    user = own_account(call, user_id)
    pager = Pager("margin health", {"user": user, "from": calculated_from, "to": calculated_to})
    async with call.transaction() as connection:
        rows = await reports.list_snapshots(
            connection,
            user,
            calculated_from=calculated_from,
            calculated_to=calculated_to,
            before=pager.before(cursor),
            limit=limit + 1,
        )
        if not rows and await accounts.find(connection, call.principal.tenant_id, user) is None:
            raise _unknown()
        rows, next_cursor = pager.page(rows, limit, "snapshot_id")
        events = await reports.events_of(connection, user, [row.snapshot_id for row in rows])
    return Page(items=[health_view(row, events) for row in rows], next_cursor=next_cursor)


@routes.get("/health/{user_id:path}", responses=documented(404))
async def read_health(user_id: UserPath, call: Annotated[Call, Depends(caller(Scope.MARGIN_READ))]) -> HealthView:
    """The last snapshot of an account; nothing is computed."""
    user = own_account(call, user_id)
    async with call.transaction() as connection:
        rows = await reports.list_snapshots(connection, user, limit=1)
        if not rows:
            raise _unknown()
        return await with_events(connection, rows[0])


@routes.put("/accounts/{user_id:margin_user}", response_model=HealthView, responses=documented(409, 413, 415))
async def set_account(
    user_id: UserPath, body: AccountInput, call: Annotated[Call, Depends(poster(Scope.MARGIN_WRITE))]
) -> Response:
    """Set the positions and the warning levels of an account, opened where there is none, and check it in the same
    commit. Levels may be tighter than the platform's, never looser."""
    user = own_account(call, user_id)
    return await once(call, Check(call, user, body))


@routes.get("/accounts/{user_id:margin_user}", responses=documented(404))
async def read_account(user_id: UserPath, call: Annotated[Call, Depends(caller(Scope.MARGIN_READ))]) -> AccountView:
    """An account as it is stored."""
    user, tenant = own_account(call, user_id), call.principal.tenant_id
    async with call.transaction() as connection:
        account = await accounts.find(connection, tenant, user)
        if account is None:
            raise _unknown()
        positions = await accounts.positions(connection, tenant, account)
        return account_view(account, positions, await call.services.assets.all(connection))


def _unknown() -> Refusal:
    return Refusal("margin_account_unknown", "this user has no margin account")
