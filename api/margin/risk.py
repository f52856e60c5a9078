"""What may become of an account: read from its positions, today's prices and the past ones; nothing is written."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Final

from fastapi import Depends, Path, Query

from api.deps import Call, caller, router
from api.fields import Line
from api.ledger.routes import own_account
from api.margin.risk_models import (
    CarryView,
    ChanceView,
    ConcentrationView,
    HistoricalView,
    MoveView,
    PriceUsedView,
    RiskView,
    ScenarioView,
    SeriesView,
    ShareView,
    SourceView,
)
from api.margin.standing import Standing, load_standing
from api.problems import documented
from db.prices.series import Series, daily_closes
from domain.errors import Refusal
from domain.fixed import PRICE_SCALE, RATIO_SCALE, USD_SCALE, parse_fixed
from domain.identity import Scope
from domain.margin import risk
from domain.margin.health import health_factor, level_of, value
from domain.money import format_minor
from kit.clock import now

routes = router("/margin/accounts", "margin")

#: Shares, probabilities and volatilities are told with six places.
_PLACES: Final = 6
_CONFIDENCE_LEAST, _CONFIDENCE_MOST = 500_000, 999_000

UserPath = Annotated[Line, Path(description="The user whose account it is", examples=["alice"])]
Confidence = Annotated[
    str,
    Query(max_length=20, description="Of the value at risk and of the shortfall, from 0.5 to 0.999", examples=["0.99"]),
]


@dataclass(frozen=True, slots=True)
class Questions:
    """What was asked."""

    window: risk.Window
    confidence: int
    probability_days: int


@routes.get("/{user_id:path}/risk", responses=documented(404, 409))
async def read_risk(
    user_id: UserPath,
    call: Annotated[Call, Depends(caller(Scope.MARGIN_READ))],
    window_days: Annotated[int, Query(ge=30, le=1_095, description="How many past days count")] = 365,
    horizon_days: Annotated[int, Query(ge=1, le=30, description="Over how many days a loss is measured")] = 1,
    confidence: Confidence = "0.99",
    probability_days: Annotated[
        int, Query(ge=1, le=365, description="Within how many days liquidation is asked for")
    ] = 30,
) -> RiskView:
    """What may become of an account: losses of past days and past crashes, concentration, time to liquidation."""
    owner = own_account(call, user_id)
    at = now()
    window = risk.Window(at.date() - timedelta(days=1), window_days, horizon_days)
    questions = Questions(window, _confidence(confidence, window_days), probability_days)
    async with call.transaction() as connection:
        standing = await load_standing(connection, call.principal.tenant_id, owner, at)
        assets = {position.asset for position in standing.positions}
        series = await daily_closes(connection, assets, first=window.first_close, days=window.closes)
    # Some hundredths of a second of exact arithmetic; requests beside it go on.
    return await asyncio.to_thread(_risk, standing, questions, series, at)


def _confidence(text: str, window_days: int) -> int:
    confidence = parse_fixed(text, risk.CONFIDENCE_SCALE, code="confidence_invalid", field="confidence")
    if not _CONFIDENCE_LEAST <= confidence <= _CONFIDENCE_MOST:
        raise Refusal("confidence_invalid", "a confidence lies between 0.5 and 0.999", field="confidence")
    if (required := risk.required_observations(confidence)) > window_days:
        raise Refusal(
            "window_too_short", f"this confidence needs a window of at least {required} days", field="window_days"
        )
    return confidence


def _risk(standing: Standing, questions: Questions, series: Mapping[str, Series], at: datetime) -> RiskView:
    positions, market = standing.positions, standing.market
    valued = value(positions, market)
    closes = {asset: each.closes for asset, each in series.items()}
    daily = risk.observations(closes, series, risk.Window(questions.window.last_day, questions.window.days, 1))
    return RiskView(
        user_id=standing.user_id,
        calculated_at=at,
        parameter_version=standing.parameter_version,
        prices=[
            PriceUsedView(
                asset=asset,
                price_usd=format_minor(market[asset].mid, PRICE_SCALE),
                quality=market[asset].quality,
                as_of=market[asset].as_of,
            )
            for asset in sorted(series)
        ],
        collateral_usd=_usd(valued.collateral),
        debt_usd=_usd(valued.debt),
        health_score=_ratio(health_factor(valued.weighted, valued.debt)),
        status=level_of(valued.weighted, valued.debt, standing.levels).status,
        historical=_historical(standing, questions, series),
        stress=[_scenario(standing, each) for each in risk.SCENARIOS],
        concentration=_concentration(risk.concentration(positions, market)),
        liquidation_by_carry=_carry(risk.carry(positions, market)),
        liquidation_by_chance=_chance(
            risk.chance(positions, market, daily, questions.probability_days), questions.probability_days, len(daily)
        ),
    )


def _historical(standing: Standing, questions: Questions, series: Mapping[str, Series]) -> HistoricalView:
    window = questions.window
    closes = {asset: each.closes for asset, each in series.items()}
    seen = risk.observations(closes, series, window)
    required = risk.required_observations(questions.confidence)
    found = risk.simulate(standing.positions, standing.market, seen, questions.confidence)
    return HistoricalView(
        window_days=window.days,
        horizon_days=window.horizon_days,
        confidence=format_minor(questions.confidence, risk.CONFIDENCE_SCALE),
        first_day=window.first_close,
        last_day=window.last_day,
        observations=len(seen),
        observations_required=required,
        value_at_risk_usd=None if found is None else _usd(found.value_at_risk),
        expected_shortfall_usd=None if found is None else _usd(found.expected_shortfall),
        shortfall_observations=None if found is None else found.tail,
        worst_loss_usd=None if found is None else _usd(found.worst_loss),
        worst_day=None if found is None else found.worst_day,
        series=[
            SeriesView(asset=asset, closes=len(each.closes), closes_wanted=window.closes, closes_carried=each.carried)
            for asset, each in series.items()
        ],
        missing=_missing(series, len(seen), required) if found is None else None,
    )


def _missing(series: Mapping[str, Series], seen: int, required: int) -> str:
    fewest = min(series, key=lambda asset: len(series[asset].closes))
    return (
        f"{seen} of at least {required} observations: every asset needs a close at both ends of a return, and"
        f" {fewest} has closes of {len(series[fewest].closes)} days in the window"
    )


def _scenario(standing: Standing, scenario: risk.Scenario) -> ScenarioView:
    outcome = risk.stress(standing.positions, standing.market, standing.levels, scenario)
    told = list(scenario.moves)
    held = sorted({position.asset for position in standing.positions} - scenario.moves.keys())
    return ScenarioView(
        scenario=scenario.name,
        title=scenario.title,
        from_day=scenario.first_day,
        to_day=scenario.last_day,
        measure=scenario.measure,
        moves=[_move(asset, scenario) for asset in (*told, *held)],
        sources=[
            SourceView(publication=source.publication, title=source.title, published=source.published)
            for source in scenario.sources
        ],
        collateral_usd=_usd(outcome.collateral),
        debt_usd=_usd(outcome.debt),
        health_score=_ratio(outcome.health),
        status=outcome.level.status,
        loss_usd=_usd(outcome.loss),
        shortfall_usd=_usd(outcome.shortfall),
    )


def _move(asset: str, scenario: risk.Scenario) -> MoveView:
    move = scenario.move(asset)
    return MoveView(
        asset=asset,
        before_usd=format_minor(move.before, risk.MOVE_SCALE),
        after_usd=format_minor(move.after, risk.MOVE_SCALE),
        change_percent=move.change_percent,
        assumed=scenario.is_assumed(asset),
    )


def _concentration(found: risk.Concentration | None) -> ConcentrationView:
    if found is None:
        return ConcentrationView(herfindahl_index=None, largest_asset=None, largest_share=None, shares=[])
    shares = [
        ShareView(asset=each.asset, value_usd=_usd(each.value), share=_share(each.share)) for each in found.shares
    ]
    return ConcentrationView(
        herfindahl_index=found.herfindahl,
        largest_asset=shares[0].asset,
        largest_share=shares[0].share,
        shares=shares,
    )


def _carry(found: risk.Carry) -> CarryView:
    rate = None if found.rate_bps is None else format_minor(found.rate_bps, 2)
    return CarryView(days=found.days, borrow_rate_percent=rate, year_days=risk.YEAR_DAYS)


def _chance(found: risk.Chance, days: int, observations: int) -> ChanceView:
    return ChanceView(
        horizon_days=days,
        probability=None if found.probability is None else f"{found.probability:.{_PLACES}f}",
        daily_volatility=None if found.daily_volatility is None else f"{found.daily_volatility:.{_PLACES}f}",
        observations=observations,
        observations_required=risk.FEWEST_RETURNS,
    )


def _usd(amount: int) -> str:
    return format_minor(amount, USD_SCALE)


def _ratio(ratio: int | None) -> str | None:
    return None if ratio is None else format_minor(ratio, RATIO_SCALE)


def _share(ratio: int) -> str:
    """A share of at most one with six places, rounded down."""
    return format_minor(ratio // 10 ** (RATIO_SCALE - _PLACES), _PLACES)
