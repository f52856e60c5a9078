"""An exchange's tickers through ccxt: what it buys and sells for now, not what somebody paid last."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import ccxt.async_support as ccxt

from activities.vendors.guard import GuardedSource, Limits, SourceFault
from activities.vendors.http import Answer, Http, decimal_of, instant_of, refused
from domain.prices.model import Reading, price_of
from kit import shallow
from kit.clock import now
from kit.pricing import Exchange

_MILLISECONDS = 1_000


class ExchangePrices(GuardedSource):
    """One exchange. Its markets are read once, its tickers in one call where it has such a call."""

    def __init__(self, name: str, config: Exchange, limits: Limits) -> None:
        super().__init__(name, limits)
        self._config = config
        self._http = Http(max_body_bytes=config.max_body_bytes)
        self._exchange = _exchange(config, self._http)

    @property
    def assets(self) -> Sequence[str]:
        """Those with a market."""
        return tuple(self._config.feeds)

    def feed_of(self, asset: str) -> str:
        """The exchange and the market, whose quote is the unit."""
        return f"exchange:{self._config.exchange}:{self._config.feeds[asset].id}"

    async def fetch(self) -> Sequence[Reading]:
        """Ask for every ticker."""
        try:
            await self._exchange.load_markets()
            tickers = await self._tickers()
        except ccxt.BaseError as error:
            raise _fault(error) from None
        return [self._reading(asset, tickers.get(feed.id)) for asset, feed in self._config.feeds.items()]

    async def close(self) -> None:
        """Let go of connections."""
        await self._exchange.close()
        await self._http.close()

    async def _tickers(self) -> Mapping[str, Any]:
        symbols = sorted({feed.id for feed in self._config.feeds.values()} & set(self._exchange.symbols or ()))
        if not symbols:
            return {}
        if len(symbols) > 1 and self._exchange.has.get("fetchTickers"):
            found = await self._exchange.fetch_tickers(symbols)
            return found if isinstance(found, dict) else {}
        each = await asyncio.gather(*(self._exchange.fetch_ticker(symbol) for symbol in symbols))
        return dict(zip(symbols, each, strict=True))

    def _reading(self, asset: str, ticker: Any) -> Reading:
        feed, config = self.feed_of(asset), self._config.feeds[asset]
        if not isinstance(ticker, dict):
            return Reading(self.name, asset, feed, fault=f"it has no market {config.id}")
        bid, ask, last = (decimal_of(ticker.get(field)) for field in ("bid", "ask", "last"))
        at = instant_of(ticker["timestamp"] // _MILLISECONDS) if isinstance(ticker.get("timestamp"), int) else None
        confidence = 0
        if bid and ask and bid > 0 and ask > 0:
            if bid > ask:
                return Reading(self.name, asset, feed, fault=f"it buys for {bid} and sells for {ask}")
            # The book stands now, whenever somebody last traded.
            at = at or now()
            price = price_of((bid + ask) / 2)
            confidence = price_of((ask - bid) / 2) or 0
        else:
            price = None if last is None else price_of(last)
        if price is None:
            return Reading(self.name, asset, feed, fault="no price")
        return Reading(
            source=self.name,
            asset=asset,
            feed=feed,
            price=price,
            confidence=confidence,
            observed_at=at,
            max_age_seconds=config.max_age_seconds or self._config.max_age_seconds,
            unit=_quote(config.id),
        )


def check_exchange(name: str) -> None:
    """Raises ``ValueError`` unless ccxt knows the exchange."""
    if name not in ccxt.exchanges:
        raise ValueError(f"ccxt {ccxt.__version__} knows no exchange {name!r}")


def _quote(market: str) -> str:
    """``ETH/USDT:USDT`` is in USDT."""
    return market.partition("/")[2].partition(":")[0]


def _exchange(config: Exchange, http: Http) -> Any:
    """ccxt's exchange with our client under it, and numbers as they were written."""
    base: Any = getattr(ccxt, config.exchange)

    class Bounded(base):  # type: ignore[misc]  # which class it is, the configuration says
        """Its requests are ours to bound."""

        async def fetch(self, url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
            answer = await http.send(method, url, headers=dict(headers or {}), content=body)
            return _answered(self, answer, url, method, body)

        def parse_json(self, text: str) -> Any:
            try:
                return shallow.loads(text, parse_float=str, parse_int=str)
            except ValueError:
                return None

    # We have a rate limit of our own; theirs would make a call last longer than it may.
    made = Bounded({"enableRateLimit": False, "options": config.options})
    made.number = str
    if config.base_url is not None:
        made.urls = {**made.urls, "api": _moved(made.urls["api"], config.base_url)}
    return made


def _answered(exchange: Any, answer: Answer, url: str, method: str, body: Any) -> Any:
    if answer.status == 429 or answer.status in (401, 403):
        raise refused(answer)
    text = answer.body.decode(errors="replace")
    told = exchange.parse_json(text)
    headers = dict(answer.headers)
    exchange.handle_errors(answer.status, "", url, method, headers, text, told, headers, body)
    exchange.handle_http_status_code(answer.status, "", url, method, "")
    if answer.status != 200:
        raise refused(answer)
    if told is None:
        raise SourceFault("nonsense", "HTTP 200 with a body that is no JSON")
    return told


def _moved(urls: Any, base_url: str) -> Any:
    """Every address of the exchange, at another host."""
    if isinstance(urls, dict):
        return {name: _moved(each, base_url) for name, each in urls.items()}
    host = urlsplit(base_url)
    return urlunsplit(urlsplit(str(urls))._replace(scheme=host.scheme, netloc=host.netloc))


def _fault(error: ccxt.BaseError) -> SourceFault:
    """What an error of ccxt's is to us; its text has the address in it."""
    name = type(error).__name__
    if isinstance(error, ccxt.DDoSProtection):
        return SourceFault("rate_limited", f"too many calls ({name})", retry_after_seconds=60)
    if isinstance(error, ccxt.AuthenticationError):
        return SourceFault("denied", f"it wants to know who asks ({name})", final=True)
    if isinstance(error, ccxt.NetworkError):
        return SourceFault("away", f"it does not answer ({name})")
    return SourceFault("refused", f"it refused ({name})")
