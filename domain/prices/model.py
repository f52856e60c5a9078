"""A price as everything else uses it, and what goes into making one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_CEILING, Context, Decimal
from enum import StrEnum
from typing import Final

from domain.fixed import PRICE_SCALE

#: What every price is in, and so what a reading is in unless it says otherwise.
DOLLARS: Final = "USD"

#: Decimals of a hundred digits go in and out unrounded.
_EXACT = Context(prec=200)
_MAX_EXPONENT = 40


class Quality(StrEnum):
    """How a price came about."""

    #: Every configured source agreed within its band.
    GOOD = "good"
    #: It had its quorum; some source was missing, invalid or an outlier.
    DEGRADED = "degraded"
    #: It had no quorum: this is the last good one, and ``reason`` says why it stands.
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class Price:
    """What one whole unit of an asset is worth, in 1e-18 US dollars.

    ``low`` and ``high`` bound what the accepted sources said, their confidence included, and for as long as a jump is
    not confirmed also the price before it; without quorum they also bound what valid sources say against it.
    ``confirmed``: fresh, with quorum, and persistent; nothing automatic happens on a price that is not. ``as_of`` is
    when the sources observed it, ``tick`` the refresh that last changed it.
    """

    asset: str
    mid: int
    low: int
    high: int
    quality: Quality
    confirmed: bool
    as_of: datetime
    sources: tuple[str, ...]
    tick: int
    reason: str | None = None

    def says_the_same(self, other: Price) -> bool:
        """Whether nothing changed that anybody acts on: ages and reasons may differ."""
        return (self.mid, self.low, self.high, self.quality, self.confirmed) == (
            other.mid,
            other.low,
            other.high,
            other.quality,
            other.confirmed,
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """What one source says of one asset: a price and a confidence (half a width), both in 1e-18 of ``unit``.

    ``feed`` names exactly where it was read, contract, unit and all, so that another feed is recognised as another one.
    It is valid for ``max_age_seconds`` from ``observed_at``. ``fault`` says why the source has no price; then nothing
    else counts.
    """

    source: str
    asset: str
    feed: str
    price: int = 0
    confidence: int = 0
    observed_at: datetime | None = None
    max_age_seconds: int = 0
    unit: str = DOLLARS
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """What one asset's price needs.

    ``quorum`` sources must agree within ``band_bps`` of their median. A source further away than three median absolute
    deviations, and than the band, is an outlier. Whatever lies outside ``min_price`` to ``max_price`` is invalid, and
    so is what is less certain than ``max_confidence_bps``. A move of more than ``jump_bps`` is confirmed when
    ``persistence`` refreshes in a row have seen it, each ``persistence_seconds`` or more after the one before. Nobody
    having looked for ``max_age_seconds`` makes the price stale; readers may keep it for ``ttl_seconds``.
    """

    quorum: int = 1
    band_bps: int = 100
    min_price: int = 1
    max_price: int = 10**18 * 10**18
    max_confidence_bps: int = 200
    jump_bps: int = 1_000
    persistence: int = 2
    persistence_seconds: int = 5
    max_age_seconds: int = 300
    ttl_seconds: int = 5


@dataclass(frozen=True, slots=True)
class Verdict:
    """A reading and what became of it: ``left_out`` says why it does not count, in words and figures."""

    reading: Reading
    left_out: str | None = None
    #: What it says in dollars, where its unit is something else.
    price: int = 0
    confidence: int = 0
    #: Whether nothing is wrong with it but that the others say something else.
    outlier: bool = False

    @property
    def low(self) -> int:
        """The least that it may mean."""
        return max(1, self.price - self.confidence)

    @property
    def high(self) -> int:
        """The most that it may mean."""
        return self.price + self.confidence


@dataclass(frozen=True, slots=True)
class Anchor:
    """The last confirmed price, and the feeds that said it."""

    mid: int
    low: int
    high: int
    feeds: frozenset[str]


@dataclass(frozen=True, slots=True)
class Jump:
    """A move that waits for confirmation: where to, how often it was seen, and when last."""

    mid: int
    seen: int
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class Carried:
    """What a refresh hands to the next one. ``low`` and ``high`` are those of the last price with quorum."""

    anchor: Anchor | None = None
    jump: Jump | None = None
    low: int = 0
    high: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """The price that stands, and what the refresh before left for this one."""

    price: Price
    carried: Carried


@dataclass(frozen=True, slots=True)
class Refreshed:
    """What a refresh makes of one asset: no price when it never had one and has no quorum now.

    ``fresh_until`` is when the price loses its quorum if nobody looks again.
    """

    price: Price | None
    carried: Carried
    verdicts: tuple[Verdict, ...]
    fresh_until: datetime | None
    changed: bool
    reason: str | None = None


def price_of(value: Decimal) -> int | None:
    """A positive decimal as a price, to the nearest 1e-18; None for what is no price at all."""
    if not value.is_finite() or value <= 0 or abs(value.adjusted()) > _MAX_EXPONENT:
        return None
    return int(value.scaleb(PRICE_SCALE, _EXACT).to_integral_value(context=_EXACT)) or None


def width_of(value: Decimal) -> int | None:
    """A decimal as an uncertainty in 1e-18, rounded up, whatever its sign; None for what is wider than any price."""
    if not value.is_finite() or value.adjusted() > _MAX_EXPONENT:
        return None
    return int(value.scaleb(PRICE_SCALE, _EXACT).to_integral_value(ROUND_CEILING, _EXACT))


def price_text(price: int) -> str:
    """A price as plain decimal text, without zeros that say nothing: ``"2345.67"``."""
    digits = str(price).rjust(PRICE_SCALE + 1, "0")
    whole, fraction = digits[:-PRICE_SCALE], digits[-PRICE_SCALE:].rstrip("0")
    return f"{whole}.{fraction}" if fraction else whole
