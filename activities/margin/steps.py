"""The step of a margin check: positions, valuation, what the user is told, snapshot and event in one commit."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio import activity

from activities.margin.messages import Cause, CheckMargin, CheckOutcome, RecordCheck
from db import prices
from db.audit import AuditRecord
from db.doorbell import Doorbell
from db.ids import new_id
from db.margin import accounts, escrows, parameters
from db.margin.accounts import MarginAccount
from db.outbox import MARGIN_TOPIC, OutboxEvent
from db.step import Step, step
from domain.errors import Refusal
from domain.ids import margin_check_workflow_id
from domain.margin.advice import hold, recommendations
from domain.margin.health import value
from domain.margin.market import ParameterSet, build, check_computable, check_levels
from domain.margin.model import DEFAULT_LEVELS, Market, Origin, Position, in_order
from domain.margin.rows import EventRow, Sheet, SnapshotRow, subject_of
from domain.margin.telling import AccountState, tell

_log = logging.getLogger(__name__)
_checked = Counter("holdfast_margin_checks_total", "Looks at single margin accounts", ["cause", "status"])
_raised = Counter("holdfast_margin_events_total", "Margin events that checks raised", ["type"])


@dataclass(frozen=True, slots=True)
class _Seen:
    """What an account is looked at with."""

    at: datetime
    parameters: ParameterSet
    market: Market
    price_tick: int


class MarginActivities:
    """Steps on margin accounts. ``engine`` acts under row-level security."""

    def __init__(self, engine: AsyncEngine, doorbell: Doorbell) -> None:
        self._engine = engine
        self._doorbell = doorbell

    @activity.defn(name="margin.check")
    async def check(self, asked: RecordCheck) -> CheckOutcome:
        """Look at an account once, write what was found, and answer it.

        Positions and levels that come with the request become the account's, which is opened where there is none;
        what open escrows hold is added where the tenant counts it. A frozen tenant's accounts are looked at like any.
        Refuses ``margin_account_unknown``, ``asset_not_accepted``, ``price_unusable`` and what ``check_levels`` does;
        then nothing is written.
        """
        request = asked.request
        step_id = margin_check_workflow_id(request.check_id)
        async with step(self._engine, self._doorbell, tenant_id=request.tenant_id, step_id=step_id) as opened:
            if opened.receipt is not None:
                return CheckOutcome.model_validate(opened.receipt)
            account = await _account(opened.connection, request)
            if account is None:
                opened.skip()
                return CheckOutcome()
            outcome = await _look(opened, asked, account)
        _checked.labels(request.cause, outcome.status or "unpriced").inc()
        if outcome.event_type is not None:
            _raised.labels(outcome.event_type).inc()
        return outcome


async def _account(connection: AsyncConnection, request: CheckMargin) -> MarginAccount | None:
    """The account, locked; None where a settlement event touched a user who has none."""
    found = await accounts.lock(connection, request.tenant_id, request.user_id)
    if found is not None:
        return found
    if request.positions is not None or request.cause is Cause.ACCOUNT:
        return await accounts.open_(connection, request.tenant_id, request.user_id)
    if request.cause is Cause.SETTLEMENT:
        return None
    raise Refusal("margin_account_unknown", "this user has no margin account", field="user_id")


async def _look(opened: Step, asked: RecordCheck, account: MarginAccount) -> CheckOutcome:
    request, connection = asked.request, opened.connection
    # What was found later is dated later, whichever workflow was started first.
    at = max(asked.at, account.checked_at or asked.at)
    seen = await _seen(connection, at)
    stored = await accounts.positions(connection, request.tenant_id, account)
    positions = await _wanted(connection, request, account, stored, seen.parameters)
    unpriced: Refusal | None = None
    try:
        check_computable(positions, seen.parameters, seen.market, at)
    except Refusal as refusal:
        if request.cause is not Cause.SETTLEMENT:
            raise
        unpriced = refusal
    if positions != stored:
        await accounts.replace_positions(connection, request.tenant_id, account, positions)
    if unpriced is not None:
        # What escrows hold is the truth whatever it is worth; the book values it at the next price.
        _log.warning("a margin account cannot be valued: %s", unpriced)
        return await _finish(opened, asked, at, CheckOutcome(), {"unpriced": unpriced.field}, ())
    levels = account.state.levels
    if request.levels is not None:
        levels = check_levels(request.levels.to_levels(), DEFAULT_LEVELS)
    snapshot, state, raised = _judge(request, account, account.state._replace(levels=levels), positions, seen)
    await accounts.settle(connection, account, state, snapshot, None if raised is None else raised[0])
    outcome = CheckOutcome(
        snapshot_id=snapshot.snapshot_id,
        status=snapshot.status,
        health_score=snapshot.health_score,
        event_type=None if raised is None else raised[0].event_type,
    )
    events = () if raised is None else (_outgoing(*raised, at),)
    return await _finish(opened, asked, at, outcome, _facts(request, snapshot, state), events)


async def _wanted(
    connection: AsyncConnection,
    request: CheckMargin,
    account: MarginAccount,
    stored: Sequence[Position],
    in_force: ParameterSet,
) -> list[Position]:
    """The account's positions as they are from now on."""
    declared = [position for position in stored if position.origin is Origin.DECLARED]
    if request.positions is not None:
        declared = [position.to_position() for position in request.positions if position.amount_minor]
    counted = await escrows.counted(connection, request.tenant_id, account.user_id, account.escrow_collateral, in_force)
    return in_order(declared + counted)


