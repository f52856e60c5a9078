"""What has a margin account looked at: the request is checked here, a workflow looks, the snapshot is the answer."""

from __future__ import annotations

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from api.deps import Call, shortened
from api.idempotency import Answer, Attempt
from api.margin.models import AccountInput, HealthInput, HealthView
from api.margin.views import health_view, read_levels, read_positions
from db.margin import reports
from domain.errors import Refusal
from domain.ids import USER_ID_RULE, is_user_id, margin_check_workflow_id
from domain.margin.model import Levels, Position
from workflows.margin import Cause, CheckMargin, CheckOutcome, LevelsMessage, OriginMessage, PositionMessage


class Check:
    """A look at an account; its operation id is the check's, so that a repeat looks no second time."""

    def __init__(self, call: Call, user_id: str, said: HealthInput | AccountInput) -> None:
        self._call = call
        self._user_id = user_id
        self._said = said
        self._request: CheckMargin | None = None
        self._outcome: CheckOutcome | None = None

    async def prepare(self, connection: AsyncConnection, attempt: Attempt) -> Answer | None:
        """Read positions and levels exactly; the step decides on what only the database knows."""
        call, said = self._call, self._said
        check_user(self._user_id)
        assets = await call.services.assets.all(connection)
        positions = read_positions(said.collateral_positions, said.borrow_positions, assets)
        levels = None
        if isinstance(said, AccountInput) and said.levels is not None:
            levels = read_levels(said.levels)
        self._request = CheckMargin(
            tenant_id=call.principal.tenant_id,
            check_id=attempt.operation_id,
            user_id=self._user_id,
            cause=Cause.ACCOUNT if isinstance(said, AccountInput) else Cause.CHECK,
            positions=None if positions is None else tuple(map(_position, positions)),
            levels=None if levels is None else _levels(levels),
            origin=OriginMessage(
                user_id=call.principal.user_id, key_id=call.principal.key_id, request_id=call.request_id
            ),
        )
        return None

    async def perform(self) -> None:
        """Start the workflow and wait for its outcome."""
        assert self._request is not None, "prepare() comes first"
        workflow_id = margin_check_workflow_id(self._request.check_id)
        structlog.contextvars.bind_contextvars(workflow_id=workflow_id)
        summary = shortened(f"margin check of {self._user_id}")
        self._outcome = await self._call.services.margin.check(self._request, summary=summary)

    async def answer(self, connection: AsyncConnection) -> Answer:
        """The snapshot."""
        outcome = self._outcome
        assert outcome is not None, "perform() comes first"
        assert outcome.snapshot_id is not None, "a check that is asked for has a snapshot"
        snapshot = await reports.find_snapshot(connection, outcome.snapshot_id)
        assert snapshot is not None, "it was just written"
        if outcome.event_type is None:
            return Answer(200, health_view(snapshot, ()))
        return Answer(200, await with_events(connection, snapshot))


async def with_events(connection: AsyncConnection, snapshot: reports.Snapshot) -> HealthView:
    """A snapshot with what its user was told of it."""
    events = await reports.events_of(connection, snapshot.user_id, [snapshot.snapshot_id])
    return health_view(snapshot, events)


def check_user(user_id: str) -> None:
    """Refuse what cannot be a user's id."""
    if not is_user_id(user_id):
        raise Refusal("user_id_invalid", USER_ID_RULE, field="user_id")


def _position(position: Position) -> PositionMessage:
    return PositionMessage(side=position.side, asset=position.asset, amount_minor=position.amount_minor)


def _levels(levels: Levels) -> LevelsMessage:
    return LevelsMessage(
        warning_bps=levels.warning_bps, margin_call_bps=levels.margin_call_bps, imminent_bps=levels.imminent_bps
    )
