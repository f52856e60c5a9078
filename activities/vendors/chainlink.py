"""Chainlink aggregators through ``latestRoundData`` over JSON-RPC (docs.chain.link/data-feeds).

The call succeeds for a feed that stopped long ago, so everything that it answers is checked here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from web3 import AsyncWeb3
from web3.exceptions import Web3Exception
from web3.providers.async_base import AsyncBaseProvider

from activities.vendors.guard import GuardedSource, Limits, SourceFault
from activities.vendors.http import Http, instant_of, refused
from domain.prices.model import Reading, price_of
from kit.clock import now
from kit.pricing import Chainlink, ChainlinkFeed

#: How long a feed's decimals are believed; behind a proxy they could change.
DECIMALS_SECONDS = 600.0
#: The node's words for too many calls: EIP-1474's, and HTTP's status in their place.
_TOO_MANY = {-32005, 429}

ABI = [
    {
        "name": "latestRoundData",
        "type": "function",
        "stateMutability": "view",
        "inputs": [],
        "outputs": [
            {"name": "roundId", "type": "uint80"},
            {"name": "answer", "type": "int256"},
            {"name": "startedAt", "type": "uint256"},
            {"name": "updatedAt", "type": "uint256"},
            {"name": "answeredInRound", "type": "uint80"},
        ],
    },
    {
        "name": "decimals",
        "type": "function",
        "stateMutability": "view",
        "inputs": [],
        "outputs": [{"name": "", "type": "uint8"}],
    },
]


class _Node(AsyncBaseProvider):
    """A node behind our own client: bounded bodies, no retries, nothing of its address in errors."""

    global_ccip_read_enabled = False

    def __init__(self, url: str, http: Http) -> None:
        super().__init__()
        self._url = url
        self._http = http

    async def make_request(self, method: Any, params: Any) -> Any:
        answer = await self._http.post(self._url, {"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        if answer.status != 200:
            raise refused(answer)
        told = answer.json()
        if not isinstance(told, dict) or ("result" not in told and not isinstance(told.get("error"), dict)):
            raise SourceFault("nonsense", "HTTP 200 with something that is no JSON-RPC")
        if "error" in told and told["error"].get("code") in _TOO_MANY:
            raise SourceFault("rate_limited", "the node says: too many calls", retry_after_seconds=60)
        return told


class ChainlinkPrices(GuardedSource):
    """One node, any number of feeds. A feed at fault leaves the others alone."""

    def __init__(self, name: str, config: Chainlink, limits: Limits, url: str) -> None:
        super().__init__(name, limits)
        self._config = config
        self._http = Http(max_body_bytes=config.max_body_bytes)
        self._web3 = AsyncWeb3(_Node(url, self._http), middleware=[])
        self._decimals: dict[str, tuple[float, int]] = {}
        self._chain_checked = False

    @property
    def assets(self) -> Sequence[str]:
        """Those with a feed."""
        return tuple(self._config.feeds)

    def feed_of(self, asset: str) -> str:
        """Chain, contract, decimals and unit."""
        feed = self._config.feeds[asset]
        return f"chainlink:{self._config.chain_id}:{feed.address.lower()}:{feed.decimals}:{feed.unit}"

    async def fetch(self) -> Sequence[Reading]:
        """Ask every feed, after the chain and its sequencer."""
        await self._check_chain()
        await self._check_sequencer()
        return await asyncio.gather(*(self._reading(asset, feed) for asset, feed in self._config.feeds.items()))

    async def close(self) -> None:
        """Let go of connections."""
        await self._http.close()

    async def _check_chain(self) -> None:
        """The same pair differs by chain, and so does its address."""
        if self._chain_checked:
            return
        try:
            chain_id = await self._web3.eth.chain_id
        except (Web3Exception, ValueError, TypeError) as error:
            raise SourceFault("nonsense", f"the node names no chain: {type(error).__name__}") from None
        if chain_id != self._config.chain_id:
            raise SourceFault(
                "wrong_chain", f"the node is of chain {chain_id}, chain_id says {self._config.chain_id}", final=True
            )
        self._chain_checked = True

    async def _check_sequencer(self) -> None:
        """A rollup whose sequencer was down has old prices; its feeds catch up within the grace after it is back."""
        if self._config.sequencer is None:
            return
        try:
            _, answer, started_at, _, _ = await self._contract(self._config.sequencer).latestRoundData().call()
        except (Web3Exception, ValueError, TypeError) as error:
            raise SourceFault("sequencer", f"no word of the sequencer: {type(error).__name__}") from None
        since = instant_of(started_at)
        if answer != 0 or started_at == 0 or since is None:
            raise SourceFault("sequencer", "the chain's sequencer is down")
        if (now() - since).total_seconds() < self._config.sequencer_grace_seconds:
            raise SourceFault("sequencer", "the chain's sequencer is back for less than its grace period")

    async def _reading(self, asset: str, feed: ChainlinkFeed) -> Reading:
        found = self.feed_of(asset)

        def fault(reason: str) -> Reading:
            return Reading(self.name, asset, found, fault=reason)

        try:
            decimals = await self._decimals_of(feed)
            if decimals != feed.decimals:
                return fault(f"the feed has {decimals} decimals, the configuration says {feed.decimals}")
            round_id, answer, started_at, updated_at, answered_in = (
                await self._contract(feed.address).latestRoundData().call()
            )
        except (Web3Exception, ValueError, TypeError) as error:
            # Reverted, or no contract at this address. The text may be the node's own.
            return fault(f"the call failed: {type(error).__name__}")
        at = instant_of(updated_at)
        if updated_at == 0 or started_at == 0 or at is None or answered_in < round_id:
            return fault(f"round {round_id} is not complete")
        if answer <= 0:
            return fault(f"not positive: {answer}")
        value = Decimal(answer).scaleb(-feed.decimals)
        price = price_of(value)
        if price is None:
            return fault(f"no price: {value}")
        if feed.min is not None and value <= feed.min:
            return fault(f"at or below the least that the feed can say: {value}")
        if feed.max is not None and value >= feed.max:
            return fault(f"at or above the most that the feed can say: {value}")
        return Reading(
            source=self.name,
            asset=asset,
            feed=found,
            price=price,
            observed_at=at,
            max_age_seconds=feed.heartbeat_seconds + feed.buffer_seconds,
            unit=feed.unit,
        )

    async def _decimals_of(self, feed: ChainlinkFeed) -> int:
        known = self._decimals.get(feed.address)
        if known is not None and self._clock() - known[0] < DECIMALS_SECONDS:
            return known[1]
        decimals = int(await self._contract(feed.address).decimals().call())
        self._decimals[feed.address] = (self._clock(), decimals)
        return decimals

    def _contract(self, address: str) -> Any:
        return self._web3.eth.contract(address=AsyncWeb3.to_checksum_address(address), abi=ABI).functions
