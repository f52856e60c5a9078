"""The shapes of prices."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, Field

from db.prices import Bucket, PriceRow
from domain.prices.model import Quality, price_text

Dollars = Annotated[str, Field(description="US dollars per whole unit, decimal text", examples=["2345.67"])]


class Interval(StrEnum):
    """How much time a bucket covers."""

    MINUTE = "1m"
    MINUTES_5 = "5m"
    MINUTES_15 = "15m"
    HOUR = "1h"
    HOURS_4 = "4h"
    DAY = "1d"

    @property
    def width(self) -> timedelta:
        """The time itself."""
        return _WIDTHS[self]


_WIDTHS = {
    Interval.MINUTE: timedelta(minutes=1),
    Interval.MINUTES_5: timedelta(minutes=5),
    Interval.MINUTES_15: timedelta(minutes=15),
    Interval.HOUR: timedelta(hours=1),
    Interval.HOURS_4: timedelta(hours=4),
    Interval.DAY: timedelta(days=1),
}


class SourceView(BaseModel):
    """What one source said when it was last asked."""

    source: str
    price: Dollars | None = Field(description="Null where it said nothing that is a price in dollars")
    observed_at: datetime | None = Field(description="When it says that it saw that")
    left_out: str | None = Field(description="Why it does not count; null: it does")


class PriceView(BaseModel):
    """What an asset is worth. Borrowing counts collateral at `low` and debt at `high`."""

    asset: str
    mid: Dollars
    low: Dollars
    high: Dollars
    quality: Quality = Field(
        description="`good`; `degraded`: a source is missing or was left out; `stale`: no quorum, the last good price"
    )
    confirmed: bool = Field(description="Fresh, with quorum, and persistent: what is automatic acts on no other")
    reason: str | None = Field(description="Why it is stale or not confirmed")
    as_of: datetime = Field(description="When as many sources as are needed had observed it")
    age_seconds: int = Field(description="Since then")
    refreshed_at: datetime = Field(description="When sources were last asked, changed or not")
    tick: int = Field(description="The refresh that last changed it; grows")
    sources: list[SourceView]


class Prices(BaseModel):
    """The prices of all assets that ever had one, by symbol."""

    items: list[PriceView]


class BucketView(BaseModel):
    """How `mid` moved from `at` for one interval. Where nothing changed, `ticks` is 0 and the price stood still."""

    at: datetime
    open: Dollars
    high: Dollars
    low: Dollars
    close: Dollars
    confirmed: bool = Field(description="Whether all of it was")
    ticks: int


class PriceHistory(BaseModel):
    """A price in equal intervals, which begin at multiples of their width since 1970; none before the first price."""

    asset: str
    interval: Interval
    items: list[BucketView]


class AssetSourceView(SourceView):
    """What one source said of one asset."""

    asset: str


class RefreshView(BaseModel):
    """What came of a refresh."""

    tick: int | None = Field(description="The tick that it made; null: no price changed")
    changed: list[str] = Field(description="The assets whose price changed")
    superseded: bool = Field(description="A refresh that began later was recorded before; this one changed nothing")
    sources: list[AssetSourceView] = Field(description="What each source said now")
    prices: list[PriceView]


def price_view(row: PriceRow, at: datetime) -> PriceView:
    """A price as it is worth at ``at``."""
    price = row.price_at(at)
    return PriceView(
        asset=price.asset,
        mid=price_text(price.mid),
        low=price_text(price.low),
        high=price_text(price.high),
        quality=price.quality,
        confirmed=price.confirmed,
        reason=price.reason,
        as_of=price.as_of,
        age_seconds=max(0, int((at - price.as_of).total_seconds())),
        refreshed_at=row.refreshed_at,
        tick=price.tick,
        sources=[_source_view(each) for each in row.sources],
    )


def bucket_view(bucket: Bucket) -> BucketView:
    """A bucket as it leaves."""
    return BucketView(
        at=bucket.began_at,
        open=price_text(bucket.open),
        high=price_text(bucket.high),
        low=price_text(bucket.low),
        close=price_text(bucket.close),
        confirmed=bucket.confirmed,
        ticks=bucket.ticks,
    )


def _source_view(said: Mapping[str, Any]) -> SourceView:
    return SourceView(
        source=said["source"],
        price=said.get("price"),
        observed_at=said.get("observed_at"),
        left_out=said.get("left_out"),
    )
