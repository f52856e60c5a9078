"""A chain of one's own: anvil on a free port, driven through web3.py. Gas is free there, so that coins add up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from web3 import HTTPProvider, Web3
from web3.contract import Contract
from web3.contract.contract import ContractFunction
from web3.types import RPCEndpoint

from tests.npm.programs import anvil
from tools.contracts import Artefact
from tools.local.anvil import anvil as local_anvil

ACCOUNTS = 8
GAS = 2_000_000
#: The selector of ``Error(string)``, as which a contract says why it refused.
_REASON = bytes.fromhex("08c379a0")


@dataclass(frozen=True, slots=True)
class Mined:
    """What became of a transaction. ``refusal`` is the contract's reason where it was reverted, empty without one."""

    receipt: Any
    refusal: str | None

    @property
    def gas(self) -> int:
        return int(self.receipt["gasUsed"], 16)


class Chain:
    """One chain, in which a block is mined for each transaction."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.w3 = Web3(HTTPProvider(url, request_kwargs={"timeout": 30}))
        self.chain_id = self.w3.eth.chain_id
        self.accounts: list[str] = [str(account) for account in self.w3.eth.accounts]

    def rpc(self, method: str, *params: Any) -> Any:
        answer = self.w3.provider.make_request(RPCEndpoint(method), list(params))
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def deploy(self, artefact: Artefact, *arguments: Any) -> Contract:
        maker = self.w3.eth.contract(abi=artefact.abi, bytecode=artefact.bytecode)
        data = maker.constructor(*arguments).data_in_transaction
        receipt = self.transact({"from": self.accounts[0], "data": data, "gas": hex(10_000_000)})
        assert receipt["status"] == "0x1", receipt
        return self.w3.eth.contract(Web3.to_checksum_address(receipt["contractAddress"]), abi=artefact.abi)

    def transact(self, transaction: dict[str, Any]) -> Any:
        """The receipt of a transaction as the node writes it, numbers as hexadecimal."""
        return self.rpc("eth_sendTransactionSync", {"gasPrice": "0x0", **transaction})

    def send(self, call: ContractFunction, by: str, value: int = 0, gas: int = GAS) -> Mined:
        """Mine a transaction, also one that is reverted, and say what became of it."""
        data = call._encode_transaction_data()
        transaction = {"from": by, "to": call.address, "data": data, "value": hex(value), "gas": hex(gas)}
        receipt = self.transact(transaction)
        refusal = None if receipt["status"] == "0x1" else self._refusal(receipt["transactionHash"])
        return Mined(receipt, refusal)

    def _refusal(self, transaction_hash: str) -> str:
        trace = self.rpc("debug_traceTransaction", transaction_hash, {"tracer": "callTracer"})
        output = bytes.fromhex(trace.get("output", "0x").removeprefix("0x"))
        if not output.startswith(_REASON):
            return ""
        return str(self.w3.codec.decode(["string"], output[4:])[0])

    @property
    def now(self) -> int:
        """The time of the last block, in seconds since 1970."""
        return int(self.rpc("eth_getBlockByNumber", "latest", False)["timestamp"], 16)

    def next_at(self, seconds: int) -> None:
        """The time of the block that the next transaction makes."""
        self.rpc("evm_setNextBlockTimestamp", seconds)

    @contextmanager
    def undone(self) -> Iterator[None]:
        """Afterwards nothing of what happens within has happened."""
        snapshot = self.rpc("evm_snapshot")
        try:
            yield
        finally:
            assert self.rpc("evm_revert", snapshot)


@contextmanager
def running(folder: Path, *options: str, port: int = 0) -> Iterator[Chain]:
    """A chain that lasts for a block of code. Skips where anvil is not installed."""
    with local_anvil(anvil(), folder / "anvil.log", "--accounts", str(ACCOUNTS), *options, port=port) as url:
        yield Chain(url)
