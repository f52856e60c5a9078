"""From the configuration of chains to a desk for each. Only what is configured is imported."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncEngine

from activities.chain.budget import SharedAllowance
from activities.chain.desk import Desk
from activities.chain.pool import Provider
from activities.chain.ports import ChainReader
from kit.chains import ChainConfig, ChainsConfig, EvmChain
from kit.chains import Provider as ProviderConfig

#: A reader ends a question by itself and says why; what it does not end is ended after this.
_OVERTIME_SECONDS = 1.0


def chain_desks(
    config: ChainsConfig, engine: AsyncEngine, environment: Mapping[str, str] | None = None
) -> dict[str, Desk]:
    """Desks by the chains' names; raises ``ChainsUnusable``. Budgets are kept where ``engine`` leads."""
    return {name: _desk(name, chain, engine, environment) for name, chain in config.chains.items()}


def _desk(name: str, chain: ChainConfig, engine: AsyncEngine, environment: Mapping[str, str] | None) -> Desk:
    providers = [
        Provider(
            _reader(chain, each, each.address(environment)),
            timeout_seconds=each.timeout_seconds + _OVERTIME_SECONDS,
            range_blocks_max=each.range_blocks_max,
            allowance=_allowance(name, each, engine),
        )
        for each in chain.providers
    ]
    return Desk(
        name,
        chain.network,
        providers,
        agreeing=chain.agreeing,
        confirmations=chain.confirmations,
        finality_depth=chain.finality_depth,
        poll_seconds=chain.poll_seconds,
    )


def _allowance(name: str, provider: ProviderConfig, engine: AsyncEngine) -> SharedAllowance | None:
    if provider.requests_per_second is None:
        return None
    return SharedAllowance(engine, name, provider.name, provider.requests_per_second)


def _reader(chain: ChainConfig, provider: ProviderConfig, url: str) -> ChainReader:
    if isinstance(chain, EvmChain):
        from activities.vendors.evm import EvmReader

        return EvmReader(
            provider.name, url, timeout_seconds=provider.timeout_seconds, max_body_bytes=provider.max_body_bytes
        )
    from activities.vendors.utxo import UtxoReader

    return UtxoReader(
        provider.name, url, timeout_seconds=provider.timeout_seconds, max_body_bytes=provider.max_body_bytes
    )
