"""A development chain and the escrow contract on it, as the demo's parties drive them: plain JSON-RPC and the ABI."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import httpx
from eth_abi.abi import decode, encode
from eth_utils.abi import function_abi_to_4byte_selector, get_abi_input_types, get_abi_output_types

from tools.contracts import Artefact
from tools.local.process import StackError

#: The chain's own coin, as the contract names it; also where there is no arbiter.
COIN = NOBODY = "0x" + 40 * "0"
TIMEOUT_SECONDS = 30.0
_GAS = hex(10_000_000)


@dataclass(frozen=True, slots=True)
class OnChainTerms:
    """As the contract's ``create`` takes them."""

    buyer: str
    seller: str
    arbiter: str = NOBODY
    token: str = COIN
    amount: int = 10**18
    approving_roles: int = 1
    approvals_required: int = 1
    funding_deadline: int = 0
    expires_at: int = 0
    inspection_seconds: int = 0


@dataclass(frozen=True, slots=True)
class Books:
    """The contract's money in one token, and the number of its last event."""

    sequence: int
    balance: int
    held: int
    owed: int


class DevelopmentChain:
    """A node that signs for its own accounts and mines a block for each transaction."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=TIMEOUT_SECONDS, trust_env=False)
        self.accounts: list[str] = [account.lower() for account in self.rpc("eth_accounts")]

    def rpc(self, method: str, *parameters: Any) -> Any:
        """What the node answers; an error of its is a ``StackError``."""
        asked = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
        answer = self._http.post("", json=asked).raise_for_status().json()
        if "error" in answer:
            raise StackError(f"{method}: {answer['error'].get('message')}")
        return answer["result"]

    @property
    def height(self) -> int:
        """The number of the last block."""
        return int(self.rpc("eth_blockNumber"), 16)

    def mine(self, blocks: int) -> None:
        """Add blocks with nothing in them, a second apart."""
        self.rpc("anvil_mine", hex(blocks), "0x1")

    def transact(self, **transaction: Any) -> Any:
        """The receipt of a transaction that must not be reverted."""
        receipt = self.rpc("eth_sendTransactionSync", {"gas": _GAS, "gasPrice": "0x0", **transaction})
        if receipt["status"] != "0x1":
            raise StackError(f"transaction {receipt['transactionHash']} was reverted")
        return receipt

    def raw(self, transaction_hash: str) -> str:
        """A transaction as it was signed."""
        return str(self.rpc("eth_getRawTransactionByHash", transaction_hash))

    def reorganise(self, depth: int, transactions: Sequence[tuple[str, int]]) -> None:
        """Replace the last ``depth`` blocks by as many others: with these signed transactions, each in the block that
        is so far behind the first of them, and with no other."""
        self.rpc("anvil_reorg", depth, [[raw, offset] for raw, offset in transactions])

    def deploy(self, artefact: Artefact) -> OnChainEscrows:
        """The contract, at an address of its own."""
        receipt = self.transact(**{"from": self.accounts[0], "data": artefact.bytecode})
        return OnChainEscrows(self, artefact, receipt["contractAddress"], int(receipt["blockNumber"], 16))

    def close(self) -> None:
        """Let go of the connection."""
        self._http.close()


class OnChainEscrows:
    """The escrow contract at an address."""

    def __init__(self, chain: DevelopmentChain, artefact: Artefact, address: str, block: int) -> None:
        self._chain = chain
        self._functions = {each["name"]: each for each in artefact.abi if each["type"] == "function"}
        self.address = address.lower()
        self.block = block

    def send(self, by: str, command: str, *arguments: Any, value: int = 0) -> str:
        """Have a command mined; the transaction's hash."""
        data = self._data(command, arguments)
        receipt = self._chain.transact(**{"from": by, "to": self.address, "data": data, "value": hex(value)})
        return str(receipt["transactionHash"])

    def call(self, view: str, *arguments: Any, block: str = "latest") -> Any:
        """What a view answers."""
        asked = {"to": self.address, "data": self._data(view, arguments)}
        answer = bytes.fromhex(self._chain.rpc("eth_call", asked, block).removeprefix("0x"))
        (found,) = decode(get_abi_output_types(self._functions[view]), answer)  # type: ignore[arg-type] # it is one
        return found

    def create(self, by: str, terms: OnChainTerms) -> str:
        """Open an escrow; its id as hexadecimal."""
        reference = secrets.token_bytes(32)
        self.send(by, "create", astuple(terms), reference)
        escrow_id: bytes = self.call("escrow_id", by, reference, astuple(terms))
        return f"0x{escrow_id.hex()}"

    def books(self, token: str = COIN) -> Books:
        """The contract's money in one token."""
        return Books(*self.call("books", token))

    def _data(self, name: str, arguments: Sequence[Any]) -> str:
        function: Any = self._functions[name]
        encoded = encode(get_abi_input_types(function), [_plain(argument) for argument in arguments])
        data: bytes = function_abi_to_4byte_selector(function) + encoded
        return f"0x{data.hex()}"


def _plain(argument: Any) -> Any:
    """An id may be given as the hexadecimal that it is shown as."""
    if isinstance(argument, str) and len(argument) == 66:
        return bytes.fromhex(argument.removeprefix("0x"))
    return argument
