"""Which inputs can spend an output with a certain script: what the rules of the chain demand to be shown for it.

An input names the output that it spends, and not that output's script. To look every one of them up would cost a call
for each input of the chain. But most scripts are hashes of what must be shown, so nearly every input shows that it is
not for them. What is left is looked up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final

from activities.vendors.utxoblocks import NOWHERE, Input

_PUSH_1, _PUSH_2, _PUSH_4 = 0x4C, 0x4D, 0x4E
_HASHES_KEPT: Final = 4096


class Spenders:
    """Judges inputs for a set of scripts. ``may_spend`` is never false for an input that spends one of them."""

    def __init__(self, scripts: Iterable[bytes]) -> None:
        self._shown_in_script: set[bytes] = set()
        self._keys: set[bytes] = set()
        self._witness_scripts: set[bytes] = set()
        self._programs = False
        self._others = False
        for script in scripts:
            self._add(script)

    def _add(self, script: bytes) -> None:
        match script[:3], len(script):
            case b"\x76\xa9\x14", 25 if script.endswith(b"\x88\xac"):  # a public key's hash
                self._shown_in_script.add(script[3:23])
            case (b, 23) if b.startswith(b"\xa9\x14") and script.endswith(b"\x87"):  # a script's hash (BIP 16)
                self._shown_in_script.add(script[2:22])
            case (b, 22) if b.startswith(b"\x00\x14"):  # a public key's hash (BIP 141)
                self._keys.add(script[2:])
            case (b, 34) if b.startswith(b"\x00\x20"):  # a script's hash (BIP 141)
                self._witness_scripts.add(script[2:])
            case (b, size) if 4 <= size <= 42 and 0x51 <= b[0] <= 0x60 and b[1] == size - 2:  # others of BIP 141
                self._programs = True
            case _:
                self._others = True

    def may_spend(self, given: Input) -> bool:
        """Whether what an input shows is what one of the scripts demands, or could be."""
        if given.txid == NOWHERE:
            return False
        if given.script_sig:
            # A script's hash may stand for one with a witness; then both are there.
            if self._others and not given.witness:
                return True
            return any(_hash160(pushed) in self._shown_in_script for pushed in pushes(given.script_sig))
        if not given.witness:
            return self._others or self._programs
        if self._programs:
            return True
        shown = given.witness[-1]
        if hashlib.sha256(shown).digest() in self._witness_scripts:
            return True
        return len(given.witness) == 2 and bool(self._keys) and _hash160(shown) in self._keys


def pushes(script: bytes) -> Iterator[bytes]:
    """What a script pushes, whether that is reached or not."""
    at = 0
    while at < len(script):
        code = script[at]
        at += 1
        size = 0
        if code < _PUSH_1:
            size = code
        elif code <= _PUSH_4:
            width = {_PUSH_1: 1, _PUSH_2: 2, _PUSH_4: 4}[code]
            size = int.from_bytes(script[at : at + width], "little")
            at += width
        else:
            continue
        yield script[at : at + size]
        at += size


@lru_cache(_HASHES_KEPT)
def _hash160(content: bytes) -> bytes:
    return hashlib.new("ripemd160", hashlib.sha256(content).digest(), usedforsecurity=False).digest()
