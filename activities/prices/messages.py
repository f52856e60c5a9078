"""Messages of price refreshes."""

from __future__ import annotations

from datetime import datetime

from activities.messages import Message, MinorUnits, OriginMessage
from domain.prices.model import DOLLARS, Reading


class RefreshPrices(Message):
    """Start of a ``PriceRefreshWorkflow``."""

    origin: OriginMessage = OriginMessage()

    def log_context(self) -> dict[str, str]:
        """The request that asked, where one did."""
        return self.origin.log_context()


class SourcesKnown(Message):
    """Whom a refresh asks."""

    sources: tuple[str, ...]


class AskSource(Message):
    """Input of the step that asks one source."""

    source: str
    request: RefreshPrices = RefreshPrices()

    def log_context(self) -> dict[str, str]:
        """Source and request."""
        return {"source": self.source} | self.request.log_context()


class ReadingMessage(Message):
    """A ``domain.prices.model.Reading``."""

    source: str
    asset: str
    feed: str
    price: MinorUnits = 0
    confidence: MinorUnits = 0
    observed_at: datetime | None = None
    max_age_seconds: int = 0
    unit: str = DOLLARS
    fault: str | None = None

    @classmethod
    def of(cls, reading: Reading) -> ReadingMessage:
        """The message that carries a reading."""
        return cls(
            source=reading.source,
            asset=reading.asset,
            feed=reading.feed,
            price=reading.price,
            confidence=reading.confidence,
            observed_at=reading.observed_at,
            max_age_seconds=reading.max_age_seconds,
            unit=reading.unit,
            fault=reading.fault,
        )

    def to_reading(self) -> Reading:
        """The reading that it carries."""
        return Reading(
            source=self.source,
            asset=self.asset,
            feed=self.feed,
            price=self.price,
            confidence=self.confidence,
            observed_at=self.observed_at,
            max_age_seconds=self.max_age_seconds,
            unit=self.unit,
            fault=self.fault,
        )


class SourceSaid(Message):
    """What one source said; ``fault`` where nothing came of asking it."""

    source: str
    readings: tuple[ReadingMessage, ...] = ()
    fault: str | None = None


class RecordPrices(Message):
    """Input of the step that makes prices of what sources said. ``refresh_id`` names the run, ``at`` when it began."""

    refresh_id: str
    at: datetime
    said: tuple[SourceSaid, ...]
    request: RefreshPrices = RefreshPrices()

    def log_context(self) -> dict[str, str]:
        """Refresh and request."""
        return {"refresh_id": self.refresh_id} | self.request.log_context()


class SourceVerdict(Message):
    """What a source said of an asset, and why it was left out where it was; prices as decimal text."""

    source: str
    asset: str
    price: str | None = None
    observed_at: datetime | None = None
    left_out: str | None = None


class RefreshOutcome(Message):
    """What came of a refresh: the tick that it made (None: nothing changed) and the assets that changed.

    ``superseded``: a refresh that began later was recorded before, and this one changed nothing.
    """

    tick: int | None = None
    changed: tuple[str, ...] = ()
    verdicts: tuple[SourceVerdict, ...] = ()
    superseded: bool = False


class PartitionsKept(Message):
    """Months of history whose partitions were made, and those that are there, the running one first."""

    made: tuple[str, ...] = ()
    ahead: tuple[str, ...] = ()
