"""The rows that a look at an account leaves: snapshot, event, and the event's data in the feed.

A check and the book write the same ones. The book writes them by the hundred thousand, so a ``Sheet`` writes what all
accounts of one market share out once, and JSON is put together from text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted
from typing import NamedTuple, TypeAlias
from uuid import UUID

from domain.fixed import PRICE_SCALE, RATIO_SCALE, USD_SCALE, VALUE_UNITS
from domain.margin.advice import (
    PERCENT_SCALE,
    Holdings,
    LiquidationPrice,
    Recommendation,
    Repayment,
    liquidation_price_drop,
    liquidation_prices,
)
from domain.margin.borrowing import borrowing
from domain.margin.health import Valuation, health_factor, level_of
from domain.margin.model import AssetTerms, Level, Levels, Market, Origin, Position, Side
from domain.margin.telling import EventType, Raised
from domain.money import format_minor

#: Shares and thresholds are in basis points: as text, ratios with four places.
BPS_SCALE = 4
SUBJECT_PREFIX = "margin:"
_COLLATERAL, _DECLARED = Side.COLLATERAL, Origin.DECLARED
_NOTHING = format_minor(0, USD_SCALE)
_STATUS = {level: str(level.status) for level in Level}


class SnapshotRow(NamedTuple):
    """A row of ``margin_health_snapshots``, in the order of its columns; numbers and JSON are text."""

    tenant_id: UUID
    snapshot_id: UUID
    user_id: str
    health_score: str | None
    previous_health_score: str | None
    status: str
    total_collateral_usd: str
    total_borrow_usd: str
    collateral_breakdown: str
    borrow_breakdown: str
    liquidation_price_drop_percent: str | None
    recommendations: str
    borrowing: str
    parameter_version: int
    price_tick: int
    cause: str
    calculated_at: datetime


class EventRow(NamedTuple):
    """A row of ``margin_events``, in the order of its columns; numbers and JSON are text."""

    tenant_id: UUID
    event_id: UUID
    snapshot_id: UUID
    user_id: str
    event_type: str
    severity: str
    health_score: str | None
    previous_health_score: str | None
    threshold_breached: str
    message: str
    recommendations: str
    collateral_usd: str
    borrow_usd: str


class Findings(NamedTuple):
    """What a look at an account found, as text: numbers, and JSON for breakdowns, advice and what may be borrowed."""

    health: str | None
    status: str
    collateral_usd: str
    borrow_usd: str
    collateral: str
    borrow: str
    drop: str | None
    advice: str
    borrowing: str


class _Line(NamedTuple):
    """One asset's part of a breakdown: what comes before the amount of a position."""

    mid: int
    scale: int
    unit: int
    declared: str
    escrow: str
    borrow: str


#: Advice of one kind: what comes before the amount, its scale, what comes before what is repaid, its scale, the end.
_Words: TypeAlias = tuple[str, int, str, int, str]


