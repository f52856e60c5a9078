"""CoinGecko's ``/simple/price`` (docs.coingecko.com, API v3): an average over many exchanges, cached for a minute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from activities.vendors.guard import GuardedSource, Limits, SourceFault
from activities.vendors.http import Answer, Http, decimal_of, instant_of, refused
from domain.prices.model import Reading, price_of
from kit.pricing import CoinGecko

#: What its own error codes mean (docs.coingecko.com, errors and rate limits). None of them passes by itself.
CODES: Mapping[int, tuple[str, str]] = {
    1020: ("blocked", "CoinGecko 1020: its firewall blocks this address"),
    10002: ("key_missing", "CoinGecko 10002: no key was sent; set key_env"),
    10005: ("plan", "CoinGecko 10005: the key's plan does not include this"),
    10010: ("key_wrong", "CoinGecko 10010: a Pro key needs base_url pro-api.coingecko.com and x-cg-pro-api-key"),
    10011: ("key_wrong", "CoinGecko 10011: a Demo key needs base_url api.coingecko.com and x-cg-demo-api-key"),
}


class CoinGeckoPrices(GuardedSource):
    """One call for every asset."""

    def __init__(self, name: str, config: CoinGecko, limits: Limits, key: str | None) -> None:
        super().__init__(name, limits)
        self._config = config
        self._http = Http(max_body_bytes=config.max_body_bytes, headers={} if key is None else {config.key_header: key})

    @property
    def assets(self) -> Sequence[str]:
        """Those with a feed."""
        return tuple(self._config.feeds)

    def feed_of(self, asset: str) -> str:
        """The coin's id, in dollars or what is told to be its unit."""
        feed = self._config.feeds[asset]
        return f"coingecko:{feed.id}:{feed.unit}"

    async def fetch(self) -> Sequence[Reading]:
        """Ask for every coin at once."""
        ids = sorted({feed.id for feed in self._config.feeds.values()})
        asked = {
            "ids": ",".join(ids),
            "vs_currencies": "usd",
            "include_last_updated_at": "true",
            "precision": "full",
        }
        answer = await self._http.get(f"{self._config.base_url}/simple/price", asked)
        told = _told(answer)
        if answer.status != 200 or not isinstance(told, dict):
            raise _fault(answer, told)
        if _code(told) is not None:
            raise _fault(answer, told)
        return [self._reading(asset, told) for asset in self.assets]

    async def close(self) -> None:
        """Let go of connections."""
        await self._http.close()

    def _reading(self, asset: str, told: Mapping[str, Any]) -> Reading:
        feed = self._config.feeds[asset]
        coin, found = told.get(feed.id), self.feed_of(asset)
        if not isinstance(coin, dict):
            return Reading(self.name, asset, found, fault=f"it knows no {feed.id}")
        value = decimal_of(coin.get("usd"))
        price = None if value is None else price_of(value)
        if price is None:
            return Reading(self.name, asset, found, fault=f"no price: {str(coin.get('usd'))[:40]}")
        return Reading(
            source=self.name,
            asset=asset,
            feed=found,
            price=price,
            observed_at=instant_of(coin.get("last_updated_at")),
            max_age_seconds=feed.max_age_seconds or self._config.max_age_seconds,
            unit=feed.unit,
        )


def _told(answer: Answer) -> Any:
    try:
        return answer.json()
    except SourceFault:
        if answer.status == 200:
            raise
        return None


def _code(told: object) -> int | None:
    """Its own error code, wherever in the body it stands."""
    if not isinstance(told, dict):
        return None
    status = told.get("status")
    for place in (status if isinstance(status, dict) else {}, told):
        code = place.get("error_code")
        if isinstance(code, int):
            return code
    return None


def _fault(answer: Answer, told: object) -> SourceFault:
    code = _code(told)
    # The firewall answers a page of its own instead of JSON.
    if code is None and answer.status == 403 and b"1020" in answer.body:
        code = 1020
    if code is not None and code in CODES:
        kind, reason = CODES[code]
        return SourceFault(kind, reason, final=True)
    if code == 429 or answer.status == 429:
        return SourceFault("rate_limited", "HTTP 429: too many calls", retry_after_seconds=answer.retry_after_seconds())
    if answer.status != 200:
        return refused(answer)
    return SourceFault("nonsense", "HTTP 200 with something that is no list of prices")
