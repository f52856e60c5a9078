"""The parties of escrows on a chain, what they may ask of the contract, and what it tells of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any

from eth_utils.abi import event_abi_to_log_topic, get_abi_output_types
from hexbytes import HexBytes
from web3 import Web3
from web3.contract import Contract
from web3.datastructures import AttributeDict

from tests.anvil import Chain, Mined
from tools.contracts import SOURCE, Artefact, build
from tools.local.home import Home

#: The chain's own coin, as the contract names it; also where there is no arbiter.
COIN = NOBODY = "0x0000000000000000000000000000000000000000"
#: Roles and states are flags, in the order in which the rules name them.
BUYER, SELLER, ARBITER = 1, 2, 4
STATES = ("pending", "funded", "approved", "disputed", "released", "refunded", "cancelled", "expired")
REASON = bytes(31) + b"\x01"

#: An event: its name, and its arguments without the sequence number.
Told = tuple[str, dict[str, Any]]


def artefact(source: Path) -> Artefact:
    return build(source, Home.from_environment().contracts)


@dataclass(frozen=True)
class Terms:
    """As ``create`` takes them."""

    buyer: str
    seller: str
    arbiter: str = NOBODY
    token: str = COIN
    amount: int = 100
    approving_roles: int = BUYER
    approvals_required: int = 1
    funding_deadline: int = 0
    expires_at: int = 0
    inspection_seconds: int = 0


@dataclass(frozen=True)
class Ask:
    """A command, its arguments after the escrow's id, and the coins beside it."""

    name: str
    arguments: tuple[Any, ...] = ()
    value: int = 0


@dataclass
class State:
    """What the contract says of an escrow."""

    status: str
    approvals: int
    released: int
    refunded: int
    release_at: int


@dataclass
class Books:
    """What the contract says of the money of a token."""

    sequence: int
    balance: int
    held: int
    owed: int


@dataclass
class Desk:
    """One contract on one chain. Accounts of the chain are the parties; ``stranger`` is none of any escrow."""

    chain: Chain
    contract: Contract = field(init=False)
    topics: Mapping[bytes, Any] = field(init=False)
    references: int = 0

    def __post_init__(self) -> None:
        self.contract = self.chain.deploy(artefact(SOURCE))
        made = artefact(SOURCE)
        events: Any = self.contract.events
        self.topics = {
            event_abi_to_log_topic(abi): events[abi["name"]]()  # type: ignore[arg-type] # it is one of an event
            for abi in made.abi
            if abi["type"] == "event"
        }
        _, self.buyer, self.seller, self.arbiter, self.stranger, *self.others = self.chain.accounts

    def deploy(self, name: str) -> Contract:
        """A contract of this folder."""
        return self.chain.deploy(artefact(Path(__file__).with_name(f"{name}.vy")))

    def terms(self, **changes: Any) -> Terms:
        return replace(Terms(self.buyer, self.seller, self.arbiter), **changes)

    def create(self, terms: Terms, by: str | None = None, reference: bytes | None = None) -> tuple[bytes, Mined]:
        """What became of opening an escrow, and the id that it has or would have."""
        if reference is None:
            self.references += 1
            reference = self.references.to_bytes(32)
        by = by or terms.buyer
        mined = self.chain.send(self.contract.functions.create(astuple(terms), reference), by)
        return self.id_of(by, reference, terms), mined

    def id_of(self, creator: str, reference: bytes, terms: Terms) -> bytes:
        """The id as clients compute it, without asking the contract."""
        types = [
            "uint256",
            "address",
            "address",
            "bytes32",
            "address",
            "address",
            "address",
            "address",
            *6 * ["uint256"],
        ]
        values = [self.chain.chain_id, self.contract.address, creator, reference, *astuple(terms)]
        return bytes(Web3.keccak(self.chain.w3.codec.encode(types, values)))

    def opened(self, terms: Terms | None = None, by: str | None = None) -> bytes:
        escrow_id, mined = self.create(terms or self.terms(), by)
        assert mined.refusal is None, mined.refusal
        return escrow_id

    def ask(self, escrow_id: bytes, ask: Ask, by: str) -> Mined:
        return self.chain.send(self.contract.functions[ask.name](escrow_id, *ask.arguments), by, ask.value)

    def done(self, escrow_id: bytes, name: str, *arguments: Any, by: str, value: int = 0) -> Mined:
        """A command that must be carried out."""
        mined = self.ask(escrow_id, Ask(name, arguments, value), by)
        assert mined.refusal is None, (name, mined.refusal)
        return mined

    def refused(self, escrow_id: bytes, name: str, *arguments: Any, by: str, value: int = 0) -> str:
        """A command that must not be; why."""
        mined = self.ask(escrow_id, Ask(name, arguments, value), by)
        assert mined.refusal is not None, f"{name} was carried out"
        return mined.refusal

    def funded(self, terms: Terms | None = None) -> bytes:
        """An escrow in coins that holds its money."""
        terms = terms or self.terms()
        escrow_id = self.opened(terms)
        self.done(escrow_id, "fund", by=terms.buyer, value=terms.amount)
        return escrow_id

    def withdraw(self, by: str, to: str | None = None, token: str = COIN) -> Mined:
        return self.chain.send(self.contract.functions.withdraw(token, to or by), by)

    def read(self, name: str, *arguments: Any) -> Any:
        """What a view of the contract answers. ``call()`` would ask the node three times."""
        function = self.contract.functions[name](*arguments)
        asked = {"to": self.contract.address, "data": function._encode_transaction_data()}
        data = HexBytes(self.chain.rpc("eth_call", asked, "latest"))
        return self.chain.w3.codec.decode(get_abi_output_types(function.abi), data)[0]

    def state(self, escrow_id: bytes) -> State:
        status, *others = self.read("state", escrow_id)
        return State(STATES[status.bit_length() - 1], *others)

    def books(self, token: str = COIN) -> Books:
        return Books(*self.read("books", token))

    def withdrawable(self, account: str, token: str = COIN) -> int:
        return int(self.read("withdrawable", token, account))

    def coins(self, account: str) -> int:
        return int(self.chain.w3.eth.get_balance(Web3.to_checksum_address(account)))

    def told(self, mined: Mined) -> list[tuple[int, Told]]:
        """The events of a transaction with their numbers."""
        return self.decoded([log for log in mined.receipt["logs"] if log["address"] == self.contract.address.lower()])

    def decoded(self, logs: Sequence[Mapping[str, Any]]) -> list[tuple[int, Told]]:
        """Logs as the node writes them, taken apart by web3.py."""
        return [self._decoded(log) for log in logs]

    def _decoded(self, log: Mapping[str, Any]) -> tuple[int, Told]:
        numbers = {name: int(log[name], 16) for name in ("logIndex", "transactionIndex", "blockNumber")}
        topics = [HexBytes(topic) for topic in log["topics"]]
        ready = AttributeDict({**log, **numbers, "topics": topics, "data": HexBytes(log["data"])})
        event = self.topics[bytes(topics[0])].process_log(ready)
        arguments = dict(event["args"])
        return arguments.pop("sequence"), (event["event"], arguments)

    def history(self) -> list[tuple[int, Told]]:
        """Every event of the contract, in the chain's order."""
        return self.decoded(self.chain.rpc("eth_getLogs", {"fromBlock": "0x0", "address": self.contract.address}))
