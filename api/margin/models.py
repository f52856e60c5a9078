"""The shapes that margin requests and answers have on the wire."""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field, PlainValidator, WithJsonSchema

from api.fields import Amount, Input, Instant, Prose, Symbol, UserId
from domain.margin.advice import Action
from domain.margin.borrowing import Obstacle
from domain.margin.model import Origin, Severity, Status
from domain.margin.telling import EventType

_SIGNED = re.compile(r"[+-]?[0-9]{1,20}(?:\.[0-9]{1,18})?\Z")
POSITIONS_MAX = 50

Usd = Annotated[str, Field(description="US dollars with 8 places", examples=["20000.00000000"])]
Price = Annotated[str, Field(description="US dollars per whole unit, with 18 places")]
Health = Annotated[str | None, Field(description="The health factor with 18 places, rounded down; null without debt")]
Ratio = Annotated[str, Field(description="A share with 4 places", examples=["0.8300"])]
Positions = Annotated[
    dict[Symbol, Amount],
    Field(max_length=POSITIONS_MAX, description="Amounts by asset; zero is no position", examples=[{"ETH": "10"}]),
]


def _percent(value: Any) -> str:
    text = value
    if isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) <= 18:
        text = f"{value:f}"
    elif isinstance(value, int) and not isinstance(value, bool):
        text = str(value)
    if not isinstance(text, str) or not _SIGNED.match(text):
        raise ValueError("must be a decimal, as text or as a JSON number")
    return text


Percent = Annotated[
    str,
    PlainValidator(_percent),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "pattern": r"^[+-]?[0-9]{1,20}(\.[0-9]{1,18})?$"}, {"type": "number"}],
            "examples": ["-30"],
        }
    ),
]


class LevelsInput(Input):
    """Below which health factors a user is told; at least as tight as the platform's. What is left out is as theirs."""

    warning: Amount | None = Field(default=None, examples=["1.8"])
    margin_call: Amount | None = None
    imminent: Amount | None = None


class HealthInput(Input):
    """Whose health, and the positions from now on."""

    user_id: UserId
    collateral_positions: Positions | None = Field(
        default=None,
        description="With either side, both become the account's declared positions, and a side that is left out is"
        " empty; with neither, the account is looked at as it stands",
    )
    borrow_positions: Positions | None = None


class AccountInput(Input):
    """What an account is to be. A part that is left out stays as it is."""

    collateral_positions: Positions | None = Field(
        default=None, description="With either side, both are replaced, and one that is left out is empty"
    )
    borrow_positions: Positions | None = None
    levels: LevelsInput | None = None


class SimulationInput(Input):
    """A hypothetical account, hypothetical prices, or both."""

    user_id: UserId | None = Field(
        default=None,
        description="Whose levels and escrow money count, and whose declared positions where none are given",
    )
    collateral_positions: Positions | None = Field(
        default=None,
        description="With either side, both take the place of the user's declared positions; what escrows hold for the"
        " user counts as in a check. Without a user, an account of these alone",
    )
    borrow_positions: Positions | None = None
    levels: LevelsInput | None = Field(default=None, description="By default the account's, or the platform's")
    prices: dict[Symbol, Amount] = Field(
        default={}, max_length=POSITIONS_MAX, description="US dollars per whole unit, instead of the price now"
    )
    price_changes_percent: dict[Symbol, Percent] = Field(
        default={}, max_length=POSITIONS_MAX, description="Above -100, from the price now", examples=[{"ETH": -30}]
    )


class EscrowCollateral(StrEnum):
    """Whose collateral the money in funded escrows is."""

    NONE = "none"
    BUYER = "buyer"
    SELLER = "seller"


class SettingsInput(Input):
    """What the tenant decides about margin."""

    escrow_collateral: EscrowCollateral


class SettingsView(BaseModel):
    """What the tenant decided about margin."""

    escrow_collateral: EscrowCollateral = Field(description="Whose collateral the money in funded escrows is")


class AssetSharesInput(Input):
    """What an asset counts for, as shares of its value."""

    ltv: Amount = Field(description="How much may be borrowed against it", examples=["0.805"])
    liquidation_threshold: Amount = Field(description="How much supports debt that exists", examples=["0.83"])
    liquidation_bonus: Amount = Field(default="0", description="What a liquidator gets on top")
    borrow_rate: Amount = Field(default="0", description="A year's interest on debt in it")


class ParametersInput(Input):
    """A new version: the whole set, for an asset that it does not name does not count any more."""

    effective_from: Instant | None = Field(default=None, description="Not in the past; by default at once")
    note: Prose = Field(description="Who decided, and why")
    assets: dict[Symbol, AssetSharesInput] = Field(max_length=1_000)


class AssetSharesView(BaseModel):
    """What an asset counts for, as shares of its value."""

    ltv: Ratio
    liquidation_threshold: Ratio
    liquidation_bonus: Ratio
    borrow_rate: Ratio


