"""What the tokens of the tests' chain are here."""

from __future__ import annotations

from collections.abc import Mapping

from kit.chains import COIN, Token

USDC = "0x" + 40 * "a"
#: A token of which the configuration knows nothing.
STRANGE = "0x" + 40 * "e"
TOKENS: Mapping[str, Token] = {COIN: Token(asset="ETH", decimals=18), USDC: Token(asset="USDC", decimals=6)}
