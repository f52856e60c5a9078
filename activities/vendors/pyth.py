"""Pyth's Hermes, ``/v2/updates/price/latest`` (docs.pyth.network): integers with an exponent, and a confidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from activities.vendors.guard import GuardedSource, Limits, SourceFault
from activities.vendors.http import Http, instant_of, refused
from domain.prices.model import Reading, price_of, width_of
from kit.pricing import Pyth

_EXPONENT_MAX = 36
_DIGITS_MAX = 40


class PythPrices(GuardedSource):
    """One call for every feed."""

    def __init__(self, name: str, config: Pyth, limits: Limits, key: str | None) -> None:
        super().__init__(name, limits)
        self._config = config
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._http = Http(max_body_bytes=config.max_body_bytes, headers=headers)

    @property
    def assets(self) -> Sequence[str]:
        """Those with a feed."""
        return tuple(self._config.feeds)

    def feed_of(self, asset: str) -> str:
        """The feed's id and unit."""
        feed = self._config.feeds[asset]
        return f"pyth:{_plain(feed.id)}:{feed.unit}"

    async def fetch(self) -> Sequence[Reading]:
        """Ask for every feed at once; one that it does not know does not spoil the others."""
        ids = sorted({_plain(feed.id) for feed in self._config.feeds.values()})
        asked = [("ids[]", each) for each in ids]
        asked += [("parsed", "true"), ("encoding", "hex"), ("ignore_invalid_price_ids", "true")]
        answer = await self._http.get(f"{self._config.base_url}/v2/updates/price/latest", asked)
        if answer.status != 200:
            raise refused(answer)
        told = answer.json()
        parsed = told.get("parsed") if isinstance(told, dict) else None
        if not isinstance(parsed, list):
            raise SourceFault("nonsense", "HTTP 200 without parsed prices")
        by_id = {
            _plain(each["id"]): each for each in parsed if isinstance(each, dict) and isinstance(each.get("id"), str)
        }
        return [self._reading(asset, by_id) for asset in self.assets]

    async def close(self) -> None:
        """Let go of connections."""
        await self._http.close()

    def _reading(self, asset: str, by_id: Mapping[str, Mapping[str, Any]]) -> Reading:
        feed, found = self._config.feeds[asset], self.feed_of(asset)
        told = by_id.get(_plain(feed.id), {}).get("price")
        if not isinstance(told, dict):
            return Reading(self.name, asset, found, fault="it knows no such feed")
        price, confidence = _scaled(told.get("price"), told), _scaled(told.get("conf"), told)
        made = None if price is None else price_of(price)
        width = None if confidence is None else width_of(confidence)
        if made is None or width is None:
            said = f"{told.get('price')} ± {told.get('conf')} · 10^{told.get('expo')}"
            return Reading(self.name, asset, found, fault=f"no price: {said[:80]}")
        return Reading(
            source=self.name,
            asset=asset,
            feed=found,
            price=made,
            confidence=width,
            observed_at=instant_of(told.get("publish_time")),
            max_age_seconds=feed.max_age_seconds or self._config.max_age_seconds,
            unit=feed.unit,
        )


def _plain(feed_id: str) -> str:
    return feed_id.lower().removeprefix("0x")


def _scaled(digits: object, told: Mapping[str, Any]) -> Decimal | None:
    """``digits`` · 10^expo, exactly; None where one of them is no integer."""
    exponent = told.get("expo")
    if isinstance(exponent, bool) or not isinstance(exponent, int) or abs(exponent) > _EXPONENT_MAX:
        return None
    text = str(digits) if isinstance(digits, int | str) and not isinstance(digits, bool) else ""
    if len(text) > _DIGITS_MAX or not text.removeprefix("-").isdecimal() or not text.isascii():
        return None
    return Decimal(f"{text}e{exponent}")