async def _seen(connection: AsyncConnection, at: datetime) -> _Seen:
    in_force = await parameters.in_force(connection, at)
    quotes = await prices.current(connection)
    tick = max((quote.tick for quote in quotes.values()), default=0)
    return _Seen(at, in_force, build(in_force, quotes), tick)


def _judge(
    request: CheckMargin, account: MarginAccount, state: AccountState, positions: Sequence[Position], seen: _Seen
) -> tuple[SnapshotRow, AccountState, tuple[EventRow, str] | None]:
    """The snapshot, the account's state after it, and the event with its data where one is raised."""
    valuation, holdings = value(positions, seen.market), hold(positions, seen.market)
    sheet = Sheet(seen.market, parameter_version=seen.parameters.version, price_tick=seen.price_tick, at=seen.at)
    snapshot = sheet.snapshot(
        request.tenant_id,
        new_id(),
        account.user_id,
        positions,
        holdings,
        valuation,
        state.levels,
        previous_health=account.health,
        cause=request.cause,
        advised=recommendations(holdings, valuation, state.levels),
    )
    state, raised = tell(state, valuation, seen.at)
    return snapshot, state, None if raised is None else sheet.event(new_id(), snapshot, raised)


def _outgoing(event: EventRow, data: str, at: datetime) -> OutboxEvent:
    return OutboxEvent(event.event_id, MARGIN_TOPIC, event.event_type, subject_of(event.user_id), at, json.loads(data))


async def _finish(
    opened: Step,
    asked: RecordCheck,
    at: datetime,
    outcome: CheckOutcome,
    facts: dict[str, Any],
    events: Sequence[OutboxEvent],
) -> CheckOutcome:
    request = asked.request
    origin = request.origin.to_origin(margin_check_workflow_id(request.check_id))
    await opened.finish(
        result=outcome.model_dump(mode="json"),
        audit=AuditRecord(subject_of(request.user_id), "margin.checked", at, origin, facts),
        events=events,
    )
    return outcome


def _facts(request: CheckMargin, snapshot: SnapshotRow, state: AccountState) -> dict[str, Any]:
    """What the audit keeps of a check; the snapshot has the rest."""
    facts: dict[str, Any] = {
        "cause": request.cause,
        "snapshot_id": str(snapshot.snapshot_id),
        "health_score": snapshot.health_score,
        "status": snapshot.status,
    }
    if request.positions is not None:
        facts["positions"] = [position.model_dump(mode="json") for position in request.positions]
    if request.levels is not None:
        facts["levels"] = request.levels.model_dump() | {"told_level": int(state.told)}
    return facts
