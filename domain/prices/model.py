"""A price as everything else uses it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


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
    not confirmed also the price before it. ``confirmed``: fresh, with quorum, and persistent; nothing automatic happens
    on a price that is not. ``as_of`` is when the sources observed it, ``tick`` the refresh that last changed it.
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
