"""The steps of a price refresh: whom to ask, ask one, and record what all of them said in one commit."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from prometheus_client import Counter, Gauge
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio import activity

from activities.prices.desk import PriceDesk
from activities.prices.messages import (
    AskSource,
    PartitionsKept,
    ReadingMessage,
    RecordPrices,
    RefreshOutcome,
    SourceSaid,
    SourcesKnown,
    SourceVerdict,
)
from db import ledger
from db.doorbell import Doorbell
from db.engine import transaction
from db.outbox import PRICES_TOPIC, OutboxEvent, append
from db.prices import PRICES_CHANNEL, writing
from db.prices.writing import Saved
from domain.ids import PLATFORM_TENANT
from domain.prices.aggregation import refresh
from domain.prices.model import Price, Quality, Reading, Refreshed, price_text

#: How many months of history have their partition before they begin.
MONTHS_AHEAD = 2

_NAMESPACE = UUID("0198f2a0-0000-7000-8000-000000000009")

_log = logging.getLogger(__name__)
_ticks = Counter("holdfast_price_ticks_total", "Refreshes that changed some price")
_age = Gauge("holdfast_price_age_seconds", "How long ago sources observed the price", ["asset"])
_stale = Gauge("holdfast_price_stale", "Whether the price has no quorum", ["asset"])
_unconfirmed = Gauge("holdfast_price_unconfirmed", "Whether nothing automatic may happen on the price", ["asset"])
_left_out = Counter("holdfast_price_readings_left_out_total", "Readings that did not count", ["source", "asset"])
_months = Gauge("holdfast_price_partitions_ahead", "Months after the running one that have their partition")


class PartitionMissing(RuntimeError):
    """Prices could not be kept when the month ends. An operator has to find out why."""


class PriceActivities:
    """``engine`` acts as the role that writes prices; ``desk`` is what this worker is configured with."""

    def __init__(self, engine: AsyncEngine, doorbell: Doorbell, desk: PriceDesk) -> None:
        self._engine = engine
        self._doorbell = doorbell
        self._changes = Doorbell(engine, PRICES_CHANNEL)
        self._desk = desk

    @activity.defn(name="prices.sources")
    async def sources(self) -> SourcesKnown:
        """Whom this worker asks."""
        return SourcesKnown(sources=tuple(sorted(self._desk.sources)))

    @activity.defn(name="prices.ask")
    async def ask(self, asked: AskSource) -> SourceSaid:
        """Ask one source: one call outside, nothing written. A source that this worker does not know says nothing."""
        source = self._desk.sources.get(asked.source)
        if source is None:
            return SourceSaid(source=asked.source, fault="this worker is not configured with it")
        readings = await source.read()
        return SourceSaid(source=asked.source, readings=tuple(ReadingMessage.of(each) for each in readings))

    @activity.defn(name="prices.record")
    async def record(self, asked: RecordPrices) -> RefreshOutcome:
        """Make one price an asset of what was said, and write prices, history, tick and events in one commit.

        Done once for each ``refresh_id``. One that began before what is recorded already changes nothing.
        """
        async with transaction(self._engine) as connection:
            latest = await writing.begin(connection)
            if (made := await writing.find_tick(connection, asked.refresh_id)) is not None:
                return RefreshOutcome(tick=made, changed=tuple(await writing.assets_of_tick(connection, made)))
            if latest is not None and asked.at < latest:
                return RefreshOutcome(superseded=True)
            done = await self._refreshed(connection, asked)
            tick = await self._write(connection, asked, done)
        self._tell(done, asked.at)
        if tick is not None:
            _ticks.inc()
            self._doorbell.ring()
            self._changes.ring()
        return RefreshOutcome(tick=tick, changed=_changed(done), verdicts=_verdicts(done))

    @activity.defn(name="prices.keep_partitions")
    async def keep_partitions(self) -> PartitionsKept:
        """Make the running month's partition and those of the next ``MONTHS_AHEAD`` where they are missing.

        Raises ``PartitionMissing``, for the operators' eyes, when the next month's is missing afterwards.
        """
        async with transaction(self._engine) as connection:
            kept = await keep_partitions(connection, datetime.now(UTC).date())
        _months.set(max(0, len(kept.ahead) - 1))
        if len(kept.ahead) < 2:
            _log.error("the next month of price history has no partition", extra={"there": list(kept.ahead)})
            raise PartitionMissing("the next month of price history has no partition")
        return kept

    async def _refreshed(self, connection: AsyncConnection, asked: RecordPrices) -> dict[str, Refreshed]:
        """What becomes of each asset that somebody is asked about."""
        standing = await writing.standing(connection)
        known = {asset.symbol for asset in await ledger.list_assets(connection)}
        units = {asset: each.price for asset, each in standing.items()}
        readings = self._readings(asked.said)
        if unknown := readings.keys() - known:
            _log.error("prices of assets that nobody knows are left out", extra={"assets": sorted(unknown)})
        return {
            asset: refresh(
                asset,
                readings[asset],
                self._desk.policy(asset),
                standing=standing.get(asset),
                units=units,
                now=asked.at,
            )
            for asset in sorted(readings.keys() & known)
        }

    def _readings(self, said: Sequence[SourceSaid]) -> dict[str, list[Reading]]:
        """Every reading by asset, and for every source that should have said something and did not, that it did not."""
        found: dict[str, list[Reading]] = {}
        for each in said:
            for reading in each.readings:
                found.setdefault(reading.asset, []).append(reading.to_reading())
        faults = {each.source: each.fault for each in said}
        for asset, sources in self._desk.expected().items():
            heard = {reading.source for reading in found.get(asset, [])}
            for source in sources:
                if source not in heard:
                    fault = faults.get(source) or "it says nothing of this asset"
                    found.setdefault(asset, []).append(Reading(source, asset, source, fault=fault))
        return found

    async def _write(self, connection: AsyncConnection, asked: RecordPrices, done: dict[str, Refreshed]) -> int | None:
        priced = {asset: each for asset, each in done.items() if each.price is not None}
        changed = _changed(done)
        tick = await writing.make_tick(connection, asked.refresh_id, asked.at) if changed else None
        saved = [
            Saved(each, _tick_of(each, tick), self._desk.policy(asset).ttl_seconds) for asset, each in priced.items()
        ]
        if saved:
            await writing.save(connection, saved, asked.at)
        if tick is not None:
            prices = [done[asset].price for asset in changed]
            await append(connection, PLATFORM_TENANT, _events(tick, [each for each in prices if each], asked.at))
        return tick

    def _tell(self, done: dict[str, Refreshed], at: datetime) -> None:
        """After the commit: metrics, and a line for what somebody should look at."""
        for asset, each in done.items():
            price = each.price
            _stale.labels(asset).set(price is None or price.quality is Quality.STALE)
            _unconfirmed.labels(asset).set(price is None or not price.confirmed)
            if price is not None:
                _age.labels(asset).set((at - price.as_of).total_seconds())
            for verdict in each.verdicts:
                if verdict.left_out is not None:
                    _left_out.labels(verdict.reading.source, asset).inc()
            if each.reason is not None and (each.changed or price is None):
                _log.warning("a price is not to be relied on", extra={"asset": asset, "reason": each.reason})


async def keep_partitions(connection: AsyncConnection, today: date) -> PartitionsKept:
    """Make what is missing of this month's and the next months' partitions, and say what is there then."""
    months = [today.replace(day=1)]
    for _ in range(MONTHS_AHEAD):
        months.append((months[-1] + timedelta(days=32)).replace(day=1))
    made = [month for month in months if await writing.ensure_partition(connection, month)]
    there = [month for month in months if await writing.has_partition(connection, month)]
    return PartitionsKept(made=tuple(f"{m:%Y-%m}" for m in made), ahead=tuple(f"{m:%Y-%m}" for m in there))


def _changed(done: dict[str, Refreshed]) -> tuple[str, ...]:
    return tuple(asset for asset, each in done.items() if each.changed)


def _tick_of(each: Refreshed, tick: int | None) -> int:
    if each.changed and tick is not None:
        return tick
    assert each.price is not None, "only prices are saved"
    return each.price.tick


def _verdicts(done: dict[str, Refreshed]) -> tuple[SourceVerdict, ...]:
    return tuple(
        SourceVerdict(
            source=verdict.reading.source,
            asset=asset,
            price=price_text(verdict.price) if verdict.price > 0 else None,
            observed_at=verdict.reading.observed_at,
            left_out=verdict.left_out,
        )
        for asset, each in done.items()
        for verdict in each.verdicts
    )


def _events(tick: int, prices: Sequence[Price], at: datetime) -> list[OutboxEvent]:
    """One event an asset that changed, and one for the tick, by which whoever follows prices is woken."""

    def event(kind: str, subject: str, data: dict[str, Any]) -> OutboxEvent:
        event_id = uuid5(_NAMESPACE, f"{tick}:{kind}:{subject}")
        return OutboxEvent(event_id, PRICES_TOPIC, kind, subject, at, {"tick": tick, **data})

    changed = [event("price.changed", f"price:{price.asset}", _told(price)) for price in prices]
    return [*changed, event("prices.ticked", "prices", {"assets": [price.asset for price in prices]})]


def _told(price: Price) -> dict[str, Any]:
    return {
        "asset": price.asset,
        "mid": price_text(price.mid),
        "low": price_text(price.low),
        "high": price_text(price.high),
        "quality": price.quality,
        "confirmed": price.confirmed,
        "as_of": price.as_of.isoformat(),
        "sources": list(price.sources),
        "reason": price.reason,
    }
