"""How fast logs become events, from a node's bytes to rows, beside web3.py, which must read the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from statistics import median
from time import perf_counter
from typing import Any

from web3 import Web3
from web3._utils.method_formatters import log_entry_formatter

from activities.vendors.evmlogs import Log, LogDecoder
from activities.vendors.rpc import Rpc
from domain.chain import Event
from kit.build import ROOT
from kit.evm import decode, interface
from tests.bench.report import Row
from tests.chain.logs import CONTRACT, Told, written

EVENTS = 100_000
#: web3.py has so many of them to read; it needs a thousand times the time.
BASELINE_EVENTS = 2_000
#: Of one answer; of one transaction; of one block.
ANSWER, TRANSACTION, BLOCK = 10_000, 10, 50
_ABI = json.loads((ROOT / "contracts" / "escrow.json").read_text())["abi"]


def measure(rounds: int = 3, events: int = EVENTS) -> list[Row]:
    """Events a second on one core: parsed, checked and taken apart, as the tables have them."""
    answers = [_answer(first, min(ANSWER, events - first)) for first in range(0, events, ANSWER)]
    found: list[Event] = []
    ours = [_speed(lambda: _ours(answers, found), events) for _ in range(rounds)]
    sample = answers[0]
    count = min(BASELINE_EVENTS, events)
    read: list[dict[str, Any]] = []
    theirs = [_speed(lambda: read.extend(_theirs(sample, count)), count) for _ in range(rounds)]
    for event, arguments in zip(found[:count], read[:count], strict=True):
        assert decode(event.kind, event.payload) == arguments, (event, arguments)
    return [
        Row(
            section="chain",
            name="events decoded, of every kind",
            unit="events/s",
            value=median(ours),
            rounds=ours,
            baseline="web3.py process_log",
            baseline_value=median(theirs),
        )
    ]


def _speed(work: Callable[[], None], events: int) -> float:
    began = perf_counter()
    work()
    return events / (perf_counter() - began)


def _ours(answers: Sequence[bytes], kept: list[Event]) -> None:
    """As they are worked off: an answer's events are gone when the next one comes. Those of the first are kept."""
    rpc, read = Rpc("http://nobody.example/", timeout_seconds=1, max_body_bytes=0), LogDecoder()
    for answer in answers:
        (logs,) = rpc.results(1, ["eth_getLogs"], list[Log], 200, None, answer)
        assert isinstance(logs, list)
        events = read.events(logs, CONTRACT, 0, 2**40)
        if not kept:
            kept += events


def _theirs(answer: bytes, count: int) -> list[dict[str, Any]]:
    contract: Any = Web3().eth.contract(Web3.to_checksum_address(CONTRACT), abi=_ABI)
    readers = {bytes.fromhex(layout.topic[2:]): contract.events[layout.kind]() for layout in interface().kinds.values()}
    found = []
    for log in json.loads(answer)["result"][:count]:
        entry: Any = log_entry_formatter(log)
        arguments = readers[bytes(entry["topics"][0])].process_log(entry)["args"]
        found.append({name: _plain(value) for name, value in arguments.items()})
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    return value.lower() if isinstance(value, str) else value


def _answer(first: int, count: int) -> bytes:
    """What ``eth_getLogs`` would answer for some events of every kind."""
    chance = Random(first)
    layouts = sorted(interface().kinds.values(), key=lambda layout: layout.kind)
    told = []
    for number in range(first, first + count):
        layout = layouts[number % len(layouts)]
        words = [_word(chance, argument.name, argument.type, number) for argument in layout.arguments]
        told.append(Told(layout.kind, tuple(words)))
    places = [(at // BLOCK, at % BLOCK // TRANSACTION) for at in range(first, first + count)]
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": written(told, places)}).encode()


def _word(chance: Random, name: str, kind: str, number: int) -> int:
    if name == "sequence":
        return number + 1
    if name in ("role", "approving_roles"):
        return 1
    return chance.getrandbits(160 if kind == "address" else 256)
