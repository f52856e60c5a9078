"""The shapes that an account's risk has on the wire: every number beside what it rests on."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from domain.margin.model import Status
from domain.margin.risk import Measure

Usd = Annotated[str, Field(description="US dollars with 8 places", examples=["1250.00000000"])]
MaybeUsd = Annotated[str | None, Field(description="US dollars with 8 places", examples=["1250.00000000"])]


class PriceUsedView(BaseModel):
    """The price of an asset of the account."""

    asset: str
    price_usd: str = Field(description="Mid price of a whole unit", examples=["2000.000000000000000000"])
    quality: str
    as_of: datetime = Field(description="When its sources observed it")


class SeriesView(BaseModel):
    """The closes that one asset has in the window."""

    asset: str
    closes: int
    closes_wanted: int = Field(description="One for each day of the window and of the horizon before it")
    closes_carried: int = Field(
        description="Days on which the price did not change: the close of the day before stands"
    )


class HistoricalView(BaseModel):
    """Today's positions under the returns of past days. Losses are positive; a negative one is a gain."""

    method: Literal["historical_simulation"] = "historical_simulation"
    window_days: int
    horizon_days: int
    confidence: str = Field(examples=["0.990000"])
    interpolation: Literal["linear"] = Field(default="linear", description="Hyndman and Fan, type 7")
    returns: Literal["overlapping_simple"] = Field(
        default="overlapping_simple", description="Later close over earlier close; each day of the window ends one"
    )
    close: Literal["last_of_utc_day"] = "last_of_utc_day"
    first_day: date = Field(description="The earliest day whose close is looked for")
    last_day: date = Field(description="The last complete day")
    observations: int = Field(description="Returns at whose both ends every asset of the account has a close")
    observations_required: int = Field(description="1 / (1 - confidence), and at least 30")
    value_at_risk_usd: MaybeUsd = Field(description="Null while there are too few observations; `missing` says why")
    expected_shortfall_usd: MaybeUsd = Field(description="The mean loss of the worst `shortfall_observations`")
    shortfall_observations: int | None = Field(description="int((observations - 1) * (1 - confidence)) + 1")
    worst_loss_usd: MaybeUsd
    worst_day: date | None = Field(description="The day on which the worst loss would have ended")
    series: list[SeriesView]
    missing: str | None = Field(description="Why there is no number; null where there is")


class MoveView(BaseModel):
    """How one asset moves in a scenario."""

    asset: str
    before_usd: str
    after_usd: str
    change_percent: str = Field(examples=["-42.35"])
    assumed: bool = Field(description="No source tells of this asset: it is taken to stand still, or to fall as ether")


class SourceView(BaseModel):
    """Where a scenario's figures are from."""

    publication: str
    title: str
    published: date | None


class ScenarioView(BaseModel):
    """The account after a past crash."""

    scenario: str = Field(description="Stable name", examples=["black_thursday_2020"])
    title: str
    from_day: date
    to_day: date
    measure: Measure = Field(description="To the close, or to the lowest price, of the last day")
    moves: list[MoveView]
    sources: list[SourceView]
    collateral_usd: Usd
    debt_usd: Usd
    health_score: str | None = Field(description="Null without debt")
    status: Status
    loss_usd: Usd = Field(description="By how much the net value falls; negative where it rises")
    shortfall_usd: Usd = Field(
        description="Debt that stays unpaid when all collateral is liquidated with its bonus; 0 where nobody liquidates"
    )


class ShareView(BaseModel):
    """One asset in the collateral."""

    asset: str
    value_usd: Usd
    share: str = Field(examples=["0.600000"])


class ConcentrationView(BaseModel):
    """How much of the collateral is one thing. Assets that move together are not taken for one."""

    herfindahl_index: int | None = Field(
        description="Sum of the squared shares in percent: 10000 for one asset; null without collateral"
    )
    largest_asset: str | None
    largest_share: str | None
    shares: list[ShareView]


class CarryView(BaseModel):
    """Time to liquidation by interest alone: ln(health) / (borrow rate - supply rate)."""

    days: int | None = Field(description="Rounded down; null where interest never leads there, 0 below a health of one")
    borrow_rate_percent: str | None = Field(description="A year's, weighted by debt; null without debt")
    supply_rate_percent: Literal["0.00"] = "0.00"
    year_days: int
    assumptions: Literal["prices stand still; interest compounds all the time; collateral earns nothing"] = (
        "prices stand still; interest compounds all the time; collateral earns nothing"
    )


class ChanceView(BaseModel):
    """The probability that the health factor reaches one: 2 * Phi(-ln(health) / (volatility * sqrt(days)))."""

    horizon_days: int
    probability: str | None = Field(
        description="Null without debt, and while there are too few observations", examples=["0.012345"]
    )
    daily_volatility: str | None = Field(
        description="Of the logarithm of the health factor; null where the probability needs none, or is null"
    )
    observations: int = Field(description="Daily returns that the volatility is of")
    observations_required: int
    model: Literal["driftless_first_passage"] = "driftless_first_passage"
    assumptions: Literal["Brownian motion without drift or jumps; volatility as in the window; positions stay"] = (
        "Brownian motion without drift or jumps; volatility as in the window; positions stay"
    )


class RiskView(BaseModel):
    """What may become of an account as it stands."""

    user_id: str
    calculated_at: datetime
    parameter_version: int = Field(description="What assets count for")
    prices: list[PriceUsedView]
    collateral_usd: Usd
    debt_usd: Usd
    health_score: str | None = Field(description="Null without debt")
    status: Status
    historical: HistoricalView
    stress: list[ScenarioView]
    concentration: ConcentrationView
    liquidation_by_carry: CarryView
    liquidation_by_chance: ChanceView
