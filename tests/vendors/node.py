"""A chain's node on a real socket: JSON-RPC with Chainlink aggregators behind it, encoded as a node encodes them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from tests.vendors.server import Asked, Reply, Vendor

#: The first four bytes of the hashes of ``latestRoundData()`` and ``decimals()``.
LATEST_ROUND_DATA, DECIMALS = "0xfeaf968c", "0x313ce567"
ETH_USD = "0x5f4eC3Df9cbd43714FE2740f5E3616155c5b8419"
SEQUENCER = "0xFdB631F5EE196F0ed6FAa767959853A9F217697D"


@dataclass(slots=True)
class Aggregator:
    """One feed: 2,345.67 USD with 8 decimals, a moment ago, in a complete round."""

    answer: int = 234_567_000_000
    decimals: int = 8
    round_id: int = 110_680_464_442_257_320_000
    started_at: int = field(default_factory=lambda: int(time.time()) - 12)
    updated_at: int = field(default_factory=lambda: int(time.time()) - 10)
    answered_in: int | None = None

    def call(self, data: str) -> str:
        if data.startswith(DECIMALS):
            return _words(self.decimals)
        assert data.startswith(LATEST_ROUND_DATA), data
        answered_in = self.round_id if self.answered_in is None else self.answered_in
        return _words(self.round_id, self.answer, self.started_at, self.updated_at, answered_in)


class Node:
    """What a vendor answers as when it is a node of a chain."""

    def __init__(self, vendor: Vendor, chain_id: int = 1) -> None:
        self.chain_id = chain_id
        self.contracts: dict[str, Aggregator] = {ETH_USD.lower(): Aggregator()}
        self.eth = self.contracts[ETH_USD.lower()]
        vendor.answer = self.answer

    def answer(self, asked: Asked) -> Reply:
        request = asked.json()
        if request["method"] == "eth_chainId":
            return self._result(request, hex(self.chain_id))
        if request["method"] == "eth_getCode":
            return self._result(request, "0x")
        assert request["method"] == "eth_call", request
        call = request["params"][0]
        contract = self.contracts.get(call["to"].lower())
        # Whoever calls where no contract is gets nothing, and no error.
        return self._result(request, "0x" if contract is None else contract.call(call["data"]))

    def _result(self, request: Any, result: Any) -> Reply:
        return Reply({"jsonrpc": "2.0", "id": request["id"], "result": result})


def _words(*numbers: int) -> str:
    return "0x" + "".join(f"{number % 2**256:064x}" for number in numbers)
