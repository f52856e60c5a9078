"""A chain full of events: the flood contract on anvil, driven by batches of JSON-RPC, and a source that follows it."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.anvil import Chain
from tools.contracts import build

SOURCE = Path(__file__).with_name("flood.vy")
#: Events of one transaction, and transactions of one block.
EVENTS, TRANSACTIONS = 100, 5
EVENTS_PER_BLOCK = EVENTS * TRANSACTIONS
#: What anvil calls final lies so deep.
FINAL_DEPTH = 64
OPTIONS = ("--gas-limit", "100000000", "--prune-history", "--no-request-size-limit")
_BLOCKS_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Flood:
    """A deployed flood contract."""

    chain: Chain
    address: str
    abi: list[dict[str, Any]]
    start_block: int

    def mine(self, events: int) -> int:
        """Write at least so many events, and bury them; answers the last block with one."""
        data = self.chain.w3.eth.contract(abi=self.abi).encode_abi("flood", [EVENTS])
        sent = {
            "from": self.chain.accounts[0],
            "to": self.address,
            "data": data,
            "gas": hex(1_500_000),
            "gasPrice": "0x0",
        }
        blocks = -(-events // EVENTS_PER_BLOCK)
        self.chain.rpc("evm_setAutomine", False)
        while blocks > 0:
            some = min(blocks, _BLOCKS_AT_ONCE)
            calls: list[tuple[str, list[Any]]] = []
            for _ in range(some):
                calls += [("eth_sendTransaction", [sent])] * TRANSACTIONS + [("evm_mine", [])]
            _batch(self.chain.url, calls)
            blocks -= some
        last = int(self.chain.rpc("eth_blockNumber"), 16)
        self.chain.rpc("anvil_mine", hex(FINAL_DEPTH))
        self.chain.rpc("evm_setAutomine", True)
        return last


def deployed(chain: Chain, kept_in: Path) -> Flood:
    """The flood contract on a chain."""
    artefact = build(SOURCE, kept_in)
    contract = chain.deploy(artefact)
    return Flood(chain, str(contract.address), artefact.abi, int(chain.rpc("eth_blockNumber"), 16))


def _batch(url: str, calls: list[tuple[str, list[Any]]]) -> None:
    content = [
        {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        for number, (method, params) in enumerate(calls)
    ]
    request = urllib.request.Request(url, json.dumps(content).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as response:
        answers = json.load(response)
    failed = [answer["error"] for answer in answers if "error" in answer]
    assert not failed, failed[:3]
