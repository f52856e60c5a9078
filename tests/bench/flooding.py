"""A chain full of events: the flood contract on anvil, driven by batches of JSON-RPC, and a source that follows it."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.anvil import Chain
from tools.contracts import build

SOURCE = Path(__file__).with_name("flood.vy")
#: Events of one transaction, and transactions of one block.
EVENTS, TRANSACTIONS = 100, 5
EVENTS_PER_BLOCK = EVENTS * TRANSACTIONS
#: What anvil calls final lies so deep.
FINAL_DEPTH = 64
OPTIONS = ("--gas-limit", "100000000", "--no-request-size-limit")


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
        nonce = int(self.chain.rpc("eth_getTransactionCount", self.chain.accounts[0], "latest"), 16)
        self.chain.rpc("evm_setAutomine", False)
        node = urlsplit(self.chain.url)
        with closing(HTTPConnection(node.hostname or "", node.port, timeout=60)) as connection:
            for _ in range(-(-events // EVENTS_PER_BLOCK)):
                sends = [sent | {"nonce": hex(nonce + n)} for n in range(TRANSACTIONS)]
                _batch(connection, [("eth_sendTransaction", [each]) for each in sends])
                # In a request of its own: calls of one batch come in no order.
                _batch(connection, [("evm_mine", [])])
                nonce += TRANSACTIONS
        last = int(self.chain.rpc("eth_blockNumber"), 16)
        self.chain.rpc("anvil_mine", hex(FINAL_DEPTH))
        self.chain.rpc("evm_setAutomine", True)
        return last


def deployed(chain: Chain, kept_in: Path) -> Flood:
    """The flood contract on a chain."""
    artefact = build(SOURCE, kept_in)
    contract = chain.deploy(artefact)
    return Flood(chain, str(contract.address), artefact.abi, int(chain.rpc("eth_blockNumber"), 16))


def _batch(connection: HTTPConnection, calls: list[tuple[str, list[Any]]]) -> None:
    content = [
        {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
        for number, (method, params) in enumerate(calls)
    ]
    connection.request("POST", "/", json.dumps(content).encode(), {"Content-Type": "application/json"})
    answers = json.loads(connection.getresponse().read())
    failed = [answer["error"] for answer in answers if "error" in answer]
    assert not failed, failed[:3]
