"""Under which ids consumers know a chain's events: the same however often a transaction is mined again.

A log's index and its block change in a reorganisation; its transaction, and its place among its source's events there,
do not.
"""

from __future__ import annotations

from hashlib import sha1
from typing import Final
from uuid import UUID, uuid5

#: The bits that say version 5 and the variant of RFC 9562, and all others.
_SAID: Final = 0x5 << 76 | 0x2 << 62
_KEPT: Final = (1 << 128) - 1 - (0xF << 76 | 0x3 << 62)
_CHAIN: Final = UUID("6f1b6d0e-8b3c-5c57-9a53-1d1f2c7e4a10")


def source_namespace(network: str, addresses: tuple[bytes, ...]) -> UUID:
    """The namespace of one source's events, by the chain's own identity and never by our name for it."""
    return uuid5(_CHAIN, ":".join([network, *(address.hex() for address in sorted(addresses))]))


def relayer_id_of(chain: str, network: str, addresses: tuple[bytes, ...], *, contract: bool) -> str:
    """The id of who follows them: the chain's name, as we call it, and the contract's address; for addresses of
    interest, which may be many, what they have in common is the namespace of their events."""
    return f"{chain}:0x{addresses[0].hex()}" if contract else f"{chain}:{source_namespace(network, addresses)}"


def consumer_id(namespace: UUID, tx_hash: bytes, ordinal: int) -> UUID:
    """A version 5 UUID (RFC 9562, section 5.5) over transaction and ordinal."""
    return UUID(bytes=ConsumerIds(namespace).of(tx_hash, ordinal))


class ConsumerIds:
    """The ids of one source's events as 16 bytes each, for who makes them by the million."""

    def __init__(self, namespace: UUID) -> None:
        self._begun = sha1(namespace.bytes, usedforsecurity=False)

    def of(self, tx_hash: bytes, ordinal: int) -> bytes:
        """The id of an event; see ``consumer_id``."""
        digest = self._begun.copy()
        digest.update(tx_hash + ordinal.to_bytes(4))
        return (int.from_bytes(digest.digest()[:16]) & _KEPT | _SAID).to_bytes(16)