class Sheet:
    """What rows of one market at one instant share. ``price_tick`` is the newest refresh that the market knows of."""

    def __init__(self, market: Market, *, parameter_version: int, price_tick: int, at: datetime) -> None:
        self.market = market
        self.parameter_version = parameter_version
        self.price_tick = price_tick
        self.at = at
        #: What the data of every event ends with.
        self.shared = (
            f'"parameter_version":{parameter_version},"price_tick":{price_tick},'
            f'"calculated_at":{quoted(at.isoformat())}'
        )
        self._words: dict[tuple[str, str, str | None, int], _Words] = {}
        self._lines = {asset: _line(terms, at) for asset, terms in market.items()}

    def snapshot(
        self,
        tenant_id: UUID,
        snapshot_id: UUID,
        user_id: str,
        positions: Sequence[Position],
        holdings: Holdings,
        valuation: Valuation,
        levels: Levels,
        *,
        previous_health: int | None,
        cause: str,
        advised: Sequence[Recommendation],
    ) -> SnapshotRow:
        """The snapshot of an account whose ``holdings`` are its positions by asset. ``previous_health`` is the health
        (1e-18) of the snapshot before."""
        found = self.findings(positions, holdings, valuation, levels, advised)
        return SnapshotRow(
            tenant_id,
            snapshot_id,
            user_id,
            found.health,
            ratio(previous_health),
            found.status,
            found.collateral_usd,
            found.borrow_usd,
            found.collateral,
            found.borrow,
            found.drop,
            found.advice,
            found.borrowing,
            self.parameter_version,
            self.price_tick,
            cause,
            self.at,
        )

    def findings(
        self,
        positions: Sequence[Position],
        holdings: Holdings,
        valuation: Valuation,
        levels: Levels,
        advised: Sequence[Recommendation],
    ) -> Findings:
        """What a look at an account found; its ``holdings`` are its positions by asset."""
        collateral, borrow = self.breakdowns(positions, holdings, liquidation_prices(holdings, valuation))
        drop = liquidation_price_drop(valuation)
        borrow_usd = format_minor(valuation.debt, USD_SCALE)
        return Findings(
            ratio(health_factor(valuation.weighted, valuation.debt)),
            _STATUS[level_of(valuation.weighted, valuation.debt, levels)],
            format_minor(valuation.collateral, USD_SCALE),
            borrow_usd,
            collateral,
            borrow,
            None if drop is None else format_minor(drop, PERCENT_SCALE),
            f"[{','.join(map(self._advised, advised))}]" if advised else "[]",
            _borrowing(valuation, borrow_usd),
        )

    def event(self, event_id: UUID, snapshot: SnapshotRow, raised: Raised) -> tuple[EventRow, str]:
        """The event of a snapshot, and its data in the feed as JSON."""
        threshold, message = said(raised, snapshot.health_score)
        row = EventRow(
            snapshot.tenant_id,
            event_id,
            snapshot.snapshot_id,
            snapshot.user_id,
            str(raised.event_type),
            str(raised.severity),
            snapshot.health_score,
            snapshot.previous_health_score,
            threshold,
            message,
            snapshot.recommendations,
            snapshot.total_collateral_usd,
            snapshot.total_borrow_usd,
        )
        data = (
            f'{{"user_id":{quoted(row.user_id)},"severity":"{row.severity}","status":"{snapshot.status}",'
            f'"health_score":{_text(row.health_score)},"previous_health_score":{_text(row.previous_health_score)},'
            f'"threshold_breached":"{threshold}","message":"{message}","collateral_usd":"{row.collateral_usd}",'
            f'"borrow_usd":"{row.borrow_usd}","recommendations":{row.recommendations},'
            f'"snapshot_id":"{row.snapshot_id}",{self.shared}}}'
        )
        return row, data

    def breakdowns(
        self, positions: Sequence[Position], holdings: Holdings, prices: Mapping[str, LiquidationPrice | None]
    ) -> tuple[str, str]:
        """Both sides of an account as JSON lists: each position with the price used, and where it liquidates."""
        collateral: list[str] = []
        borrow: list[str] = []
        owned, owed = holdings
        for side, asset, amount, origin in positions:
            mid, scale, unit, declared, escrow, borrowed = self._lines[asset]
            written = format_minor(amount, scale)
            price = prices[asset]
            if price is None:
                ends = '"liquidation_price":null,"liquidation_when":null}'
            elif price.below:
                ends = f'"liquidation_price":"{format_minor(price.price, PRICE_SCALE)}","liquidation_when":"below"}}'
            else:
                ends = f'"liquidation_price":"{format_minor(price.price, PRICE_SCALE)}","liquidation_when":"above"}}'
            if side is _COLLATERAL:
                whole = owned[asset]
                worth = format_minor(whole.worth if len(whole.parts) == 1 else amount * mid // unit, USD_SCALE)
                before = declared if origin is _DECLARED else escrow
                collateral.append(f'{before}{written}","value_usd":"{worth}",{ends}')
            else:
                borrow.append(f'{borrowed}{written}","value_usd":"{format_minor(owed[asset].worth, USD_SCALE)}",{ends}')
        return f"[{','.join(collateral)}]", f"[{','.join(borrow)}]"

    def _advised(self, one: Recommendation) -> str:
        action, asset, amount, repay_asset, repay_minor, target, health, also = one
        words = self._words.get((action, asset, repay_asset, target))
        if words is None:
            words = self._words[action, asset, repay_asset, target] = self._worded(one)
        before, scale, after, repay_scale, end = words
        text = format_minor(amount, scale)
        if repay_asset is not None:
            text = f"{text}{after}{format_minor(repay_minor, repay_scale)}"
        besides = self._repaid(also) if also else "[]"
        return f'{before}{text}{end}{_text(ratio(health))},"also_repay":{besides}}}'

    def _repaid(self, also: Sequence[Repayment]) -> str:
        parts = [
            f'{{"asset":{quoted(asset)},"amount":"{format_minor(amount, self.market[asset].scale)}"}}'
            for asset, amount in also
        ]
        return f"[{','.join(parts)}]"

    def _worded(self, one: Recommendation) -> _Words:
        """What advice of one kind shares."""
        action, asset, _, repay_asset, _, target, *_ = one
        before = f'{{"action":"{action}","asset":{quoted(asset)},"amount":"'
        end = f'","target_health_score":"{format_minor(target, BPS_SCALE)}","resulting_health_score":'
        scale = self.market[asset].scale
        if repay_asset is None:
            return before, scale, "", 0, f'","repay_asset":null,"repay_amount":null{end[1:]}'
        after = f'","repay_asset":{quoted(repay_asset)},"repay_amount":"'
        return before, scale, after, self.market[repay_asset].scale, end


def _borrowing(valuation: Valuation, borrow_usd: str) -> str:
    capacity, debt, available, obstacle = borrowing(valuation)
    debt_usd = borrow_usd if debt == valuation.debt else format_minor(debt, USD_SCALE)
    available_usd = format_minor(available, USD_SCALE) if available else _NOTHING
    why = 'true,"reason":null' if obstacle is None else f'false,"reason":"{obstacle}"'
    return (
        f'{{"capacity_usd":"{format_minor(capacity, USD_SCALE)}","debt_usd":"{debt_usd}",'
        f'"available_usd":"{available_usd}","allowed":{why}}}'
    )


def ratio(health: int | None) -> str | None:
    """A health factor as decimal text."""
    return None if health is None else format_minor(health, RATIO_SCALE)


def subject_of(user_id: str) -> str:
    """What events and audit call a margin account."""
    return SUBJECT_PREFIX + user_id


def _line(terms: AssetTerms, at: datetime) -> _Line:
    parameters = terms.parameters
    age = max(0, int((at - terms.as_of).total_seconds()))
    common = (
        f'{{"asset":{quoted(terms.symbol)},"price_usd":"{format_minor(terms.mid, PRICE_SCALE)}",'
        f'"price_as_of":{quoted(terms.as_of.isoformat())},"price_age_seconds":{age},'
        f'"price_quality":"{terms.quality}","price_confirmed":{"true" if terms.confirmed else "false"}'
    )
    collateral = (
        f'{common},"ltv":"{format_minor(parameters.ltv_bps, BPS_SCALE)}",'
        f'"liquidation_threshold":"{format_minor(parameters.liquidation_threshold_bps, BPS_SCALE)}"'
    )
    borrow = f'{common},"borrow_rate":"{format_minor(parameters.borrow_rate_bps, BPS_SCALE)}"'
    return _Line(
        terms.mid,
        terms.scale,
        VALUE_UNITS[terms.scale],
        f'{collateral},"origin":"{Origin.DECLARED}","amount":"',
        f'{collateral},"origin":"{Origin.ESCROW}","amount":"',
        f'{borrow},"amount":"',
    )


def said(raised: Raised, health: str | None) -> tuple[str, str]:
    """The threshold of an event, and its message."""
    threshold = _threshold(raised.threshold_bps)
    return threshold, _message(raised, health, threshold)


@lru_cache(maxsize=256)
def _threshold(bps: int) -> str:
    return format_minor(bps, BPS_SCALE)


def _message(raised: Raised, health: str | None, threshold: str) -> str:
    if raised.event_type is EventType.RECOVERED:
        if health is None:
            return "there is no debt left"
        return f"health {_short(health)} is back above {threshold}"
    return f"health {_short(health or '0.0')} is below {threshold}"


def _short(health: str) -> str:
    """Four places, cut: what is below a threshold does not read as if it stood on it."""
    integer, _, fraction = health.partition(".")
    return f"{integer}.{fraction[:4]}"


def _text(value: str | None) -> str:
    return "null" if value is None else f'"{value}"'
