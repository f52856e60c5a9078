"""Standard Webhooks 1.0: keys and signatures, for who sends and for who receives.

What is signed is ``{id}.{timestamp}.{body}``, the exact bytes. A shared secret makes ``v1`` (HMAC-SHA256), a private
key ``v1a`` (Ed25519). A request carries as many signatures as there are keys: an old and a new secret while one takes
the other's place, and both kinds side by side.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from hashlib import sha256
from typing import Protocol, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER = "webhook-id", "webhook-timestamp", "webhook-signature"
SECRET_PREFIX, PRIVATE_PREFIX, PUBLIC_PREFIX = "whsec_", "whsk_", "whpk_"
SECRET_BYTES_MIN, SECRET_BYTES, SECRET_BYTES_MAX = 24, 32, 64
TOLERANCE_SECONDS = 300
_SEED_BYTES = 32
#: Visible ASCII without the full stop, which parts what is signed.
_ID = re.compile(r"[!-\-/-~]{1,256}")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")


class KeyMalformed(ValueError):
    """A text is no key of its kind. The message does not show it."""


class SignatureRefused(Exception):
    """A request is not what one of the keys signed, or not of now. The message says which, for the receiver's log."""


class Signer(Protocol):
    """What makes one signature of a request."""

    def sign(self, content: bytes) -> str:
        """``version,signature`` of what is signed."""


class Verifier(Protocol):
    """What knows a signature when it sees one."""

    def knows(self, version: str, signature: bytes, content: bytes) -> bool:
        """Whether it is of this content, by the key that this one belongs to."""


@dataclass(frozen=True)
class SharedSecret:
    """A key that sender and receiver share. Its representation does not show it."""

    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not SECRET_BYTES_MIN <= len(self.key) <= SECRET_BYTES_MAX:
            raise KeyMalformed(f"a secret has {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes")

    @classmethod
    def generate(cls) -> Self:
        """A fresh one."""
        return cls(secrets.token_bytes(SECRET_BYTES))

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``whsec_…``, or from its base64 alone as some receivers keep it; raises ``KeyMalformed``."""
        return cls(_bytes_of(text.removeprefix(SECRET_PREFIX)))

    @property
    def text(self) -> str:
        """What the receiver is given, once."""
        return SECRET_PREFIX + _text_of(self.key)

    def sign(self, content: bytes) -> str:
        """The ``v1`` signature."""
        return "v1," + _text_of(hmac.digest(self.key, content, sha256))

    def knows(self, version: str, signature: bytes, content: bytes) -> bool:
        """Compared in constant time."""
        return version == "v1" and hmac.compare_digest(hmac.digest(self.key, content, sha256), signature)


@dataclass(frozen=True)
class PublicKey:
    """What a receiver checks ``v1a`` signatures with; it is no secret."""

    key: bytes

    def __post_init__(self) -> None:
        if len(self.key) != _SEED_BYTES:
            raise KeyMalformed(f"a public key has {_SEED_BYTES} bytes")

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``whpk_…``; raises ``KeyMalformed``."""
        if not text.startswith(PUBLIC_PREFIX):
            raise KeyMalformed(f"a public key begins with {PUBLIC_PREFIX}")
        return cls(_bytes_of(text.removeprefix(PUBLIC_PREFIX)))

    @property
    def text(self) -> str:
        """What receivers are given."""
        return PUBLIC_PREFIX + _text_of(self.key)

    @cached_property
    def _loaded(self) -> Ed25519PublicKey:
        return Ed25519PublicKey.from_public_bytes(self.key)

    def knows(self, version: str, signature: bytes, content: bytes) -> bool:
        """RFC 8032."""
        if version != "v1a":
            return False
        try:
            self._loaded.verify(signature, content)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class PrivateKey:
    """What makes ``v1a`` signatures; only the sender has it. Its representation does not show it."""

    seed: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.seed) != _SEED_BYTES:
            raise KeyMalformed(f"a private key has a seed of {_SEED_BYTES} bytes")

    @classmethod
    def generate(cls) -> Self:
        """A fresh one."""
        return cls(secrets.token_bytes(_SEED_BYTES))

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``whsk_…``: the seed, or the seed and its public key, which must belong together; raises
        ``KeyMalformed``."""
        if not text.startswith(PRIVATE_PREFIX):
            raise KeyMalformed(f"a private key begins with {PRIVATE_PREFIX}")
        held = _bytes_of(text.removeprefix(PRIVATE_PREFIX))
        key = cls(held[:_SEED_BYTES])
        if held[_SEED_BYTES:] not in (b"", key.public.key):
            raise KeyMalformed("the two halves of the private key do not belong together")
        return key

    @property
    def text(self) -> str:
        """As it is kept: seed and public key."""
        return PRIVATE_PREFIX + _text_of(self.seed + self.public.key)

    @cached_property
    def public(self) -> PublicKey:
        """What receivers check with."""
        return PublicKey(self._loaded.public_key().public_bytes_raw())

    @cached_property
    def _loaded(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)

    def sign(self, content: bytes) -> str:
        """The ``v1a`` signature."""
        return "v1a," + _text_of(self._loaded.sign(content))


def signed(message_id: str, at: datetime, body: bytes, keys: Sequence[Signer]) -> dict[str, str]:
    """The three headers of a request. ``message_id`` stays the same over attempts, ``at`` is the attempt's instant.

    Raises ``ValueError`` for an id that cannot be signed, an instant without its zone, and no keys.
    """
    if at.tzinfo is None:
        raise ValueError("an instant needs its zone")
    if _ID.fullmatch(message_id) is None:
        raise ValueError("an id is visible ASCII without a full stop")
    if not keys:
        raise ValueError("without a key there is no signature")
    timestamp = str(int(at.timestamp()))
    content = _content(message_id, timestamp, body)
    return {
        ID_HEADER: message_id,
        TIMESTAMP_HEADER: timestamp,
        SIGNATURE_HEADER: " ".join(key.sign(content) for key in keys),
    }


def verify(
    headers: Mapping[str, str],
    body: bytes,
    keys: Sequence[Verifier],
    *,
    now: datetime,
    tolerance_seconds: float = TOLERANCE_SECONDS,
) -> str:
    """The id of a request that one of the keys signed; raises ``SignatureRefused``, whatever the request holds.

    ``headers`` are in lower case. Who receives must also forget what has an id that was there before.
    """
    message_id, timestamp = headers.get(ID_HEADER, ""), headers.get(TIMESTAMP_HEADER, "")
    if not message_id or "." in message_id:
        raise SignatureRefused("the id is missing or cannot be signed")
    if _TIMESTAMP.fullmatch(timestamp) is None:
        raise SignatureRefused("the timestamp is missing or no whole number of seconds")
    age_seconds = now.astimezone(UTC).timestamp() - int(timestamp)
    if abs(age_seconds) > tolerance_seconds:
        raise SignatureRefused("the timestamp is too old" if age_seconds > 0 else "the timestamp lies ahead")
    content = _content(message_id, timestamp, body)
    for each in headers.get(SIGNATURE_HEADER, "").split(" "):
        version, _, text = each.partition(",")
        try:
            signature = _bytes_of(text)
        except KeyMalformed:
            continue
        if any(key.knows(version, signature, content) for key in keys):
            return message_id
    raise SignatureRefused("no signature is one of these keys'")


def _content(message_id: str, timestamp: str, body: bytes) -> bytes:
    return b"%b.%b.%b" % (message_id.encode(), timestamp.encode(), body)


def _bytes_of(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise KeyMalformed("not base64") from None


def _text_of(held: bytes) -> str:
    return base64.b64encode(held).decode()