class LevelsView(BaseModel):
    """Below which health factors a user is told. Liquidation is below 1, for everybody."""

    warning: Ratio
    margin_call: Ratio
    imminent: Ratio


class ParametersView(BaseModel):
    """A version of what assets count for, in force until the next one takes effect."""

    version: int
    effective_from: datetime
    note: str
    levels: LevelsView = Field(description="The platform's; users may set tighter ones")
    assets: dict[str, AssetSharesView]


class PositionView(BaseModel):
    """A position with the price used."""

    asset: str
    amount: str = Field(description="Decimal text with exactly the asset's number of places")
    value_usd: Usd
    price_usd: Price
    price_as_of: datetime = Field(description="When its sources observed it")
    price_age_seconds: int
    price_quality: str = Field(description="good, degraded or stale; hypothetical in a simulation")
    price_confirmed: bool = Field(description="Whether anything automatic may happen on it")
    liquidation_price: Price | None = Field(
        description="At which the account is liquidatable while all else stands; null where no price does that"
    )
    liquidation_when: Literal["below", "above"] | None = Field(description="On which side of that price")


class CollateralView(PositionView):
    """Collateral."""

    origin: Origin = Field(description="Declared, or held by escrows")
    ltv: Ratio
    liquidation_threshold: Ratio


class BorrowView(PositionView):
    """Debt."""

    borrow_rate: Ratio


class RepaymentView(BaseModel):
    """What is to be repaid of one debt."""

    asset: str
    amount: str


class RecommendationView(BaseModel):
    """One way to the target health, by itself."""

    action: Action = Field(
        description="Repay the asset, top up with it, or sell it and repay with the proceeds. `repay_several`, where no"
        " debt is enough by itself: repay the asset and all of `also_repay`"
    )
    asset: str
    amount: str
    repay_asset: str | None
    repay_amount: str | None
    target_health_score: Ratio = Field(description="1.5, or the user's own warning level where it is tighter")
    resulting_health_score: Health
    also_repay: list[RepaymentView] = Field(
        default=[],
        description="With `repay_several`: the debts to repay besides, in the order of their worth; all but the last"
        " are repaid whole. Empty otherwise",
    )


class BorrowingView(BaseModel):
    """What may be borrowed: collateral at its low price times loan-to-value, against debt at its high price."""

    capacity_usd: Usd
    debt_usd: Usd
    available_usd: Usd
    allowed: bool
    reason: Obstacle | None = Field(description="Why not")


class MarginEventView(BaseModel):
    """Something that the user was told."""

    event_id: UUID = Field(description="The same in the feed and at the broker")
    user_id: str
    event_type: EventType
    severity: Severity
    health_score: Health
    previous_health_score: Health
    threshold_breached: Ratio = Field(description="The health factor that was crossed, down or up")
    message: str
    recommendations: list[RecommendationView]
    collateral_usd: Usd
    borrow_usd: Usd
    published_to_pubsub: bool = Field(
        description="Whether it has left: acknowledged by the broker where there is one, else in the feed"
    )
    snapshot_id: UUID
    created_at: datetime


class WouldRaiseView(BaseModel):
    """What the user would be told."""

    event_type: EventType
    severity: Severity
    threshold_breached: Ratio


class StandingView(BaseModel):
    """The health of an account, and what it follows from."""

    user_id: str | None
    health_score: Health
    status: Status
    previous_health_score: Health
    total_collateral_usd: Usd
    total_borrow_usd: Usd
    collateral_breakdown: list[CollateralView]
    borrow_breakdown: list[BorrowView]
    liquidation_price_drop_percent: str | None = Field(
        description="How far all collateral may fall together, with 8 places; negative when it already has; null"
        " without debt or without collateral that counts"
    )
    liquidation_prices: dict[str, str | None] = Field(
        description="Of each collateral asset; null where no price liquidates"
    )
    recommendations: list[RecommendationView]
    borrowing: BorrowingView
    parameter_version: int
    price_tick: int = Field(description="The newest refresh of prices that it knew of")
    calculated_at: datetime


class HealthView(StandingView):
    """A snapshot."""

    snapshot_id: UUID
    user_id: str
    cause: str = Field(description="check, account, settlement or tick", examples=["check"])
    events: list[MarginEventView] = Field(description="What the user was told of it")


class SimulationView(StandingView):
    """What a check would find; nothing was written."""

    events: list[WouldRaiseView]


class DeclaredView(BaseModel):
    """A position as it is stored."""

    asset: str
    amount: str
    origin: Origin


class AccountView(BaseModel):
    """A margin account."""

    user_id: str
    collateral_positions: list[DeclaredView]
    borrow_positions: list[DeclaredView]
    levels: LevelsView
    told_status: Status = Field(description="What its user was told last")
    health_score: Health = Field(description="Of the last snapshot")
    checked_at: datetime | None
    version: int
