"""Messages of margin checks."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from activities.messages import Message, MinorUnits, OriginMessage
from domain.margin.model import Levels, Position, Side


class Cause(StrEnum):
    """Why an account is looked at."""

    #: Somebody asked for its health.
    CHECK = "check"
    #: Its positions or levels were set.
    ACCOUNT = "account"
    #: A settlement event touched its user.
    SETTLEMENT = "settlement"


class PositionMessage(Message):
    """A declared position."""

    side: Side
    asset: str
    amount_minor: MinorUnits

    def to_position(self) -> Position:
        """As the rules have it."""
        return Position(self.side, self.asset, self.amount_minor)


class LevelsMessage(Message):
    """Warning levels in basis points of the health factor."""

    warning_bps: int
    margin_call_bps: int
    imminent_bps: int

    def to_levels(self) -> Levels:
        """As the rules have them."""
        return Levels(self.warning_bps, self.margin_call_bps, self.imminent_bps)


class CheckMargin(Message):
    """Start of a ``MarginCheckWorkflow``; ``check_id`` names its single effect.

    ``positions`` become the account's declared ones and ``levels`` its levels; without them the account's own are used.
    """

    tenant_id: UUID
    check_id: UUID
    user_id: str
    cause: Cause
    positions: tuple[PositionMessage, ...] | None = None
    levels: LevelsMessage | None = None
    origin: OriginMessage = OriginMessage()


class RecordCheck(Message):
    """Input of the step; ``at`` is the workflow's clock."""

    request: CheckMargin
    at: datetime

    def log_context(self) -> dict[str, str]:
        """Tenant and request."""
        return {"tenant_id": str(self.request.tenant_id)} | self.request.origin.log_context()


class CheckOutcome(Message):
    """What was found. Without a snapshot there was nothing to look at: no account, or no price to value it by."""

    snapshot_id: UUID | None = None
    status: str | None = None
    health_score: str | None = None
    event_type: str | None = None
