"""How the readings of several sources become one price.

Valid readings, their median, outliers left out, quorum, then the jump breaker. The steps and why are in
``docs/decisions/0013-prices.md``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from domain.money import BASIS_POINTS
from domain.prices.model import (
    Anchor,
    Carried,
    Jump,
    Policy,
    Price,
    Quality,
    Reading,
    Refreshed,
    Standing,
    Verdict,
    price_text,
)
from domain.prices.validity import expires_at, judge

#: How many median absolute deviations from the median an outlier lies.
OUTLIER_DEVIATIONS = 3

#: Said of a move that only feeds unknown until now see: no number of refreshes confirms it.
FEEDS_CHANGED = "other feeds than before, and another price: an operator has to accept it"


def median(values: Sequence[int]) -> int:
    """The middle value; of an even number the middle between the middle two, rounded down."""
    ordered = sorted(values)
    upper = len(ordered) // 2
    return ordered[upper] if len(ordered) % 2 else (ordered[upper - 1] + ordered[upper]) // 2


def refresh(
    asset: str,
    readings: Iterable[Reading],
    policy: Policy,
    *,
    standing: Standing | None,
    units: Mapping[str, Price],
    now: datetime,
) -> Refreshed:
    """The price of ``asset`` after its sources were asked. The order of the readings does not matter.

    Without quorum the price that stands stays, stale, with a reason. Never raises for what sources say.
    """
    judged = [judge(each, policy, units, now) for each in readings]
    verdicts = tuple(
        sorted(_without_outliers(judged, policy), key=lambda each: (each.reading.source, each.reading.feed))
    )
    accepted = [each for each in verdicts if each.left_out is None]
    mid = median([each.price for each in accepted]) if accepted else 0
    agreeing = [each for each in accepted if _within(each.price, mid, policy.band_bps)]
    if len({each.reading.source for each in agreeing}) < policy.quorum:
        return _without_quorum(verdicts, agreeing, policy, standing)
    carried = standing.carried if standing is not None else Carried()
    low, high = min(each.low for each in accepted), max(each.high for each in accepted)
    feeds = frozenset(each.reading.feed for each in accepted)
    reason, carried = _settled(Anchor(mid, min(low, mid), max(high, mid), feeds), policy, carried, now)
    if reason is not None and carried.anchor is not None:
        low, high = min(low, carried.anchor.low), max(high, carried.anchor.high)
    price = Price(
        asset=asset,
        mid=mid,
        low=min(low, mid),
        high=max(high, mid),
        quality=Quality.GOOD if len(agreeing) == len(verdicts) else Quality.DEGRADED,
        confirmed=reason is None,
        as_of=min(now, _latest([_observed(each) for each in agreeing], policy.quorum)),
        sources=tuple(sorted({each.reading.source for each in accepted})),
        tick=0 if standing is None else standing.price.tick,
        reason=reason,
    )
    until = _latest([expires_at(each.reading) for each in agreeing], policy.quorum)
    return Refreshed(
        price=price,
        carried=carried,
        verdicts=verdicts,
        fresh_until=min(until, now + timedelta(seconds=policy.max_age_seconds)),
        changed=standing is None or not price.says_the_same(standing.price),
        reason=reason,
    )


def _without_outliers(judged: Sequence[Verdict], policy: Policy) -> list[Verdict]:
    """The verdicts, outliers among the valid ones left out: further from the median than three deviations and the
    band."""
    valid = [each.price for each in judged if each.left_out is None]
    if not valid:
        return list(judged)
    middle = median(valid)
    deviation = median([abs(price - middle) for price in valid])
    limit = max(OUTLIER_DEVIATIONS * deviation, policy.band_bps * middle // BASIS_POINTS)

    def checked(each: Verdict) -> Verdict:
        if each.left_out is not None or abs(each.price - middle) <= limit:
            return each
        said = f"an outlier: {price_text(each.price)}, the median is {price_text(middle)}"
        return replace(each, left_out=said, outlier=True)

    return [checked(each) for each in judged]


def _without_quorum(
    verdicts: tuple[Verdict, ...], agreeing: Sequence[Verdict], policy: Policy, standing: Standing | None
) -> Refreshed:
    """The last good price stands. What valid sources say against it widens its bounds, and never narrows them."""
    sources = len({each.reading.source for each in agreeing})
    valid = [each for each in verdicts if each.left_out is None or each.outlier]
    reason = f"no quorum: {sources} of {policy.quorum} sources agree"
    if len(valid) > sources:
        reason += f"; they say {price_text(min(v.price for v in valid))} to {price_text(max(v.price for v in valid))}"
    if standing is None:
        return Refreshed(None, Carried(), verdicts, None, changed=False, reason=reason)
    # A jump has to be seen by refreshes in a row, and this one saw none.
    carried = replace(standing.carried, jump=None)
    before = standing.price
    price = replace(
        before,
        low=min([carried.low or before.low, *(each.low for each in valid)]),
        high=max([carried.high or before.high, *(each.high for each in valid)]),
        quality=Quality.STALE,
        confirmed=False,
        reason=reason,
    )
    return Refreshed(price, carried, verdicts, None, changed=not price.says_the_same(before), reason=reason)


def _settled(found: Anchor, policy: Policy, carried: Carried, now: datetime) -> tuple[str | None, Carried]:
    """Why a price with quorum is not confirmed yet, None when it is; and what the next refresh has to know."""
    anchor, mid = carried.anchor, found.mid
    if anchor is None or _within(mid, anchor.mid, policy.jump_bps):
        return None, Carried(anchor=found, low=found.low, high=found.high)
    move = f"a move from {price_text(anchor.mid)} to {price_text(mid)}"
    low, high = min(found.low, anchor.low), max(found.high, anchor.high)
    if not found.feeds & anchor.feeds:
        return f"{move}: {FEEDS_CHANGED}", Carried(anchor=anchor, low=low, high=high)
    jump = carried.jump
    if jump is None or not _within(mid, jump.mid, policy.jump_bps):
        jump = Jump(mid, 1, now)
    elif now >= jump.seen_at + timedelta(seconds=policy.persistence_seconds):
        jump = Jump(mid, jump.seen + 1, now)
    if jump.seen >= policy.persistence:
        return None, Carried(anchor=found, low=found.low, high=found.high)
    return (
        f"{move}, seen {jump.seen} of {policy.persistence} times in a row",
        Carried(anchor=anchor, jump=jump, low=low, high=high),
    )


def _within(price: int, of: int, bps: int) -> bool:
    """Whether a price lies within so many basis points of another."""
    return abs(price - of) * BASIS_POINTS <= bps * of


def _observed(verdict: Verdict) -> datetime:
    assert verdict.reading.observed_at is not None, "a valid reading says when it was observed"
    return verdict.reading.observed_at


def _latest(instants: Sequence[datetime], number: int) -> datetime:
    """The instant to which ``number`` of them hold: the ``number``-th latest."""
    return sorted(instants, reverse=True)[min(number, len(instants)) - 1]
