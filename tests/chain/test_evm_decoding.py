"""Logs are taken apart as web3.py does it, and what the contract cannot have written is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from eth_utils.abi import event_abi_to_log_topic
from hexbytes import HexBytes
from hypothesis import given, settings
from hypothesis import strategies as st
from web3 import Web3
from web3.datastructures import AttributeDict
from web3.exceptions import Web3Exception

from activities.chain.ports import ChainFault, FaultKind
from activities.vendors.evmlogs import LogDecoder
from domain.chain import Block
from kit.build import ROOT
from kit.evm import EventInvalid, decode, interface, layout_of
from tests.chain.logs import CONTRACT, LARGEST, Told, parsed, told, written

ABI = json.loads((ROOT / "contracts" / "escrow.json").read_text())["abi"]
WEB3: Any = Web3().eth.contract(Web3.to_checksum_address(CONTRACT), abi=ABI)
DECODER = LogDecoder()
PLACES = [(7, 0), (7, 0), (7, 3), (9, 1), (9, 1), (12, 0)]


def by_web3(log: dict[str, Any]) -> dict[str, Any] | None:
    """The arguments as the oracle reads them; None where it cannot."""
    layout = interface().layouts[log["topics"][0]]
    numbers = {name: int(log[name], 16) for name in ("logIndex", "transactionIndex", "blockNumber")}
    topics = [HexBytes(topic) for topic in log["topics"]]
    ready = AttributeDict({**log, **numbers, "topics": topics, "data": HexBytes(log["data"])})
    try:
        found = WEB3.events[layout.kind]().process_log(ready)["args"]
    except (Web3Exception, ValueError):
        return None
    return {name: _plain(value) for name, value in found.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    return value.lower() if isinstance(value, str) else value


def refused(logs: list[dict[str, Any]], **how: Any) -> str:
    with pytest.raises(ChainFault) as fault:
        DECODER.events(parsed(logs), CONTRACT, 0, 100, **how)
    assert fault.value.kind is FaultKind.NONSENSE
    return fault.value.message


@settings(max_examples=80, deadline=None)
@given(st.lists(told(), min_size=1, max_size=len(PLACES)))
def test_events_are_what_the_oracle_reads(events: list[Told]) -> None:
    logs = written(events, PLACES)
    found = DECODER.events(parsed(logs), CONTRACT, 7, 12)
    assert len(found) == len(events)
    for event, made, log, (block, index) in zip(found, events, logs, PLACES, strict=False):
        arguments = by_web3(log)
        assert arguments is not None
        assert decode(event.kind, event.payload) == arguments
        assert (event.kind, event.payload) == (made.kind, made.payload)
        assert (event.block_number, event.tx_index) == (block, index)
        assert (event.sequence, event.amount) == (arguments["sequence"], arguments.get("amount"))
        assert _hex(event.token) == arguments.get("token")
        assert _hex(event.account) == arguments.get("account", arguments.get("by"))
        assert _hex(event.subject) == arguments.get("escrow_id", arguments.get("account"))
    assert [event.ordinal for event in found] == [0, 1, 0, 0, 1, 0][: len(found)]


def _hex(content: bytes | None) -> str | None:
    return None if content is None else f"0x{content.hex()}"


@settings(max_examples=200, deadline=None)
@given(told(), st.data())
def test_a_damaged_log_is_refused_or_is_what_the_oracle_reads_of_it(event: Told, data: st.DataObject) -> None:
    """Any digit of topics and data may be another, and any of them longer or shorter."""
    (log,) = written([event], PLACES)
    texts = [*log["topics"][1:], log["data"]]
    which = data.draw(st.integers(0, len(texts) - 1))
    at = data.draw(st.integers(0, len(texts[which])))
    texts[which] = data.draw(
        st.one_of(
            st.sampled_from("0123456789abcdefx_ -G\n").map(
                lambda new: texts[which][:at] + new + texts[which][at + 1 :]
            ),
            st.sampled_from(["", "0", "00", "0x", 64 * "0"]).map(
                lambda new: texts[which][:at] + new + texts[which][at:]
            ),
            st.just(texts[which][:at]),
        )
    )
    log["topics"][1:], log["data"] = texts[:-1], texts[-1]
    try:
        (found,) = DECODER.events(parsed([log]), CONTRACT, 7, 7)
    except ChainFault as fault:
        assert fault.kind is FaultKind.NONSENSE
        return
    assert decode(found.kind, found.payload) == by_web3(log)


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("sequence", 0),
        ("sequence", 2**63),
        ("sequence", LARGEST),
        ("by", 2**160),
        ("buyer", LARGEST),
        ("token", 1 << 255),
        ("approving_roles", 0),
        ("approving_roles", 8),
        ("approving_roles", 2**248),
    ],
)
def test_a_word_that_its_type_does_not_have_is_refused(name: str, word: int) -> None:
    layout = interface().kinds["Created"]
    words = [1 if argument.name != name else word for argument in layout.arguments]
    event = Told("Created", tuple(words))
    assert "Created" in refused(written([event], PLACES))
    if word:
        with pytest.raises(EventInvalid):
            decode("Created", event.payload)


def test_one_role_alone_disputes() -> None:
    layout = interface().kinds["Disputed"]
    for role in (0, 3, 5, 7):
        words = [role if argument.name == "role" else 1 for argument in layout.arguments]
        assert "role" in refused(written([Told("Disputed", tuple(words))], PLACES))


def _three() -> list[dict[str, Any]]:
    return written([Told("Cancelled", (number, 5, 6)) for number in (1, 2, 3)], [(7, 0), (7, 1), (9, 0)])


def _swap(logs: list[dict[str, Any]]) -> None:
    logs.reverse()


@pytest.mark.parametrize(
    "damage",
    [
        _swap,
        lambda logs: logs.append(logs[-1]),
        lambda logs: logs.insert(1, logs[0]),
        lambda logs: logs[1].update(removed=True),
        lambda logs: logs[1].update(address="0x" + 40 * "1"),
        lambda logs: logs[1].update(address=logs[1]["address"] + "00"),
        lambda logs: logs[1].update(blockHash="0x" + 64 * "2"),
        lambda logs: logs[2].update(blockHash=logs[0]["blockHash"]),
        lambda logs: logs[1].update(blockNumber="0x8"),
        lambda logs: logs[2].update(blockNumber="0x65"),
        lambda logs: logs[1].update(blockNumber="0x-7"),
        lambda logs: logs[2].update(blockNumber="0x0_9"),
        lambda logs: logs[2].update(blockNumber="9"),
        lambda logs: logs[1].update(transactionIndex="0x0"),
        lambda logs: logs[1].update(transactionHash=logs[0]["transactionHash"]),
        lambda logs: logs[2].update(transactionHash=logs[0]["transactionHash"]),
        lambda logs: logs[1].update(transactionHash="0x12"),
        lambda logs: logs[1].update(logIndex="0x0"),
        lambda logs: logs[1].update(logIndex="0xffffffffffffffffff"),
        lambda logs: logs[1].update(topics=[]),
        lambda logs: logs[1].update(topics=["0x" + 64 * "a", *logs[1]["topics"][1:]]),
        lambda logs: logs[1].update(topics=logs[1]["topics"][:3]),
        lambda logs: logs[1].update(topics=[*logs[1]["topics"], logs[1]["topics"][1]]),
        lambda logs: logs[1].update(data="0x" + 64 * "0"),
    ],
)
def test_a_log_that_cannot_be_there_is_refused(damage: Callable[[list[dict[str, Any]]], None]) -> None:
    logs = _three()
    assert len(DECODER.events(parsed(logs), CONTRACT, 0, 100)) == 3
    damage(logs)
    assert refused(logs)


def test_logs_of_one_block_are_of_that_block() -> None:
    logs = _three()[:2]
    block = Block(7, bytes.fromhex(logs[0]["blockHash"][2:]), bytes(32), 1)
    assert len(DECODER.events(parsed(logs), CONTRACT, 7, 7, block)) == 2
    assert refused(logs, block=block._replace(hash=bytes(32)))


def test_times_are_taken_where_the_node_says_them() -> None:
    logs = _three()
    logs[0]["blockTimestamp"] = "0x65f1a2b3"
    logs[2]["blockTimestamp"] = None
    found = DECODER.events(parsed(logs), CONTRACT, 0, 100)
    assert [event.at_seconds for event in found] == [0x65F1A2B3, 0x65F1A2B3, 0]


def test_the_interface_has_the_hashes_of_the_abi() -> None:
    for entry in ABI:
        if entry["type"] == "event":
            assert interface().kinds[entry["name"]].topic == f"0x{event_abi_to_log_topic(entry).hex()}"
    assert interface().selectors["sequence()"] == f"0x{Web3.keccak(text='sequence()')[:4].hex()}"


def test_an_event_whose_arguments_have_no_fixed_place_is_not_read() -> None:
    inputs = [{"name": "text", "type": "string", "indexed": False}]
    with pytest.raises(ValueError, match="string"):
        layout_of({"name": "Said", "inputs": inputs, "anonymous": False}, "0x")


@pytest.mark.parametrize(("kind", "payload"), [("Nothing", b""), ("Cancelled", bytes(95)), ("Cancelled", bytes(128))])
def test_a_payload_of_another_size_is_not_read(kind: str, payload: bytes) -> None:
    with pytest.raises(EventInvalid):
        decode(kind, payload)
