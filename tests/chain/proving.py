"""A real chain that lives by a seed, and whether what was followed of it is what the node says."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import astuple, dataclass, field
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncEngine

from activities.chain.desk import Desk as ChainDesk
from activities.chain.pool import Patience, Provider
from activities.vendors.evm import EvmReader
from domain.chain import Source
from tests import anvil
from tests.chain.watching import as_told, cursor, replayed, rows, told
from tests.contracts.desk import Desk, Terms

NETWORK: Final = "eip155:31337"
#: anvil calls the block that is so deep final.
FINAL_DEPTH: Final = 64
QUICK: Final = Patience(
    live=20, job=20, hedge=0.2, backoff=0.02, backoff_max=0.3, accused_alone=0.02, heads=0.0, wrong_chain=0.3
)
TIMEOUT_SECONDS: Final = 1.0


def desk_over(*urls: str, poll_seconds: float = 0.05, agreeing: int = 1) -> ChainDesk:
    """A desk whose providers are these nodes, in little time."""
    providers = [
        Provider(EvmReader("abc"[place], url, timeout_seconds=TIMEOUT_SECONDS), timeout_seconds=TIMEOUT_SECONDS)
        for place, url in enumerate(urls)
    ]
    return ChainDesk(
        "anvil", NETWORK, providers, agreeing=agreeing, confirmations=3, poll_seconds=poll_seconds, patience=QUICK
    )


@dataclass
class Life:
    """What happens on a chain: escrows, blocks without anything, and histories that are left for others."""

    chain: anvil.Chain
    seed: int
    desk: Desk = field(init=False)
    reorgs: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.desk = Desk(self.chain)
        self.began = self.head
        # So that the deepest reorganisation leaves the contract where it is.
        self.mine(FINAL_DEPTH + 4)

    @property
    def head(self) -> int:
        return int(self.chain.rpc("eth_blockNumber"), 16)

    def mine(self, blocks: int) -> None:
        self.chain.rpc("anvil_mine", hex(blocks))

    def happen(self, escrows: int = 4) -> None:
        """Some escrows, in a block each or together, with blocks of nothing between."""
        together = self.random.random() < 0.4
        if together:
            self.chain.rpc("evm_setAutomine", False)
        for _ in range(escrows):
            by = self.random.choice(self.chain.accounts[1:])
            self._send(by, self.desk.terms(amount=self.random.randrange(1, 10**6), buyer=by))
            if not together and self.random.random() < 0.4:
                self.mine(self.random.randrange(1, 4))
        if together:
            self.mine(1)
            self.chain.rpc("evm_setAutomine", True)

    def reorganize(self, depth: int) -> None:
        """Leave so many blocks; of each account's transactions in them, a few of the first happen again, later."""
        above, spots = self.head - depth, defaultdict[str, list[str]](list)
        for log in self.logs(above + 1):
            raw = self.chain.rpc("eth_getTransactionByHash", log["transactionHash"])
            if log["transactionHash"] not in spots[raw["from"]]:
                spots[raw["from"]].append(log["transactionHash"])
        again = []
        for hashes in spots.values():
            kept = hashes[: self.random.randrange(len(hashes) + 1)]
            offset = self.random.randrange(depth)
            for hash_ in kept:
                again.append([self.chain.rpc("eth_getRawTransactionByHash", hash_), offset])
                offset = min(depth - 1, offset + self.random.randrange(3))
        self.chain.rpc("anvil_reorg", depth, again)
        self.chain.rpc("anvil_dropAllTransactions")
        self.reorgs.append(depth)

    def logs(self, first: int) -> list[dict[str, Any]]:
        return list(self.chain.rpc("eth_getLogs", {"fromBlock": hex(first), "address": self.desk.contract.address}))

    def truth(self) -> list[tuple[Any, ...]]:
        """Every event as the node says it: block, its hash, transaction, place and number."""
        return [
            (
                int(log["blockNumber"], 16),
                bytes.fromhex(log["blockHash"][2:]),
                bytes.fromhex(log["transactionHash"][2:]),
                int(log["logIndex"], 16),
                int(log["topics"][1], 16),
            )
            for log in self.logs(self.began)
        ]

    def _send(self, by: str, terms: Terms) -> None:
        self.desk.references += 1
        call = self.desk.contract.functions.create(astuple(terms), self.desk.references.to_bytes(32))
        count = self.chain.rpc("eth_getTransactionCount", by, "pending")
        sent = {
            "from": by,
            "to": call.address,
            "data": call._encode_transaction_data(),
            "gas": hex(anvil.GAS),
            "gasPrice": "0x0",
            "nonce": count,
        }
        self.chain.rpc("eth_sendTransaction", sent)


def placed(found: Iterable[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Rows of ``watching.rows`` as ``Life.truth`` has them."""
    return [(row[1], bytes(row[2]), bytes(row[3]), row[4], row[5]) for row in found]


async def rests(engine: AsyncEngine, source: Source, life: Life, *, limit_seconds: float) -> bool:
    """Whether the cursor comes to the chain's head and stands on its history, within the limit."""
    try:
        async with asyncio.timeout(limit_seconds):
            while True:
                found, block = await cursor(engine, source), life.chain.rpc("eth_getBlockByNumber", "latest", False)
                if found.block_hash is not None and f"0x{bytes(found.block_hash).hex()}" == block["hash"]:
                    return True
                await asyncio.sleep(0.05)
    except TimeoutError:
        return False


async def wrong(engine: AsyncEngine, source: Source, life: Life) -> list[str]:
    """What is not as the chain says, in Postgres and in what was told."""
    held, truth = await rows(engine, source), life.truth()
    found = []
    if lost := set(truth) - set(placed(held)):
        found.append(f"{len(lost)} events of {len(truth)} are not here, the first in block {min(lost)[0]}")
    if strange := set(placed(held)) - set(truth):
        found.append(f"{len(strange)} events are none of the chain's")
    if len(held) != len(set(held)):
        found.append("an event is here twice")
    if replayed(await told(engine, source)) != as_told(held):
        found.append("what was told comes to another state")
    return found
