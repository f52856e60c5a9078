"""Exact amounts: integers in an asset's minor unit (wei, satoshi, cent) and their decimal text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from domain.errors import Refusal

#: The largest amount a column ``numeric(78, 0)`` and an EVM ``uint256`` both hold.
MAX_MINOR: Final = 2**256 - 1
MAX_SCALE: Final = 36
BASIS_POINTS: Final = 10_000

CODES: Final = {
    "amount_invalid": "an amount is a plain decimal number that is not negative: no exponent, no sign, no separators",
    "amount_too_fine": "an amount has no more decimal places than its asset",
    "amount_too_large": "an amount stays within 2**256 - 1 minor units",
}

_DECIMAL = re.compile(r"(?P<integer>[0-9]{1,78})(?:\.(?P<fraction>[0-9]{1,78}))?\Z")


@dataclass(frozen=True, slots=True)
class Asset:
    """What an amount is counted in. ``scale`` is the number of decimal places of the minor unit (ETH 18, USDC 6)."""

    symbol: str
    scale: int
    chain: str | None = None
    contract: str | None = None


def parse_minor(text: str | int | Decimal, scale: int, *, field: str | None = None) -> int:
    """The non-negative amount that ``text`` denotes, in minor units.

    Refuses what is not a plain decimal (``amount_invalid``), what is finer than the asset (``amount_too_fine``) and
    what exceeds ``MAX_MINOR`` (``amount_too_large``). Trailing zeros beyond the scale are not "finer".
    """
    match = _DECIMAL.match(_plain(text, field))
    if match is None:
        raise Refusal("amount_invalid", f"{str(text)[:80]!r} is not a non-negative decimal amount", field=field)
    fraction = (match["fraction"] or "").rstrip("0")
    if len(fraction) > scale:
        raise Refusal("amount_too_fine", f"{str(text)[:80]} has more than {scale} decimal places", field=field)
    minor = int(match["integer"] + fraction.ljust(scale, "0"))
    if minor > MAX_MINOR:
        raise Refusal("amount_too_large", "the amount exceeds 2**256 - 1 minor units", field=field)
    return minor


def format_minor(minor: int, scale: int) -> str:
    """``minor`` as decimal text with exactly ``scale`` places: ``format_minor(1_500_000, 6) == "1.500000"``."""
    digits = str(minor)
    if 0 < scale < len(digits) and minor > 0:
        return f"{digits[:-scale]}.{digits[-scale:]}"
    sign = "-" if minor < 0 else ""
    digits = str(abs(minor)).rjust(scale + 1, "0")
    return f"{sign}{digits}" if scale == 0 else f"{sign}{digits[:-scale]}.{digits[-scale:]}"


def share_floor(amount_minor: int, basis_points: int) -> int:
    """The share of ``amount_minor`` at ``basis_points`` (1/10,000), rounded down."""
    return amount_minor * basis_points // BASIS_POINTS


def _plain(text: str | int | Decimal, field: str | None) -> str:
    if isinstance(text, str):
        return text
    if isinstance(text, bool):
        raise Refusal("amount_invalid", "a boolean is not an amount", field=field)
    if isinstance(text, int):
        # str() of a huge int is refused by the interpreter with a ValueError; bound it by its bits first.
        return str(text) if 0 <= text.bit_length() <= 256 else "out of range"
    if not text.is_finite() or abs(text.adjusted()) > 78:
        raise Refusal(
            "amount_invalid", f"{str(text)[:80]} is not a finite decimal amount of sensible size", field=field
        )
    return f"{text:f}"
