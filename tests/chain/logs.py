"""Logs of the escrow contract as a node would write them, made of any arguments that their types allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from hypothesis import strategies as st

from activities.vendors.evmlogs import Log
from kit.evm import WORD, Argument, Layout, interface

CONTRACT = bytes.fromhex("5fbdb2315678afecb367f032d93f642f64180aa3")
LARGEST = 2**256 - 1


@dataclass(frozen=True)
class Told:
    """One event: its kind, and each argument's word as a number."""

    kind: str
    words: tuple[int, ...]

    @property
    def layout(self) -> Layout:
        return interface().kinds[self.kind]

    @property
    def payload(self) -> bytes:
        return b"".join(word.to_bytes(WORD) for word in self.words)


def _word(argument: Argument) -> st.SearchStrategy[int]:
    if argument.name == "sequence":
        return st.integers(1, 2**63 - 1)
    if argument.name == "role":
        return st.sampled_from((1, 2, 4))
    if argument.name == "approving_roles":
        return st.integers(1, 7)
    largest = 2**160 - 1 if argument.type == "address" else LARGEST
    return st.one_of(st.integers(0, largest), st.sampled_from((0, 1, largest, largest - 1)))


@st.composite
def told(draw: st.DrawFn) -> Told:
    layout = draw(st.sampled_from(sorted(interface().kinds.values(), key=lambda each: each.kind)))
    return Told(layout.kind, tuple(draw(_word(argument)) for argument in layout.arguments))


def written(events: Sequence[Told], places: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """As ``eth_getLogs`` answers it: each event in the block and the transaction of that block that its place says."""
    return [
        _written(event, block, index, at)
        for at, (event, (block, index)) in enumerate(zip(events, places, strict=False))
    ]


def _written(event: Told, block: int, index: int, at: int) -> dict[str, Any]:
    words = [f"{word:064x}" for word in event.words]
    indexed = event.layout.indexed
    return {
        "address": f"0x{CONTRACT.hex()}",
        "topics": [event.layout.topic, *(f"0x{word}" for word in words[:indexed])],
        "data": "0x" + "".join(words[indexed:]),
        "blockNumber": hex(block),
        "blockHash": f"0x{block + 1:064x}",
        "transactionHash": f"0x{(block << 32) + index:064x}",
        "transactionIndex": hex(index),
        "logIndex": hex(at),
        "removed": False,
    }


def parsed(logs: Sequence[dict[str, Any]]) -> list[Log]:
    return msgspec.convert(list(logs), list[Log])
