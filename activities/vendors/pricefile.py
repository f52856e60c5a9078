"""A file of prices that an operator keeps, TOML or JSON: ``ETH = "2345.67"``, or with ``at`` in a table."""

from __future__ import annotations

import asyncio
import json
import tomllib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from activities.vendors.guard import GuardedSource, Limits, SourceFault
from activities.vendors.http import decimal_of
from domain.prices.model import Reading, price_of
from kit.clock import now
from kit.pricing import ManualFile


class FilePrices(GuardedSource):
    """Read again at every refresh."""

    def __init__(self, name: str, config: ManualFile, limits: Limits) -> None:
        super().__init__(name, limits)
        self._config = config
        self._assets = tuple(config.feeds or _names(config.path))

    @property
    def assets(self) -> Sequence[str]:
        """Those with a feed; without feeds, what the file held when it was read last."""
        return self._assets

    def feed_of(self, asset: str) -> str:
        """The file, by the source's name: where it lies is nobody's business."""
        return f"file:{self.name}:{self._key(asset)}"

    async def fetch(self) -> Sequence[Reading]:
        """Read the file."""
        told = await asyncio.to_thread(_read, self._config.path, self._config.max_body_bytes)
        if self._config.feeds is None:
            self._assets = tuple(told)
        return [self._reading(asset, told) for asset in self._assets]

    def _key(self, asset: str) -> str:
        return self._config.feeds[asset].id if self._config.feeds else asset

    def _reading(self, asset: str, told: Mapping[str, Any]) -> Reading:
        feed, entry = self.feed_of(asset), told.get(self._key(asset))
        fields = entry if isinstance(entry, dict) else {"price": entry}
        value = decimal_of(fields.get("price"))
        price = None if value is None else price_of(value)
        if price is None:
            return Reading(self.name, asset, feed, fault=f"no price: {str(fields.get('price'))[:40]}")
        at = _instant(fields["at"]) if "at" in fields else now()
        if at is None:
            return Reading(self.name, asset, feed, fault=f"no instant: {str(fields['at'])[:40]}")
        return Reading(
            source=self.name,
            asset=asset,
            feed=feed,
            price=price,
            observed_at=at,
            max_age_seconds=self._config.max_age_seconds,
            unit=self._config.feeds[asset].unit if self._config.feeds else "USD",
        )


def _read(path: Path, most: int) -> Mapping[str, Any]:
    """The entries by asset; raises ``SourceFault``."""
    try:
        with path.open("rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise SourceFault("away", f"the file cannot be read: {error.strerror}") from None
    if len(content) > most:
        raise SourceFault("too_large", f"the file has more than {most} bytes")
    try:
        text = content.decode()
        if path.suffix == ".json":
            found = json.loads(text, parse_float=Decimal, parse_int=Decimal)
        else:
            found = tomllib.loads(text, parse_float=Decimal)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise SourceFault("nonsense", f"the file is not readable: {str(error)[:100]}") from None
    if not isinstance(found, dict):
        raise SourceFault("nonsense", "the file holds no prices by asset")
    return found


def _names(path: Path) -> Sequence[str]:
    """What the file holds now; nothing where it cannot be read yet."""
    try:
        return tuple(_read(path, 1_000_000))
    except SourceFault:
        return ()


def _instant(value: object) -> datetime | None:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime) or value.tzinfo is None:
        return None
    try:
        return value.astimezone(UTC)
    except OverflowError:
        return None
