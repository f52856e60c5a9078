"""What people write for a place on a chain, and what the chain has for it.

EVM: 0x and 40 hexadecimal digits; upper and lower case mean nothing here. UTXO chains: base58check (as Bitcoin has it),
bech32 (BIP 173) and bech32m (BIP 350), or an output script itself as ``script:`` and hexadecimal digits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from domain.chain.model import ChainKind
from domain.errors import Refusal

#: What is paid to by more than this has no address, and nobody follows it.
SCRIPT_BYTES_MAX: Final = 190
_EVM = re.compile(r"0x[0-9a-fA-F]{40}\Z", re.ASCII)
_SCRIPT = re.compile(rf"script:((?:[0-9a-f]{{2}}){{1,{SCRIPT_BYTES_MAX}}})\Z", re.ASCII)
_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_BASE58_MAX: Final = 60
_BECH32: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BECH32_MAX: Final = 90
_BECH32_CHECKS: Final = {0: 1}
_BECH32M_CHECK: Final = 0x2BC830A3
_GENERATORS: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


@dataclass(frozen=True, slots=True)
class _Signs:
    """How a network writes addresses; the first byte of a kind is the one that it writes now."""

    to_key: tuple[int, ...]
    to_script: tuple[int, ...]
    witness: str | None


_TEST: Final = _Signs((111,), (196,), "tb")
_NETWORKS: Final[Mapping[str, _Signs]] = {
    "bip122:000000000019d6689c085ae165831e93": _Signs((0,), (5,), "bc"),
    "bip122:000000000933ea01ad0ee984209779ba": _TEST,
    "bip122:00000000da84f2bafbbc53dee25a72ae": _TEST,
    "bip122:00000008819873e925422c1ff0f99f7c": _TEST,
    "bip122:0f9188f13cb7b2c71f2a335e3a4fc328": _Signs((111,), (196,), "bcrt"),
    "bip122:12a765e31ffd4059bada1e25190f6e98": _Signs((48,), (50, 5), "ltc"),
    "bip122:4966625a4b2851d9fdee139e56211a0d": _Signs((111,), (58, 196), "tltc"),
    "bip122:530827f38f93b43ed12af0b3ad25a288": _Signs((111,), (58, 196), "rltc"),
    "bip122:1a91e3dace36e2be3bf030a65679fe82": _Signs((30,), (22,), None),
}
_UNKNOWN: Final = _Signs((), (), None)


def read_address(kind: ChainKind, network: str, written: str, *, field: str) -> bytes:
    """20 bytes on EVM, else the output script; refuses with ``address_invalid``."""
    if kind is ChainKind.EVM:
        if _EVM.match(written):
            return bytes.fromhex(written[2:])
        raise Refusal("address_invalid", "an address is 0x and 40 hexadecimal digits", field=field)
    script = _SCRIPT.match(written)
    if script is not None:
        return bytes.fromhex(script[1])
    signs = _NETWORKS.get(network, _UNKNOWN)
    found = _from_bech32(signs, written) or _from_base58(signs, written)
    if found is None:
        message = f"{written[:100]!r} is no address of {network}; an output script is written script: and hexadecimal"
        raise Refusal("address_invalid", message, field=field)
    return found


def write_address(kind: ChainKind, network: str, address: bytes) -> str:
    """As its network writes it; a script that has no address as ``script:`` and hexadecimal digits."""
    if kind is ChainKind.EVM:
        return f"0x{address.hex()}"
    signs = _NETWORKS.get(network, _UNKNOWN)
    if len(address) == 25 and address[:3] == b"\x76\xa9\x14" and address[23:] == b"\x88\xac" and signs.to_key:
        return _to_base58(bytes([signs.to_key[0]]) + address[3:23])
    if len(address) == 23 and address[:2] == b"\xa9\x14" and address[22] == 0x87 and signs.to_script:
        return _to_base58(bytes([signs.to_script[0]]) + address[2:22])
    version = _witness_version(address)
    if version is not None and signs.witness is not None:
        return _to_bech32(signs.witness, version, address[2:])
    return f"script:{address.hex()}"


def _witness_version(script: bytes) -> int | None:
    if not 4 <= len(script) <= 42 or script[1] != len(script) - 2:
        return None
    if script[0] == 0:
        return 0 if len(script) in (22, 34) else None
    return script[0] - 0x50 if 0x51 <= script[0] <= 0x60 else None


def _from_base58(signs: _Signs, written: str) -> bytes | None:
    if not 0 < len(written) <= _BASE58_MAX or any(letter not in _BASE58 for letter in written):
        return None
    number = 0
    for letter in written:
        number = number * 58 + _BASE58.index(letter)
    zeros = len(written) - len(written.lstrip("1"))
    raw = bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8)
    if len(raw) != 25 or _checksum(raw[:-4]) != raw[-4:]:
        return None
    body = raw[1:21]
    if raw[0] in signs.to_key:
        return b"\x76\xa9\x14" + body + b"\x88\xac"
    return b"\xa9\x14" + body + b"\x87" if raw[0] in signs.to_script else None


def _to_base58(body: bytes) -> str:
    raw = body + _checksum(body)
    number, letters = int.from_bytes(raw), ""
    while number:
        number, digit = divmod(number, 58)
        letters = _BASE58[digit] + letters
    return "1" * (len(raw) - len(raw.lstrip(b"\0"))) + letters


def _checksum(body: bytes) -> bytes:
    return sha256(sha256(body).digest()).digest()[:4]


def _from_bech32(signs: _Signs, written: str) -> bytes | None:
    if len(written) > _BECH32_MAX or written not in (written.lower(), written.upper()):
        return None
    name, _, letters = written.lower().rpartition("1")
    if signs.witness is None or name != signs.witness or len(letters) < 8 or any(one not in _BECH32 for one in letters):
        return None
    values = [_BECH32.index(letter) for letter in letters]
    version = values[0]
    if version > 16 or _polymod([*_expanded(name), *values]) != _BECH32_CHECKS.get(version, _BECH32M_CHECK):
        return None
    program = _regrouped(values[1:-6], 5, 8)
    if program is None or not 2 <= len(program) <= 40 or (version == 0 and len(program) not in (20, 32)):
        return None
    return bytes([version + 0x50 if version else 0, len(program), *program])


def _to_bech32(name: str, version: int, program: bytes) -> str:
    values = [version, *(_regrouped(program, 8, 5) or ())]
    check = _polymod([*_expanded(name), *values, *[0] * 6]) ^ _BECH32_CHECKS.get(version, _BECH32M_CHECK)
    values += [check >> 5 * (5 - place) & 31 for place in range(6)]
    return f"{name}1{''.join(_BECH32[value] for value in values)}"


def _expanded(name: str) -> list[int]:
    return [*(ord(letter) >> 5 for letter in name), 0, *(ord(letter) & 31 for letter in name)]


def _polymod(values: Iterable[int]) -> int:
    """The checksum of BIP 173."""
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_GENERATORS):
            check ^= generator if top >> bit & 1 else 0
    return check


def _regrouped(values: Iterable[int], from_bits: int, to_bits: int) -> list[int] | None:
    """The same bits in groups of another size; None where what pads eight-bit groups is not a few zeros."""
    held, bits, groups = 0, 0, []
    for value in values:
        held, bits = held << from_bits | value, bits + from_bits
        while bits >= to_bits:
            bits -= to_bits
            groups.append(held >> bits & (1 << to_bits) - 1)
        held &= (1 << bits) - 1
    if to_bits > from_bits:
        return groups if bits < from_bits and not held else None
    return [*groups, held << to_bits - bits] if bits else groups
