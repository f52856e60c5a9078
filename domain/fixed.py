"""Fixed-point numbers beside amounts: prices, values and ratios as scaled integers.

A *price* is US dollars per whole unit of an asset, in 1e-18 (``PRICE_SCALE``). A *value* is US dollars in 1e-8
(``USD_SCALE``), the base currency of Aave v3's oracle. A *ratio* is in 1e-18 (``RATIO_SCALE``), as Aave's health
factor. Shares and thresholds are in basis points (``domain.money.BASIS_POINTS``).
"""

from __future__ import annotations

import re
from typing import Final

from domain.errors import Refusal
from domain.money import MAX_SCALE

PRICE_SCALE: Final = 18
USD_SCALE: Final = 8
RATIO_SCALE: Final = 18

#: One dollar as a price, and one as a ratio.
PRICE_ONE: Final = 10**PRICE_SCALE
RATIO_ONE: Final = 10**RATIO_SCALE

#: By an asset's scale: price times minor units, over this, is a value.
VALUE_UNITS: Final[tuple[int, ...]] = tuple(10 ** (scale + PRICE_SCALE - USD_SCALE) for scale in range(MAX_SCALE + 1))
_PLAIN = re.compile(r"(?P<integer>[0-9]{1,60})(?:\.(?P<fraction>[0-9]{1,60}))?\Z")


def value_floor(amount_minor: int, price: int, scale: int) -> int:
    """What an amount is worth in 1e-8 USD, rounded down: how collateral is valued."""
    return amount_minor * price // VALUE_UNITS[scale]


def value_ceil(amount_minor: int, price: int, scale: int) -> int:
    """What an amount is worth in 1e-8 USD, rounded up: how debt is valued."""
    return -(-amount_minor * price // VALUE_UNITS[scale])


def parse_fixed(text: str, scale: int, *, code: str, field: str | None = None) -> int:
    """A plain non-negative decimal in units of ``10**-scale``; refuses with ``code`` what is no such, or finer."""
    match = _PLAIN.match(text)
    fraction = (match["fraction"] or "").rstrip("0") if match else ""
    if match is None or len(fraction) > scale:
        raise Refusal(code, f"{text[:80]!r} is no decimal with at most {scale} places", field=field)
    return int(match["integer"] + fraction.ljust(scale, "0"))
