"""Whether one reading may count at all: its age, its sign and bounds, its unit, its certainty."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from domain.fixed import PRICE_ONE
from domain.money import BASIS_POINTS
from domain.prices.model import DOLLARS, Policy, Price, Quality, Reading, Verdict, price_text

#: How far a source's clock may be ahead of ours.
AHEAD = timedelta(seconds=60)


def judge(reading: Reading, policy: Policy, units: Mapping[str, Price], now: datetime) -> Verdict:
    """The reading in dollars, or why it is left out. ``units`` are the prices before, for readings in other units."""
    if reading.fault is not None:
        return Verdict(reading, reading.fault)
    if reading.observed_at is None:
        return Verdict(reading, "it does not say when it was observed")
    if reading.observed_at > now + AHEAD:
        return Verdict(reading, f"observed in the future, {reading.observed_at.isoformat()}")
    age = now - reading.observed_at
    if age > timedelta(seconds=reading.max_age_seconds):
        return Verdict(reading, f"too old: {_seconds(age)} s, {reading.max_age_seconds} s at most")
    if reading.price <= 0:
        return Verdict(reading, f"not positive: {reading.price}")
    if reading.confidence < 0:
        return Verdict(reading, f"a negative confidence: {reading.confidence}")
    verdict = _in_dollars(reading, units)
    return verdict if verdict.left_out is not None else _bounded(verdict, policy)


def expires_at(reading: Reading) -> datetime:
    """Until when a valid reading is valid."""
    assert reading.observed_at is not None, "a valid reading says when it was observed"
    return reading.observed_at + timedelta(seconds=reading.max_age_seconds)


def _in_dollars(reading: Reading, units: Mapping[str, Price]) -> Verdict:
    if reading.unit == DOLLARS:
        return Verdict(reading, None, reading.price, reading.confidence)
    unit = units.get(reading.unit)
    if unit is None or unit.quality is Quality.STALE:
        return Verdict(reading, f"it is in {reading.unit}, which has no fresh price")
    price = reading.price * unit.mid // PRICE_ONE
    low = max(0, reading.price - reading.confidence) * unit.low // PRICE_ONE
    high = -(-(reading.price + reading.confidence) * unit.high // PRICE_ONE)
    return Verdict(reading, None, price, max(price - low, high - price))


def _bounded(verdict: Verdict, policy: Policy) -> Verdict:
    price, left_out = verdict.price, None
    if price < policy.min_price:
        left_out = f"below its least plausible price: {price_text(price)} under {price_text(policy.min_price)}"
    elif price > policy.max_price:
        left_out = f"above its highest plausible price: {price_text(price)} over {price_text(policy.max_price)}"
    elif verdict.confidence * BASIS_POINTS > policy.max_confidence_bps * price:
        left_out = f"too uncertain: {price_text(verdict.confidence)} either way"
    return Verdict(verdict.reading, left_out, price, verdict.confidence)


def _seconds(age: timedelta) -> int:
    return age // timedelta(seconds=1)
