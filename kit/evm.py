"""Events of the escrow contract as its ABI lays them out: each argument is one word of 32 bytes at a fixed place.

Nothing here hashes: ``contracts/escrow.json`` brings the hashes by which a chain calls events and functions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from kit.build import ROOT

WORD: Final = 32
INTERFACE: Final = ROOT / "contracts" / "escrow.json"

#: How many bits of a word its type may use.
_BITS: Final = {"uint256": 256, "bytes32": 256, "address": 160}
#: What the ABI does not say: roles are flags, and a number of more than 63 bits is none of a counter's.
_BITS_OF: Final = {"sequence": 63, "role": 3, "approving_roles": 3}
#: One flag alone, or at least one of them.
_ROLE: Final = frozenset({1, 2, 4})
_ROLES: Final = frozenset(range(1, 8))


class EventInvalid(Exception):
    """Bytes that the contract would not have written; the message says what is wrong with them."""


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument; ``offset`` is that of its word in the payload, in bytes."""

    name: str
    type: str
    offset: int

    def read(self, payload: bytes) -> int | str:
        """A number, or bytes as lower-case hexadecimal with 0x."""
        word = payload[self.offset : self.offset + WORD]
        if self.type == "uint256":
            return int.from_bytes(word)
        return "0x" + word[WORD - _BITS[self.type] // 8 :].hex()


@dataclass(frozen=True, slots=True)
class Layout:
    """One event. Its payload is the topics behind the first one, and the data behind them.

    ``zeros`` has a one for each bit of the payload that must be none, whatever the arguments are.
    """

    kind: str
    topic: str
    arguments: tuple[Argument, ...]
    indexed: int
    zeros: int
    choices: tuple[tuple[int, frozenset[int]], ...]

    @property
    def size(self) -> int:
        """Of the payload, in bytes."""
        return WORD * len(self.arguments)

    def offset(self, *names: str) -> int | None:
        """Where the first argument of these names is that it has; None where it has none."""
        at = {argument.name: argument.offset for argument in self.arguments}
        return next((at[name] for name in names if name in at), None)

    def check(self, payload: bytes) -> None:
        """Raises ``EventInvalid`` for what the contract cannot have written."""
        if len(payload) != self.size:
            raise EventInvalid(f"{self.kind} has {len(payload)} bytes, not {self.size}")
        if int.from_bytes(payload) & self.zeros:
            raise EventInvalid(f"{self.kind} has a word that is larger than its type")
        for at, allowed in self.choices:
            if payload[at] not in allowed:
                raise EventInvalid(f"{self.kind} has a role that there is not")


@dataclass(frozen=True, slots=True)
class Interface:
    """The contract: its events, by the hash that is their first topic and by name, and its functions' selectors."""

    layouts: Mapping[str, Layout]
    kinds: Mapping[str, Layout]
    selectors: Mapping[str, str]
    runtime_sha256: str


def layout_of(abi: Mapping[str, Any], topic: str) -> Layout:
    """The layout of an event of the ABI; raises ``ValueError`` for one whose arguments are not all one word."""
    inputs = sorted(abi["inputs"], key=lambda given: not given["indexed"])
    arguments = tuple(Argument(given["name"], given["type"], WORD * place) for place, given in enumerate(inputs))
    strange = [argument.type for argument in arguments if argument.type not in _BITS]
    if strange or abi["anonymous"]:
        raise ValueError(f"{abi['name']} is anonymous, or has a type without a fixed place: {strange}")
    zeros = 0
    for argument in arguments:
        bits = _BITS_OF.get(argument.name, _BITS[argument.type])
        word = (1 << 8 * WORD) - (1 << bits)
        zeros |= word << 8 * WORD * (len(arguments) - 1 - argument.offset // WORD)
    choices = tuple(
        (argument.offset + WORD - 1, _ROLE if argument.name == "role" else _ROLES)
        for argument in arguments
        if argument.name in ("role", "approving_roles")
    )
    indexed = sum(given["indexed"] for given in abi["inputs"])
    return Layout(abi["name"], topic, arguments, indexed, zeros, choices)


def read_interface(file: Path = INTERFACE) -> Interface:
    """The interface that a file describes, as ``tools.contracts`` writes it."""
    content = json.loads(file.read_text(encoding="utf-8"))
    topics = content["topics"]
    made = [layout_of(entry, topics[entry["name"]]) for entry in content["abi"] if entry["type"] == "event"]
    return Interface(
        {layout.topic: layout for layout in made},
        {layout.kind: layout for layout in made},
        content["selectors"],
        content["runtime_sha256"],
    )


@cache
def interface() -> Interface:
    """That of the contract of this house."""
    return read_interface()


def decode(kind: str, payload: bytes) -> dict[str, int | str]:
    """The arguments of an event by name, in the order of its payload: numbers as they are, addresses and hashes as
    lower-case hexadecimal with 0x. Raises ``EventInvalid``."""
    layout = interface().kinds.get(kind)
    if layout is None:
        raise EventInvalid(f"the contract has no event {kind[:40]!r}")
    layout.check(payload)
    return {argument.name: argument.read(payload) for argument in layout.arguments}
