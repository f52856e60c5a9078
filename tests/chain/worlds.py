"""Chains with something to follow on them, and what is true there by other means than our readers: one for each kind.

Each is a real node. ``truth`` asks it in another way than readers do: through web3.py, or by what the node says of
transactions in words.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from activities.chain.ports import ChainReader
from activities.vendors.evm import EvmReader
from activities.vendors.utxo import UtxoReader
from domain.chain import Block, Source
from tests import anvil, litecoin
from tests.chain.reading import contract_source, script_source
from tests.contracts.desk import Desk

#: Smallest units in a coin there.
_UNITS = 10**8


class Fact(NamedTuple):
    """An event, as far as both kinds of chain have it."""

    block_number: int
    block_hash: bytes
    tx_hash: bytes
    tx_index: int
    ordinal: int
    kind: str
    amount: int | None


class World(ABC):
    """One chain and one source on it."""

    source: Source

    @abstractmethod
    def reader(self) -> ChainReader:
        """A reader of the node; whoever asks closes it."""

    @abstractmethod
    def happen(self) -> None:
        """A few events, in one block or several."""

    @abstractmethod
    def mine(self, blocks: int) -> None:
        """Blocks without events."""

    @abstractmethod
    def reorganize(self, depth: int) -> None:
        """The last blocks, at least two, are left for others; some of what happened in them happens again, later."""

    @abstractmethod
    def truth(self) -> Sequence[Fact]:
        """Every event of the chain, in its order."""

    @abstractmethod
    def counted(self, block: Block) -> int | None:
        """The number of the last event as of this block."""


class EvmWorld(World):
    """anvil, and the escrow contract."""

    def __init__(self, chain: anvil.Chain) -> None:
        self.desk = Desk(chain)
        self.chain = chain
        self.source = contract_source(self.desk.contract.address, chain_id=chain.chain_id)

    def reader(self) -> ChainReader:
        return EvmReader("anvil", self.chain.url)

    def happen(self) -> None:
        """Two escrows in one block, and what is done with one of them, several events in a transaction, in others."""
        escrow_id = self.desk.funded()
        self.chain.rpc("evm_setAutomine", False)
        others = [self.desk.terms(amount=amount) for amount in (7, 8)]
        for terms in others:
            self.desk.references += 1
            call = self.desk.contract.functions.create(_terms(terms), self.desk.references.to_bytes(32))
            data = call._encode_transaction_data()
            sent = {"from": self.desk.buyer, "to": call.address, "data": data, "gas": hex(anvil.GAS), "gasPrice": "0x0"}
            self.chain.rpc("eth_sendTransaction", sent)
        self.chain.rpc("evm_mine")
        self.chain.rpc("evm_setAutomine", True)
        self.desk.done(escrow_id, "approve", by=self.desk.buyer)
        self.desk.done(escrow_id, "release", 40, by=self.desk.buyer)
        self.desk.withdraw(self.desk.seller)

    def mine(self, blocks: int) -> None:
        self.chain.rpc("anvil_mine", hex(blocks))

    def reorganize(self, depth: int) -> None:
        head = int(self.chain.rpc("eth_blockNumber"), 16)
        # What comes later needs what came before it.
        first = next(fact for fact in self.truth() if fact.block_number > head - depth)
        raw = self.chain.rpc("eth_getRawTransactionByHash", f"0x{first.tx_hash.hex()}")
        self.chain.rpc("anvil_reorg", depth, [[raw, depth - 1]])

    def truth(self) -> Sequence[Fact]:
        logs = self.chain.rpc("eth_getLogs", {"fromBlock": "0x0", "address": self.desk.contract.address})
        seen: dict[str, int] = {}
        facts: list[Fact] = []
        for log, (_, (kind, arguments)) in zip(logs, self.desk.decoded(logs), strict=True):
            ordinal = seen[log["transactionHash"]] = seen.get(log["transactionHash"], -1) + 1
            facts.append(
                Fact(
                    int(log["blockNumber"], 16),
                    bytes.fromhex(log["blockHash"][2:]),
                    bytes.fromhex(log["transactionHash"][2:]),
                    int(log["transactionIndex"], 16),
                    ordinal,
                    kind,
                    arguments.get("amount"),
                )
            )
        return facts

    def counted(self, block: Block) -> int | None:
        asked = {"to": self.desk.contract.address, "data": "0x529d15cc"}
        answer: str = self.chain.rpc("eth_call", asked, hex(block.number))
        return None if answer == "0x" else int(answer, 16)


def _terms(terms: Any) -> tuple[Any, ...]:
    return tuple(getattr(terms, name) for name in terms.__dataclass_fields__)


class UtxoWorld(World):
    """litecoind, and an address of each kind."""

    def __init__(self, node: litecoin.Litecoin) -> None:
        node.begin()
        self.node = node
        self.rich = node.miner
        made = [node.address(kind) for kind in ("legacy", "p2sh-segwit", "bech32")]
        self.addresses = [address for address, _ in made]
        self.scripts = {script.hex() for _, script in made}
        genesis = node.rpc("getblockhash", 0)
        self.source = script_source([script for _, script in made], f"bip122:{genesis[:32]}")

    def reader(self) -> ChainReader:
        return UtxoReader("litecoind", self.node.url)

    def happen(self) -> None:
        """Each address is paid, from outside and by another; one transaction spends from two of them."""
        first, second, third = self.addresses
        # The oldest, which a reorganisation does not make too young to be spent.
        oldest = max(self.node.unspent(self.rich, litecoin.MATURITY), key=lambda coin: coin["confirmations"])
        rest = str(oldest["amount"] - Decimal("1.6"))
        self.node.spend([oldest], {first: "0.5", second: "0.5", third: "0.5", self.node.rpc("getnewaddress"): rest})
        self.node.mine()
        coins = [self.node.unspent(address, 1)[0] for address in self.addresses]
        self.node.spend(coins[:2], {second: "0.6", third: "0.3"})
        self.node.spend(coins[2:], {first: "0.4"})
        self.node.mine()
        elsewhere = self.node.rpc("getnewaddress")
        for address in self.addresses:
            self.node.spend(self.node.unspent(address, 1)[:1], {elsewhere: "0.2"})
        self.node.mine()

    def mine(self, blocks: int) -> None:
        self.node.mine(blocks)

    def reorganize(self, depth: int) -> None:
        head = self.node.rpc("getblockcount")
        left = [self.node.rpc("getblockhash", number) for number in range(head - depth + 1, head + 1)]
        sent = [one["hex"] for block in left for one in self.node.rpc("getblock", block, 2)["tx"][1:]]
        self.node.rpc("invalidateblock", left[0])
        # Below ten blocks the node forgets what was in them.
        for raw in sent:
            with suppress(litecoin.RpcError):
                self.node.rpc("sendrawtransaction", raw, 0)
        # To the same miner at the same second they would be the same blocks.
        self.node.miner = self.node.rpc("getnewaddress")
        self.node.mine(depth + 1)

    def truth(self) -> Sequence[Fact]:
        facts: list[Fact] = []
        for number in range(self.node.rpc("getblockcount") + 1):
            block = self.node.rpc("getblock", self.node.rpc("getblockhash", number), 2)
            for index, transaction in enumerate(block["tx"]):
                told = [*self._spent(transaction), *self._received(transaction)]
                hashes = bytes.fromhex(block["hash"]), bytes.fromhex(transaction["txid"])
                facts += [
                    Fact(number, *hashes, index, ordinal, kind, amount) for ordinal, (kind, amount) in enumerate(told)
                ]
        return facts

    def _received(self, transaction: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
        for output in transaction["vout"]:
            if output["scriptPubKey"]["hex"] in self.scripts:
                yield "received", int(output["value"] * _UNITS)

    def _spent(self, transaction: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
        for given in transaction["vin"]:
            if "txid" in given:
                output = self.node.rpc("getrawtransaction", given["txid"], True)["vout"][given["vout"]]
                if output["scriptPubKey"]["hex"] in self.scripts:
                    yield "spent", int(output["value"] * _UNITS)

    def counted(self, block: Block) -> int | None:
        return None


@contextmanager
def world(kind: str, folder: Path) -> Iterator[World]:
    """A chain of a kind for as long as the block lasts."""
    if kind == "evm":
        with anvil.running(folder) as chain:
            yield EvmWorld(chain)
    else:
        with litecoin.running(folder) as node:
            yield UtxoWorld(node)


@contextmanager
def elsewhere(kind: str, folder: Path) -> Iterator[ChainReader]:
    """A reader of another chain of the same kind."""
    if kind == "evm":
        with anvil.running(folder, "--chain-id", "4711") as chain:
            yield EvmReader("other", chain.url)
    else:
        with litecoin.running(folder, "-testnet", "-regtest=0", "-connect=0") as node:
            yield UtxoReader("other", node.url)
