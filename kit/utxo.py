"""Events of a UTXO chain as they are kept: an output that pays a script of interest, and an input that spends one.

``received``: the output's place (4 bytes), the amount (8 bytes), the script. ``spent``: the input's place (4 bytes),
the transaction and the place of the output that it spends (32 and 4 bytes), the amount (8 bytes), the script.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

RECEIVED: Final = "received"
SPENT: Final = "spent"
_RECEIVED: Final = Struct(">IQ")
_SPENT: Final = Struct(">I32sIQ")


class PayloadInvalid(Exception):
    """Bytes that are no event of a UTXO chain."""


def received(index: int, amount: int, script: bytes) -> bytes:
    """The payload of an output; amounts are in the smallest unit."""
    return _RECEIVED.pack(index, amount) + script


def spent(index: int, txid: bytes, output_index: int, amount: int, script: bytes) -> bytes:
    """The payload of an input, and of what it spends."""
    return _SPENT.pack(index, txid, output_index, amount) + script


def decode(kind: str, payload: bytes) -> dict[str, int | str]:
    """What a payload says, by name; hashes and scripts in hexadecimal. Raises ``PayloadInvalid``."""
    layout = {RECEIVED: _RECEIVED, SPENT: _SPENT}.get(kind)
    if layout is None or len(payload) < layout.size:
        raise PayloadInvalid(f"no event {kind[:40]!r} of {len(payload)} bytes")
    script = payload[layout.size :].hex()
    if layout is _RECEIVED:
        index, amount = layout.unpack_from(payload)
        return {"output_index": index, "amount": amount, "script": script}
    index, txid, output_index, amount = layout.unpack_from(payload)
    return {
        "input_index": index,
        "spent_tx_hash": txid.hex(),
        "spent_output_index": output_index,
        "amount": amount,
        "script": script,
    }
