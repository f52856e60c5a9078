"""Readings and refreshes for tests of the rules of prices."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from domain.prices.aggregation import refresh
from domain.prices.model import Policy, Price, Reading, Refreshed, Standing, price_of

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def dollars(text: str) -> int:
    """A price from text."""
    price = price_of(Decimal(text))
    assert price is not None
    return price


def reading(source: str, price: str | int, at: datetime = NOW, **changes: Any) -> Reading:
    """What a source says of ETH, observed at ``at`` and valid for five minutes."""
    fields: dict[str, Any] = {
        "source": source,
        "asset": "ETH",
        "feed": f"{source}:ETH",
        "price": dollars(price) if isinstance(price, str) else price,
        "observed_at": at,
        "max_age_seconds": 300,
    }
    return Reading(**(fields | changes))


class Market:
    """One asset through refreshes, each 15 seconds after the one before."""

    def __init__(self, policy: Policy, *, asset: str = "ETH", every: int = 15) -> None:
        self.policy = policy
        self.asset = asset
        self.now = NOW
        self.standing: Standing | None = None
        self.last: Refreshed | None = None
        self._every = timedelta(seconds=every)

    def refresh(self, *readings: Reading, units: Mapping[str, Price] | None = None) -> Refreshed:
        """One refresh; what has a price stands for the next one."""
        self.last = refresh(self.asset, readings, self.policy, standing=self.standing, units=units or {}, now=self.now)
        if self.last.price is not None:
            self.standing = Standing(self.last.price, self.last.carried)
        self.now += self._every
        return self.last

    def say(self, units: Mapping[str, Price] | None = None, **prices: str | None) -> Refreshed:
        """A refresh in which each source says a price now, or nothing."""
        said = [
            reading(source, price, self.now)
            if price is not None
            else Reading(source, self.asset, f"{source}:{self.asset}", fault="it does not answer")
            for source, price in prices.items()
        ]
        return self.refresh(*said, units=units)

    @property
    def price(self) -> Price:
        """The price that stands."""
        assert self.standing is not None, "it never had one"
        return self.standing.price
