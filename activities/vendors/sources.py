"""From the configuration of prices to the sources that it names. Only what is configured is imported."""

from __future__ import annotations

from collections.abc import Mapping

from activities.ports import PriceSource
from activities.prices.desk import PriceDesk
from activities.vendors.guard import Limits
from activities.vendors.pricefile import FilePrices
from domain.prices.model import Policy, price_of
from kit.pricing import Chainlink, CoinGecko, Exchange, ManualFile, PricesConfig, PricesUnusable, SourceConfig, secret

#: What must agree where an asset has more than one source and its quorum is not set.
QUORUM = 2


def price_desk(config: PricesConfig, environment: Mapping[str, str] | None = None) -> PriceDesk:
    """Sources and policies; raises ``PricesUnusable``, which names the key at fault."""
    sources = {name: _source(name, each, environment) for name, each in config.sources.items()}
    desk = PriceDesk(sources=sources)
    offered = {asset: len(names) for asset, names in desk.expected().items()}
    everybody = sum(isinstance(each, ManualFile) and each.feeds is None for each in config.sources.values())
    policies = {asset: _policy(config, asset, offered.get(asset, everybody)) for asset in {*offered, *config.assets}}
    return PriceDesk(sources=sources, policies=policies, default=_policy(config, "", everybody))


def _policy(config: PricesConfig, asset: str, offered: int) -> Policy:
    wanted = config.policy(asset)
    wanted.setdefault("quorum", min(QUORUM, max(1, offered)))
    for name in ("min", "max"):
        if name in wanted:
            wanted[f"{name}_price"] = price_of(wanted.pop(name))
    return Policy(**wanted)


def _source(name: str, config: SourceConfig, environment: Mapping[str, str] | None) -> PriceSource:
    limits = Limits(
        timeout_seconds=config.timeout_seconds,
        calls_per_minute=config.calls_per_minute,
        spacing_seconds=config.spacing_seconds,
        breaker_failures=config.breaker_failures,
        breaker_seconds=config.breaker_seconds,
    )
    where = f"sources.{name}"
    if isinstance(config, ManualFile):
        return FilePrices(name, config, limits)
    if isinstance(config, CoinGecko):
        from activities.vendors.coingecko import CoinGeckoPrices

        return CoinGeckoPrices(name, config, limits, secret(config.key_env, f"{where}.key_env", environment))
    if isinstance(config, Chainlink):
        from activities.vendors.chainlink import ChainlinkPrices

        url = config.url or secret(config.url_env, f"{where}.url_env", environment)
        assert url is not None, "the configuration has one of them"
        return ChainlinkPrices(name, config, limits, url)
    if isinstance(config, Exchange):
        from activities.vendors.exchange import ExchangePrices, check_exchange

        try:
            check_exchange(config.exchange)
        except ValueError as error:
            raise PricesUnusable(f"{where}.exchange: {error}") from None
        return ExchangePrices(name, config, limits)
    from activities.vendors.pyth import PythPrices

    return PythPrices(name, config, limits, secret(config.key_env, f"{where}.key_env", environment))
